/* SPDX-License-Identifier: MIT
 * bf16.body.h: weights and x rounded to the upper 16 bits of a float: to nearest, halves to even, denormals to zero; in
 * gradients of weights x and dy, whose rows are the pairs.
 * The chain of a product takes pairs of rows k, the odd one first:
 *     acc = init[n];    for each pair i:  acc = fma(x[2i+1], w[2i+1,n], acc), then acc = fma(x[2i], w[2i,n], acc)
 * which is what the instruction VDPBF16PS computes; elsewhere a pair is taken apart by a shift and a mask.
 *
 * An instruction set defines
 *     vec_round_bf16(x)                 the lanes of x rounded, their lower halves zero
 *     ivec_store_upper(p, a)            the upper halves of the lanes of a
 *     ivec_pairs_bf16(even, odd)        pairs of rounded lanes; ivec_even_bf16, ivec_odd_bf16: pairs taken apart
 * or, with that instruction, what stands below for those without. */

#if !defined(USE_VDPBF16PS)
typedef float bf16_element; /* of x, converted */
typedef struct {
    vec even, odd;
} bf16_x, bf16_w; /* a pair of x; pairs of w, one for each column */
INLINE bf16_element bf16_store(uint32_t rounded) { return float_of_bits(rounded); }
INLINE bf16_x bf16_x_load(const void *p)
{
    const bf16_element *x = p;
    return (bf16_x){vec_set1(x[0]), vec_set1(x[1])};
}
INLINE bf16_w bf16_w_load(const void *p)
{
    const ivec pairs = ivec_load(p);
    return (bf16_w){ivec_even_bf16(pairs), ivec_odd_bf16(pairs)};
}
INLINE vec bf16_dot(vec acc, bf16_x x, bf16_w w) { return vec_fma(x.even, w.even, vec_fma(x.odd, w.odd, acc)); }
INLINE void vec_store_bf16(void *p, vec x) { ivec_store_upper(p, vec_round_bf16(x)); }
INLINE ivec vec_pairs_bf16(vec even, vec odd) { return ivec_pairs_bf16(vec_round_bf16(even), vec_round_bf16(odd)); }
#endif

/* x as elements. */
INLINE void bf16_put(bf16_element *to, vec x)
{
#if defined(USE_VDPBF16PS)
    vec_store_bf16(to, x);
#else
    ivec_store(to, vec_round_bf16(x));
#endif
}

static void bf16_convert(void *row, const float *x, crnn_dim K)
{
    bf16_element *const to = row;
    crnn_dim k = 0;
    for (; k + VEC <= K; k += VEC)
        bf16_put(to + k, vec_load(x + k));
    for (; k < K; ++k)
        to[k] = bf16_store(bf16_rounded(x[k]));
    if (K % 2)
        to[K] = 0;
}

/* ---- packing of weights ------------------------------------------------------------------------------------------ */

/* A line of pairs from 16 columns of two rows. */
INLINE void bf16_pack_pairs(void *packed, line even, line odd)
{
    UNROLL
    for (int i = 0; i < VECS; ++i)
        ivec_store((char *)packed + i * (CRNN_LINE_BYTES / VECS), vec_pairs_bf16(even.v[i], odd.v[i]));
}

/* A panel of w, whose columns are the rows of an array: `columns` of them from `from` on. Pairs lie side by side there;
 * they are transposed as floats, whose bits are only moved. */
static void bf16_pack_panel_transposed(char *packed, const float *from, crnn_dim row, crnn_dim K, int columns,
                                       crnn_dim lines)
{
    enum { BLOCK = 64, PAIRS = BLOCK / BF16_UNIT }; /* rows of w packed together */
    for (crnn_dim line0 = 0; line0 < lines; line0 += PAIRS, packed += PAIRS * CRNN_LINE_BYTES) {
        float pairs[QUANTISED_COLUMNS][PAIRS] = {{0}}, transposed[PAIRS][QUANTISED_COLUMNS];
        const crnn_dim k0 = line0 * BF16_UNIT, remaining = K - k0, count = remaining < BLOCK ? remaining : BLOCK;
        for (int n = 0; n < columns; ++n) {
            char *to = (char *)pairs[n];
            const float *w = from + n * row + k0;
            for (crnn_dim k = 0; k < count; k += VEC, to += VEC * sizeof(uint16_t))
                vec_store_bf16(to, count - k < VEC ? vec_load_n(w + k, count - k) : vec_load(w + k));
        }
        const int whole = lines - line0 >= PAIRS;
        float *const to = whole ? (float *)packed : transposed[0];
        for (int i = 0; i < PAIRS; i += TRANSPOSED)
            for (int n = 0; n < QUANTISED_COLUMNS; n += TRANSPOSED)
                transpose_block(to + i * QUANTISED_COLUMNS + n, QUANTISED_COLUMNS, pairs[n] + i, PAIRS);
        if (!whole)
            memcpy(packed, transposed, (size_t)(lines - line0) * CRNN_LINE_BYTES);
    }
}

