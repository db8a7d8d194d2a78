/* SPDX-License-Identifier: MIT
 * gemm.body.h: packed matrix products. A tile of m rows and nl panels is held in registers while k runs from 0 to K:
 * each element's chain of fused multiply-adds is never split, so the tile's shape does not show in the bits.
 * Tiles widen over outputs only. Refuses alpha, beta and strides: the callers need none. */

/* Distance at which a product prefetches its weights, and the fewest rows for which it does. A single row reads them at
 * the rate of the second-level cache anyway; prefetching slows it down by a quarter. */
enum { WEIGHTS_AHEAD = 32 * LINE, WEIGHTS_PREFETCH_ROWS = 2 };

/* acc[i][:] += x[i][k0..k1) @ w, whose panels are K lines tall. uniform: the rows of x have a uniform stride, and one
 * pointer serves three of them. */
INLINE void tile_steps(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, const int uniform,
                       const tile_rows *rows, const real *w, crnn_dim K, crnn_dim k0, crnn_dim k1,
                       const void *const *prefetch)
{
    const real *x[TILE_ROWS];
    const crnn_dim stride = rows->x_stride;
    UNROLL
    for (int i = 0; i < m; ++i)
        x[i] = uniform ? rows->x[0] + i * stride + k0 : rows->x[i];
    w += k0 * LINE;
    for (crnn_dim k = k0; k < k1; ++k, w += LINE) {
        line w_k[TILE_PANELS];
        if (prefetch)
            PREFETCH(*prefetch++);
        UNROLL
        for (int j = 0; j < nl; ++j) {
            w_k[j] = line_load(w + j * K * LINE);
            if (m >= WEIGHTS_PREFETCH_ROWS)
                PREFETCH(w + j * K * LINE + WEIGHTS_AHEAD);
        }
        UNROLL
        for (int i = 0; i < m; ++i) {
            line x_ik = line_set1(uniform ? x[i / 3 * 3][i % 3 * stride] : x[i][k]);
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_fma(x_ik, w_k[j], acc[i][j]);
        }
        if (uniform) {
            UNROLL
            for (int i = 0; i < m; i += 3) {
                ++x[i];
                OPAQUE(x[i]); /* else the compiler sees that they move together, and recomputes all m */
            }
        }
    }
}

/* y[i][:] = init[i][:] + x[i][0..K) @ w, or of that sum the terms k0 .. k1: m rows, nl panels that lie one after the
 * other in w. */
INLINE void tile_forward(const int m, const int nl, const int uniform, const tile_rows *rows, const real *w, crnn_dim K,
                         crnn_dim k0, crnn_dim k1, const tile_panels *panels, const prefetch_list *prefetch)
{
    line acc[TILE_ROWS][TILE_PANELS];
    tile_start(acc, m, nl, k0 ? (const real *const *)rows->y : rows->init, panels);
    const crnn_dim prefetches = prefetch->count < k1 - k0 ? prefetch->count : k1 - k0;
    if (prefetches)
        tile_steps(acc, m, nl, uniform, rows, w, K, k0, k0 + prefetches, prefetch->line);
    tile_steps(acc, m, nl, uniform, rows, w, K, k0 + prefetches, k1, NULL);
    tile_finish(acc, m, nl, rows->y, panels);
}

