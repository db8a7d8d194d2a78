/* SPDX-License-Identifier: MIT
 * packing.body.h: the walk over the lines of quantised weights that packing and comparing share. */

/* Row k of 16 columns from n on; zero where there are no more than `columns`, or no such row. */
static void weight_lanes(float lanes[QUANTISED_COLUMNS], const unpacked_weights *w, crnn_dim k, crnn_dim n, int columns)
{
    const float *from = w->values + k * w->row + n * w->column;
    if (k >= w->K)
        columns = 0;
    else if (w->column == 1 && columns == QUANTISED_COLUMNS) {
        memcpy(lanes, from, QUANTISED_COLUMNS * sizeof(float));
        return;
    }
    for (int j = 0; j < QUANTISED_COLUMNS; ++j)
        lanes[j] = j < columns ? from[j * w->column] : 0;
}

/* The columns of a panel in w. */
static void panel_columns(const unpacked_weights *w, crnn_dim panel, crnn_dim *n, int *columns)
{
    const crnn_dim first = panel / w->gates * QUANTISED_COLUMNS, remaining = w->N - first;
    *n = panel % w->gates * w->N + first;
    *columns = remaining < QUANTISED_COLUMNS ? (int)remaining : QUANTISED_COLUMNS;
}

static crnn_dim panels_of(const unpacked_weights *w)
{
    return (w->N + QUANTISED_COLUMNS - 1) / QUANTISED_COLUMNS * w->gates;
}

/* Stores `bytes` of a packed matrix, or compares them. Whether they are the same. */
INLINE int put_or_compare(void *packed, const void *values, size_t bytes, const int compare)
{
    if (compare)
        return memcmp(packed, values, bytes) == 0;
    memcpy(packed, values, bytes);
    return 1;
}
