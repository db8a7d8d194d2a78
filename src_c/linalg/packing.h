/* SPDX-License-Identifier: MIT
 * packing.h: weight matrices as the products read them: packing, unpacking, rows, columns and the comparison with an
 * unpacked matrix all stand here, and the layout itself in crnn.h and layout.h.
 * Allocates nothing, checks nothing. */
#ifndef CRNN_PACKING_H
#define CRNN_PACKING_H

#include <string.h>

#include "simd/compat.h"
#include "linalg/layout.h"
#include "quant/quantised.h"
#include "crnn.h"

/* How packed weights are stored. The arrays that are multiplied by them are double with CRNN_FORMAT_F64, else float. */
typedef enum { CRNN_FORMAT_F32, CRNN_FORMAT_F64, CRNN_FORMAT_BF16, CRNN_FORMAT_INT8, CRNN_FORMAT_INT4 } crnn_format;

/* The kernels of an instruction set; a table that is not needed may be NULL. */
typedef struct crnn_tables {
    const crnn_kernels_f32 *f32;
    const crnn_kernels_f64 *f64;
} crnn_tables;

/* A matrix (K, gates*N), packed for products x @ w: gates blocks of N columns. */
typedef struct crnn_packed {
    void *data; /* crnn_packed_size bytes, aligned to CRNN_LINE_BYTES */
    crnn_dim K, N, gates;
    crnn_format format;
} crnn_packed;

/* Of the arrays. */
INLINE size_t crnn_element_size(crnn_format format) { return format == CRNN_FORMAT_F64 ? sizeof(double) : sizeof(float); }

/* The layout of a quantised format, and its functions on an instruction set; NULL: it is none. */
INLINE const quantised_layout *quantised_layout_of(const crnn_packed *w)
{
    switch (w->format) {
    case CRNN_FORMAT_BF16: return &BF16_LAYOUT;
    case CRNN_FORMAT_INT8: return &INT8_LAYOUT;
    case CRNN_FORMAT_INT4: return &INT4_LAYOUT;
    default: return NULL;
    }
}

INLINE const crnn_quantised *crnn_quantised_format(crnn_format format, const crnn_tables *kernels)
{
    switch (format) {
    case CRNN_FORMAT_BF16: return kernels->f32->bf16;
    case CRNN_FORMAT_INT8: return kernels->f32->int8;
    case CRNN_FORMAT_INT4: return kernels->f32->int4;
    default: return NULL;
    }
}

INLINE const crnn_quantised *crnn_quantised_of(const crnn_packed *w, const crnn_tables *kernels)
{
    return crnn_quantised_format(w->format, kernels);
}

INLINE int crnn_is_quantised(const crnn_packed *w) { return quantised_layout_of(w) != NULL; }

/* Columns of a panel, panels of all gates, and bytes of a panel. */
INLINE crnn_dim packed_line(const crnn_packed *w) { return CRNN_LINE_BYTES / (crnn_dim)crnn_element_size(w->format); }
INLINE panel_layout packed_layout(const crnn_packed *w)
{
    return panel_layout_of(w->N, w->gates, (int)packed_line(w), !crnn_is_quantised(w));
}
INLINE crnn_dim packed_panels(const crnn_packed *w)
{
    const panel_layout layout = packed_layout(w);
    return layout.full * w->gates + layout.last;
}
INLINE crnn_dim packed_panel_bytes(const crnn_packed *w)
{
    const quantised_layout *layout = quantised_layout_of(w);
    return layout ? quantised_panel_bytes(layout, w->K) : w->K * CRNN_LINE_BYTES;
}

/* Bytes of w->data; K, N, gates and format are given. The largest size_t: more than memory could hold, or more rows than
 * the format allows. */
INLINE size_t crnn_packed_size(const crnn_packed *w)
{
    enum { PADDING = 8 }; /* lines of a panel beyond K, at most: rows that fill a block, multipliers, scales and sums */
    const size_t panels = (size_t)packed_panels(w), most = (size_t)-1 / 2 / CRNN_LINE_BYTES;
    const quantised_layout *layout = quantised_layout_of(w);
    if ((size_t)w->K + PADDING > most / panels || (layout && layout->most_rows && w->K > layout->most_rows))
        return (size_t)-1;
    return panels * ((size_t)packed_panel_bytes(w) + (layout ? (size_t)layout->tails * CRNN_LINE_BYTES : 0));
}

