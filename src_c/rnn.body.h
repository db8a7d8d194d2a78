/* SPDX-License-Identifier: MIT
 * rnn.body.h: the time loop that all cells share, and the plain recurrent cell, tanh or ReLU.
 *     h[t] = act( xw[t] + h' @ w_hh )           h' = h before
 * One product per step from packed weights, its chains starting from the input's share, the cell's arithmetic applied
 * while the tile is in the first cache. */

/* What recurs: h, or with dropout of the state h * mask. */
INLINE x_source state_before(const crnn_layer *l)
{
    return l->mask ? (x_source){l->h_masked, l->H, BEFORE, l->reverse, l->h0_masked}
                   : (x_source){l->h, l->H, BEFORE, l->reverse, l->h0};
}

/* Row (t, b) of an array (T, B, H) one step before, or of its start (B, H). */
INLINE const real *row_before(const crnn_layer *l, const void *array, const void *start, crnn_dim t, crnn_dim b)
{
    const x_source s = {array, l->H, BEFORE, l->reverse, start};
    return x_row(&s, &l->rows, t, b);
}

INLINE row_source input_share(const crnn_layer *l, int gates)
{
    return (row_source){l->xw, gates * l->H, l->ids};
}

/* h and, with a mask, what the next step's product reads. */
INLINE void put_state(const crnn_layer *l, crnn_dim g, crnn_dim b, crnn_dim n, line h, crnn_dim left)
{
    line_put((real *)l->h + g * l->H + n, h, left);
    if (l->mask) {
        const line mask = line_get((const real *)l->mask + b * l->H + n, left);
        line_put((real *)l->h_masked + g * l->H + n, line_mul(h, mask), left);
    }
}

/* The whole gradient at h[t,b,n:]: the product that brought da @ w_hh^T back started from what arrived at h, but with a
 * mask it stands by itself. */
INLINE line get_dh(const crnn_layer *l, crnn_dim g, crnn_dim b, crnn_dim n, crnn_dim left)
{
    line dh = line_get((const real *)l->dh + g * l->H + n, left);
    if (l->mask) {
        const line back = line_get((const real *)l->dh_masked + b * l->H + n, left);
        dh = line_fma(line_get((const real *)l->mask + b * l->H + n, left), back, dh);
    }
    return dh;
}

/* Forward through time, one product a step. */
static void run_forward(const crnn_layer *l, const product *p)
{
    for (crnn_dim s = 0; s < l->rows.T; ++s) {
        const crnn_dim t = l->reverse ? l->rows.T - 1 - s : s;
        run_product(p, &l->rows, t, t + 1, 0);
    }
}

/* Where the gradient da (T, B, columns of w_t), which lies at `stride`, goes on its way back to h. */
INLINE product product_back(const crnn_layer *l, const void *da, crnn_dim stride, crnn_dim K, epilogue finish)
{
    product p = {.y = l->dh, .ldy = l->H, .x = {da, stride, AFTER, l->reverse, NULL}, .w = l->w_hh_t, .K = K,
                 .N = l->H, .gates = 1, .finish = finish, .context = l};
    if (l->mask)
        p.y = l->dh_masked, p.per_row = 1;
    else
        p.init = (row_source){l->dh, l->H, NULL};
    return p;
}

/* One step back: the rows that have a step after t get its gradient through w_hh^T; at the others only dh arrives. */
static void step_back(const crnn_layer *l, const product *p, crnn_dim t)
{
    const crnn_rows *r = &l->rows;
    const crnn_dim there = end_of_rows(r, t, r->b1);
    const crnn_dim from_after = l->reverse ? (t > 0 ? there : r->b0) : end_of_rows(r, t + 1, r->b1);
    if (from_after > r->b0)
        run_product(p, r, t, t + 1, !l->reverse);
    if (l->mask) /* nothing comes back to the others */
        for (crnn_dim i = from_after; i < there; ++i)
            memset((real *)l->dh_masked + row_at(r, i) * l->H, 0, (size_t)l->H * sizeof(real));
    finish_rows(p, r, t, from_after);
}