/* Panels written together: see pack_gates. Plain C spells out every lane; there four panels would be 30 KB of code. */
enum { BF16_ACROSS = VECS > 4 ? 1 : 4 };

/* Rows k and k + 1 of the columns of a panel, which may not all exist. */
NOINLINE static void bf16_pack_edge(char *packed, const unpacked_weights *w, crnn_dim k, crnn_dim n, int columns)
{
    float lanes[BF16_UNIT][QUANTISED_COLUMNS];
    weight_lanes(lanes[0], w, k, n, columns);
    weight_lanes(lanes[1], w, k + 1, n, columns);
    bf16_pack_pairs(packed, line_load(lanes[0]), line_load(lanes[1]));
}

/* np panels of a gate, `apart` bytes from each other, from column n of w on. */
INLINE void bf16_pack_across(const int np, char *packed, crnn_dim apart, const unpacked_weights *w, crnn_dim n,
                             int columns, crnn_dim lines)
{
    const float *from = w->values + n;
    const crnn_dim whole = columns == QUANTISED_COLUMNS ? w->K / BF16_UNIT : 0;
    for (crnn_dim line = 0; line < whole; ++line, packed += CRNN_LINE_BYTES, from += BF16_UNIT * w->row)
        UNROLL
        for (int j = 0; j < np; ++j)
            bf16_pack_pairs(packed + j * apart, line_load(from + j * QUANTISED_COLUMNS),
                            line_load(from + w->row + j * QUANTISED_COLUMNS));
    for (crnn_dim line = whole; line < lines; ++line, packed += CRNN_LINE_BYTES)
        for (int j = 0; j < np; ++j)
            bf16_pack_edge(packed + j * apart, w, line * BF16_UNIT, n + j * QUANTISED_COLUMNS, columns);
}

static void bf16_pack(void *packed, const unpacked_weights *w)
{
    const crnn_dim panels = panels_of(w), bytes = quantised_panel_bytes(&BF16_LAYOUT, w->K);
    const crnn_dim lines = bytes / CRNN_LINE_BYTES;
    for (crnn_dim gate = 0; gate < w->gates; ++gate)
        for (crnn_dim panel = gate, next; panel < panels; panel = next) {
            crnn_dim n;
            int columns;
            char *const to = (char *)packed + panel * bytes;
            panel_columns(w, panel, &n, &columns);
            next = panel + w->gates;
            if (w->column != 1) /* then rows are contiguous */
                bf16_pack_panel_transposed(to, w->values + n * w->column, w->column, w->K, columns, lines);
            else if ((gate + 1) * w->N - n >= BF16_ACROSS * QUANTISED_COLUMNS) {
                bf16_pack_across(BF16_ACROSS, to, w->gates * bytes, w, n, columns, lines);
                next = panel + BF16_ACROSS * w->gates;
            } else
                bf16_pack_across(1, to, 0, w, n, columns, lines);
        }
}

static int bf16_holds(const void *packed, const unpacked_weights *w)
{
    const crnn_dim panels = panels_of(w), panel_bytes = quantised_panel_bytes(&BF16_LAYOUT, w->K);
    float lanes[QUANTISED_COLUMNS];
    for (crnn_dim panel = 0; panel < panels; ++panel) {
        crnn_dim n;
        int columns;
        panel_columns(w, panel, &n, &columns);
        const uint16_t *const halves = (const uint16_t *)((const char *)packed + panel * panel_bytes);
        for (crnn_dim k = 0; k < w->K; ++k) {
            weight_lanes(lanes, w, k, n, columns);
            for (int j = 0; j < columns; ++j)
                if (halves[(k / BF16_UNIT * QUANTISED_COLUMNS + j) * BF16_UNIT + k % BF16_UNIT] !=
                    bf16_rounded(lanes[j]) >> 16)
                    return 0;
        }
    }
    return 1;
}

