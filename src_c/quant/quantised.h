/* SPDX-License-Identifier: MIT
 * quantised.h: storage formats of weights with fewer bits than the arrays have, float32 only, and how one instruction set
 * computes with them. The formats themselves are in int8.body.h, int4.body.h and bf16.body.h.
 *
 * Layout    A line of 64 bytes holds 16 columns and `unit` rows k: packed[panel][k / unit][column % 16][k % unit]. The
 *           gates' panels of the same columns lie side by side. What is beyond K and N is zero.
 * int8      unit 4. After the panels 16 floats for each panel, its columns' scales; then 16 int32 for each: the sum of the
 *           column's integers times -128, for products with x + 128.
 * int4      unit 8: a byte holds the integers of rows k (its low half) and k + 4, each plus 8. A line of multipliers, bytes
 *           [group of 32 rows % 4][column], precedes every 16 lines. After the panels scales as of int8.
 * bf16      unit 2. */
#ifndef CRNN_QUANTISED_H
#define CRNN_QUANTISED_H

#include "crnn.h"

enum { INT8_UNIT = 4, INT4_UNIT = 8, BF16_UNIT = 2, QUANTISED_COLUMNS = 16 };
enum { INT4_GROUP = 32, INT4_BLOCK = 16 }; /* rows k with the same multipliers; lines after a line of multipliers */
enum { INT4_OFFSET = 8 };                  /* what is added to an integer, so that it is stored as from 1 to 15 */

enum { MOST_GRAD_ROWS = 2 * CRNN_GRAD_ROWS };

/* Sums of so many products of integers up to 127 fit into an int32. */
enum { INT8_MOST_ROWS = 131071 };

/* How a format lies in memory. */
typedef struct {
    int unit;           /* rows k of w in a line */
    int block;          /* lines that follow a line of multipliers; 0: there are none */
    int tails;          /* lines for each panel, after all panels */
    crnn_dim x_element; /* bytes of an element of x, converted; of bf16 at most */
    crnn_dim x_group;   /* elements of x for which an int32 follows them; 0: none does */
    crnn_dim most_rows; /* 0: any number */
} quantised_layout;

static const quantised_layout INT8_LAYOUT = {INT8_UNIT, 0, 2, 1, 0, INT8_MOST_ROWS};
static const quantised_layout INT4_LAYOUT = {INT4_UNIT, INT4_BLOCK, 1, 1, INT4_GROUP, INT8_MOST_ROWS};
static const quantised_layout BF16_LAYOUT = {BF16_UNIT, 0, 0, sizeof(float), 0, 0};

static inline crnn_dim whole_lines(crnn_dim bytes)
{
    return (bytes + CRNN_LINE_BYTES - 1) / CRNN_LINE_BYTES * CRNN_LINE_BYTES;
}

/* Lines of weights of a panel of K rows, and its bytes. Panels at a multiple of 4 KB from each other would compete for the
 * same cache sets. */
static inline crnn_dim quantised_lines(const quantised_layout *layout, crnn_dim K)
{
    return (K + layout->unit - 1) / layout->unit;
}

static inline crnn_dim quantised_panel_bytes(const quantised_layout *layout, crnn_dim K)
{
    crnn_dim lines = quantised_lines(layout, K);
    if (layout->block)
        lines += (lines + layout->block - 1) / layout->block;
    return (lines + (lines % 64 == 0)) * CRNN_LINE_BYTES;
}

/* Bytes of one row of x, converted for a product: its elements of x_element bytes, a number for each group, and a line
 * that begins with the row's scale. */
static inline crnn_dim quantised_row_bytes(const quantised_layout *layout, crnn_dim K, crnn_dim x_element)
{
    const crnn_dim groups = layout->x_group ? (K + layout->x_group - 1) / layout->x_group : 0;
    return whole_lines(K * x_element) + whole_lines(groups * (crnn_dim)sizeof(int32_t)) + CRNN_LINE_BYTES;
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
    const float *scales;                    /* int8, int4: [panel][16] */
    const int32_t *sums;                    /* int8: [panel][16] */
} quantised_weights;

struct tile_rows;
struct tile_panels;
struct prefetch_list;

struct crnn_quantised {
    const quantised_layout *layout;
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
