/* SPDX-License-Identifier: MIT
 * original_gru.h: the original GRU: the reset gate acts on h' before the recurrent product. Cho et al. 2014; ONNX's
 * default.
 *     r = sigmoid( xw_r + h' @ W_hr )    z = sigmoid( xw_z + h' @ W_hz )
 *     hn = r * h'                        n = tanh( xw_n + hn @ W_hn )
 *     h = n + z * (h' - n)               = (1 - z) * n + z * h'
 * The parts shared with the GRU are in gru.h. Here hn is the left operand of the product with W_hn. */

/* `gates` contains the finished products of r and z. */
INLINE void original_gru_line_rz(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line r = line_sigmoid(get_gate(at, l->gates, GRU_R)), z = line_sigmoid(get_gate(at, l->gates, GRU_Z));
    put_gate(at, l->gates, GRU_R, r);
    put_gate(at, l->gates, GRU_Z, z);
    put_step(at, l->hn, line_mul(r, get_recurrent_h(at)));
}

/* `gates` contains r, z and the finished product of n. */
INLINE void original_gru_line_n(cell_line at)
{
    const crnn_layer *l = at.layer;
    gru_put_h(at, line_tanh(get_gate(at, l->gates, GRU_N)), get_gate(at, l->gates, GRU_Z));
}

static void original_gru_finish_rz(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, GRU_GATES, rows, m, n0, n, original_gru_line_rz);
}

static void original_gru_finish_n(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, GRU_GATES, rows, m, n0, n, original_gru_line_n);
}

static void original_gru_forward(const crnn_layer *l)
{
    float_mode mode = kernel_floats();
    const crnn_dim H = l->H;
    const product rz = gru_product_rz(l, original_gru_finish_rz);
    product n = {.y = (real *)l->gates + GRU_N * H, .ldy = GRU_GATES * H, .init = xw_of(l, GRU_GATES),
                 .x = {.x = l->hn, .stride = H}, .w = l->w_hn, .K = H, .N = H, .gates = 1,
                 .quantised = l->quantised, .scratch = l->scratch, .finish = original_gru_finish_n, .context = l};
    n.init.base += GRU_N * H;
    gru_run_forward(l, &rz, &n);
    float_mode_restore(mode);
}

INLINE void original_gru_line_backward_zn(cell_line at)
{
    line da_z;
    const line da_n = gru_line_backward_zn(at, &da_z);
    put_gate(at, at.layer->da, GRU_Z, da_z);
    put_gate(at, at.layer->da, GRU_N, da_n);
}

/* dhn contains the finished product da_n @ W_hn^T, the gradient at hn. */
INLINE void original_gru_line_backward_r(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line r = get_gate(at, l->gates, GRU_R), dhn = get_state(at, l->dhn);
    /* forward: hn = r * h', with h' masked */
    put_gate(at, l->da, GRU_R, sigmoid_gradient(line_mul(dhn, get_recurrent_h(at)), r));
    line dh_before = line_mul(dhn, r);
    if (l->mask)
        dh_before = line_mul(dh_before, get_state(at, l->mask));
    add_to_dh_before(at, dh_before, line_set1(1), 0);
}

static void original_gru_finish_backward_zn(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, GRU_GATES, rows, m, n0, n, original_gru_line_backward_zn);
}

static void original_gru_finish_backward_r(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    for_each_line(layer, GRU_GATES, rows, m, n0, n, original_gru_line_backward_r);
}

static void original_gru_prefetch_backward(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n,
                                           prefetch_list *list)
{
    prefetch_lines(layer, GRU_GATES, AT_GATES | AT_HN | AT_H_BEFORE | AT_DH_BEFORE | AT_DA, rows, n0, n, list);
}

static void original_gru_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0);
    float_mode mode = kernel_floats();
    const crnn_dim H = l->H;
    /* w_hh_t backpropagates da_r and da_z; a separate product with w_hn_t computes dhn, and da_r from it */
    const product zn = product_back(l, l->da, GRU_GATES * H, 2 * H, original_gru_finish_backward_zn,
                                    original_gru_prefetch_backward);
    const product r = {.y = l->dhn, .ldy = H, .per_row = 1, .w = l->w_hn_t, .K = H, .N = H, .gates = 1,
                       .x = {.x = (const real *)l->da + GRU_N * H, .stride = GRU_GATES * H},
                       .quantised = l->quantised, .scratch = l->scratch, .finish = original_gru_finish_backward_r,
                       .context = l};
    for (crnn_dim s = l->rows.T - 1; s >= 0; --s) {
        const crnn_dim t = step_number(l, s);
        step_back(l, &zn, t);
        run_product(&r, &l->rows, t, t + 1, 0);
    }
    back_to_start(l, &zn, 1); /* dh0 already has the gradients that bypass w_hh_t */
    float_mode_restore(mode);
}

static const crnn_cell original_gru_cell = {
    .name = "original_gru", .gates = GRU_GATES, .gate_names = "rzn", .candidate = GRU_N, .recurrent_gates = GRU_GATES,
    .packed_gates = 2, .arrays = CRNN_USES_GATES | CRNN_USES_HN | CRNN_USES_DHN,
    .forward = original_gru_forward, .backward = original_gru_backward,
};
