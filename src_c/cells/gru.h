/* SPDX-License-Identifier: MIT
 * gru.h: the gated recurrent unit as PyTorch and cuDNN compute it: the reset gate acts on the recurrent product.
 *     r = sigmoid( xw_r + h' @ W_hr )    z = sigmoid( xw_z + h' @ W_hz )
 *     hn = h' @ W_hn + b_hn              n = tanh( xw_n + r * hn )
 *     h = n + z * (h' - n)               = (1 - z) * n + z * h'
 * Stored for the backward pass: the three gates and hn. The original GRU (original_gru.h) has another candidate n. */

enum { GRU_R, GRU_Z, GRU_N, GRU_GATES };
enum { GRU_B_HN }; /* the cell's vectors */

/* The last line of the equations, given the candidate n. */
INLINE void gru_put_h(cell_line at, line n, line z)
{
    const line h_before = get_before(at, at.layer->h, at.layer->h0);
    put_gate(at, at.layer->gates, GRU_N, n);
    put_h(at, line_fma(z, line_sub(h_before, n), n));
}

/* `gates` contains the finished products of r and z; hn contains that of n. */
INLINE void gru_line(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line r = line_sigmoid(get_gate(at, l->gates, GRU_R)), z = line_sigmoid(get_gate(at, l->gates, GRU_Z));
    const line n = line_tanh(line_fma(r, get_step(at, l->hn), get_xw(at, GRU_N)));
    put_gate(at, l->gates, GRU_R, r);
    put_gate(at, l->gates, GRU_Z, z);
    gru_put_h(at, n, z);
}

static void gru_finish(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, GRU_GATES, rows, m, n0, n, gru_line);
}

static void gru_prefetch(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *list)
{
    prefetch_lines(layer, GRU_GATES, AT_GATES | AT_HN | AT_H, rows, n0, n, list);
}

/* Two products per step: that of r and z, whose tiles prefetch for both, then that of n. */
INLINE product gru_product_rz(const crnn_layer *l, epilogue finish)
{
    return (product){.y = l->gates, .ldy = GRU_GATES * l->H, .init = xw_of(l, GRU_GATES), .x = recurrent_h(l),
                     .w = l->w_hh, .K = l->H, .N = l->H, .gates = 2, .quantised = l->quantised,
                     .scratch = l->scratch, .finish = finish, .prefetch = gru_prefetch, .context = l};
}

static void gru_run_forward(const crnn_layer *l, const product *rz, const product *n)
{
    for (crnn_dim s = 0; s < l->rows.T; ++s) {
        const crnn_dim t = step_number(l, s);
        run_product(rz, &l->rows, t, t + 1, 0);
        run_product(n, &l->rows, t, t + 1, 0);
    }
}

static void gru_forward(const crnn_layer *l)
{
    float_mode mode = kernel_floats();
    const product rz = gru_product_rz(l, NULL);
    const product n = {.y = l->hn, .ldy = l->H, .init = {l->vectors[GRU_B_HN], 0, NULL}, .x = recurrent_h(l),
                       .w = l->w_hn, .K = l->H, .N = l->H, .gates = 1, .quantised = l->quantised,
                       .scratch = l->scratch, .finish = gru_finish, .context = l};
    gru_run_forward(l, &rz, &n);
    float_mode_restore(mode);
}

/* Shared by both GRUs: stores dh, adds the gradient dh * z at h', which bypasses the products, and computes the
 * gradients at the pre-activations of z, in *da_z, and of n, which is returned. */
INLINE line gru_line_backward_zn(cell_line at, line *da_z)
{
    const crnn_layer *l = at.layer;
    const line z = get_gate(at, l->gates, GRU_Z), n = get_gate(at, l->gates, GRU_N);
    const line h_before = get_before(at, l->h, l->h0), dh = get_dh(at);
    put_step(at, l->dh, dh);
    /* forward: h = n + z * (h' - n) */
    *da_z = sigmoid_gradient(line_mul(dh, line_sub(h_before, n)), z);
    add_to_dh_before(at, dh, z, 1);
    return tanh_gradient(line_fnma(dh, z, dh), n);
}

INLINE void gru_line_backward(cell_line at)
{
    const crnn_layer *l = at.layer;
    line da_z;
    const line da_n = gru_line_backward_zn(at, &da_z);
    /* forward: n = tanh( xw_n + r * hn ), so the gradient at hn, the n block of da_h, is da_n * r */
    const line r = get_gate(at, l->gates, GRU_R), hn = get_step(at, l->hn);
    const line da_r = sigmoid_gradient(line_mul(da_n, hn), r);
    put_gate(at, l->da, GRU_R, da_r);
    put_gate(at, l->da, GRU_Z, da_z);
    put_gate(at, l->da, GRU_N, da_n);
    put_gate(at, l->da_h, GRU_R, da_r);
    put_gate(at, l->da_h, GRU_Z, da_z);
    put_gate(at, l->da_h, GRU_N, line_mul(da_n, r));
}

static void gru_finish_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, GRU_GATES, rows, m, n0, n, gru_line_backward);
}

static void gru_prefetch_backward(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n,
                                  prefetch_list *list)
{
    prefetch_lines(layer, GRU_GATES, AT_GATES | AT_HN | AT_H_BEFORE | AT_DH_BEFORE | AT_DA | AT_DA_H, rows, n0, n, list);
}

static void gru_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0);
    float_mode mode = kernel_floats();
    const product p = product_back(l, l->da_h, GRU_GATES * l->H, GRU_GATES * l->H, gru_finish_backward,
                                   gru_prefetch_backward);
    for (crnn_dim s = l->rows.T - 1; s >= 0; --s)
        step_back(l, &p, step_number(l, s));
    back_to_start(l, &p, 1); /* dh0 already has the gradient that bypasses the products */
    float_mode_restore(mode);
}

/* The gradient of b_hn is the sum over rows of da_h's n block. */
static const crnn_cell gru_cell = {
    .name = "gru", .gates = GRU_GATES, .gate_names = "rzn", .candidate = GRU_N, .recurrent_gates = GRU_GATES,
    .packed_gates = 2, .arrays = CRNN_USES_GATES | CRNN_USES_HN | CRNN_USES_DA_H, .vectors = {[GRU_B_HN] = "b_hn"},
    .forward = gru_forward, .backward = gru_backward,
};
