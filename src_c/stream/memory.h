/* SPDX-License-Identifier: MIT
 * stream/memory.h: memory that the caller gives, divided into arrays that start at lines. */
#ifndef CRNN_STREAM_MEMORY_H
#define CRNN_STREAM_MEMORY_H

#include <stdint.h>

#include "crnn_stream.h"
#include "linalg/packing.h"

static const size_t MAX_BYTES = (size_t)-1 / 4;

/* Allots memory from `base` on; with base NULL it only counts. used > MAX_BYTES: more than memory could hold. */
typedef struct {
    char *base;
    size_t used;
} arena;

static size_t times(size_t a, size_t b) { return b && a > MAX_BYTES / b ? MAX_BYTES + 1 : a * b; }

static void *allot(arena *a, size_t count, size_t size)
{
    const size_t bytes = times(count, size);
    void *memory = a->base ? a->base + a->used : NULL;
    if (bytes > MAX_BYTES || a->used > MAX_BYTES)
        a->used = MAX_BYTES + 1;
    else
        a->used += (bytes + CRNN_LINE_BYTES - 1) / CRNN_LINE_BYTES * CRNN_LINE_BYTES;
    return memory;
}

/* Memory for an array like `values`; NULL if that is NULL. */
static void *allot_like(arena *a, const void *values, crnn_dim count, size_t size)
{
    return values ? allot(a, (size_t)count, size) : NULL;
}

static crnn_packed allot_packed(arena *a, crnn_dim K, crnn_dim N, crnn_dim gates, crnn_format format)
{
    crnn_packed w = {.K = K, .N = N, .gates = gates, .format = format};
    w.data = allot(a, 1, crnn_packed_size(&w));
    return w;
}

static size_t total(const arena *a) { return a->used > MAX_BYTES ? 0 : a->used; }
static int is_aligned(const void *memory) { return memory && (uintptr_t)memory % CRNN_LINE_BYTES == 0; }

#endif
