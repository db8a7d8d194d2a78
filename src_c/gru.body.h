/* SPDX-License-Identifier: MIT
 * gru.body.h: the gated recurrent unit, with the reset gate before or after the recurrent product. h' = h before.
 *     r = sigmoid( xw_r + h' @ w_hr )    z = sigmoid( xw_z + h' @ w_hz )
 *     n = tanh( xw_n + r * (h' @ w_hn + b_hn) )      reset_after: PyTorch, cuDNN
 *     n = tanh( xw_n + (r * h') @ w_hn )             otherwise: Cho et al. 2014, ONNX's default
 *     h = n + z * (h' - n)                           = (1 - z) * n + z * h' */

/* Row (t, b) of what recurs: h', through the mask if there is one. */
INLINE const real *recurring(const crnn_layer *l, crnn_dim t, crnn_dim b)
{
    const x_source s = state_before(l);
    return x_row(&s, &l->rows, t, b);
}

/* n is complete: the candidate and the new state. */
INLINE void put_candidate(const crnn_layer *l, crnn_dim t, crnn_dim b, crnn_dim j, line new, line z, crnn_dim left)
{
    const crnn_dim g = t * l->rows.B + b;
    const line before = line_get(row_before(l, l->h, l->h0, t, b) + j, left);
    line_put((real *)l->gates + g * 3 * l->H + 2 * l->H + j, new, left);
    put_state(l, g, b, j, line_fma(z, line_sub(before, new), new), left);
}

/* reset_after: r, z and h' @ w_hn + b_hn are complete. */
static void gru_cell(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        real *a = (real *)l->gates + g * 3 * H + j;
        const real *x = l->ids ? (const real *)l->xw + l->ids[g] * 3 * H + j : (const real *)l->xw + g * 3 * H + j;
        const line r = line_sigmoid(line_get(a, left)), z = line_sigmoid(line_get(a + H, left));
        const line hn = line_get((const real *)l->hn + g * H + j, left);
        line_put(a, r, left);
        line_put(a + H, z, left);
        put_candidate(l, t, b, j, line_tanh(line_fma(r, hn, line_get(x + 2 * H, left))), z, left);
    }
}

/* Otherwise: r and z are complete; r * h' is what the second product takes. */
static void gru_reset(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        real *a = (real *)l->gates + g * 3 * H + j;
        const line r = line_sigmoid(line_get(a, left));
        line_put(a, r, left);
        line_put(a + H, line_sigmoid(line_get(a + H, left)), left);
        line_put((real *)l->hn + g * H + j, line_mul(r, line_get(recurring(l, t, b) + j, left)), left);
    }
}

static void gru_candidate(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        const real *a = (const real *)l->gates + g * 3 * H + j;
        put_candidate(l, t, b, j, line_tanh(line_get(a + 2 * H, left)), line_get(a + H, left), left);
    }
}

/* Both products of a step; what the second one finds is asked for by the first. */
static void gru_prepare(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *ask)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, rows->m, n0, n) {
        const real *a = (const real *)l->gates + g * 3 * H + j;
        prefetch_add(ask, a), prefetch_add(ask, a + H), prefetch_add(ask, a + 2 * H);
        prefetch_add(ask, (const real *)l->hn + g * H + j), prefetch_add(ask, (const real *)l->h + g * H + j);
        (void)b, (void)t;
    }
}

static void gru_forward(const crnn_layer *l)
{
    float_mode mode = denormals_off();
    const crnn_dim H = l->H, T = l->rows.T;
    const product gates = {.y = l->gates, .ldy = 3 * H, .init = input_share(l, 3), .x = state_before(l), .w = l->w_hh,
                           .K = H, .N = H, .gates = 2, .finish = l->reset_after ? NULL : gru_reset,
                           .prefetch = gru_prepare, .context = l};
    product new = {.ldy = H, .w = l->w_hn, .K = H, .N = H, .gates = 1, .context = l};
    if (l->reset_after) {
        new.y = l->hn;
        new.init = (row_source){l->b_hn, 0, NULL};
        new.x = state_before(l);
        new.finish = gru_cell;
    } else {
        new.y = (real *)l->gates + 2 * H;
        new.ldy = 3 * H;
        new.init = input_share(l, 3);
        new.init.base += 2 * H;
        new.x = (x_source){.x = l->hn, .stride = H};
        new.finish = gru_candidate;
    }
    for (crnn_dim s = 0; s < T; ++s) {
        const crnn_dim t = l->reverse ? T - 1 - s : s;
        run_product(&gates, &l->rows, t, t + 1, 0);
        run_product(&new, &l->rows, t, t + 1, 0);
    }
    float_mode_restore(mode);
}

/* Add to the gradient at h' by the paths that lead past the products: it is dh of the step before, or dh0. */
INLINE void add_to_dh_before(const crnn_layer *l, crnn_dim t, crnn_dim b, crnn_dim j, line x, line y, crnn_dim left,
                             int first)
{
    real *dh = (real *)row_before(l, l->dh, l->dh0, t, b) + j; /* ours to write: only its address was const */
    const int start = t == first_step(&l->rows, b, l->reverse) && first;
    line_put(dh, line_fma(x, y, start ? line_set1(0) : line_get(dh, left)), left);
}

