/* SPDX-License-Identifier: MIT
 * time_loop.h: what all cells share: the loop over time steps, forward and backward, and access to the lines of a layer's
 * arrays. A step is one product with the packed W_hh, whose sums start from xw, the contribution of the input, followed
 * by the cell's arithmetic on the finished tile while it is in the L1 cache. Independent of cells.
 *
 * A cell's arithmetic is written for one line: LINE columns, or fewer at the end, of one row (t, b). A `cell_line`
 * identifies the line; get_... and put_... load and store it in an array of the layer. h' and c' are h and c of the
 * previous step. */

/* The line of row (t, b) that starts at column j, in every gate. `columns` is the number of columns from j to the end
 * of the tile; the line has at most LINE of them. */
typedef struct {
    const crnn_layer *layer;
    crnn_dim H, gates;                   /* gates: G */
    crnn_dim t, b, row;                  /* row: of (t, b) in arrays */
    crnn_dim j, columns;
    crnn_dim gates_tb, step_tb, state_b; /* offset of column j of row (t, b) in arrays (T, B, G*H), first gate, and
                                          * (T, B, H); of row b in arrays (B, H) */
} cell_line;

INLINE cell_line line_at(const crnn_layer *l, crnn_dim H, crnn_dim gates, crnn_dim t, crnn_dim b, crnn_dim j,
                         crnn_dim columns)
{
    const crnn_dim row = row_of(&l->rows, t, b);
    return (cell_line){l, H, gates, t, b, row, j, columns, row * gates * H + j, row * H + j, b * H + j};
}

/* The next LINE columns of the same row. */
INLINE cell_line next_line(cell_line at)
{
    at.j += LINE, at.gates_tb += LINE, at.step_tb += LINE, at.state_b += LINE, at.columns -= LINE;
    return at;
}

/* Calls f for every line in columns n0 .. n0 + n of the first m rows. `gates` and f are compile-time constants at every
 * call, so that the compiler specialises the loop for them. */
typedef void (*line_function)(cell_line at);

INLINE void for_each_line(const void *layer, crnn_dim gates, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n,
                          line_function f)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    for (int i = 0; i < m; ++i)
        for (cell_line at = line_at(l, H, gates, rows->t[i], rows->b[i], n0, n); at.columns > 0; at = next_line(at))
            f(at);
}

/* ---- a line in the layer's arrays ---------------------------------------------------------------------------------- */

/* array[t, b, gate*H + j:] of an array (T, B, G*H) */
INLINE const real *gate_at(cell_line at, const void *array, int gate)
{
    return (const real *)array + at.gates_tb + gate * at.H;
}

/* array[t, b, j:] of an array (T, B, H) */
INLINE const real *step_at(cell_line at, const void *array) { return (const real *)array + at.step_tb; }

/* array[b, j:] of an array (B, H) */
INLINE const real *state_at(cell_line at, const void *array) { return (const real *)array + at.state_b; }

/* array[t', b, j:] of an array (T, B, H), where t' is the previous step; at the first step start[b, j:] of (B, H) */
INLINE const real *step_before(cell_line at, const void *array, const void *start)
{
    const x_source source = {array, at.H, BEFORE, at.layer->reverse, start};
    return x_row(&source, &at.layer->rows, at.t, at.b) + at.j;
}

INLINE line get_gate(cell_line at, const void *array, int gate) { return line_get(gate_at(at, array, gate), at.columns); }
INLINE line get_step(cell_line at, const void *array) { return line_get(step_at(at, array), at.columns); }
INLINE line get_state(cell_line at, const void *array) { return line_get(state_at(at, array), at.columns); }
INLINE line get_vector(cell_line at, const void *array) { return line_get((const real *)array + at.j, at.columns); }
INLINE line get_before(cell_line at, const void *array, const void *start)
{
    return line_get(step_before(at, array, start), at.columns);
}

INLINE void put_gate(cell_line at, void *array, int gate, line value)
{
    line_put((real *)gate_at(at, array, gate), value, at.columns);
}
INLINE void put_step(cell_line at, void *array, line value) { line_put((real *)step_at(at, array), value, at.columns); }
INLINE void put_state(cell_line at, void *array, line value) { line_put((real *)state_at(at, array), value, at.columns); }

/* xw[t, b, gate*H + j:]; with ids, xw[ids[t, b], gate*H + j:], xw being a table with a row for each id */
INLINE line get_xw(cell_line at, int gate)
{
    const crnn_layer *l = at.layer;
    const crnn_dim first = l->ids ? l->ids[at.row] * at.gates * at.H + at.j : at.gates_tb;
    return line_get((const real *)l->xw + first + gate * at.H, at.columns);
}

/* h[t, b, j:] = h. If there is a mask, also h_masked, which the product of the next step reads. */
INLINE void put_h(cell_line at, line h)
{
    const crnn_layer *l = at.layer;
    put_step(at, l->h, h);
    if (l->mask)
        put_step(at, l->h_masked, line_mul(h, get_state(at, l->mask)));
}

