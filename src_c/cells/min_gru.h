/* SPDX-License-Identifier: MIT
 * min_gru.h: the minimal GRU, in the variant whose candidate n is positive. Feng et al. 2024 (arXiv 2410.01201).
 *     z = sigmoid( xw_z )      n = g( xw_n )     with g(a) = a + 0.5 for a >= 0, else sigmoid(a)
 *     h = h' + z * (n - h')                      = (1 - z) * h' + z * n
 * No product with h': everything that needs one is done for all steps at once, before forward and after backward.
 * Kept for backward: z and n. */

enum { MIN_GRU_Z, MIN_GRU_N, MIN_GRU_GATES };

INLINE line min_gru_g(line a)
{
    const line zero = line_set1(0), open = line_add(a, line_set1((real)0.5));
    return line_pick(zero, a, line_sigmoid(a), open); /* NaN goes the way of a >= 0 */
}

/* n = g(a), so da = dn where n >= 0.5, else dn * n * (1 - n) */
INLINE line min_gru_g_gradient(line dn, line n)
{
    return line_pick(line_set1((real)0.5), n, sigmoid_gradient(dn, n), dn);
}

INLINE void min_gru_line(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line z = line_sigmoid(get_xw(at, MIN_GRU_Z)), n = min_gru_g(get_xw(at, MIN_GRU_N));
    const line h_before = get_before(at, l->h, l->h0);
    put_gate(at, l->gates, MIN_GRU_Z, z);
    put_gate(at, l->gates, MIN_GRU_N, n);
    put_h(at, line_fma(z, line_sub(n, h_before), h_before)); /* h = h' + z * (n - h') */
}

static void min_gru_finish(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, MIN_GRU_GATES, rows, m, n0, n, min_gru_line);
}

static void min_gru_forward(const crnn_layer *l)
{
    float_mode mode = kernel_floats();
    run_forward_without_product(l, min_gru_finish);
    float_mode_restore(mode);
}

INLINE void min_gru_line_backward(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line z = get_gate(at, l->gates, MIN_GRU_Z), n = get_gate(at, l->gates, MIN_GRU_N);
    const line h_before = get_before(at, l->h, l->h0), dh = get_step(at, l->dh);
    /* forward: h = h' + z * (n - h') */
    put_gate(at, l->da, MIN_GRU_Z, sigmoid_gradient(line_mul(dh, line_sub(n, h_before)), z));
    put_gate(at, l->da, MIN_GRU_N, min_gru_g_gradient(line_mul(dh, z), n));
    add_to_dh_before(at, line_fnma(dh, z, dh), line_set1(1), 1);
}

static void min_gru_finish_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, MIN_GRU_GATES, rows, m, n0, n, min_gru_line_backward);
}

static void min_gru_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0);
    float_mode mode = kernel_floats();
    run_backward_without_product(l, min_gru_finish_backward);
    float_mode_restore(mode);
}

static const crnn_cell min_gru_cell = {
    .name = "min_gru", .gates = MIN_GRU_GATES, .gate_names = "zn", .candidate = MIN_GRU_N,
    .arrays = CRNN_USES_GATES, .forward = min_gru_forward, .backward = min_gru_backward,
};
