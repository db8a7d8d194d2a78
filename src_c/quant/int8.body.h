/* SPDX-License-Identifier: MIT
 * int8.body.h: weights as integers from -127 to 127, one scale for each column; x as integers, one scale for each row.
 *     s[n] = max_k |w[k,n]| / 127, rounded up to 16 significant bits    q[k,n] = round(w[k,n] / s[n])
 *     sx = max_k |x[k]| / 127                                           p[k] = round(x[k] * (127 / max_k |x[k]|))
 *     y[n] = fma(float(sum_k p[k] * q[k,n]), sx * s[n], init[n])
 * round: to nearest, halves to even. The sum is an exact integer, so its order does not matter. With a scale of 16 bits
 * q * s is exact, and packing these products again gives the same q and s.
 * A row or column whose numbers are all below INT8_LEAST is zero. A row of x with a NaN or an infinity has the scale NaN.
 *
 * An instruction set defines
 *     ivec, ivec_load(p)      the bytes of a vec
 *     isum                    a vec of int32, with isum_zero, isum_load, and isum_to_vec, which rounds to nearest
 *     quad, quad_load(p)      4 integers of a row of x, each stored as a byte p[k] + INT8_OFFSET
 *     quad_dot(acc, x, w)     acc + the sum over 4 rows k of x and w, in every column; wraps around. w: ivec_load of a
 *                             line's vec. With INT8_OFFSET, of x as stored: sums then start from what that adds */

#define INT8_LEAST 0x1p-100f /* so that 127 / max is finite, and max / 127 no denormal */
#define INT8_ROUND 0x1.8p23f /* added to a small number, leaves its rounded value in the low bits of the sum */

/* ---- packing ----------------------------------------------------------------------------------------------------- */

/* The scales with which the largest integer is `largest`: of a column max_k |w[k,n]| / largest, rounded up. */
static void column_scales(float scales[QUANTISED_COLUMNS], const unpacked_weights *w, crnn_dim n, int columns,
                          float largest)
{
    uint32_t most[QUANTISED_COLUMNS] = {0}; /* as bits: their order is that of the numbers */
    float lanes[QUANTISED_COLUMNS];
    for (crnn_dim k = 0; k < w->K; ++k) {
        weight_lanes(lanes, w, k, n, columns);
        for (int j = 0; j < QUANTISED_COLUMNS; ++j) {
            const uint32_t bits = float_bits(lanes[j]) & 0x7fffffff;
            most[j] = most[j] > bits ? most[j] : bits;
        }
    }
    for (int j = 0; j < QUANTISED_COLUMNS; ++j) {
        const float max = float_of_bits(most[j]);
        scales[j] = max < INT8_LEAST ? 0 : float_of_bits((float_bits(max / largest) + 0xff) & ~0xffu);
    }
}

NOCLONE static int int8_pack_or_compare(char *packed, const unpacked_weights *w, const int compare)
{
    const crnn_dim panels = panels_of(w), panel_bytes = quantised_panel_bytes(&INT8_LAYOUT, w->K);
    char *const scales_at = packed + panels * panel_bytes, *const sums_at = scales_at + panels * CRNN_LINE_BYTES;
    int same = 1;
    for (crnn_dim panel = 0; panel < panels && same; ++panel) {
        crnn_dim n;
        int columns;
        float scales[QUANTISED_COLUMNS], divisors[QUANTISED_COLUMNS], lanes[QUANTISED_COLUMNS];
        int32_t sums[QUANTISED_COLUMNS] = {0};
        panel_columns(w, panel, &n, &columns);
        column_scales(scales, w, n, columns, 127);
        for (int j = 0; j < QUANTISED_COLUMNS; ++j)
            divisors[j] = scales[j] == 0 ? 1 : scales[j]; /* then all of the column is rounded to zero */
        char *line_at = packed + panel * panel_bytes;
        for (crnn_dim k0 = 0; k0 < panel_bytes / CRNN_LINE_BYTES * INT8_UNIT; k0 += INT8_UNIT) {
            int8_t q[QUANTISED_COLUMNS * INT8_UNIT];
            for (int k = 0; k < INT8_UNIT; ++k) {
                weight_lanes(lanes, w, k0 + k, n, columns);
                for (int j = 0; j < QUANTISED_COLUMNS; ++j) {
                    const int32_t rounded = (int32_t)(float_bits(lanes[j] / divisors[j] + INT8_ROUND) -
                                                      float_bits(INT8_ROUND));
                    q[j * INT8_UNIT + k] = (int8_t)rounded;
                    sums[j] += rounded;
                }
            }
            same &= put_or_compare(line_at, q, sizeof q, compare);
            line_at += CRNN_LINE_BYTES;
        }
        for (int j = 0; j < QUANTISED_COLUMNS; ++j)
            sums[j] *= -128;
        same &= put_or_compare(scales_at + panel * CRNN_LINE_BYTES, scales, sizeof scales, compare);
        same &= put_or_compare(sums_at + panel * CRNN_LINE_BYTES, sums, sizeof sums, compare);
    }
    return same;
}

