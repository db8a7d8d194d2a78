/* SPDX-License-Identifier: MIT
 * rnn.h: the plain recurrent cell. Elman 1990 with tanh; with ReLU: Le, Jaitly, Hinton 2015.
 *     h = tanh( xw + h' @ W_hh )        or  h = max( xw + h' @ W_hh, 0 )
 * The pre-activation is not stored: both derivatives are functions of h. */

/* h contains the finished product a. */
INLINE void tanh_line(cell_line at) { put_h(at, line_tanh(get_step(at, at.layer->h))); }
INLINE void relu_line(cell_line at) { put_h(at, line_max(line_set1(0), get_step(at, at.layer->h))); }

static void tanh_finish(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, 1, rows, m, n0, n, tanh_line);
}

static void relu_finish(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, 1, rows, m, n0, n, relu_line);
}

static void rnn_forward(const crnn_layer *l, epilogue finish)
{
    float_mode mode = kernel_floats();
    const product p = {.y = l->h, .ldy = l->H, .init = xw_of(l, 1), .x = recurrent_h(l), .w = l->w_hh, .K = l->H,
                       .N = l->H, .gates = 1, .quantised = l->quantised, .scratch = l->scratch, .only = 1,
                       .finish = finish, .context = l};
    run_forward(l, &p);
    float_mode_restore(mode);
}

/* da and dh may be the same array; da then overwrites the gradient at h. */
INLINE void put_dh_and_da(cell_line at, line dh, line da)
{
    if (at.layer->dh != at.layer->da)
        put_step(at, at.layer->dh, dh);
    put_step(at, at.layer->da, da);
}

INLINE void tanh_line_backward(cell_line at)
{
    const line h = get_step(at, at.layer->h), dh = get_dh(at);
    /* forward: h = tanh(a) */
    put_dh_and_da(at, dh, tanh_gradient(dh, h));
}

INLINE void relu_line_backward(cell_line at)
{
    const line h = get_step(at, at.layer->h), dh = get_dh(at), zero = line_set1(0);
    /* forward: h = max(a, 0) */
    put_dh_and_da(at, dh, line_pick(h, zero, dh, zero));
}

static void tanh_finish_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, 1, rows, m, n0, n, tanh_line_backward);
}

static void relu_finish_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, 1, rows, m, n0, n, relu_line_backward);
}

static void rnn_backward(const crnn_layer *l, epilogue finish)
{
    assert(l->rows.T > 0);
    float_mode mode = kernel_floats();
    /* forward: a = xw + h' @ W_hh, so the gradient at h' is da @ W_hh^T */
    product p = product_back(l, l->da, l->H, l->H, finish, NULL);
    p.only = 1;
    run_backward(l, &p);
    float_mode_restore(mode);
}

static void tanh_forward(const crnn_layer *l) { rnn_forward(l, tanh_finish); }
static void relu_forward(const crnn_layer *l) { rnn_forward(l, relu_finish); }
static void tanh_backward(const crnn_layer *l) { rnn_backward(l, tanh_finish_backward); }
static void relu_backward(const crnn_layer *l) { rnn_backward(l, relu_finish_backward); }

static const crnn_cell tanh_cell = {
    .name = "tanh", .gates = 1, .gate_names = "h", .candidate = 0, .recurrent_gates = 1, .packed_gates = 1,
    .forward = tanh_forward, .backward = tanh_backward,
};

static const crnn_cell relu_cell = {
    .name = "relu", .gates = 1, .gate_names = "h", .candidate = 0, .recurrent_gates = 1, .packed_gates = 1,
    .forward = relu_forward, .backward = relu_backward,
};