/* Bytes of scratch that a product of `rows` rows with w needs, on any instruction set. */
INLINE size_t crnn_packed_scratch(const crnn_packed *w, crnn_dim rows)
{
    const crnn_dim most = rows < CRNN_QUANTISED_ROWS ? rows : CRNN_QUANTISED_ROWS;
    const quantised_layout *layout = quantised_layout_of(w);
    return layout ? (size_t)(most * quantised_row_bytes(layout, w->K, layout->x_element)) : 0;
}

/* w OVERWRITTEN with values (K, gates*N), row stride ldw; or, of one gate, with the transpose of values (N, K). */
INLINE void crnn_pack(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
{
    const crnn_quantised *quantised = crnn_quantised_of(w, kernels);
    const unpacked_weights unpacked = {values, ldw, 1, w->K, w->N, w->gates};
    if (quantised)
        quantised->pack(w->data, &unpacked);
    else if (w->format == CRNN_FORMAT_F32)
        kernels->f32->pack_gates(w->data, values, ldw, w->K, w->N, w->gates);
    else
        kernels->f64->pack_gates(w->data, values, ldw, w->K, w->N, w->gates);
}

INLINE void crnn_pack_transposed(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
{
    const crnn_quantised *quantised = crnn_quantised_of(w, kernels);
    const unpacked_weights unpacked = {values, 1, ldw, w->K, w->N, 1};
    if (quantised)
        quantised->pack(w->data, &unpacked);
    else if (w->format == CRNN_FORMAT_F32)
        kernels->f32->pack_transposed(w->data, values, ldw, w->K, w->N);
    else
        kernels->f64->pack_transposed(w->data, values, ldw, w->K, w->N);
}

/* The kernel linear_forward with w, of one gate. scratch: crnn_packed_scratch bytes for the slice's rows. */
INLINE void crnn_packed_columns(const crnn_packed *w, const crnn_tables *kernels, void *y, crnn_dim ldy, const void *x,
                                crnn_dim ldx, const void *bias, int adds, void *scratch, const crnn_rows *rows)
{
    const crnn_quantised *quantised = crnn_quantised_of(w, kernels);
    if (w->format == CRNN_FORMAT_F64)
        kernels->f64->linear_forward(y, ldy, x, ldx, w->data, NULL, bias, adds, NULL, w->K, w->N, rows);
    else
        kernels->f32->linear_forward(y, ldy, x, ldx, w->data, quantised, bias, adds, scratch, w->K, w->N, rows);
}

/* y (T, B, N) = x (T, B, K) @ w + bias (N), OVERWRITTEN; bias NULL: zero. Otherwise as crnn_packed_columns. */
INLINE void crnn_packed_product(const crnn_packed *w, const crnn_tables *kernels, void *y, const void *x,
                                const void *bias, void *scratch, const crnn_rows *rows)
{
    crnn_packed_columns(w, kernels, y, w->N, x, w->K, bias, 0, scratch, rows);
}

/* y (count) = row k of a panel of quantised weights, from `column` on; exact. */
INLINE void quantised_row(const crnn_packed *w, float *y, crnn_dim panel, crnn_dim k, crnn_dim column, crnn_dim count)
{
    const crnn_dim bytes = packed_panel_bytes(w);
    const char *data = (const char *)w->data + panel * bytes;
    const char *scales = (const char *)w->data + packed_panels(w) * bytes + panel * CRNN_LINE_BYTES;
    const float *s = (const float *)scales + column;
    if (w->format == CRNN_FORMAT_INT8) {
        const int8_t *q = (const int8_t *)data + (k / INT8_UNIT * QUANTISED_COLUMNS + column) * INT8_UNIT + k % INT8_UNIT;
        for (crnn_dim j = 0; j < count; ++j)
            y[j] = q[j * INT8_UNIT] * s[j];
    } else if (w->format == CRNN_FORMAT_INT4) {
        const crnn_dim line = k / INT4_UNIT, block = line / INT4_BLOCK;
        const uint8_t *multipliers = (const uint8_t *)data + block * (INT4_BLOCK + 1) * CRNN_LINE_BYTES +
                                     k / INT4_GROUP % 4 * QUANTISED_COLUMNS + column;
        const uint8_t *pairs = (const uint8_t *)data + (line + block + 1) * CRNN_LINE_BYTES + column * 4 + k % 4;
        for (crnn_dim j = 0; j < count; ++j) {
            const int half = k % INT4_UNIT < 4 ? pairs[j * 4] & 15 : pairs[j * 4] >> 4;
            y[j] = (float)((half - INT4_OFFSET) * multipliers[j]) * s[j];
        }
    } else {
        const crnn_dim index = (k / BF16_UNIT * QUANTISED_COLUMNS + column) * BF16_UNIT + k % BF16_UNIT;
        const uint16_t *halves = (const uint16_t *)data + index;
        for (crnn_dim j = 0; j < count; ++j) {
            const uint32_t bits = (uint32_t)halves[j * BF16_UNIT] << 16;
            memcpy(&y[j], &bits, sizeof bits);
        }
    }
}

/* y (N) = w[k, :] + bias (N), OVERWRITTEN: bit-identical to the kernel rows_add_bias. Of one gate. */
INLINE void crnn_packed_row(const crnn_packed *w, const crnn_tables *kernels, void *y, crnn_dim k, const void *bias)
{
    const char *source = (const char *)w->data + k * CRNN_LINE_BYTES;
    const size_t size = crnn_element_size(w->format);
    char *target = y;
    crnn_dim columns = w->N;
    if (crnn_is_quantised(w)) {
        for (crnn_dim n = 0; n < w->N; n += QUANTISED_COLUMNS)
            quantised_row(w, (float *)y + n, n / QUANTISED_COLUMNS, k, 0,
                          w->N - n < QUANTISED_COLUMNS ? w->N - n : QUANTISED_COLUMNS);
        kernels->f32->rows_add_bias(y, y, bias, 1, w->N);
        return;
    }
    for (; columns >= packed_line(w); columns -= packed_line(w)) {
        memcpy(target, source, CRNN_LINE_BYTES);
        target += CRNN_LINE_BYTES;
        source += w->K * CRNN_LINE_BYTES;
    }
    if (columns)
        memcpy(target, source, (size_t)columns * size);
    if (w->format == CRNN_FORMAT_F32)
        kernels->f32->rows_add_bias(y, y, bias, 1, w->N);
    else
        kernels->f64->rows_add_bias(y, y, bias, 1, w->N);
}

/* y (K) = w[:, n], OVERWRITTEN. Of one gate. */
INLINE void crnn_packed_column(const crnn_packed *w, void *y, crnn_dim n)
{
    const crnn_dim line = packed_line(w);
    const char *source = (const char *)w->data + n / line * w->K * CRNN_LINE_BYTES;
    if (crnn_is_quantised(w))
        for (crnn_dim k = 0; k < w->K; ++k)
            quantised_row(w, (float *)y + k, n / line, k, n % line, 1);
    else if (w->format == CRNN_FORMAT_F32)
        for (crnn_dim k = 0; k < w->K; ++k)
            ((float *)y)[k] = ((const float *)source)[k * line + n % line];
    else
        for (crnn_dim k = 0; k < w->K; ++k)
            ((double *)y)[k] = ((const double *)source)[k * line + n % line];
}

/* Columns that lie side by side in a panel: its data (K, line) from the first of them on, and which columns of the
 * unpacked matrix they are. Several gates may share a panel, part 0, 1, ... < packed_parts. */
typedef struct packed_part {
    const char *data;
    crnn_dim column, columns;
} packed_part;

INLINE crnn_dim packed_parts(const crnn_packed *w, crnn_dim panel)
{
    const panel_layout layout = packed_layout(w);
    const crnn_dim first = (panel - layout.full * w->gates) * layout.each; /* gate */
    return first < 0 ? 1 : w->gates - first < layout.each ? w->gates - first : layout.each;
}

INLINE packed_part packed_part_of(const crnn_packed *w, crnn_dim panel, crnn_dim part)
{
    const panel_layout layout = packed_layout(w);
    const crnn_dim line = packed_line(w), last = panel - layout.full * w->gates;
    packed_part p = {(const char *)w->data + panel * packed_panel_bytes(w), panel % w->gates * w->N, line};
    if (last < 0)
        p.column += panel / w->gates * line;
    else {
        p.data += part * layout.cols * (crnn_dim)crnn_element_size(w->format);
        p.column = (last * layout.each + part) * w->N + layout.full * line;
        p.columns = layout.cols;
    }
    return p;
}

/* values (K, gates*N), row stride ldw, OVERWRITTEN with w. */
INLINE void crnn_unpack(const crnn_packed *w, void *values, crnn_dim ldw)
{
    const crnn_dim size = (crnn_dim)crnn_element_size(w->format);
    for (crnn_dim panel = 0; panel < packed_panels(w); ++panel)
        for (crnn_dim part = 0; part < packed_parts(w, panel); ++part) {
            const packed_part p = packed_part_of(w, panel, part);
            if (crnn_is_quantised(w))
                for (crnn_dim k = 0; k < w->K; ++k)
                    quantised_row(w, (float *)values + k * ldw + p.column, panel, k, 0, p.columns);
            for (crnn_dim k = 0; k < w->K && !crnn_is_quantised(w); ++k)
                memcpy((char *)values + (k * ldw + p.column) * size, p.data + k * CRNN_LINE_BYTES,
                       (size_t)(p.columns * size));
        }
}

/* values (N, K), row stride ldw, OVERWRITTEN with the transpose of w, of one gate. */
INLINE void crnn_unpack_transposed(const crnn_packed *w, void *values, crnn_dim ldw)
{
    for (crnn_dim n = 0; n < w->N; ++n)
        crnn_packed_column(w, (char *)values + n * ldw * (crnn_dim)crnn_element_size(w->format), n);
}

INLINE uint64_t load_u64(const char *from)
{
    uint64_t bits;
    memcpy(&bits, from, sizeof bits);
    return bits;
}

INLINE uint32_t load_u32(const char *from)
{
    uint32_t bits;
    memcpy(&bits, from, sizeof bits);
    return bits;
}

/* Whether the columns of a part are those of values. */
INLINE int part_equals(const crnn_packed *w, packed_part p, const void *values, crnn_dim ldw)
{
    const crnn_dim size = (crnn_dim)crnn_element_size(w->format);
    const char *mine = p.data, *theirs = (const char *)values + p.column * size;
    uint64_t difference = 0;
    for (crnn_dim k = 0; k < w->K; ++k, mine += CRNN_LINE_BYTES, theirs += ldw * size)
        if (p.columns == packed_line(w)) {
            UNROLL
            for (int byte = 0; byte < CRNN_LINE_BYTES; byte += 8)
                difference |= load_u64(mine + byte) ^ load_u64(theirs + byte);
        } else
            difference |= memcmp(mine, theirs, (size_t)(p.columns * size)) != 0;
    return !difference;
}

/* Whether w holds values (K, gates*N), row stride ldw, bit for bit; if it is quantised, whether packing them would give
 * the same. */
INLINE int crnn_packed_equals(const crnn_packed *w, const crnn_tables *kernels, const void *values, crnn_dim ldw)
{
    const crnn_quantised *quantised = crnn_quantised_of(w, kernels);
    const unpacked_weights unpacked = {values, ldw, 1, w->K, w->N, w->gates};
    if (quantised)
        return quantised->holds(w->data, &unpacked);
    for (crnn_dim panel = 0; panel < packed_panels(w); ++panel)
        for (crnn_dim part = 0; part < packed_parts(w, panel); ++part)
            if (!part_equals(w, packed_part_of(w, panel, part), values, ldw))
                return 0;
    return 1;
}

/* The same for w of one gate and the transpose of values (N, K), row stride ldw. */
INLINE int crnn_packed_equals_transposed(const crnn_packed *w, const crnn_tables *kernels, const void *values,
                                         crnn_dim ldw)
{
    const crnn_quantised *quantised = crnn_quantised_of(w, kernels);
    const unpacked_weights unpacked = {values, 1, ldw, w->K, w->N, 1};
    if (quantised)
        return quantised->holds(w->data, &unpacked);
    enum { BLOCK = 16 }; /* rows of w compared together, so that a cache line of values is used up at once */
    const crnn_dim size = (crnn_dim)crnn_element_size(w->format);
    for (crnn_dim panel = 0; panel < packed_panels(w); ++panel) {
        const packed_part p = packed_part_of(w, panel, 0);
        uint64_t difference = 0;
        for (crnn_dim k0 = 0; k0 < w->K; k0 += BLOCK) {
            const crnn_dim count = w->K - k0 < BLOCK ? w->K - k0 : BLOCK;
            for (crnn_dim j = 0; j < p.columns; ++j) {
                const char *mine = p.data + k0 * CRNN_LINE_BYTES + j * size;
                const char *theirs = (const char *)values + ((p.column + j) * ldw + k0) * size;
                if (w->format == CRNN_FORMAT_F32)
                    for (crnn_dim k = 0; k < count; ++k)
                        difference |= load_u32(mine + k * CRNN_LINE_BYTES) ^ load_u32(theirs + k * 4);
                else
                    for (crnn_dim k = 0; k < count; ++k)
                        difference |= load_u64(mine + k * CRNN_LINE_BYTES) ^ load_u64(theirs + k * 8);
            }
        }
        if (difference)
            return 0;
    }
    return 1;
}

#endif
