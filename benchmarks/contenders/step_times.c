/* SPDX-License-Identifier: MIT
 * step_times.c: times steps of a stream, and reads of memory, in C without Python. native.py links it with libcrnn.a when
 * a benchmark runs, and calls it. */
#define _POSIX_C_SOURCE 199309L
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crnn_stream.h"

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *line_aligned(size_t size)
{
    char *memory = size ? malloc(size + CRNN_LINE_BYTES) : NULL; /* never freed: the process is short */
    return memory ? memory + (CRNN_LINE_BYTES - (uintptr_t)memory % CRNN_LINE_BYTES) % CRNN_LINE_BYTES : NULL;
}

/* One stream of one layer, with an output layer if W_hy is not NULL, on the instruction set named isa; weights in the given
 * format (CRNN_AS_ARRAYS, ...). NULL: no such model, or no memory. */
crnn_streams *bench_stream(const char *isa, const char *cell, int format, crnn_dim D, crnn_dim H, crnn_dim V,
                           const float *W_xh, const float *W_hh, const float *b_h, const float *b_hn, const float *W_hy,
                           const float *b_y)
{
    const crnn_layer_weights layer = {.cell = crnn_cell_find(cell), .hidden_size = H, .W_xh = W_xh, .W_hh = W_hh,
                                      .b_h = b_h, .vectors = {b_hn}, .W_xh_format = format, .W_hh_format = format};
    const crnn_model_config config = {.input_size = D, .num_layers = 1, .layers = &layer, .output_size = V, .W_hy = W_hy,
                                      .b_y = b_y, .W_hy_format = W_hy ? format : CRNN_AS_ARRAYS};
    int number = 0;
    while (number + 1 < crnn_isa_count() && strcmp(crnn_isa_name(number), isa))
        ++number;
    crnn_model *model = crnn_model_init(line_aligned(crnn_model_size(&config, crnn_f32(number))), &config,
                                        crnn_f32(number));
    return model ? crnn_streams_init(line_aligned(crnn_streams_size(model, 1, 1)), model, 1, 1) : NULL;
}

/* ns[i] = nanoseconds of `block` steps, i < n. */
void bench_steps(int64_t *ns, crnn_dim n, crnn_dim block, crnn_streams *stream, float *y, const float *x)
{
    for (crnn_dim i = 0; i < n; ++i) {
        const int64_t start = now();
        for (crnn_dim k = 0; k < block; ++k)
            crnn_streams_step(stream, y, x, NULL, 1);
        ns[i] = now() - start;
    }
}

void bench_id_steps(int64_t *ns, crnn_dim n, crnn_dim block, crnn_streams *stream, float *y, int32_t id)
{
    for (crnn_dim i = 0; i < n; ++i) {
        const int64_t start = now();
        for (crnn_dim k = 0; k < block; ++k)
            crnn_streams_step_ids(stream, y, &id, NULL, 1);
        ns[i] = now() - start;
    }
}

void bench_nothing(int64_t *ns, crnn_dim n)
{
    for (crnn_dim i = 0; i < n; ++i) {
        const int64_t start = now();
        ns[i] = now() - start;
    }
}

/* Reads `lines` consecutive cache lines with the widest loads available, sixteen in flight. */
#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif
typedef int vec __attribute__((vector_size(BYTES)));
enum { CHAINS = 16 };

static int read_once(const char *memory, crnn_dim bytes)
{
    vec chain[CHAINS] = {{0}};
    const vec *from = (const vec *)memory, *end = (const vec *)(memory + bytes);
    for (; from + CHAINS <= end; from += CHAINS) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; ++i)
            chain[i] |= from[i];
    }
    for (; from < end; ++from)
        chain[0] |= *from;
    for (int i = 1; i < CHAINS; ++i)
        chain[0] |= chain[i];
    return chain[0][0];
}

void bench_reads(int64_t *ns, crnn_dim n, crnn_dim block, const char *memory, crnn_dim bytes)
{
    for (crnn_dim i = 0; i < n; ++i) {
        const int64_t start = now();
        for (crnn_dim k = 0; k < block; ++k) {
            volatile int kept = read_once(memory, bytes); /* so that the compiler keeps the reads */
            (void)kept;
        }
        ns[i] = now() - start;
    }
}
