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

/* acc[i][:] += sum over k0 .. k1 of x[k*m + i] * dy[k][:]. */
INLINE void tile_steps_weight(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, const real *x,
                              const real *dy, crnn_dim k0, crnn_dim k1, const void *const *prefetch)
{
    x += k0 * m, dy += k0 * LINE;
    for (crnn_dim k = k0; k < k1; ++k, dy += LINE, x += m) {
        line dy_k[TILE_PANELS];
        if (prefetch)
            PREFETCH(*prefetch++);
        UNROLL
        for (int j = 0; j < nl; ++j)
            dy_k[j] = line_load(dy + j * CRNN_GRAD_ROWS * LINE);
        UNROLL
        for (int i = 0; i < m; ++i) {
            line x_ki = line_set1(x[i]);
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_fma(x_ki, dy_k[j], acc[i][j]);
        }
    }
}

/* dw[i][:] += sum over k of x[k*m + i] * dy[k][:]: m rows of dw, nl packed panels of dy, CRNN_GRAD_ROWS lines
 * tall. */
INLINE void tile_backward_weight(const int m, const int nl, real *dw, crnn_dim lddw, const real *x, const real *dy,
                                 crnn_dim K, const tile_panels *panels, const prefetch_list *prefetch)
{
    line acc[TILE_ROWS][TILE_PANELS];
    real *dw_i[TILE_ROWS];
    UNROLL
    for (int i = 0; i < m; ++i)
        dw_i[i] = dw + i * lddw;
    tile_start(acc, m, nl, (const real *const *)dw_i, panels);
    const crnn_dim prefetches = prefetch->count < K ? prefetch->count : K;
    if (prefetches)
        tile_steps_weight(acc, m, nl, x, dy, 0, prefetches, prefetch->line);
    tile_steps_weight(acc, m, nl, x, dy, prefetches, K, NULL);
    tile_finish(acc, m, nl, dw_i, panels);
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

static void run_tile_backward_weight(int m, int nl, real *dw, crnn_dim lddw, const real *x, const real *dy, crnn_dim K,
                                     const tile_panels *panels, const prefetch_list *prefetch)
{
    switch (m * 16 + nl) {
#define CASE(m, nl)                                                                                                    \
    case (m) * 16 + (nl):                                                                                              \
        if (nl <= PANELS_FOR(TILE_ROWS)) /* the only ones that occur */                                                \
            tile_backward_weight(m, nl, dw, lddw, x, dy, K, panels, prefetch);                                         \
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
    quantised_weights w = {.panels = p->w, .lines = (p->K + format->unit - 1) / format->unit};
    w.panel_bytes = quantised_panel_bytes(p->K, format->unit);
    w.row_bytes = quantised_row_bytes(p->K, format->x_element);
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
                      int group_panels, int max_panels, crnn_dim k0, crnn_dim k1)
{
    const crnn_dim n0 = group * LINE, remaining = p->N - n0;
    const crnn_dim n = remaining < group_panels * LINE ? remaining : group_panels * LINE;
    const int panels = group_panels * p->gates, partial = n < group_panels * LINE;
    prefetch_list prefetch;
    prefetch.count = 0;
    const int complete = k1 == p->K;
    if (p->prefetch && complete && rows->m > 1) /* one row has few lines, and a stream's are in cache */
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

/* The rows of steps t0 .. t1 of the slice; `extra` as in row_walk. As many rows and terms at a time as keep x and the
 * rows' pointers in the near caches while all of w passes by. A chain that is interrupted is kept in y, exactly. */
static void run_product(const product *p, const crnn_rows *r, crnn_dim t0, crnn_dim t1, crnn_dim extra)
{
    assert(p->K > 0 && p->N > 0 && p->gates > 0 && 0 <= r->b0 && r->b1 <= r->B);
    enum { BLOCKS = 12, TERMS = 2048 };
    const crnn_dim groups = CRNN_PANELS(real, p->N), terms = p->quantised ? p->K : TERMS;
    const int far_panels = PANELS_FAR > p->gates ? PANELS_FAR / p->gates * p->gates : PANELS_FAR; /* whole gates */
    const int height = p->quantised || p->x.stride * (crnn_dim)sizeof(real) % ALIASED_BYTES ? TILE_ROWS : ROWS_ALIASED;
    assert(BLOCKS * TILE_ROWS <= CRNN_QUANTISED_ROWS);
    row_walk walk = walk_from(r, t0, extra);
    quantised_weights quantised;
    if (p->quantised)
        quantised = quantised_weights_of(p);
    const crnn_dim panel_bytes = p->quantised ? quantised.panel_bytes : p->K * CRNN_LINE_BYTES;
    const int far = panel_bytes * groups * p->gates > NEAR_BYTES;
    for (crnn_dim remaining = count_rows(r, t0, t1, extra), count; remaining > 0; remaining -= count) {
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
            for (crnn_dim group = 0; group < groups; group += width) {
                const int group_panels = groups - group < width ? (int)(groups - group) : width;
                for (int i = 0; i < blocks; ++i)
                    run_group(p, p->quantised ? &quantised : NULL, &rows[i], group, group_panels, max_panels, k0, k1);
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

/* np panels, CRNN_GRAD_ROWS lines tall, of dy from column n on, of which `remaining` exist; and db += its rows. */
INLINE void pack_rows(const int np, real *packed, real *db, const real *const *dy, int count, crnn_dim n,
                      crnn_dim remaining)
{
    enum { ROWS_AHEAD = 8 }; /* the hardware prefetcher does not follow rows */
    line sum[CRNN_GRAD_PANELS];
    UNROLL
    for (int j = 0; j < np; ++j)
        sum[j] = db ? line_get(db + n + j * LINE, remaining - j * LINE) : line_set1(0);
    for (int k = 0; k < count; ++k) {
        const real *row = dy[k] + n, *next = dy[k + ROWS_AHEAD < count ? k + ROWS_AHEAD : k] + n;
        UNROLL
        for (int j = 0; j < np; ++j) {
            const line value = line_get(row + j * LINE, remaining - j * LINE);
            PREFETCH(next + j * LINE);
            line_store(packed + (j * CRNN_GRAD_ROWS + k) * LINE, value);
            sum[j] = line_add(sum[j], value);
        }
    }
    if (db)
        UNROLL
        for (int j = 0; j < np; ++j)
            line_put(db + n + j * LINE, sum[j], remaining - j * LINE);
}

/* x in the order in which the tiles read it: block of columns, row, column. May write a line beyond its end. */
static void pack_columns(real *packed, const real *const *x, int count, crnn_dim K, crnn_dim blocks)
{
    for (crnn_dim block = 0, k = 0; block < blocks; ++block) {
        const int m = (int)(K / blocks + (block < K % blocks));
        for (int row = 0; row < count; ++row, packed += m)
            for (int i = 0; i < m; i += LINE) /* lanes beyond m are overwritten by the next store */
                line_store(packed + i, line_get(x[row] + k + i, K - k - i));
        k += m;
    }
}

/* dw += x^T @ dy over all rows, t and then b rising, whatever the slice; as many at a time as keep two panels of dy in
 * the first-level cache. They and x are packed in the order in which the tiles read them.
 * db, unless NULL, += sum of dy's rows, which are read anyway. */
static void weight_gradient(real *dw, real *db, const x_source *x, const real *dy, real *scratch,
                            crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1, const crnn_rows *r)
{
    assert(K > 0 && 0 <= n0 && n0 <= n1 && n1 <= N);
    float_mode mode = kernel_floats();
    const crnn_dim blocks = (K + TILE_ROWS - 1) / TILE_ROWS;
    const int max_panels = PANELS_FOR(TILE_ROWS);
    real *x_packed = scratch + CRNN_GRAD_ROWS * CRNN_GRAD_PANELS * LINE; /* [block of columns][row][column] */
    crnn_dim t = 0, first_b = 0, end_b = r->B, b = 0;
    while (t < r->T) {
        const real *x_rows[CRNN_GRAD_ROWS], *dy_rows[CRNN_GRAD_ROWS];
        int count = 0;
        while (t < r->T && count < CRNN_GRAD_ROWS) {
            if (b >= end_b) {
                narrow_to_step(r, ++t, &first_b, &end_b);
                b = first_b;
                continue;
            }
            if (t < steps_of(r, b)) {
                x_rows[count] = x_row(x, r, t, b);
                dy_rows[count++] = dy + row_of(r, t, b) * N;
            }
            ++b;
        }
        pack_columns(x_packed, x_rows, count, K, blocks);
        for (crnn_dim n = n0; n < n1; n += CRNN_GRAD_PANELS * LINE) {
            const crnn_dim remaining = n1 - n < CRNN_GRAD_PANELS * LINE ? n1 - n : CRNN_GRAD_PANELS * LINE;
            const int panels = (int)CRNN_PANELS(real, remaining);
            if (remaining == CRNN_GRAD_PANELS * LINE)
                pack_rows(CRNN_GRAD_PANELS, scratch, db, dy_rows, count, n, remaining);
            else
                for (int j = 0; j < panels; ++j)
                    pack_rows(1, scratch + j * CRNN_GRAD_ROWS * LINE, db, dy_rows, count, n + j * LINE,
                              remaining - j * LINE);
            for (int first = 0, nl; first < panels; first += nl) {
                nl = panels - first < max_panels ? 1 : max_panels;
                const crnn_dim cols = remaining - first * LINE < nl * LINE ? remaining - first * LINE : nl * LINE;
                tile_panels tile = {.cols = cols % LINE, .full = (int)(cols / LINE)};
                for (int j = 0; j < nl; ++j)
                    tile.offset[j] = j * LINE;
                const real *x_block = x_packed;
                for (crnn_dim block = 0, k = 0; block < blocks; ++block) {
                    const int m = (int)(K / blocks + (block < K % blocks));
                    real *dw_kn = dw + k * N + n + first * LINE;
                    prefetch_list prefetch = {.count = 0};
                    for (crnn_dim i = k + m; i < K && i < k + 2 * m; ++i) /* the next tile's */
                        for (int j = 0; j < nl; ++j)
                            prefetch_add(&prefetch, dw_kn + (i - k) * N + j * LINE);
                    run_tile_backward_weight(m, nl, dw_kn, N, x_block, scratch + first * CRNN_GRAD_ROWS * LINE, count,
                                             &tile, &prefetch);
                    k += m;
                    x_block += count * m;
                }
            }
        }
    }
    float_mode_restore(mode);
}

static void linear_backward_weight(real *dw, real *db, const real *x, const real *dy, real *scratch,
                                   crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1, const crnn_rows *rows)
{
    const x_source at = {.x = x, .stride = K};
    weight_gradient(dw, db, &at, dy, scratch, K, N, n0, n1, rows);
}

static void recurrent_backward_weight(real *dw, real *db, const real *h, const real *h0, const real *da, real *scratch,
                                      int reverse, crnn_dim H, crnn_dim N, crnn_dim n0, crnn_dim n1,
                                      const crnn_rows *rows)
{
    const x_source before = {.x = h, .stride = H, .step = BEFORE, .reverse = reverse, .start = h0};
    weight_gradient(dw, db, &before, da, scratch, H, N, n0, n1, rows);
}

static void bias_backward(real *db, const real *dy, crnn_dim N, crnn_dim n0, crnn_dim n1, const crnn_rows *r)
{
    float_mode mode = kernel_floats();
    crnn_dim n = n0;
    for (; n + 4 * LINE <= n1; n += 4 * LINE) { /* four chains at a time hide the latency of an addition */
        line db0 = line_load(db + n), db1 = line_load(db + n + LINE);
        line db2 = line_load(db + n + 2 * LINE), db3 = line_load(db + n + 3 * LINE);
        crnn_dim first = 0, end = r->B;
        for (crnn_dim t = 0; t < r->T; ++t) {
            narrow_to_step(r, t, &first, &end);
            for (crnn_dim b = first; b < end; ++b) {
                if (t >= steps_of(r, b))
                    continue;
                const real *dy_g = dy + row_of(r, t, b) * N + n; /* dy[t, b, n:] */
                db0 = line_add(db0, line_load(dy_g));
                db1 = line_add(db1, line_load(dy_g + LINE));
                db2 = line_add(db2, line_load(dy_g + 2 * LINE));
                db3 = line_add(db3, line_load(dy_g + 3 * LINE));
            }
        }
        line_store(db + n, db0);
        line_store(db + n + LINE, db1);
        line_store(db + n + 2 * LINE, db2);
        line_store(db + n + 3 * LINE, db3);
    }
    for (crnn_dim remaining = n1 - n; remaining > 0; n += LINE, remaining -= LINE) {
        line db_n = line_get(db + n, remaining);
        crnn_dim first = 0, end = r->B;
        for (crnn_dim t = 0; t < r->T; ++t) {
            narrow_to_step(r, t, &first, &end);
            for (crnn_dim b = first; b < end; ++b)
                if (t < steps_of(r, b))
                    db_n = line_add(db_n, line_get(dy + row_of(r, t, b) * N + n, remaining));
        }
        line_put(db + n, db_n, remaining);
    }
    float_mode_restore(mode);
}

static void rows_add_bias(real *y, const real *w, const real *bias, crnn_dim V, crnn_dim N)
{
    float_mode mode = kernel_floats();
    for (crnn_dim v = 0; v < V; ++v, y += N, w += N)
        for (crnn_dim n = 0, remaining = N; remaining > 0; n += LINE, remaining -= LINE)
            line_put(y + n, line_add(line_get(bias + n, remaining), line_get(w + n, remaining)), remaining);
    float_mode_restore(mode);
}

static void rows_backward(real *dw, const int32_t *ids, const real *dy, crnn_dim N, crnn_dim n0, crnn_dim n1,
                          const crnn_rows *r)
{
    float_mode mode = kernel_floats();
    crnn_dim first = 0, end = r->B;
    for (crnn_dim t = 0; t < r->T; ++t) {
        narrow_to_step(r, t, &first, &end);
        for (crnn_dim b = first; b < end; ++b) {
            if (t >= steps_of(r, b))
                continue;
            const crnn_dim g = row_of(r, t, b);
            assert(ids[g] >= 0);
            real *dw_id = dw + (crnn_dim)ids[g] * N; /* dw[ids[t,b], :] */
            const real *dy_g = dy + g * N;
            for (crnn_dim n = n0, remaining = n1 - n0; remaining > 0; n += LINE, remaining -= LINE)
                line_put(dw_id + n, line_add(line_get(dw_id + n, remaining), line_get(dy_g + n, remaining)), remaining);
        }
    }
    float_mode_restore(mode);
}