/* ---- packing of x and dy for the gradient of weights --------------------------------------------------------------- */

/* x^T is multiplied by dy as any rows are by weights: a column of x is a row of BF16_GRAD_ROWS elements, and panels of dy
 * have a line for every two of its rows. An odd last row is followed by zeros. */
enum {
    BF16_GRAD_ROWS = CRNN_GRAD_ROWS * sizeof(float) / sizeof(bf16_element),
    BF16_GRAD_PANEL_BYTES = (BF16_GRAD_ROWS / BF16_UNIT + 1) * CRNN_LINE_BYTES /* see quantised_panel_bytes */
};

INLINE line bf16_row(const float *const *rows, int count, int row, crnn_dim n, crnn_dim remaining)
{
    return row < count ? line_get(rows[row] + n, remaining) : line_set1(0);
}

#if defined(USE_VDPBF16PS)
enum { BF16_ROWS_OF_WORD = 2 }; /* rows of x in 32 bits of a packed column */
#else
enum { BF16_ROWS_OF_WORD = 1 };
#endif

static void bf16_pack_columns(void *packed, const float *const *x, int count, crnn_dim K)
{
    enum { WORDS = BF16_GRAD_ROWS / BF16_ROWS_OF_WORD };
    for (crnn_dim k = 0; k < K; k += QUANTISED_COLUMNS) {
        const crnn_dim remaining = K - k;
        for (int word = 0; word * BF16_ROWS_OF_WORD < count; word += TRANSPOSED) {
            float words[TRANSPOSED][QUANTISED_COLUMNS], columns[QUANTISED_COLUMNS][TRANSPOSED];
            for (int i = 0; i < TRANSPOSED; ++i) {
                const int row = (word + i) * BF16_ROWS_OF_WORD;
                const line first = bf16_row(x, count, row, k, remaining);
                if (BF16_ROWS_OF_WORD == 2)
                    bf16_pack_pairs(words[i], first, bf16_row(x, count, row + 1, k, remaining));
                else
                    UNROLL
                    for (int v = 0; v < VECS; ++v)
                        ivec_store(words[i] + v * VEC, vec_round_bf16(first.v[v]));
            }
            float *const to = (float *)packed + k * WORDS + word;
            const int whole = remaining >= QUANTISED_COLUMNS;
            for (int n = 0; n < QUANTISED_COLUMNS; n += TRANSPOSED)
                transpose_block(whole ? to + n * WORDS : columns[n], whole ? WORDS : TRANSPOSED, words[0] + n,
                                QUANTISED_COLUMNS);
            for (crnn_dim n = 0; !whole && n < remaining; ++n)
                memcpy(to + n * WORDS, columns[n], sizeof columns[n]);
        }
    }
}

/* np panels of dy from column n on, of which `remaining` columns exist; and db, unless NULL, += its rows, before
 * rounding. */
INLINE void bf16_pack_panels(const int np, char *packed, float *db, const float *const *dy, int count, crnn_dim n,
                             crnn_dim remaining)
{
    enum { ROWS_AHEAD = 8 }; /* see pack_rows */
    line sum[BF16_ACROSS];
    UNROLL
    for (int j = 0; j < np; ++j)
        sum[j] = db ? line_get(db + n + j * LINE, remaining - j * LINE) : line_set1(0);
    for (int k = 0; k < count; k += BF16_UNIT, packed += CRNN_LINE_BYTES) {
        const int last = k + 1 == count, ahead = k + ROWS_AHEAD + 1 < count ? k + ROWS_AHEAD : k;
        UNROLL
        for (int j = 0; j < np; ++j) {
            const line even = line_get(dy[k] + n + j * LINE, remaining - j * LINE);
            const line odd = last ? line_set1(0) : line_get(dy[k + 1] + n + j * LINE, remaining - j * LINE);
            PREFETCH(dy[ahead] + n + j * LINE);
            PREFETCH(dy[last ? k : ahead + 1] + n + j * LINE);
            bf16_pack_pairs(packed + j * BF16_GRAD_PANEL_BYTES, even, odd);
            sum[j] = line_add(sum[j], even);
            if (!last)
                sum[j] = line_add(sum[j], odd);
        }
    }
    if (db)
        UNROLL
        for (int j = 0; j < np; ++j)
            line_put(db + n + j * LINE, sum[j], remaining - j * LINE);
}

