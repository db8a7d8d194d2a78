/* SPDX-License-Identifier: MIT
 * bf16.body.h: weights and x rounded to the upper 16 bits of a float: to nearest, halves to even, denormals to zero.
 * The chain of a product takes pairs of rows k, the odd one first:
 *     acc = init[n];    for each pair i:  acc = fma(x[2i+1], w[2i+1,n], acc), then acc = fma(x[2i], w[2i,n], acc)
 * which is what the instruction VDPBF16PS computes; elsewhere a pair is taken apart by a shift and a mask.
 *
 * An instruction set defines ivec_even_bf16 and ivec_odd_bf16, which take pairs apart; or, with that instruction, what
 * stands below for those without. */

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
#endif

/* Nearest, halves to even; a NaN remains one. */
INLINE uint32_t bf16_rounded(float x)
{
    const uint32_t bits = float_bits(x), size = bits & 0x7fffffff;
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    return size > 0x7f800000 ? (bits | 0x400000) & 0xffff0000 : size < 0x800000 ? bits & 0x80000000 : rounded;
}

static int bf16_pack_or_compare(char *packed, const unpacked_weights *w, const int compare)
{
    const crnn_dim panels = panels_of(w), panel_bytes = quantised_panel_bytes(w->K, BF16_UNIT);
    int same = 1;
    for (crnn_dim panel = 0; panel < panels && same; ++panel) {
        crnn_dim n;
        int columns;
        float lanes[QUANTISED_COLUMNS];
        panel_columns(w, panel, &n, &columns);
        char *line_at = packed + panel * panel_bytes;
        for (crnn_dim k0 = 0; k0 < panel_bytes / CRNN_LINE_BYTES * BF16_UNIT; k0 += BF16_UNIT) {
            uint16_t pairs[QUANTISED_COLUMNS * BF16_UNIT];
            for (int k = 0; k < BF16_UNIT; ++k) {
                weight_lanes(lanes, w, k0 + k, n, columns);
                for (int j = 0; j < QUANTISED_COLUMNS; ++j)
                    pairs[j * BF16_UNIT + k] = (uint16_t)(bf16_rounded(lanes[j]) >> 16);
            }
            same &= put_or_compare(line_at, pairs, sizeof pairs, compare);
            line_at += CRNN_LINE_BYTES;
        }
    }
    return same;
}

static void bf16_pack(void *packed, const unpacked_weights *w) { bf16_pack_or_compare(packed, w, 0); }

static int bf16_holds(const void *packed, const unpacked_weights *w)
{
    return bf16_pack_or_compare((char *)packed, w, 1);
}

static void bf16_convert(void *row, const float *x, crnn_dim K)
{
    bf16_element *const to = row;
    for (crnn_dim k = 0; k < K; ++k)
        to[k] = bf16_store(bf16_rounded(x[k]));
    if (K % 2)
        to[K] = 0;
}

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
        .unit = BF16_UNIT, .x_element = sizeof(bf16_element), .pack = bf16_pack, .holds = bf16_holds,                  \
        .convert = bf16_convert, .run_tile = bf16_run_tile                                                             \
    }