/* What both forms share: the gradients at z and at n's pre-activation, and dh * z on its way past. */
INLINE line gru_common_backward(const crnn_layer *l, crnn_dim t, crnn_dim b, crnn_dim j, line *da_z, crnn_dim left)
{
    const crnn_dim H = l->H, g = t * l->rows.B + b;
    const real *s = (const real *)l->gates + g * 3 * H + j;
    const line z = line_get(s + H, left), new = line_get(s + 2 * H, left);
    const line before = line_get(row_before(l, l->h, l->h0, t, b) + j, left), dh = get_dh(l, g, b, j, left);
    line_put((real *)l->dh + g * H + j, dh, left);
    /* forward: h = n + z * (h' - n) */
    *da_z = through_sigmoid(line_mul(dh, line_sub(before, new)), z);
    add_to_dh_before(l, t, b, j, dh, z, left, 1);
    return through_tanh(line_fnma(dh, z, dh), new);
}

static void gru_cell_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        line da_z;
        const line da_n = gru_common_backward(l, t, b, j, &da_z, left);
        const line r = line_get((const real *)l->gates + g * 3 * H + j, left);
        /* forward: n = tanh( xw_n + r * hn ) */
        const line da_r = through_sigmoid(line_mul(da_n, line_get((const real *)l->hn + g * H + j, left)), r);
        real *da = (real *)l->da + g * 3 * H + j, *da_h = (real *)l->da_h + g * 3 * H + j;
        line_put(da, da_r, left);
        line_put(da + H, da_z, left);
        line_put(da + 2 * H, da_n, left);
        line_put(da_h, da_r, left);
        line_put(da_h + H, da_z, left);
        line_put(da_h + 2 * H, line_mul(da_n, r), left);
    }
}

static void gru_candidate_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        line da_z;
        const line da_n = gru_common_backward(l, t, b, j, &da_z, left);
        real *da = (real *)l->da + g * 3 * H + j;
        line_put(da + H, da_z, left);
        line_put(da + 2 * H, da_n, left);
    }
}

/* dhn, the gradient at r * h', is complete. */
static void gru_reset_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        const line r = line_get((const real *)l->gates + g * 3 * H + j, left);
        const line dhn = line_get((const real *)l->dhn + b * H + j, left);
        const line da_r = through_sigmoid(line_mul(dhn, line_get(recurring(l, t, b) + j, left)), r);
        line_put((real *)l->da + g * 3 * H + j, da_r, left);
        line dr = line_mul(dhn, r);
        if (l->mask)
            dr = line_mul(dr, line_get((const real *)l->mask + b * H + j, left));
        add_to_dh_before(l, t, b, j, dr, line_set1(1), left, 0);
    }
}

static void gru_prepare_backward(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *ask)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, rows->m, n0, n) {
        const real *s = (const real *)l->gates + g * 3 * H + j, *da = (const real *)l->da + g * 3 * H + j;
        prefetch_add(ask, s), prefetch_add(ask, s + H), prefetch_add(ask, s + 2 * H);
        prefetch_add(ask, (const real *)l->hn + g * H + j), prefetch_add(ask, row_before(l, l->h, l->h0, t, b) + j);
        prefetch_add(ask, row_before(l, l->dh, l->dh0, t, b) + j);
        if (da != s)
            prefetch_add(ask, da), prefetch_add(ask, da + H), prefetch_add(ask, da + 2 * H);
        if (l->da_h) {
            const real *da_h = (const real *)l->da_h + g * 3 * H + j;
            prefetch_add(ask, da_h), prefetch_add(ask, da_h + H), prefetch_add(ask, da_h + 2 * H);
        }
    }
}

static void gru_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0);
    float_mode mode = denormals_off();
    const crnn_dim H = l->H, T = l->rows.T;
    product p;
    if (l->reset_after)
        p = product_back(l, l->da_h, 3 * H, 3 * H, gru_cell_backward);
    else
        p = product_back(l, l->da, 3 * H, 2 * H, gru_candidate_backward); /* r and z; n has a product of its own */
    p.prefetch = gru_prepare_backward;
    const product reset = {.y = l->dhn, .ldy = H, .per_row = 1, .w = l->w_hn_t, .K = H, .N = H, .gates = 1,
                           .x = {.x = l->reset_after ? NULL : (const real *)l->da + 2 * H, .stride = 3 * H},
                           .finish = gru_reset_backward, .context = l};
    for (crnn_dim s = 0; s < T; ++s) {
        const crnn_dim t = l->reverse ? s : T - 1 - s;
        step_back(l, &p, t);
        if (!l->reset_after)
            run_product(&reset, &l->rows, t, t + 1, 0);
    }
    back_to_start(l, &p, 1);
    float_mode_restore(mode);
}