/* h' as the operand of a product with W_hh: masked if there is a mask. */
INLINE line get_recurrent_h(cell_line at)
{
    const crnn_layer *l = at.layer;
    return l->mask ? get_before(at, l->h_masked, l->h0_masked) : get_before(at, l->h, l->h0);
}

/* The whole gradient at h[t, b, j:]. The product da @ W_hh^T of the next step has been added to dh; if there is a mask,
 * it is in dh_masked instead, before masking. */
INLINE line get_dh(cell_line at)
{
    const crnn_layer *l = at.layer;
    const line dh = get_step(at, l->dh);
    return l->mask ? line_fma(get_state(at, l->mask), get_state(at, l->dh_masked), dh) : dh;
}

/* dh' += x * y, for a path from h' to h that bypasses the product. dh' is dh of the previous step, or dh0, which counts
 * as zero if this is its first contribution. */
INLINE void add_to_dh_before(cell_line at, line x, line y, int first_path)
{
    const crnn_layer *l = at.layer;
    real *dh = (real *)step_before(at, l->dh, l->dh0);
    const int starts = first_path && at.t == first_step(&l->rows, at.b, l->reverse);
    line_put(dh, line_fma(x, y, starts ? line_set1(0) : line_get(dh, at.columns)), at.columns);
}

/* dvectors[v][b, j:] += x * y: the contribution of this row to the gradient of the cell's vector v. */
INLINE void add_to_dvector(cell_line at, int v, line x, line y)
{
    void *dvector = at.layer->dvectors[v];
    put_state(at, dvector, line_fma(x, y, get_state(at, dvector)));
}

/* s = sigmoid(a), so da = ds * s * (1 - s) */
INLINE line sigmoid_gradient(line ds, line s) { return line_mul(ds, line_fnma(s, s, s)); }
/* s = tanh(a), so da = ds * (1 - s*s) */
INLINE line tanh_gradient(line ds, line s) { return line_mul(ds, line_fnma(s, s, line_set1(1))); }

/* ---- prefetching --------------------------------------------------------------------------------------------------- */

/* The arrays in which a cell's arithmetic accesses a line. GATES, DA and DA_H stand for all G gates; H_BEFORE, C_BEFORE
 * and DH_BEFORE for the previous step. An array that a layer does not have is skipped. */
enum {
    AT_GATES = 1, AT_H = 2, AT_H_BEFORE = 4, AT_C = 8, AT_C_BEFORE = 16, AT_TANH_C = 32, AT_HN = 64, AT_DA = 128,
    AT_DA_H = 256, AT_DH_BEFORE = 512
};

/* Adds to `list` the lines of `arrays` that the arithmetic of a tile will access. */
INLINE void prefetch_lines(const void *layer, crnn_dim gates, unsigned arrays, const tile_rows *rows, crnn_dim n0,
                           crnn_dim n, prefetch_list *list)
{
    const crnn_layer *l = layer;
    const crnn_dim H = l->H;
    for (int i = 0; i < rows->m; ++i)
        for (cell_line at = line_at(l, H, gates, rows->t[i], rows->b[i], n0, n); at.columns > 0; at = next_line(at)) {
            if (arrays & AT_GATES)
                for (int gate = 0; gate < gates; ++gate)
                    prefetch_add(list, gate_at(at, l->gates, gate));
            if (arrays & AT_HN)
                prefetch_add(list, step_at(at, l->hn));
            if (arrays & AT_TANH_C && l->tanh_c)
                prefetch_add(list, step_at(at, l->tanh_c));
            if (arrays & AT_C_BEFORE)
                prefetch_add(list, step_before(at, l->c, l->c0));
            if (arrays & AT_C)
                prefetch_add(list, step_at(at, l->c));
            if (arrays & AT_H_BEFORE)
                prefetch_add(list, step_before(at, l->h, l->h0));
            if (arrays & AT_H)
                prefetch_add(list, step_at(at, l->h));
            if (arrays & AT_DH_BEFORE)
                prefetch_add(list, step_before(at, l->dh, l->dh0));
            if (arrays & AT_DA && l->da != l->gates)
                for (int gate = 0; gate < gates; ++gate)
                    prefetch_add(list, gate_at(at, l->da, gate));
            if (arrays & AT_DA_H)
                for (int gate = 0; gate < gates; ++gate)
                    prefetch_add(list, gate_at(at, l->da_h, gate));
        }
}

/* ---- forward through time ------------------------------------------------------------------------------------------ */

/* The initial values of a product's sums: xw of the first gate, in arrays of G gates. */
INLINE row_source xw_of(const crnn_layer *l, int gates) { return (row_source){l->xw, gates * l->H, l->ids}; }

