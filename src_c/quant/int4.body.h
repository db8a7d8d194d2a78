/* SPDX-License-Identifier: MIT
 * int4.body.h: weights as integers from -7 to 7; for 32 rows of a column together a multiplier, for a column a scale. With
 * them they are int8 weights, and products with them have the same definition (int8.body.h), in particular exact sums:
 *     s[n] = max_k |w[k,n]| / 126, rounded up to 16 significant bits
 *     g[k/32,n] = the smallest of INT4_MULTIPLIERS with |w[k,n]| <= 7 * g * s[n] for all k of the group
 *     q[k,n] = round(w[k,n] / (g * s[n]))
 *     y[n] = fma(float(sum_k p[k] * (q[k,n] * g[k/32,n])), sx * s[n], init[n])
 * 7 * g * s and q * g * s are exact, and packing these products again gives the same q, g and s.
 *
 * Integers are stored plus 8, so a group's sum starts from -8 * sum_k p[k], which the conversion of x finds.
 * An instruction set defines, besides what int8 needs,
 *     group_sum, group_start(p)       sums of a group in every column, from what int4_convert has stored: of
 *     group_start_of(even, odd)       the starts for k % 4 of 0 and 1, and of 2 and 3
 *     four_load(p)                    4 integers of x, for every column
 *     low_halves, high_halves(w)      the integers of an ivec of weights
 *     group_dot(sum, x, w)            sum + the products with 4 rows k
 *     group_add(total, sum, g)        total + sum * g; g: the multipliers of the columns of a vec, as bytes */

enum { INT4_MOST = 7, INT4_LINES = INT4_GROUP / INT4_UNIT }; /* lines of a group */

/* Of neighbours a < b no b * round(m / b) with m > 7 * a is 7 * a or less, or packing would find another multiplier. */
static const uint8_t INT4_MULTIPLIERS[] = {1, 2, 4, 5, 6, 9, 11, 14, 15, 16, 17, 18};

/* ---- packing ----------------------------------------------------------------------------------------------------- */

static uint8_t int4_multiplier(float most, float scale)
{
    int i = 0;
    while (INT4_MULTIPLIERS[i] < 18 && most > (float)(INT4_MOST * INT4_MULTIPLIERS[i]) * scale)
        ++i;
    return INT4_MULTIPLIERS[i];
}

/* The multipliers of rows k0 .. k0 + INT4_GROUP, and what their weights are divided by. */
static void int4_group(uint8_t *multipliers, float *divisors, const float *scales, const unpacked_weights *w, crnn_dim k0,
                       crnn_dim n, int columns)
{
    float most[QUANTISED_COLUMNS] = {0}, lanes[QUANTISED_COLUMNS];
    for (crnn_dim k = k0; k < k0 + INT4_GROUP && k < w->K; ++k) {
        weight_lanes(lanes, w, k, n, columns);
        for (int j = 0; j < QUANTISED_COLUMNS; ++j) {
            const float size = float_of_bits(float_bits(lanes[j]) & 0x7fffffff);
            most[j] = size > most[j] ? size : most[j];
        }
    }
    for (int j = 0; j < QUANTISED_COLUMNS; ++j) {
        multipliers[j] = scales[j] == 0 ? 1 : int4_multiplier(most[j], scales[j]);
        divisors[j] = scales[j] == 0 ? 1 : (float)multipliers[j] * scales[j]; /* 1: all are rounded to zero */
    }
}

static void int4_line(uint8_t pairs[CRNN_LINE_BYTES], const float *divisors, const unpacked_weights *w, crnn_dim k0,
                      crnn_dim n, int columns)
{
    float lanes[QUANTISED_COLUMNS];
    memset(pairs, 0, CRNN_LINE_BYTES);
    for (int k = 0; k < INT4_UNIT; ++k) {
        weight_lanes(lanes, w, k0 + k, n, columns);
        for (int j = 0; j < QUANTISED_COLUMNS; ++j) {
            const uint32_t rounded = float_bits(lanes[j] / divisors[j] + (INT8_ROUND + INT4_OFFSET));
            pairs[j * 4 + k % 4] |= (uint8_t)((rounded & 15) << k / 4 * 4);
        }
    }
}

