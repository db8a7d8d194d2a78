/* SPDX-License-Identifier: MIT
 * quantised.h: storage formats of weights with fewer bits than the arrays have, float32 only, and how one instruction set
 * computes with them. The formats themselves are in int8.body.h and bf16.body.h.
 *
 * Layout    A line of 64 bytes holds 16 columns and `unit` rows k: packed[panel][k / unit][column % 16][k % unit]. The
 *           gates' panels of the same columns lie side by side. What is beyond K and N is zero.
 * int8      unit 4. After the panels 16 floats for each panel, its columns' scales; then 16 int32 for each: the sum of the
 *           column's integers times -128, for products with x + 128.
 * bf16      unit 2. */
#ifndef CRNN_QUANTISED_H
#define CRNN_QUANTISED_H

#include "crnn.h"

enum { INT8_UNIT = 4, BF16_UNIT = 2, QUANTISED_COLUMNS = 16 };

enum { MOST_GRAD_ROWS = 2 * CRNN_GRAD_ROWS };

/* Sums of so many products of integers up to 127 fit into an int32. */
enum { INT8_MOST_ROWS = 131071 };

/* Bytes of a panel of K rows. Panels at a multiple of 4 KB from each other would compete for the same cache sets. */
static inline crnn_dim quantised_panel_bytes(crnn_dim K, int unit)
{
    const crnn_dim lines = (K + unit - 1) / unit;
    return (lines + (lines % 64 == 0)) * CRNN_LINE_BYTES;
}

/* Bytes of one row of x, converted for a product; a line follows its elements, which begins with the row's scale. */
static inline crnn_dim quantised_row_bytes(crnn_dim K, crnn_dim element)
{
    return (K * element + 2 * CRNN_LINE_BYTES - 1) / CRNN_LINE_BYTES * CRNN_LINE_BYTES;
}

/* float values (K, gates*N) that are packed: element (k, n) is at values[k * row + n * column]. */
typedef struct {
    const float *values;
    crnn_dim row, column, K, N, gates;
} unpacked_weights;

/* Packed weights as a tile reads them. */
typedef struct {
    const char *panels;
    crnn_dim lines, panel_bytes, row_bytes; /* lines of a panel that are filled; row_bytes: of the converted x */
    const float *scales;                    /* int8: [panel][16] */
    const int32_t *sums;                    /* int8: [panel][16] */
} quantised_weights;

struct tile_rows;
struct tile_panels;
struct prefetch_list;

struct crnn_quantised {
    int unit;                                                      /* rows k of w in a line */
    crnn_dim x_element;                                            /* bytes of an element of x, converted */
    void (*pack)(void *packed, const unpacked_weights *w);         /* OVERWRITTEN */
    int (*holds)(const void *packed, const unpacked_weights *w);   /* whether pack would give the same */
    void (*convert)(void *row, const float *x, crnn_dim K);        /* OVERWRITTEN, quantised_row_bytes */
    /* y = init + x @ w for m rows, whose x are converted, and nl panels from `panel` on, as a tile of gemm.body.h. */
    void (*run_tile)(int m, int nl, const struct tile_rows *rows, const quantised_weights *w, crnn_dim panel,
                     const struct tile_panels *panels, const struct prefetch_list *prefetch);

    /* For gradients of weights, in formats that have them (NULL: it does not), up to grad_rows rows at a time: the
     * columns of x as rows of so many elements, OVERWRITTEN; and up to CRNN_GRAD_PANELS panels of dy from column n on, of
     * which `remaining` exist, OVERWRITTEN, db or NULL += its rows. run_tile then gives dw. */
    void (*pack_columns)(void *packed, const float *const *x, int count, crnn_dim K);
    void (*pack_rows)(void *packed, float *db, const float *const *dy, int count, crnn_dim n, crnn_dim remaining);
    int grad_rows;             /* even, at most MOST_GRAD_ROWS */
    crnn_dim grad_panel_bytes; /* of a panel of dy */
};

#endif