/* The left operand of a product with W_hh: h', masked if there is a mask. */
INLINE x_source recurrent_h(const crnn_layer *l)
{
    return l->mask ? (x_source){l->h_masked, l->H, BEFORE, l->reverse, l->h0_masked}
                   : (x_source){l->h, l->H, BEFORE, l->reverse, l->h0};
}

/* The s-th step in the layer's direction, s = 0 .. T-1. */
INLINE crnn_dim step_number(const crnn_layer *l, crnn_dim s) { return l->reverse ? l->rows.T - 1 - s : s; }

/* One product per step, followed by its `finish` or `finish_whole`. */
static void run_forward(const crnn_layer *l, const product *p)
{
    for (crnn_dim s = 0; s < l->rows.T; ++s) {
        const crnn_dim t = step_number(l, s);
        run_product(p, &l->rows, t, t + 1, 0);
        if (p->finish_whole)
            finish_rows(p, &l->rows, t, l->rows.b0);
    }
}

/* For cells without W_hh: only `finish`, for all rows of every step. */
INLINE void run_forward_without_product(const crnn_layer *l, epilogue finish)
{
    const product none = {.N = l->H, .finish = finish, .context = l};
    for (crnn_dim s = 0; s < l->rows.T; ++s)
        finish_rows(&none, &l->rows, step_number(l, s), l->rows.b0);
}

/* ---- backward through time ----------------------------------------------------------------------------------------- */

/* The product da @ W_hh^T, which backpropagates the gradient of the next step to h. da is an array with rows of
 * `stride` elements, of which the first K are multiplied by w_hh_t. */
INLINE product product_back(const crnn_layer *l, const void *da, crnn_dim stride, crnn_dim K, epilogue finish,
                            prefetcher prefetch)
{
    product p = {.y = l->dh, .ldy = l->H, .x = {da, stride, AFTER, l->reverse, NULL}, .w = l->w_hh_t, .K = K,
                 .N = l->H, .gates = 1, .quantised = l->quantised, .scratch = l->scratch, .finish = finish,
                 .prefetch = prefetch, .context = l};
    if (l->mask)
        p.y = l->dh_masked, p.per_row = 1;
    else
        p.init = (row_source){l->dh, l->H, NULL};
    return p;
}

/* Backward pass of step t: the product for the rows that have a next step in the layer's direction, then the arithmetic
 * for all rows that have step t. */
static void step_back(const crnn_layer *l, const product *p, crnn_dim t)
{
    const crnn_rows *r = &l->rows;
    const crnn_dim end = end_of_rows(r, t, r->b1); /* positions b0 .. end have a step t */
    const crnn_dim after_end = l->reverse ? (t > 0 ? end : r->b0) : end_of_rows(r, t + 1, r->b1);
    if (after_end > r->b0)
        run_product(p, r, t, t + 1, !l->reverse);
    if (l->mask) /* the other rows have no next step */
        for (crnn_dim i = after_end; i < end; ++i)
            memset((real *)l->dh_masked + row_at(r, i) * l->H, 0, (size_t)l->H * sizeof(real));
    finish_rows(p, r, t, p->finish_whole ? r->b0 : after_end);
}

/* dh0 = mask * (da[first step] @ W_hh^T), added to dh0 if `accumulate`. p is the product of the steps. */
static void back_to_start(const crnn_layer *l, const product *p, int accumulate)
{
    const crnn_rows *r = &l->rows;
    product last = *p;
    last.y = l->mask ? l->dh_masked : l->dh0;
    last.per_row = 1;
    last.init = (row_source){!l->mask && accumulate ? l->dh0 : NULL, l->H, NULL};
    last.x.step = FIRST;
    last.finish = NULL;
    last.prefetch = NULL;
    run_product(&last, r, 0, 1, 0); /* every row has a step 0; FIRST selects the first step of each row */
    if (!l->mask)
        return;
    for (crnn_dim i = r->b0; i < r->b1; ++i)
        for (crnn_dim j = 0; j < l->H; j += LINE) {
            const cell_line at = line_at(l, l->H, 1, 0, row_at(r, i), j, l->H - j);
            const line start = accumulate ? get_state(at, l->dh0) : line_set1(0);
            put_state(at, l->dh0, line_fma(get_state(at, l->mask), get_state(at, l->dh_masked), start));
        }
}

/* For cells with one product per step: all steps from the last to the first, then dh0. */
static void run_backward(const crnn_layer *l, const product *p)
{
    for (crnn_dim s = l->rows.T - 1; s >= 0; --s)
        step_back(l, p, step_number(l, s));
    back_to_start(l, p, 0);
}

/* For cells without W_hh: `finish` adds the whole gradient at h' to dh of the previous step, or to dh0. */
INLINE void run_backward_without_product(const crnn_layer *l, epilogue finish)
{
    const product none = {.N = l->H, .finish = finish, .context = l};
    for (crnn_dim s = l->rows.T - 1; s >= 0; --s)
        finish_rows(&none, &l->rows, step_number(l, s), l->rows.b0);
}