static void bf16_pack_rows(void *packed, float *db, const float *const *dy, int count, crnn_dim n, crnn_dim remaining)
{
    char *to = packed;
    for (crnn_dim j = 0; j * LINE < remaining;) {
        const crnn_dim columns = remaining - j * LINE;
        const int np = columns >= BF16_ACROSS * LINE ? BF16_ACROSS : 1;
        if (columns >= BF16_ACROSS * LINE)
            bf16_pack_panels(BF16_ACROSS, to, db, dy, count, n + j * LINE, BF16_ACROSS * LINE);
        else
            bf16_pack_panels(1, to, db, dy, count, n + j * LINE, columns);
        j += np;
        to += np * BF16_GRAD_PANEL_BYTES;
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

typedef struct {
    bf16_w v[VECS];
} bf16_line;
#define LIFT_bf16_load(i) r.v[i] = bf16_w_load(p + (i) * (CRNN_LINE_BYTES / VECS));
#define LIFT_bf16_dot(i) r.v[i] = bf16_dot(acc.v[i], x, w.v[i]);
INLINE bf16_line bf16_line_load(const char *p) { bf16_line r; EACH(LIFT_bf16_load) return r; }
INLINE line bf16_line_dot(line acc, bf16_x x, bf16_line w) { line r; EACH(LIFT_bf16_dot) return r; }

INLINE void bf16_tile(const int m, const int nl, const tile_rows *rows, const quantised_weights *weights, crnn_dim panel,
                      const tile_panels *panels, const prefetch_list *prefetch)
{
    const crnn_dim stride = weights->row_bytes, panel_bytes = weights->panel_bytes;
    const char *w = weights->panels + panel * panel_bytes, *x[TILE_ROWS];
    line acc[TILE_ROWS][TILE_PANELS];
    tile_start(acc, m, nl, rows->init, panels);
    UNROLL
    for (int i = 0; i < m; ++i)
        x[i] = (const char *)rows->x[0] + i * stride;
    for (crnn_dim k = 0; k < weights->lines; ++k, w += CRNN_LINE_BYTES) {
        bf16_line w_k[TILE_PANELS];
        if (k < prefetch->count)
            PREFETCH(prefetch->line[k]);
        if (m >= WEIGHTS_L2_ROWS)
            PREFETCH_L2(w + prefetch->next);
        UNROLL
        for (int j = 0; j < nl; ++j)
            w_k[j] = bf16_line_load(w + j * panel_bytes);
        UNROLL
        for (int i = 0; i < m; ++i) {
            const bf16_x x_ik = bf16_x_load(x[i / 3 * 3] + i % 3 * stride);
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = bf16_line_dot(acc[i][j], x_ik, w_k[j]);
        }
        UNROLL
        for (int i = 0; i < m; i += 3) { /* one pointer for three rows: see tile_steps */
            x[i] += BF16_UNIT * sizeof(bf16_element);
            OPAQUE(x[i]);
        }
    }
    tile_finish(acc, m, nl, rows->y, panels);
}

static void bf16_run_tile(int m, int nl, const tile_rows *rows, const quantised_weights *w, crnn_dim panel,
                          const tile_panels *panels, const prefetch_list *prefetch)
{
    switch (m * 16 + nl) {
#define CASE(m, nl) case (m) * 16 + (nl): bf16_tile(m, nl, rows, w, panel, panels, prefetch); break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}

#define BF16_FUNCTIONS                                                                                                 \
    {                                                                                                                  \
        .layout = &BF16_LAYOUT, .x_element = sizeof(bf16_element), .pack = bf16_pack, .holds = bf16_holds,             \
        .convert = bf16_convert, .run_tile = bf16_run_tile, .pack_columns = bf16_pack_columns,                         \
        .pack_rows = bf16_pack_rows, .grad_rows = BF16_GRAD_ROWS,                                                      \
        .grad_panel_bytes = BF16_GRAD_PANEL_BYTES                                                                      \
    }
