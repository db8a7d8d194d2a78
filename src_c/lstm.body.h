/* SPDX-License-Identifier: MIT
 * lstm.body.h: long short-term memory. Hochreiter, Schmidhuber 1997, with the forget gate of Gers et al. 2000.
 *     a = xw[t] + h' @ w_hh                     blocks i, f, g, o
 *     i, f, o = sigmoid(a)   g = tanh(a)
 *     c = f * c' + i * g     h = o * tanh(c)    h', c' = h, c before */

static void lstm_cell(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        real *a = (real *)l->gates + g * 4 * H + j;
        const line in = line_sigmoid(line_get(a, left)), forget = line_sigmoid(line_get(a + H, left));
        const line cell = line_tanh(line_get(a + 2 * H, left)), out = line_sigmoid(line_get(a + 3 * H, left));
        const line c_before = line_get(row_before(l, l->c, l->c0, t, b) + j, left);
        if (l->tanh_c) { /* for the way back */
            line_put(a, in, left);
            line_put(a + H, forget, left);
            line_put(a + 2 * H, cell, left);
        }
        line_put(a + 3 * H, out, left);
        line_put((real *)l->c + g * H + j, line_fma(forget, c_before, line_mul(in, cell)), left);
    }
    FOR_EACH_LINE(rows, m, n0, n) {
        const line tanh_c = line_tanh(line_get((const real *)l->c + g * H + j, left));
        if (l->tanh_c)
            line_put((real *)l->tanh_c + g * H + j, tanh_c, left);
        put_state(l, g, b, j, line_mul(line_get((const real *)l->gates + g * 4 * H + 3 * H + j, left), tanh_c), left);
    }
}

static void lstm_prepare(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *ask)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, rows->m, n0, n) {
        const real *a = (const real *)l->gates + g * 4 * H + j;
        prefetch_add(ask, a), prefetch_add(ask, a + H), prefetch_add(ask, a + 2 * H), prefetch_add(ask, a + 3 * H);
        prefetch_add(ask, row_before(l, l->c, l->c0, t, b) + j);
        prefetch_add(ask, (const real *)l->c + g * H + j), prefetch_add(ask, (const real *)l->h + g * H + j);
        if (l->tanh_c)
            prefetch_add(ask, (const real *)l->tanh_c + g * H + j);
    }
}

static void lstm_prepare_backward(const void *layer, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *ask)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, rows->m, n0, n) {
        const real *s = (const real *)l->gates + g * 4 * H + j, *da = (const real *)l->da + g * 4 * H + j;
        prefetch_add(ask, s), prefetch_add(ask, s + H), prefetch_add(ask, s + 2 * H), prefetch_add(ask, s + 3 * H);
        prefetch_add(ask, (const real *)l->tanh_c + g * H + j), prefetch_add(ask, row_before(l, l->c, l->c0, t, b) + j);
        if (da != s)
            prefetch_add(ask, da), prefetch_add(ask, da + H), prefetch_add(ask, da + 2 * H), prefetch_add(ask, da + 3 * H);
    }
}

/* s = sigmoid(a), so da = ds * s * (1 - s) */
INLINE line through_sigmoid(line ds, line s) { return line_mul(ds, line_fnma(s, s, s)); }
/* s = tanh(a), so da = ds * (1 - s*s) */
INLINE line through_tanh(line ds, line s) { return line_mul(ds, line_fnma(s, s, line_set1(1))); }

static void lstm_cell_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    FOR_EACH_LINE(rows, m, n0, n) {
        const real *s = (const real *)l->gates + g * 4 * H + j;
        const line in = line_get(s, left), forget = line_get(s + H, left);
        const line cell = line_get(s + 2 * H, left), out = line_get(s + 3 * H, left);
        const line tanh_c = line_get((const real *)l->tanh_c + g * H + j, left);
        const line c_before = line_get(row_before(l, l->c, l->c0, t, b) + j, left);
        real *dc_b = (real *)l->dc + b * H + j, *da = (real *)l->da + g * 4 * H + j;
        const line dh = get_dh(l, g, b, j, left);
        line_put((real *)l->dh + g * H + j, dh, left);
        /* forward: h = out * tanh(c), c = forget * c' + in * cell; c is also the next step's c' */
        const line dc = line_add(line_get(dc_b, left), through_tanh(line_mul(dh, out), tanh_c));
        line_put(da, through_sigmoid(line_mul(dc, cell), in), left);
        line_put(da + H, through_sigmoid(line_mul(dc, c_before), forget), left);
        line_put(da + 2 * H, through_tanh(line_mul(dc, in), cell), left);
        line_put(da + 3 * H, through_sigmoid(line_mul(dh, tanh_c), out), left);
        line_put(dc_b, line_mul(dc, forget), left);
    }
}

static void lstm_forward(const crnn_layer *l)
{
    float_mode mode = denormals_off();
    /* Without a way back the steps of a call are few, and all of it is near. */
    const product p = {.y = l->gates, .ldy = 4 * l->H, .init = input_share(l, 4), .x = state_before(l), .w = l->w_hh,
                       .K = l->H, .N = l->H, .gates = 4, .finish = lstm_cell,
                       .prefetch = l->tanh_c ? lstm_prepare : NULL, .context = l};
    run_forward(l, &p);
    float_mode_restore(mode);
}

static void lstm_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0 && l->tanh_c);
    float_mode mode = denormals_off();
    product p = product_back(l, l->da, 4 * l->H, 4 * l->H, lstm_cell_backward);
    p.prefetch = lstm_prepare_backward;
    for (crnn_dim s = 0; s < l->rows.T; ++s)
        step_back(l, &p, l->reverse ? s : l->rows.T - 1 - s);
    back_to_start(l, &p, 0);
    float_mode_restore(mode);
}