static void run_tile_forward(int m, int nl, const tile_rows *rows, const real *w, crnn_dim K, crnn_dim k0, crnn_dim k1,
                             const tile_panels *panels, const prefetch_list *prefetch)
{
    switch (m * 16 + nl + (m >= TALL_TILE_ROWS && rows->x_stride ? 256 : 0)) {
#define CASE(m, nl)                                                                                                    \
    case (m) * 16 + (nl): tile_forward(m, nl, 0, rows, w, K, k0, k1, panels, prefetch); break;                         \
    case (m) * 16 + (nl) + 256:                                                                                        \
        if (m >= TALL_TILE_ROWS)                                                                                       \
            tile_forward(m, nl, 1, rows, w, K, k0, k1, panels, prefetch);                                              \
        break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}

/* ---- whole products ------------------------------------------------------------------------------------------------ */

/* What the chains of row g of a product start from: base + stride * (ids ? ids[g] : g). A bias has stride 0.
 * base NULL: zero. */
typedef struct {
    const real *base;
    crnn_dim stride;
    const int32_t *ids;
} row_source;

/* Applied to n columns from n0 of m rows of y once their chains are complete, while they are in the first-level cache.
 * In a product of several gates these columns of all blocks are complete. */
typedef void (*epilogue)(const void *context, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n);

/* Lists the lines that an epilogue will read or write, spread over too many rows for the hardware prefetcher. */
typedef void (*prefetcher)(const void *context, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *list);

/* y[g, :] = init(g) + x(t, b) @ w, then finish. */
typedef struct {
    real *y; /* row g at y + g*ldy; with per_row, row b at y + b*ldy, and init(b) instead of init(g) */
    crnn_dim ldy;
    int per_row;
    row_source init;
    x_source x;
    const void *w; /* packed (K, gates * N), by pack_gates where gates > 1 */
    crnn_dim K, N; /* N columns in each block of y */
    int gates;
    const crnn_quantised *quantised; /* the format of w; NULL: reals */
    void *scratch;                   /* for rows of x in that format */
    epilogue finish; /* NULL: nothing */
    prefetcher prefetch; /* NULL: nothing */
    const void *context;
} product;

/* The next m rows of a walk. */
static void tile_rows_next(tile_rows *rows, int m, const product *p, row_walk *w)
{
    rows->m = m;
    rows->x_stride = 0;
    for (int i = 0; i < m; ++i, walk_next(w)) {
        const crnn_dim b = row_at(w->rows, w->i), g = row_of(w->rows, w->t, b);
        rows->t[i] = w->t;
        rows->b[i] = b;
        const crnn_dim row = p->per_row ? b : g;
        rows->y[i] = p->y + row * p->ldy;
        rows->x[i] = x_row(&p->x, w->rows, w->t, b);
        rows->init[i] = p->init.base ? p->init.base + p->init.stride * (p->init.ids ? p->init.ids[row] : row) : NULL;
    }
    if (m > 1) {
        const crnn_dim stride = rows->x[1] - rows->x[0];
        rows->x_stride = stride;
        for (int i = 2; i < m; ++i)
            if (rows->x[i] - rows->x[i - 1] != stride)
                rows->x_stride = 0;
    }
}

/* Quantised w as tiles read them. */
INLINE quantised_weights quantised_weights_of(const product *p)
{
    const crnn_quantised *format = p->quantised;
    const crnn_dim panels = CRNN_PANELS(real, p->N) * p->gates;
    quantised_weights w = {.panels = p->w, .lines = quantised_lines(format->layout, p->K)};
    w.panel_bytes = quantised_panel_bytes(format->layout, p->K);
    w.row_bytes = quantised_row_bytes(format->layout, p->K, format->x_element);
    w.scales = (const float *)(w.panels + panels * w.panel_bytes);
    w.sums = (const int32_t *)(w.scales + panels * QUANTISED_COLUMNS);
    return w;
}

/* The rows' x, converted into scratch memory, from row `first` of that on. */
static void convert_rows(const product *p, const quantised_weights *w, tile_rows *rows, crnn_dim first)
{
    char *to = (char *)p->scratch + first * w->row_bytes;
    for (int i = 0; i < rows->m; ++i, to += w->row_bytes) {
        p->quantised->convert(to, (const float *)rows->x[i], p->K);
        rows->x[i] = (const real *)to;
    }
}

/* The columns of `group_panels` panels of each gate from `group` on, for m rows, terms k0 .. k1, in tiles of up to
 * max_panels panels. */
static void run_group(const product *p, const quantised_weights *quantised, const tile_rows *rows, crnn_dim group,
                      int group_panels, int max_panels, crnn_dim k0, crnn_dim k1, int prefetches)
{
    const crnn_dim n0 = group * LINE, remaining = p->N - n0;
    const crnn_dim n = remaining < group_panels * LINE ? remaining : group_panels * LINE;
    const int panels = group_panels * p->gates, partial = n < group_panels * LINE;
    prefetch_list prefetch;
    prefetch.count = 0;
    const int complete = k1 == p->K;
    if (prefetches && complete && rows->m > 1) /* one row has few lines, and a stream's are in cache */
        p->prefetch(p->context, rows, n0, n, &prefetch);
    for (int first = 0; first < panels; first += max_panels) {
        const int nl = panels - first < max_panels ? panels - first : max_panels;
        tile_panels tile = {.cols = p->N % LINE, .full = nl};
        for (int j = 0; j < nl; ++j) { /* panel by panel of the first gate's columns, its gates side by side */
            const int panel = (first + j) / p->gates, gate = first + j - panel * p->gates;
            tile.offset[j] = n0 + gate * p->N + panel * LINE;
            if (partial && panel == group_panels - 1 && tile.full > j)
                tile.full = j;
        }
        assert(0 < rows->m && rows->m <= TILE_ROWS && 0 < nl && nl <= PANELS_FOR(rows->m));
        if (quantised)
            p->quantised->run_tile(rows->m, nl, rows, quantised, group * p->gates + first, &tile, &prefetch);
        else
            run_tile_forward(rows->m, nl, rows, (const real *)p->w + (group * p->gates + first) * p->K * LINE, p->K, k0,
                             k1, &tile, &prefetch);
        prefetch.count = 0;
    }
    if (p->finish && complete)
        p->finish(p->context, rows, rows->m, n0, n);
}

/* Whether the epilogue's lines are listed to be prefetched: not if all steps of the layer are in the second-level cache,
 * where the list costs 5 to 20 % of a step. A long forward pass comes in parts of 128 to 256 KB, see crnn.nn.tape; one
 * gate: a backward pass, which comes whole. */
INLINE int prefetches_lines(const product *p, const crnn_rows *r)
{
    const crnn_dim columns = p->N * p->gates > p->K ? p->N * p->gates : p->K; /* backward K is that of the gates */
    const crnn_dim near = p->gates > 1 ? 128 * 1024 : 512 * 1024;
    return p->prefetch && r->T * r->B * columns * (crnn_dim)sizeof(real) > near;
}

/* The rows of steps t0 .. t1 of the slice; `extra` as in row_walk. As many rows and terms at a time as keep x and the
 * rows' pointers in the near caches while all of w passes by. A chain that is interrupted is kept in y, exactly.
 * Every other step of a single row takes the panels of w in reverse: it begins with those that the step before has left
 * in the caches. An LSTM of 64, 256 or 1024 units takes 5 to 9 % less time. */
static void run_product(const product *p, const crnn_rows *r, crnn_dim t0, crnn_dim t1, crnn_dim extra)
{
    assert(p->K > 0 && p->N > 0 && p->gates > 0 && 0 <= r->b0 && r->b1 <= r->B);
    enum { BLOCKS = 12, TERMS = 2048 };
    const crnn_dim groups = CRNN_PANELS(real, p->N), terms = p->quantised ? p->K : TERMS;
    const int far_panels = PANELS_FAR > p->gates ? PANELS_FAR / p->gates * p->gates : PANELS_FAR; /* whole gates */
    const int height = p->quantised || p->x.stride * (crnn_dim)sizeof(real) % ALIASED_BYTES ? TILE_ROWS : ROWS_ALIASED;
    const int prefetches = prefetches_lines(p, r);
    assert(BLOCKS * TILE_ROWS <= CRNN_QUANTISED_ROWS);
    row_walk walk = walk_from(r, t0, extra);
    quantised_weights quantised;
    if (p->quantised)
        quantised = quantised_weights_of(p);
    const crnn_dim panel_bytes = p->quantised ? quantised.panel_bytes : p->K * CRNN_LINE_BYTES;
    const int far = panel_bytes * groups * p->gates > NEAR_BYTES;
    crnn_dim remaining = count_rows(r, t0, t1, extra);
    const int backwards = remaining == 1 && t0 % 2 == 1;
    for (crnn_dim count; remaining > 0; remaining -= count) {
        count = remaining < BLOCKS * height ? remaining : BLOCKS * height;
        const int blocks = (int)((count + height - 1) / height);
        tile_rows rows[BLOCKS];
        for (crnn_dim i = 0, row = 0; i < blocks; row += rows[i++].m) {
            tile_rows_next(&rows[i], (int)(count / blocks + (i < count % blocks)), p, &walk);
            if (p->quantised)
                convert_rows(p, &quantised, &rows[i], row);
        }
        const int most = PANELS_FOR(rows[0].m), width = most > p->gates ? most / p->gates : 1;
        const int max_panels = rows[0].m == 1 && far ? far_panels : most;
        for (crnn_dim k0 = 0, k1; k0 < p->K; k0 = k1) {
            k1 = p->K - k0 < 2 * terms ? p->K : k0 + terms;
            const crnn_dim last = backwards ? (groups - 1) / width * width : 0;
            for (crnn_dim done = 0; done < groups; done += width) {
                const crnn_dim group = backwards ? last - done : done;
                const int group_panels = groups - group < width ? (int)(groups - group) : width;
                for (int i = 0; i < blocks; ++i)
                    run_group(p, p->quantised ? &quantised : NULL, &rows[i], group, group_panels, max_panels, k0, k1,
                              prefetches);
            }
        }
    }
}

/* Only the epilogue, for the rows of step t from position i on. */
static void finish_rows(const product *p, const crnn_rows *r, crnn_dim t, crnn_dim i)
{
    row_walk walk = walk_from(r, t, 0);
    for (walk.i = i; walk.i < walk.end && walk.t == t;) {
        const int m = walk.end - walk.i < TILE_ROWS ? (int)(walk.end - walk.i) : TILE_ROWS;
        tile_rows rows = {.m = m};
        for (int j = 0; j < m; ++j, ++walk.i) {
            rows.t[j] = t;
            rows.b[j] = row_at(r, walk.i);
        }
        p->finish(p->context, &rows, m, 0, p->N);
    }
}

/* The outputs. */
static void linear_prefetch(const void *context, const tile_rows *rows, crnn_dim n0, crnn_dim n, prefetch_list *list)
{
    (void)context;
    for (int i = 0; i < rows->m; ++i)
        for (crnn_dim j = 0; j < n; j += LINE)
            prefetch_add(list, rows->y[i] + n0 + j);
}

static void linear_forward(real *y, const real *x, const void *w, const crnn_quantised *quantised, const real *bias,
                           void *scratch, crnn_dim K, crnn_dim N, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    const int large = count_rows(rows, 0, rows->T, 0) * N > 1 << 18; /* y may exceed the second-level cache */
    const product p = {.y = y, .ldy = N, .init = {bias, 0, NULL}, .x = {.x = x, .stride = K}, .w = w, .K = K, .N = N,
                       .gates = 1, .quantised = quantised, .scratch = scratch,
                       .prefetch = large ? linear_prefetch : NULL};
    run_product(&p, rows, 0, rows->T, 0);
    float_mode_restore(mode);
}