static void int8_pack(void *packed, const unpacked_weights *w) { int8_pack_or_compare(packed, w, 0); }

static int int8_holds(const void *packed, const unpacked_weights *w)
{
    return int8_pack_or_compare((char *)packed, w, 1);
}

/* ---- rows of x --------------------------------------------------------------------------------------------------- */

/* p (K), `padded` bytes, as integers plus `offset`, an even number: it does not change how halves are rounded. */
NOINLINE static void quantise_row(uint8_t *p, float *scale, const float *x, crnn_dim K, crnn_dim padded, int offset)
{
    int32_t most = 0;
    for (crnn_dim k = 0; k < K; ++k) {
        const int32_t bits = (int32_t)(float_bits(x[k]) & 0x7fffffff);
        most = most > bits ? most : bits;
    }
    const float max = float_of_bits((uint32_t)most);
    const int finite = most < 0x7f800000, zero = most < (int32_t)float_bits(INT8_LEAST);
    *scale = !finite ? float_of_bits(0x7fc00000) : zero ? 0 : max / 127;
    if (zero || !finite)
        for (crnn_dim k = 0; k < K; ++k)
            p[k] = (uint8_t)offset;
    else {
        const float inverse = 127 / max;
        for (crnn_dim k = 0; k < K; ++k)
            p[k] = (uint8_t)float_bits(x[k] * inverse + (INT8_ROUND + (float)offset));
    }
    for (crnn_dim k = K; k < padded; ++k) /* multiplied by zero */
        p[k] = 0;
}

static void int8_convert(void *row, const float *x, crnn_dim K)
{
    uint8_t *const p = row;
    float *const scale = (float *)(p + quantised_row_bytes(&INT8_LAYOUT, K, 1) - CRNN_LINE_BYTES);
    quantise_row(p, scale, x, K, quantised_lines(&INT8_LAYOUT, K) * INT8_UNIT, INT8_OFFSET);
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

typedef struct {
    ivec v[VECS];
} iline;
typedef struct {
    isum v[VECS];
} sums_line;

#define LIFT_ivec_load(i) r.v[i] = ivec_load((const char *)p + (i) * (CRNN_LINE_BYTES / VECS));
#define LIFT_isum_zero(i) r.v[i] = isum_zero();
#define LIFT_isum_load(i) r.v[i] = isum_load(p + (i) * (QUANTISED_COLUMNS / VECS));
#define LIFT_isum_to_vec(i) r.v[i] = isum_to_vec(a.v[i]);
#define LIFT_quad_dot(i) r.v[i] = quad_dot(acc.v[i], x, w.v[i]);
INLINE iline iline_load(const void *p) { iline r; EACH(LIFT_ivec_load) return r; }
INLINE sums_line sums_zero(void) { sums_line r; EACH(LIFT_isum_zero) return r; }
INLINE sums_line sums_load(const int32_t *p) { sums_line r; EACH(LIFT_isum_load) return r; }
INLINE line sums_to_line(sums_line a) { line r; EACH(LIFT_isum_to_vec) return r; }
INLINE sums_line sums_dot(sums_line acc, quad x, iline w) { sums_line r; EACH(LIFT_quad_dot) return r; }

/* y = init + sum * scales, for panel j of row i of a tile, of which `columns` exist. */
INLINE void int8_finish(const tile_rows *rows, int i, line sum, const quantised_weights *weights, crnn_dim panel,
                        const tile_panels *panels, int j, crnn_dim columns)
{
    float scale;
    memcpy(&scale, (const char *)rows->x[i] + weights->row_bytes - CRNN_LINE_BYTES, sizeof scale);
    const line scales = line_mul(line_set1(scale), line_load(weights->scales + (panel + j) * QUANTISED_COLUMNS));
    const line start = rows->init[0] ? line_get(rows->init[i] + panels->offset[j], columns) : line_set1(0);
    line_put(rows->y[i] + panels->offset[j], line_fma(sum, scales, start), columns);
}

NOINLINE static void int8_finish_partial(const real *sums, int m, int nl, const tile_rows *rows,
                                         const quantised_weights *weights, crnn_dim panel, const tile_panels *panels)
{
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < nl; ++j, sums += LINE)
            int8_finish(rows, i, line_load(sums), weights, panel, panels, j, j < panels->full ? LINE : panels->cols);
}

