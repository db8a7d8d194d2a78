/* SPDX-License-Identifier: MIT
 * lstm.h: long short-term memory. Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al. 2000.
 *     a = xw + h' @ W_hh                        blocks i, f, g, o
 *     i, f, o = sigmoid(a)   g = tanh(a)
 *     c = f * c' + i * g     h = o * tanh(c)
 * Stored for the backward pass: the four gates, c and tanh(c). */

enum { LSTM_I, LSTM_F, LSTM_G, LSTM_O, LSTM_GATES };

/* `gates` contains the finished product a. */
INLINE void lstm_line_c(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line i = line_sigmoid(get_gate(at, l->gates, LSTM_I)), f = line_sigmoid(get_gate(at, l->gates, LSTM_F));
    const line g = line_tanh(get_gate(at, l->gates, LSTM_G)), o = line_sigmoid(get_gate(at, l->gates, LSTM_O));
    const line c_before = get_before(at, l->c, l->c0);
    if (l->tanh_c) { /* only the backward pass reads them */
        put_gate(at, l->gates, LSTM_I, i);
        put_gate(at, l->gates, LSTM_F, f);
        put_gate(at, l->gates, LSTM_G, g);
    }
    put_gate(at, l->gates, LSTM_O, o);
    put_step(at, l->c, line_fma(f, c_before, line_mul(i, g)));
}

INLINE void lstm_line_h(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line o = get_gate(at, l->gates, LSTM_O), tanh_c = line_tanh(get_step(at, l->c));
    if (l->tanh_c)
        put_step(at, l->tanh_c, tanh_c);
    put_h(at, line_mul(o, tanh_c));
}

static void lstm_finish(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, LSTM_GATES, rows, m, n0, n, lstm_line_c);
    for_each_line(layer, LSTM_GATES, rows, m, n0, n, lstm_line_h);
}

static void lstm_prefetch(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *list)
{
    prefetch_lines(layer, LSTM_GATES, AT_GATES | AT_C_BEFORE | AT_C | AT_TANH_C | AT_H, rows, n0, n, list);
}

static void lstm_forward(const crnn_layer *l)
{
    float_mode mode = kernel_floats();
    /* Inference processes few steps at a time, whose lines are already in the caches: no prefetching. */
    const product p = {.y = l->gates, .ldy = LSTM_GATES * l->H, .init = xw_of(l, LSTM_GATES), .x = recurrent_h(l),
                       .w = l->w_hh, .K = l->H, .N = l->H, .gates = LSTM_GATES, .quantised = l->quantised,
                       .scratch = l->scratch, .finish = lstm_finish, .prefetch = l->tanh_c ? lstm_prefetch : NULL,
                       .context = l};
    run_forward(l, &p);
    float_mode_restore(mode);
}

INLINE void lstm_line_backward(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line i = get_gate(at, l->gates, LSTM_I), f = get_gate(at, l->gates, LSTM_F);
    const line g = get_gate(at, l->gates, LSTM_G), o = get_gate(at, l->gates, LSTM_O);
    const line tanh_c = get_step(at, l->tanh_c), c_before = get_before(at, l->c, l->c0);
    const line dh = get_dh(at);
    put_step(at, l->dh, dh);
    /* forward: h = o * tanh(c), and c is c' of the next step, whose gradient is l->dc */
    const line dc = line_add(get_state(at, l->dc), tanh_gradient(line_mul(dh, o), tanh_c));
    /* forward: c = f * c' + i * g */
    put_gate(at, l->da, LSTM_I, sigmoid_gradient(line_mul(dc, g), i));
    put_gate(at, l->da, LSTM_F, sigmoid_gradient(line_mul(dc, c_before), f));
    put_gate(at, l->da, LSTM_G, tanh_gradient(line_mul(dc, i), g));
    put_gate(at, l->da, LSTM_O, sigmoid_gradient(line_mul(dh, tanh_c), o));
    put_state(at, l->dc, line_mul(dc, f));
}

static void lstm_finish_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, LSTM_GATES, rows, m, n0, n, lstm_line_backward);
}

static void lstm_prefetch_backward(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n,
                                   prefetch_list *list)
{
    prefetch_lines(layer, LSTM_GATES, AT_GATES | AT_TANH_C | AT_C_BEFORE | AT_DA, rows, n0, n, list);
}

static void lstm_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0 && l->tanh_c);
    float_mode mode = kernel_floats();
    /* forward: a = xw + h' @ W_hh, so the gradient at h' is da @ W_hh^T */
    const product p = product_back(l, l->da, LSTM_GATES * l->H, LSTM_GATES * l->H, lstm_finish_backward,
                                   lstm_prefetch_backward);
    run_backward(l, &p);
    float_mode_restore(mode);
}

static const crnn_cell lstm_cell = {
    .name = "lstm", .gates = LSTM_GATES, .gate_names = "ifgo", .candidate = LSTM_G, .has_c = 1,
    .recurrent_gates = LSTM_GATES, .packed_gates = LSTM_GATES, .arrays = CRNN_USES_GATES | CRNN_USES_TANH_C,
    .forward = lstm_forward, .backward = lstm_backward,
};