NOCLONE static int int4_pack_or_compare(char *packed, const unpacked_weights *w, const int compare)
{
    const crnn_dim panels = panels_of(w), panel_bytes = quantised_panel_bytes(&INT4_LAYOUT, w->K);
    const crnn_dim lines = quantised_lines(&INT4_LAYOUT, w->K);
    char *const scales_at = packed + panels * panel_bytes;
    int same = 1;
    for (crnn_dim panel = 0; panel < panels && same; ++panel) {
        crnn_dim n;
        int columns;
        float scales[QUANTISED_COLUMNS], divisors[4][QUANTISED_COLUMNS];
        uint8_t multipliers[4][QUANTISED_COLUMNS], pairs[CRNN_LINE_BYTES];
        panel_columns(w, panel, &n, &columns);
        column_scales(scales, w, n, columns, INT4_MOST * 18);
        char *line_at = packed + panel * panel_bytes;
        for (crnn_dim line = 0; line < lines; ++line, line_at += CRNN_LINE_BYTES) {
            if (line % INT4_BLOCK == 0) {
                for (int group = 0; group < 4; ++group)
                    int4_group(multipliers[group], divisors[group], scales, w, line * INT4_UNIT + group * INT4_GROUP, n,
                               columns);
                same &= put_or_compare(line_at, multipliers, sizeof multipliers, compare);
                line_at += CRNN_LINE_BYTES;
            }
            int4_line(pairs, divisors[line / INT4_LINES % 4], w, line * INT4_UNIT, n, columns);
            same &= put_or_compare(line_at, pairs, sizeof pairs, compare);
        }
        same &= put_or_compare(scales_at + panel * CRNN_LINE_BYTES, scales, sizeof scales, compare);
    }
    return same;
}

static void int4_pack(void *packed, const unpacked_weights *w) { int4_pack_or_compare(packed, w, 0); }

static int int4_holds(const void *packed, const unpacked_weights *w)
{
    return int4_pack_or_compare((char *)packed, w, 1);
}

/* ---- rows of x --------------------------------------------------------------------------------------------------- */

static void int4_convert(void *row, const float *x, crnn_dim K)
{
    int8_t *const p = row;
    const crnn_dim padded = quantised_lines(&INT4_LAYOUT, K) * INT4_UNIT;
    float *const scale = (float *)(p + quantised_row_bytes(&INT4_LAYOUT, K, 1) - CRNN_LINE_BYTES);
    int32_t *start = (int32_t *)(p + whole_lines(K));
    quantise_row(row, scale, x, K, padded, 0);
    for (crnn_dim k = 0; k < padded; ++start) {
        int32_t even = 0, odd = 0;
        for (const crnn_dim end = k + INT4_GROUP < padded ? k + INT4_GROUP : padded; k < end; k += 4) {
            even += p[k] + p[k + 1];
            odd += p[k + 2] + p[k + 3];
        }
        *start = group_start_of(-INT4_OFFSET * even, -INT4_OFFSET * odd);
    }
}

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

typedef struct {
    group_sum v[VECS];
} group_line;

#define LIFT_low_halves(i) r.v[i] = low_halves(a.v[i]);
#define LIFT_high_halves(i) r.v[i] = high_halves(a.v[i]);
#define LIFT_group_start(i) r.v[i] = group_start(p);
#define LIFT_group_dot(i) r.v[i] = group_dot(sum.v[i], x, w.v[i]);
#define LIFT_group_add(i) r.v[i] = group_add(total.v[i], sum.v[i], multipliers + (i) * (QUANTISED_COLUMNS / VECS));
INLINE iline iline_low(iline a) { iline r; EACH(LIFT_low_halves) return r; }
INLINE iline iline_high(iline a) { iline r; EACH(LIFT_high_halves) return r; }
INLINE group_line groups_start(const void *p) { group_line r; EACH(LIFT_group_start) return r; }
INLINE group_line groups_dot(group_line sum, ivec x, iline w) { group_line r; EACH(LIFT_group_dot) return r; }
INLINE sums_line groups_add(sums_line total, group_line sum, const uint8_t *multipliers)
{
    sums_line r;
    EACH(LIFT_group_add)
    return r;
}

