/* SPDX-License-Identifier: MIT
 * weight_gradient.body.h: gradients of weights and biases: products x^T @ dy and sums over all rows of a batch, in the
 * order of time, whatever the slices. */

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

#if defined(HAS_HALF_LINES)
/* The same for one panel of which half a line is used, in half the time. */
INLINE void half_backward_weight(const int m, real *const *dw, const real *x, const real *dy, crnn_dim K,
                                 const tile_panels *panels, const prefetch_list *prefetch)
{
    real buffer[PARTIAL_BUFFER];
    half acc[TILE_ROWS];
    load_partial(buffer, m, 1, (const real *const *)dw, panels);
    UNROLL
    for (int i = 0; i < m; ++i)
        acc[i] = half_load(buffer + i * LINE);
    for (crnn_dim k = 0; k < K; ++k, dy += LINE, x += m) {
        const half dy_k = half_load(dy);
        if (k < prefetch->count)
            PREFETCH(prefetch->line[k]);
        UNROLL
        for (int i = 0; i < m; ++i)
            acc[i] = half_fma(half_set1(x[i]), dy_k, acc[i]);
    }
    UNROLL
    for (int i = 0; i < m; ++i)
        half_store(buffer + i * LINE, acc[i]);
    store_partial(dw, m, 1, buffer, panels);
}

