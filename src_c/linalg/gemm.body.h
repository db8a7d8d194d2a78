/* SPDX-License-Identifier: MIT
 * gemm.body.h: packed matrix products. A tile of m rows and nl panels is held in registers while k runs from 0 to K:
 * each element's chain of fused multiply-adds is never split, so the tile's shape does not show in the bits.
 * Tiles widen over outputs only. Refuses alpha, beta and strides: the callers need none. */

/* Distance at which a product prefetches its weights, and the fewest rows for which it does. A single row reads them at
 * the rate of the second-level cache anyway; prefetching slows it down by a quarter. */
enum { WEIGHTS_AHEAD = 32 * LINE, WEIGHTS_PREFETCH_ROWS = 2 };

/* acc[i][:] += x[i][k0..k1) @ w, whose panels are K lines tall. uniform: the rows of x have a uniform stride, and one
 * pointer serves three of them. next: distance of the panel that is fetched, in bytes. */
INLINE void tile_steps(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, const int uniform,
                       const tile_rows *rows, const real *w, crnn_dim K, crnn_dim k0, crnn_dim k1,
                       const void *const *prefetch, crnn_dim next)
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
        if (m >= WEIGHTS_L2_ROWS)
            PREFETCH_L2((const char *)w + next);
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
        tile_steps(acc, m, nl, uniform, rows, w, K, k0, k0 + prefetches, prefetch->line, prefetch->next);
    tile_steps(acc, m, nl, uniform, rows, w, K, k0 + prefetches, k1, NULL, prefetch->next);
    tile_finish(acc, m, nl, rows->y, panels);
}

#if defined(HAS_HALF_LINES)
/* tile_forward of several rows for one panel of which half a line is used, in half the time. A single row is no faster: it
 * waits for the weights. */
INLINE void half_steps(half acc[TILE_ROWS], const int m, const int uniform, const tile_rows *rows, const real *w,
                       crnn_dim k0, crnn_dim k1, const prefetch_list *prefetch)
{
    const real *x[TILE_ROWS];
    const crnn_dim stride = rows->x_stride;
    UNROLL
    for (int i = 0; i < m; ++i)
        x[i] = uniform ? rows->x[0] + i * stride + k0 : rows->x[i];
    w += k0 * LINE;
    for (crnn_dim k = k0; k < k1; ++k, w += LINE) {
        const half w_k = half_load(w);
        if (k - k0 < prefetch->count)
            PREFETCH(prefetch->line[k - k0]);
        UNROLL
        for (int i = 0; i < m; ++i)
            acc[i] = half_fma(half_set1(uniform ? x[i / 3 * 3][i % 3 * stride] : x[i][k]), w_k, acc[i]);
        if (uniform) {
            UNROLL
            for (int i = 0; i < m; i += 3) {
                ++x[i];
                OPAQUE(x[i]); /* as in tile_steps */
            }
        }
    }
}

INLINE void tile_half(const int m, const tile_rows *rows, const real *w, crnn_dim k0, crnn_dim k1,
                      const tile_panels *panels, const prefetch_list *prefetch)
{
    const int uniform = m >= TALL_TILE_ROWS;
    const real *const *init = k0 ? (const real *const *)rows->y : rows->init;
    real buffer[PARTIAL_BUFFER];
    half acc[TILE_ROWS];
    if (init[0])
        load_partial(buffer, m, 1, init, panels);
    UNROLL
    for (int i = 0; i < m; ++i)
        acc[i] = init[0] ? half_load(buffer + i * LINE) : half_set1(0);
    half_steps(acc, m, uniform, rows, w, k0, k1, prefetch);
    UNROLL
    for (int i = 0; i < m; ++i)
        half_store(buffer + i * LINE, acc[i]);
    store_partial(rows->y, m, 1, buffer, panels);
}

/* Whether tile_half computes a tile of several rows. */
INLINE int is_half(int m, int nl, const tile_rows *rows, const tile_panels *panels)
{
    return !panels->full && nl == 1 && panels->cols * panels->gates[0] <= HALF_LINE &&
           (m < TALL_TILE_ROWS || rows->x_stride);
}