/* m rows from row `first` of the tile on, and nl panels from its panel j0 on, which is `panel` of w. */
INLINE void int4_tile(const int m, const int nl, const tile_rows *rows, int first, const quantised_weights *weights,
                      crnn_dim panel, const tile_panels *panels, int j0, const prefetch_list *prefetch,
                      int prefetches)
{
    const crnn_dim stride = weights->row_bytes, panel_bytes = weights->panel_bytes, lines = weights->lines;
    const crnn_dim starts = whole_lines(weights->lines * INT4_UNIT);
    const char *w = weights->panels + (panel + j0) * panel_bytes, *x = (const char *)rows->x[0] + first * stride;
    const char *start = x + starts;
    sums_line total[4][4];
    UNROLL
    for (int i = 0; i < m; ++i)
        UNROLL
        for (int j = 0; j < nl; ++j)
            total[i][j] = sums_zero();
    for (crnn_dim k = 0; k < lines;) {
        const uint8_t *multipliers = (const uint8_t *)w;
        w += CRNN_LINE_BYTES;
        for (int group = 0; group < 4 && k < lines; ++group, multipliers += QUANTISED_COLUMNS) {
            group_line sum[4][4];
            UNROLL
            for (int i = 0; i < m; ++i)
                UNROLL
                for (int j = 0; j < nl; ++j)
                    sum[i][j] = groups_start(start + i * stride);
            start += sizeof(int32_t);
            for (const crnn_dim end = k + INT4_LINES < lines ? k + INT4_LINES : lines; k < end; ++k) {
                if (k < prefetches)
                    PREFETCH(prefetch->line[k]);
                UNROLL
                for (int j = 0; j < nl; ++j) {
                    const iline pairs = iline_load(w + j * panel_bytes);
                    const iline low = iline_low(pairs), high = iline_high(pairs);
                    UNROLL
                    for (int i = 0; i < m; ++i) {
                        sum[i][j] = groups_dot(sum[i][j], four_load(x + i * stride), low);
                        sum[i][j] = groups_dot(sum[i][j], four_load(x + i * stride + 4), high);
                    }
                }
                w += CRNN_LINE_BYTES;
                x += INT4_UNIT;
            }
            UNROLL
            for (int i = 0; i < m; ++i)
                UNROLL
                for (int j = 0; j < nl; ++j)
                    total[i][j] = groups_add(total[i][j], sum[i][j], multipliers + j * panel_bytes);
        }
    }
    UNROLL
    for (int i = 0; i < m; ++i)
        UNROLL
        for (int j = 0; j < nl; ++j)
            int8_finish(rows, first + i, sums_to_line(total[i][j]), weights, panel, panels, j0 + j,
                        j0 + j < panels->full ? LINE : panels->cols);
}

/* In parts of INT4_HEIGHT rows or 1, and of few panels, whose sums and weights the registers hold: those of a group are
 * there besides those of all groups. */
enum { INT4_HEIGHT = TILE_PANELS > 1 ? 4 : 1 };

static void int4_run_tile(int m, int nl, const tile_rows *rows, const quantised_weights *w, crnn_dim panel,
                          const tile_panels *panels, const prefetch_list *prefetch)
{
    for (int j = 0, width = 1; j < nl; j += width)
        for (int i = 0, height; i < m; i += height) {
            const int left = nl - j, ahead = i + j ? 0 : prefetch->count;
            height = m - i >= INT4_HEIGHT ? INT4_HEIGHT : 1;
            width = left >= 4 && m < 4 ? 4 : left >= 2 ? 2 : 1;
            switch (height * 16 + width) {
#define CASE(m, nl)                                                                                                    \
    case (m) * 16 + (nl):                                                                                              \
        if ((m) <= INT4_HEIGHT && (nl) <= PANELS_FOR(m))                                                               \
            int4_tile(m, nl, rows, i, w, panel, panels, j, prefetch, ahead);                                           \
        break;
                CASE(1, 1) CASE(1, 2) CASE(1, 4) CASE(4, 1) CASE(4, 2)
#undef CASE
            }
        }
}

#define INT4_FUNCTIONS                                                                                                 \
    {                                                                                                                  \
        .layout = &INT4_LAYOUT, .x_element = sizeof(int8_t), .pack = int4_pack, .holds = int4_holds,                   \
        .convert = int4_convert, .run_tile = int4_run_tile                                                             \
    }