static void run_half_backward_weight(int m, real *dw, crnn_dim lddw, const real *x, const real *dy, crnn_dim K,
                                     const tile_panels *panels, const prefetch_list *prefetch)
{
    real *rows[TILE_ROWS];
    for (int i = 0; i < m; ++i)
        rows[i] = dw + i * lddw;
    switch (m) {
#define CASE(m, nl)                                                                                                    \
    case 16 * (nl) - 16 + (m): /* nl is 1 */                                                                           \
        if ((nl) == 1)                                                                                                 \
            half_backward_weight(m, rows, x, dy, K, panels, prefetch);                                                 \
        break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}
#endif

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

/* A block of rows, packed: x's columns, and panels of dy. */
typedef struct {
    real *x, *dy;
    int count;                       /* rows */
    const crnn_quantised *quantised; /* how they are packed; NULL: as reals */
} gradient_block;

/* The next rows (t, b) with t and then b rising, at most `most`. */
typedef struct {
    const crnn_rows *rows;
    crnn_dim t, b, first, end;
} gradient_walk;

static int next_rows(gradient_walk *w, int most, const x_source *x, const real *dy, crnn_dim N, const real **x_rows,
                     const real **dy_rows)
{
    int count = 0;
    while (w->t < w->rows->T && count < most) {
        if (w->b >= w->end) {
            narrow_to_step(w->rows, ++w->t, &w->first, &w->end);
            w->b = w->first;
            continue;
        }
        if (w->t < steps_of(w->rows, w->b)) {
            x_rows[count] = x_row(x, w->rows, w->t, w->b);
            dy_rows[count++] = dy + row_of(w->rows, w->t, w->b) * N;
        }
        ++w->b;
    }
    return count;
}

/* Adds to `list` columns n .. n1 of the rows of dy from *row on, at most `rows` of them, and moves *row past them. */
INLINE void prefetch_rows(prefetch_list *list, const gradient_block *block, const real *const *dy, crnn_dim *row,
                          crnn_dim rows, crnn_dim n, crnn_dim n1)
{
    for (const crnn_dim end = *row + rows; *row < end && *row < block->count; ++*row)
        for (crnn_dim j = n; j < n1; j += LINE)
            prefetch_add(list, dy[*row] + j);
}

/* Up to CRNN_GRAD_PANELS panels of dy from column n on, of which `remaining` exist, and db. */
static void pack_panels(const gradient_block *block, real *db, const real *const *dy, crnn_dim n, crnn_dim remaining)
{
    if (block->quantised)
        block->quantised->pack_rows(block->dy, (float *)db, (const float *const *)dy, block->count, n, remaining);
    else if (remaining == CRNN_GRAD_PANELS * LINE)
        pack_rows(CRNN_GRAD_PANELS, block->dy, db, dy, block->count, n, remaining);
    else
        for (int j = 0; j * LINE < remaining; ++j)
            pack_rows(1, block->dy + j * CRNN_GRAD_ROWS * LINE, db, dy, block->count, n + j * LINE,
                      remaining - j * LINE);
}

/* dw[i][:] += the products of columns k .. k+m of x and nl panels of dy from `first` on. */
static void run_gradient_tile(const gradient_block *block, int m, int nl, real *dw, crnn_dim lddw, crnn_dim k,
                              int first, const tile_panels *panels, const prefetch_list *prefetch)
{
    const crnn_quantised *format = block->quantised;
#if defined(HAS_HALF_LINES)
    if (!format && !panels->full && panels->cols <= HALF_LINE) {
        run_half_backward_weight(m, dw, lddw, block->x + k * block->count, block->dy + first * CRNN_GRAD_ROWS * LINE,
                                 block->count, panels, prefetch);
        return;
    }
#endif
    if (!format) {
        run_tile_backward_weight(m, nl, dw, lddw, block->x + k * block->count,
                                 block->dy + first * CRNN_GRAD_ROWS * LINE, block->count, panels, prefetch);
        return;
    }
    const quantised_weights dy = {.panels = (const char *)block->dy,
                                  .lines = quantised_lines(format->layout, block->count),
                                  .panel_bytes = format->grad_panel_bytes,
                                  .row_bytes = format->grad_rows * format->x_element};
    tile_rows rows; /* of which a tile reads x[0], init and y */
    rows.m = m;
    rows.x[0] = (const real *)((const char *)block->x + k * dy.row_bytes);
    for (int i = 0; i < m; ++i) {
        rows.y[i] = dw + i * lddw;
        rows.init[i] = rows.y[i];
    }
    format->run_tile(m, nl, &rows, &dy, first, panels, prefetch);
}

/* dw += x^T @ dy over all rows, whatever the slice; as many at a time as keep two panels of dy in the first-level
 * cache. They and x are packed in the order in which the tiles read them. While the tiles of some panels run, the next
 * panels of dy are prefetched, which saves 2 to 4 % in float32.
 * db, unless NULL, += sum of dy's rows, which are read anyway. */
static void weight_gradient(real *dw, real *db, const x_source *x, const real *dy, const crnn_quantised *quantised,
                            real *scratch, crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1, const crnn_rows *r)
{
    assert(K > 0 && 0 <= n0 && n0 <= n1 && n1 <= N);
    float_mode mode = kernel_floats();
    const crnn_dim blocks = (K + TILE_ROWS - 1) / TILE_ROWS;
    const int max_panels = PANELS_FOR(TILE_ROWS);
    const int most_rows = quantised ? quantised->grad_rows : CRNN_GRAD_ROWS;
    const crnn_dim dy_bytes = quantised ? quantised->grad_panel_bytes : CRNN_GRAD_ROWS * CRNN_LINE_BYTES;
    gradient_block block = {scratch + CRNN_GRAD_PANELS * dy_bytes / (crnn_dim)sizeof(real), scratch, 0, quantised};
    gradient_walk walk = {r, 0, 0, 0, r->B};
    const real *x_rows[MOST_GRAD_ROWS], *dy_rows[MOST_GRAD_ROWS];
    while ((block.count = next_rows(&walk, most_rows, x, dy, N, x_rows, dy_rows)) > 0) {
        if (quantised)
            quantised->pack_columns(block.x, (const float *const *)x_rows, block.count, K);
        else
            pack_columns(block.x, x_rows, block.count, K, blocks);
        for (crnn_dim n = n0; n < n1; n += CRNN_GRAD_PANELS * LINE) {
            const crnn_dim remaining = n1 - n < CRNN_GRAD_PANELS * LINE ? n1 - n : CRNN_GRAD_PANELS * LINE;
            const int panels = (int)CRNN_PANELS(real, remaining);
            const crnn_dim next = n + CRNN_GRAD_PANELS * LINE;
            const crnn_dim next_n1 = n1 - next < CRNN_GRAD_PANELS * LINE ? n1 : next + CRNN_GRAD_PANELS * LINE;
            const crnn_dim tiles = (panels + max_panels - 1) / max_panels * blocks;
            const crnn_dim rows_per_tile = quantised ? 0 : (block.count + tiles - 1) / tiles; /* to prefetch */
            crnn_dim row = 0;
            pack_panels(&block, db, dy_rows, n, remaining);
            for (int first = 0, nl; first < panels; first += nl) {
                nl = panels - first < max_panels ? 1 : max_panels;
                if (nl == panels - first && !quantised && remaining % LINE && remaining % LINE <= HALF_LINE)
                    nl = nl > 1 ? nl - 1 : 1; /* half a line is a tile by itself */
                const crnn_dim cols = remaining - first * LINE < nl * LINE ? remaining - first * LINE : nl * LINE;
                tile_panels tile = {.cols = cols % LINE, .full = (int)(cols / LINE)};
                for (int j = 0; j < nl; ++j) {
                    tile.offset[j] = j * LINE;
                    tile.gates[j] = 1;
                }
                for (crnn_dim i = 0, k = 0; i < blocks; ++i) {
                    const int m = (int)(K / blocks + (i < K % blocks));
                    real *dw_kn = dw + k * N + n + first * LINE;
                    prefetch_list prefetch; /* not cleared: 2 KB */
                    prefetch.count = 0;
                    prefetch.next = 0;
                    for (crnn_dim below = k + m; below < K && below < k + 2 * m; ++below) /* the next tile's */
                        for (int j = 0; j < nl; ++j)
                            prefetch_add(&prefetch, dw_kn + (below - k) * N + j * LINE);
                    prefetch_rows(&prefetch, &block, dy_rows, &row, rows_per_tile, next, next_n1);
                    run_gradient_tile(&block, m, nl, dw_kn, N, k, first, &tile, &prefetch);
                    k += m;
                }
            }
        }
    }
    float_mode_restore(mode);
}

static void linear_backward_weight(real *dw, real *db, const real *x, const real *dy, const crnn_quantised *quantised,
                                   real *scratch, crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1,
                                   const crnn_rows *rows)
{
    const x_source at = {.x = x, .stride = K};
    weight_gradient(dw, db, &at, dy, quantised, scratch, K, N, n0, n1, rows);
}

static void recurrent_backward_weight(real *dw, real *db, const real *h, const real *h0, const real *da,
                                      const crnn_quantised *quantised, real *scratch, int reverse, crnn_dim H,
                                      crnn_dim N, crnn_dim n0, crnn_dim n1, const crnn_rows *rows)
{
    const x_source before = {.x = h, .stride = H, .step = BEFORE, .reverse = reverse, .start = h0};
    weight_gradient(dw, db, &before, da, quantised, scratch, H, N, n0, n1, rows);
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