/* dh0 = (what stands there already, or zero) + da[first step] @ w_hh^T, through the mask. `p` as for the steps. */
static void back_to_start(const crnn_layer *l, const product *p, int started)
{
    const crnn_rows *r = &l->rows;
    product last = *p;
    last.y = l->mask ? l->dh_masked : l->dh0;
    last.per_row = 1;
    last.init = (row_source){!l->mask && started ? l->dh0 : NULL, l->H, NULL};
    last.x.step = FIRST;
    last.finish = NULL;
    last.prefetch = NULL;
    run_product(&last, r, 0, 1, 0); /* every row has a step 0; FIRST finds the one meant */
    if (l->mask)
        for (crnn_dim i = r->b0; i < r->b1; ++i) {
            const crnn_dim at = row_at(r, i) * l->H;
            real *dh0 = (real *)l->dh0 + at;
            const real *mask = (const real *)l->mask + at, *back = (const real *)l->dh_masked + at;
            for (crnn_dim n = 0, left = l->H; left > 0; n += LINE, left -= LINE) {
                const line start = started ? line_get(dh0 + n, left) : line_set1(0);
                line_put(dh0 + n, line_fma(line_get(mask + n, left), line_get(back + n, left), start), left);
            }
        }
}

/* ---- the plain cell ------------------------------------------------------------------------------------------------ */

#define FOR_EACH_LINE(rows, m, n0, n)                                                                                  \
    for (int i = 0; i < m; ++i)                                                                                        \
        for (crnn_dim b = rows->b[i], t = rows->t[i], g = t * l->rows.B + b, j = n0, left = n; left > 0;               \
             j += LINE, left -= LINE)

static void tanh_cell(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    FOR_EACH_LINE(rows, m, n0, n)
        put_state(l, g, b, j, line_tanh(line_get((const real *)l->h + g * l->H + j, left)), left);
}

static void relu_cell(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    FOR_EACH_LINE(rows, m, n0, n)
        put_state(l, g, b, j, line_max(line_set1(0), line_get((const real *)l->h + g * l->H + j, left)), left);
}

/* da may take dh's place: then the whole gradient at h is not kept. */
INLINE void keep_dh(const crnn_layer *l, crnn_dim g, crnn_dim n, line dh, crnn_dim left)
{
    if (l->dh != l->da)
        line_put((real *)l->dh + g * l->H + n, dh, left);
}

/* h = tanh(a), so da = dh * (1 - h*h) */
static void tanh_cell_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    FOR_EACH_LINE(rows, m, n0, n) {
        const line h = line_get((const real *)l->h + g * l->H + j, left), dh = get_dh(l, g, b, j, left);
        keep_dh(l, g, j, dh, left);
        line_put((real *)l->da + g * l->H + j, line_mul(dh, line_fnma(h, h, line_set1(1))), left);
    }
}

/* h = max(a, 0), so da = h > 0 ? dh : 0 */
static void relu_cell_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    const line zero = line_set1(0);
    FOR_EACH_LINE(rows, m, n0, n) {
        const line h = line_get((const real *)l->h + g * l->H + j, left), dh = get_dh(l, g, b, j, left);
        keep_dh(l, g, j, dh, left);
        line_put((real *)l->da + g * l->H + j, line_pick(h, zero, dh, zero), left);
    }
}

static void rnn_forward(const crnn_layer *l)
{
    assert(l->act == CRNN_TANH || l->act == CRNN_RELU);
    float_mode mode = denormals_off();
    const product p = {.y = l->h, .ldy = l->H, .init = input_share(l, 1), .x = state_before(l), .w = l->w_hh, .K = l->H,
                       .N = l->H, .gates = 1, .finish = l->act == CRNN_TANH ? tanh_cell : relu_cell, .context = l};
    run_forward(l, &p);
    float_mode_restore(mode);
}

static void rnn_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0 && (l->act == CRNN_TANH || l->act == CRNN_RELU));
    float_mode mode = denormals_off();
    /* forward: a[t] = xw[t] + h[t-1] @ w_hh, so da[t] @ w_hh^T goes back to h[t-1] */
    const product p = product_back(l, l->da, l->H, l->H, l->act == CRNN_TANH ? tanh_cell_backward : relu_cell_backward);
    for (crnn_dim s = 0; s < l->rows.T; ++s)
        step_back(l, &p, l->reverse ? s : l->rows.T - 1 - s);
    back_to_start(l, &p, 0);
    float_mode_restore(mode);
}