INLINE void int8_tile(const int m, const int nl, const tile_rows *rows, const quantised_weights *weights, crnn_dim panel,
                      const tile_panels *panels, const prefetch_list *prefetch)
{
    const crnn_dim stride = weights->row_bytes, panel_bytes = weights->panel_bytes;
    const char *w = weights->panels + panel * panel_bytes, *x[TILE_ROWS];
    sums_line sum[TILE_ROWS][TILE_PANELS];
    UNROLL
    for (int i = 0; i < m; ++i) {
        x[i] = (const char *)rows->x[0] + i * stride;
        UNROLL
        for (int j = 0; j < nl; ++j)
            sum[i][j] = INT8_OFFSET ? sums_load(weights->sums + (panel + j) * QUANTISED_COLUMNS) : sums_zero();
    }
    for (crnn_dim k = 0; k < weights->lines; ++k, w += CRNN_LINE_BYTES) {
        iline w_k[TILE_PANELS];
        if (k < prefetch->count)
            PREFETCH(prefetch->line[k]);
        UNROLL
        for (int j = 0; j < nl; ++j)
            w_k[j] = iline_load(w + j * panel_bytes);
        UNROLL
        for (int i = 0; i < m; ++i) {
            const quad x_ik = quad_load(x[i / 3 * 3] + i % 3 * stride);
            UNROLL
            for (int j = 0; j < nl; ++j)
                sum[i][j] = sums_dot(sum[i][j], x_ik, w_k[j]);
        }
        UNROLL
        for (int i = 0; i < m; i += 3) { /* one pointer for three rows: see tile_steps */
            x[i] += INT8_UNIT;
            OPAQUE(x[i]);
        }
    }
    if (m == 1 || panels->full == nl) {
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                int8_finish(rows, i, sums_to_line(sum[i][j]), weights, panel, panels, j,
                            m > 1 || j < panels->full ? LINE : panels->cols);
    } else { /* see load_partial */
        real sums[TILE_ROWS * TILE_PANELS * LINE];
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                line_store(sums + (i * nl + j) * LINE, sums_to_line(sum[i][j]));
        int8_finish_partial(sums, m, nl, rows, weights, panel, panels);
    }
}

static void int8_run_tile(int m, int nl, const tile_rows *rows, const quantised_weights *w, crnn_dim panel,
                          const tile_panels *panels, const prefetch_list *prefetch)
{
    switch (m * 16 + nl) {
#define CASE(m, nl) case (m) * 16 + (nl): int8_tile(m, nl, rows, w, panel, panels, prefetch); break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}

#define INT8_FUNCTIONS                                                                                                 \
    {                                                                                                                  \
        .layout = &INT8_LAYOUT, .x_element = sizeof(uint8_t), .pack = int8_pack, .holds = int8_holds,                       \
        .convert = int8_convert, .run_tile = int8_run_tile                                                             \
    }