static void run_tile_half(int m, const tile_rows *rows, const real *w, crnn_dim k0, crnn_dim k1,
                          const tile_panels *panels, const prefetch_list *prefetch)
{
    switch (m) {
#define CASE(m, nl)                                                                                                    \
    case 16 * (nl) - 16 + (m): /* nl is 1 */                                                                           \
        if ((m) > 1 && (nl) == 1)                                                                                      \
            tile_half(m, rows, w, k0, k1, panels, prefetch);                                                           \
        break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}
#endif

/* A tile of one row, with all of its terms. */
static void run_tile_row(int nl, const tile_rows *rows, const real *w, crnn_dim K, const tile_panels *panels)
{
    prefetch_list none;
    none.count = 0;
    none.next = 0;
    switch (nl) {
#define CASE(m, nl)                                                                                                    \
    case 16 * (m) - 16 + (nl): /* m is 1 */                                                                            \
        if ((m) == 1)                                                                                                  \
            tile_forward(1, nl, 0, rows, w, K, 0, K, panels, &none);                                                   \
        break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}

static void run_tile_forward(int m, int nl, const tile_rows *rows, const real *w, crnn_dim K, crnn_dim k0, crnn_dim k1,
                             const tile_panels *panels, const prefetch_list *prefetch)
{
#if defined(HAS_HALF_LINES)
    if (is_half(m, nl, rows, panels)) {
        run_tile_half(m, rows, w, k0, k1, panels, prefetch);
        return;
    }
#endif
    switch (m * 16 + nl + (m >= TALL_TILE_ROWS && rows->x_stride ? 256 : 0)) {
#define CASE(m, nl)                                                                                                    \
    case (m) * 16 + (nl):                                                                                              \
        if ((m) > 1)                                                                                                   \
            tile_forward(m, nl, 0, rows, w, K, k0, k1, panels, prefetch);                                              \
        break;                                                                                                         \
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
    int only;        /* 1: the only product of a step, which finds weights in the caches that the step before has left */
    epilogue finish; /* NULL: nothing */
    epilogue finish_whole; /* instead of it: for whole rows, once the product of all rows is complete. NULL: nothing */
    prefetcher prefetch; /* NULL: nothing */
    const void *context;
} product;

/* rows OVERWRITTEN at i with row (t, b). */
INLINE void set_row(tile_rows *rows, int i, const product *p, const crnn_rows *r, crnn_dim t, crnn_dim b)
{
    const crnn_dim row = p->per_row ? b : row_of(r, t, b);
    rows->t[i] = t;
    rows->b[i] = b;
    rows->y[i] = p->y + row * p->ldy;
    rows->x[i] = x_row(&p->x, r, t, b);
    rows->init[i] = p->init.base ? p->init.base + p->init.stride * (p->init.ids ? p->init.ids[row] : row) : NULL;
}

/* The next m rows of a walk. */
static void tile_rows_next(tile_rows *rows, int m, const product *p, row_walk *w)
{
    rows->m = m;
    rows->x_stride = 0;
    for (int i = 0; i < m; ++i, walk_next(w))
        set_row(rows, i, p, w->rows, w->t, row_at(w->rows, w->i));
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

/* Columns n0 .. n0 + n of every gate: `panels` panels from `first` on, of which those beyond `full` hold last columns; in
 * `tiles` tiles of `least` panels, of which the first `wider` have one more. */
typedef struct {
    crnn_dim n0, n, first;
    int full, panels, tiles, least, wider;
} column_group;

INLINE void divide_into_tiles(column_group *group, int tiles)
{
    group->tiles = tiles;
    group->least = tiles > 1 ? group->panels / tiles : group->panels;
    group->wider = tiles > 1 ? group->panels % tiles : 0;
}

/* A group of columns for m rows, terms k0 .. k1. Each of its tiles fetches one of the panels next .. next_end. */
INLINE void run_group(const product *p, const quantised_weights *quantised, const panel_layout *layout,
                      const tile_rows *rows, const int m, const column_group *group, crnn_dim k0, crnn_dim k1,
                      int prefetches, crnn_dim next, crnn_dim next_end)
{
    const int complete = k1 == p->K;
    const crnn_dim panel_bytes = p->quantised ? quantised->panel_bytes : p->K * CRNN_LINE_BYTES;
    const real *w = (const real *)p->w + group->first * p->K * LINE;
    crnn_dim column = group->n0, shared = layout->full * LINE; /* of the next panel that is full, or is not */
    int gate = 0, owner = 0, done = 0;                         /* its gates */
    prefetch_list prefetch;
    prefetch.count = 0;
    if (prefetches && complete)
        p->prefetch(p->context, rows, group->n0, group->n, &prefetch);
    tile_panels tile;
    tile.cols = layout->cols;
    tile.apart = p->N;
    for (int i = 0; i < group->tiles; ++i) {
        const int nl = group->least + (i < group->wider);
        int j = 0;
        for (; j < nl && done + j < group->full; ++j) { /* line by line, its gates side by side */
            tile.offset[j] = column + gate * p->N;
            OPAQUE(gate); /* else the loop is vectorised, for a few panels */
            if (++gate == p->gates)
                gate = 0, column += LINE;
        }
        tile.full = j;
        for (; j < nl; ++j, owner += layout->each) {
            OPAQUE(owner);
            tile.offset[j] = shared + owner * p->N;
            tile.gates[j] = p->gates - owner < layout->each ? p->gates - owner : layout->each;
        }
        assert(0 < m && m <= TILE_ROWS && 0 < nl && nl <= PANELS_FOR(m));
        prefetch.next = next < next_end ? (next - group->first - done) * panel_bytes : 0;
        ++next;
        if (p->quantised)
            p->quantised->run_tile(m, nl, rows, quantised, group->first + done, &tile, &prefetch);
        else if (m == 1)
            run_tile_row(nl, rows, w, p->K, &tile);
        else
            run_tile_forward(m, nl, rows, w, p->K, k0, k1, &tile, &prefetch);
        prefetch.count = 0;
        done += nl;
        w += nl * p->K * LINE;
    }
    if (p->finish && complete)
        p->finish(p->context, rows, m, group->n0, group->n);
}

/* How m rows of a product take the columns: in groups of whole lines as equal as can be, up to `width` lines of each gate.
 * Last columns that gates share a panel for, or that half a line is enough for, are a group; those of a single row,
 * whose few panels would wait for each other, belong to the group before. */
typedef struct {
    crnn_dim lines; /* of each gate; the last one is not whole where last columns are neither */
    int groups, joined, apart;
} column_groups;

INLINE column_groups column_groups_of(const panel_layout *layout, int gates, int width, int m)
{
    const int special = layout->each > 1 || (m > 1 && gates == 1 && layout->cols && layout->cols <= HALF_LINE);
    column_groups g;
    g.lines = layout->full + (layout->cols && !special);
    g.groups = g.lines <= width ? g.lines > 0 : (int)((g.lines + width - 1) / width);
    g.joined = special && m == 1 && g.groups;
    g.apart = special && !g.joined;
    return g;
}

/* group OVERWRITTEN with group i. */
INLINE void set_column_group(column_group *group, const product *p, const panel_layout *layout, const column_groups *g,
                             int i)
{
    crnn_dim first = 0, end = g->lines;
    if (i == g->groups) /* the last columns, apart */
        first = end = layout->full;
    else if (g->groups > 1) {
        first = g->lines * i / g->groups;
        end = g->lines * (i + 1) / g->groups;
    }
    const int last = i + 1 == g->groups + g->apart; /* or the last columns are in no group but this one */
    group->n0 = first * LINE;
    group->n = last ? p->N - group->n0 : (end - first) * LINE;
    group->first = first * p->gates;
    group->full = (int)((end < layout->full ? end : layout->full) - first) * p->gates;
    group->panels = (int)(end - first) * p->gates + (last && (g->joined || g->apart) ? layout->last : 0);
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

/* Row (t, b): run_product with less around it, for steps.
 * Every other step takes the panels of w in reverse: it begins with those that the step before has left in the caches. An
 * LSTM of 64, 256 or 1024 units takes 5 to 9 % less time. */
static void run_row(const product *p, const crnn_rows *r, crnn_dim t, crnn_dim b)
{
    enum { MOST = PANELS_FOR(1) };
    const panel_layout layout = panel_layout_of(p->N, p->gates, LINE, !p->quantised);
    crnn_dim panel_bytes = p->K * CRNN_LINE_BYTES;
    quantised_weights quantised;
    tile_rows rows;
    rows.m = 1;
    rows.x_stride = 0;
    set_row(&rows, 0, p, r, t, b);
    if (p->quantised) {
        quantised = quantised_weights_of(p);
        panel_bytes = quantised.panel_bytes;
        convert_rows(p, &quantised, &rows, 0);
    }
    const crnn_dim bytes = panel_bytes * (layout.full * p->gates + layout.last);
    const int far = bytes > NEAR_BYTES, narrow = p->only && bytes > REUSED_BYTES && bytes <= 2 * REUSED_BYTES;
    const int width = p->gates == 1 ? (narrow ? PANELS_FAR : MOST) : MOST > p->gates ? MOST / p->gates : 1;
    const column_groups columns = column_groups_of(&layout, p->gates, width, 1);
    const int groups = columns.groups + columns.apart;
    for (int done = 0; done < groups; ++done) {
        column_group group;
        set_column_group(&group, p, &layout, &columns, t % 2 ? groups - 1 - done : done);
        const int tiles = (group.panels + MOST - 1) / MOST;
        divide_into_tiles(&group, far && group.panels / PANELS_FAR > tiles ? group.panels / PANELS_FAR : tiles);
        run_group(p, &quantised, &layout, &rows, 1, &group, 0, p->K, 0, 0, 0);
    }
}

/* The rows of steps t0 .. t1 of the slice; `extra` as in row_walk. As many rows and terms at a time as keep x and the
 * rows' pointers in the near caches while all of w passes by. A chain that is interrupted is kept in y, exactly. */
static void run_product(const product *p, const crnn_rows *r, crnn_dim t0, crnn_dim t1, crnn_dim extra)
{
    assert(p->K > 0 && p->N > 0 && p->gates > 0 && 0 <= r->b0 && r->b1 <= r->B);
    enum { BLOCKS = 12, TERMS = 2048 };
    row_walk walk = walk_from(r, t0, extra);
    crnn_dim remaining = count_rows(r, t0, t1, extra);
    if (remaining == 1) {
        run_row(p, r, walk.t, row_at(r, walk.i));
        return;
    }
    const panel_layout layout = panel_layout_of(p->N, p->gates, LINE, !p->quantised);
    const crnn_dim terms = p->quantised ? p->K : TERMS;
    const int height = p->quantised || p->x.stride * (crnn_dim)sizeof(real) % ALIASED_BYTES ? TILE_ROWS : ROWS_ALIASED;
    const int prefetches = prefetches_lines(p, r);
    assert(BLOCKS * TILE_ROWS <= CRNN_QUANTISED_ROWS);
    quantised_weights quantised;
    if (p->quantised)
        quantised = quantised_weights_of(p);
    const crnn_dim panel_bytes = p->quantised ? quantised.panel_bytes : p->K * CRNN_LINE_BYTES;
    const int fetches = panel_bytes * (layout.full * p->gates + layout.last) > WEIGHTS_L2_BYTES;
    for (crnn_dim count; remaining > 0; remaining -= count) {
        /* A last row alone would take tiles of its own kind. */
        count = remaining <= BLOCKS * height ? remaining : BLOCKS * height - (remaining == BLOCKS * height + 1);
        const int blocks = (int)((count + height - 1) / height);
        tile_rows rows[BLOCKS];
        for (int i = 0, row = 0; i < blocks; row += rows[i++].m) {
            tile_rows_next(&rows[i], (int)count / blocks + (i < (int)count % blocks), p, &walk);
            if (p->quantised)
                convert_rows(p, &quantised, &rows[i], row);
        }
        assert(rows[blocks - 1].m > 1);
        const int most = PANELS_FOR(rows[0].m), width = most > p->gates ? most / p->gates : 1;
        const column_groups columns = column_groups_of(&layout, p->gates, width, rows[0].m);
        const int groups = columns.groups + columns.apart;
        for (crnn_dim k0 = 0, k1; k0 < p->K; k0 = k1) {
            k1 = p->K - k0 < 2 * terms ? p->K : k0 + terms;
            column_group group, following;
            set_column_group(&following, p, &layout, &columns, 0);
            for (int i = 0; i < groups; ++i) {
                group = following;
                set_column_group(&following, p, &layout, &columns, i + 1 < groups ? i + 1 : 0); /* 0: of the next step */
                divide_into_tiles(&group, group.panels <= most ? 1 : (group.panels + most - 1) / most);
                crnn_dim next = following.first;
                const crnn_dim next_end = fetches ? next + following.panels : 0;
                for (int block = 0; block < blocks; ++block, next += group.tiles)
                    run_group(p, &quantised, &layout, &rows[block], rows[block].m, &group, k0, k1, prefetches, next,
                              next_end);
            }
        }
    }
}

/* Only the epilogue, finish or finish_whole, for the rows of step t from position i on. */
static void finish_rows(const product *p, const crnn_rows *r, crnn_dim t, crnn_dim i)
{
    const epilogue finish = p->finish ? p->finish : p->finish_whole;
    row_walk walk = walk_from(r, t, 0);
    for (walk.i = i; walk.i < walk.end && walk.t == t;) {
        const int m = walk.end - walk.i < TILE_ROWS ? (int)(walk.end - walk.i) : TILE_ROWS;
        tile_rows rows = {.m = m};
        for (int j = 0; j < m; ++j, ++walk.i) {
            rows.t[j] = t;
            rows.b[j] = row_at(r, walk.i);
        }
        finish(p->context, &rows, m, 0, p->N);
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

static void linear_forward(real *y, crnn_dim ldy, const real *x, crnn_dim ldx, const void *w,
                           const crnn_quantised *quantised, const real *bias, int adds, void *scratch, crnn_dim K,
                           crnn_dim N, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    const int large = count_rows(rows, 0, rows->T, 0) * N > 1 << 18; /* y may exceed the second-level cache */
    const row_source init = {adds ? y : bias, adds ? ldy : 0, NULL};
    const product p = {.y = y, .ldy = ldy, .init = init, .x = {.x = x, .stride = ldx}, .w = w, .K = K, .N = N, .gates = 1,
                       .quantised = quantised, .scratch = scratch, .prefetch = large ? linear_prefetch : NULL};
    run_product(&p, rows, 0, rows->T, 0);
    float_mode_restore(mode);
}
