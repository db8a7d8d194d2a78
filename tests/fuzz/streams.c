/* SPDX-License-Identifier: MIT
 * Any configuration of a stream is refused, or runs within its memory and with the same bits on every instruction set.
 *
 *     make -C src_c OUT=../build/c
 *     cc -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -Isrc_c tests/fuzz/streams.c src_c/stream.c \
 *         build/c/libcrnn.a -lm -o streams
 *     ./streams 60 1              # seconds, seed
 *
 * LLVMFuzzerTestOneInput also serves libFuzzer: with clang, -fsanitize=fuzzer,... and -DLIBFUZZER. */
#include "crnn_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS = 3, TAILS = 2, LIMIT = 1 << 18 }; /* bytes of a model, and of its streams, that are tried */
enum { WEIGHTS = 2 * LIMIT + 2 }; /* of a matrix at most, in int4; they are read from the first, second or third on */

static const uint8_t *bytes;
static size_t left;
static long ran; /* inputs that were not refused */

static uint64_t take(size_t count)
{
    uint64_t value = 0;
    for (; count > 0 && left > 0; --count, --left)
        value = value << 8 | *bytes++;
    return value;
}

/* Mostly small, sometimes anything. */
static crnn_dim take_size(void)
{
    const uint64_t kind = take(1);
    if (kind < 250)
        return (crnn_dim)(kind % 40) + 1;
    const uint64_t value = take(8);
    return kind < 253 ? (crnn_dim)(value & 0xfff) : (crnn_dim)value;
}

/* A storage of weights: half of them as the arrays are, sometimes none. */
static int take_format(void)
{
    const int kind = (int)take(1);
    return kind < 128 ? CRNN_AS_ARRAYS : kind < 250 ? kind % (CRNN_INT4 + 1) : kind - 252;
}

/* Weights of any length up to that of the largest model that is tried, in memory that ends there. */
static const float *weights(void)
{
    static float *values;
    if (!values) {
        values = malloc(WEIGHTS * sizeof *values);
        for (size_t i = 0; values && i < WEIGHTS; ++i)
            values[i] = (float)((int)(i * 2654435761u >> 16) % 2001 - 1000) * 1e-3f;
    }
    return values;
}

static void *line_aligned(void **memory, size_t size)
{
    if (posix_memalign(memory, CRNN_LINE_BYTES, size))
        abort();
    return *memory;
}

/* What a model says in two steps of some streams, and in a run of one that continues from the state of another, on one
 * instruction set. NULL if it is refused. */
static float *outputs(const crnn_model_config *config, const crnn_kernels_f32 *kernels, crnn_dim N, crnn_dim block,
                      int as_ids, size_t *length)
{
    const size_t size = crnn_model_size(config, kernels);
    if (!size || size > LIMIT || N > 64)
        return NULL;
    void *model_memory, *streams_memory = NULL;
    float *y = NULL;
    crnn_model *model = crnn_model_init(line_aligned(&model_memory, size), config, kernels);
    if (!model)
        abort(); /* a size was given */
    if (!crnn_model_equals(model, config))
        abort(); /* it is what it was made of */
    const size_t streams_size = crnn_streams_size(model, N, block);
    if (streams_size && streams_size <= LIMIT) {
        crnn_streams *streams = crnn_streams_init(line_aligned(&streams_memory, streams_size), model, N, block);
        const size_t rows = (size_t)N, D = (size_t)crnn_model_input_size(model);
        const size_t V = (size_t)crnn_model_output_size(model);
        double *x = malloc(rows * D * sizeof *x); /* enough for float, and for double where inputs are standardised */
        int32_t *ids = malloc(rows * sizeof *ids);
        float *state = malloc((size_t)crnn_model_state_size(model) * sizeof *state);
        *length = 3 * rows * V * 2;
        y = calloc(*length, sizeof *y);
        if (!streams || !x || !ids || !state || !y)
            abort();
        for (size_t i = 0; i < rows * D; ++i)
            x[i] = (double)(i % 7) * 0.25 - 0.5;
        for (size_t i = 0; i < rows; ++i)
            ids[i] = (int32_t)(i * 5 % D);
        as_ids = as_ids || crnn_model_takes_ids_only(model);
        for (int step = 0; step < 2; ++step)
            if (as_ids)
                crnn_streams_step_ids(streams, y + (size_t)step * rows * V * 2, ids, NULL, N);
            else
                crnn_streams_step(streams, y + (size_t)step * rows * V * 2, x, NULL, N);
        crnn_streams_get_state(streams, state, 0);
        crnn_streams_set_state(streams, state, N - 1);
        if (as_ids)
            crnn_streams_run_ids(streams, y + 2 * rows * V * 2, ids, N, N - 1);
        else
            crnn_streams_run(streams, y + 2 * rows * V * 2, x, N, N - 1);
        crnn_streams_copy(streams, 0, streams, N - 1);
        crnn_streams_reset(streams, NULL, N);
        free(x);
        free(ids);
        free(state);
    }
    free(streams_memory);
    free(model_memory);
    return y;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bytes = data;
    left = size;
    crnn_layer_weights layers[LAYERS];
    memset(layers, 0, sizeof layers);
    static const double zeros[LIMIT / 8], ones[2] = {1, 1};
    crnn_model_config config = {.layers = layers};
    const uint64_t depth = take(1);
    config.num_layers = depth ? 1 + (crnn_dim)(depth % LAYERS) : 0;
    const unsigned given = (unsigned)(take(2) & take(2)); /* which parts there are, a quarter of them */
    const float *w = weights();
    config.input_size = take_size();
    config.output_size = given & 1 ? take_size() : 0;
    if (given & 2) {
        config.embedding_size = take_size();
        config.embedding = given & 4 ? NULL : w;
    }
    config.b_y = given & 16 && given & 1024 ? NULL : w;
    config.tie_weights = !!(given & 32);
    config.W_hy = config.tie_weights != !!(given & 8) ? NULL : w;
    config.pooling = given & 64 ? (int)(take(1) % 5) - 1 : CRNN_POOL_LAST;
    if (given & 128 && given & 256) { /* one column of targets, whose statistics are of any number of columns */
        config.y_mean = zeros;
        config.y_std = ones;
        config.y_columns = (crnn_dim)(take(1) % 3);
    }
    config.dense_layers = !!(given & 512);
    for (crnn_dim i = 0; i < config.num_layers; ++i) {
        const unsigned with = (unsigned)take(1);
        const int cell_number = (int)take(1);
        layers[i].cell = cell_number < 250 ? cell_number % crnn_cell_count() : cell_number - 252;
        layers[i].hidden_size = take_size();
        layers[i].W_xh = w;
        layers[i].b_h = with & 1 && with & 2 ? NULL : w;
        const crnn_cell *cell = crnn_cell_info(layers[i].cell);
        if (!cell || cell->recurrent_gates || (with & 4 && with & 8))
            layers[i].W_hh = w + 1;
        for (int v = 0; v < CRNN_CELL_VECTORS && cell && cell->vectors[v]; ++v)
            layers[i].vectors[v] = with & 16 && with & 32 ? NULL : w + 2;
        layers[i].h0 = with & 64 ? w : NULL;
        layers[i].c0 = with & 128 ? w : NULL;
        layers[i].W_xh_format = take_format();
        layers[i].W_hh_format = take_format();
    }
    if (config.tie_weights && take(1) < 250) {
        config.output_size = config.input_size;
        uint64_t size_above = 0;
        for (crnn_dim i = 0; i < config.num_layers; ++i)
            size_above = (config.dense_layers ? size_above : 0) + (uint64_t)layers[i].hidden_size;
        config.embedding_size = (crnn_dim)size_above;
        config.embedding = w;
    }
    config.W_hy_format = take_format();
    const crnn_dim N = take_size(), block = take_size();
    const int as_ids = (int)(take(1) & 1);
    crnn_tail_weights tails[TAILS];
    const uint64_t num_tails = take(1);
    if (num_tails & 3 && config.output_size) { /* most of them valid */
        config.num_tails = 1 + (crnn_dim)(num_tails % TAILS);
        config.tails = num_tails > 250 ? NULL : tails;
        for (int i = 0; i < TAILS; ++i) {
            const unsigned with = (unsigned)take(1);
            tails[i] = (crnn_tail_weights){.W_hp = with == 1 ? NULL : w, .W_py = with == 2 ? NULL : w + 1};
            tails[i].size = take_size();
            tails[i].projection_size = take_size();
            tails[i].W_hp_format = take_format();
            tails[i].W_py_format = take_format();
            config.output_size += with & 4 || i >= config.num_tails || config.tie_weights ? 0 : tails[i].size & 0xfff;
        }
    }

    float *first = NULL;
    size_t length = 0;
    for (int isa = 0; isa < crnn_isa_count(); ++isa) {
        if (!crnn_isa_built(isa) || !crnn_isa_supported(isa))
            continue;
        size_t other_length = 0;
        float *other = outputs(&config, crnn_f32(isa), N, block, as_ids, &other_length);
        if (isa && (length != other_length || (length && memcmp(first, other, length * sizeof *first))))
            abort(); /* other bits */
        if (isa)
            free(other);
        else
            first = other, length = other_length;
    }
    ran += length > 0;
    free(first);
    return 0;
}

#ifndef LIBFUZZER
int main(int count, char **arguments)
{
    const time_t end = time(NULL) + (count > 1 ? atoi(arguments[1]) : 60);
    uint64_t random = count > 2 ? strtoull(arguments[2], NULL, 10) : (uint64_t)end; /* splitmix64 */
    long inputs = 0;
    printf("streams: seed %llu\n", (unsigned long long)random);
    fflush(stdout);
    for (; time(NULL) < end; ++inputs) {
        uint64_t input[12];
        for (size_t i = 0; i < sizeof input / sizeof *input; ++i) {
            uint64_t z = random += 0x9e3779b97f4a7c15u;
            z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
            z = (z ^ z >> 27) * 0x94d049bb133111ebu;
            input[i] = z ^ z >> 31;
        }
        LLVMFuzzerTestOneInput((const uint8_t *)input, sizeof input);
    }
    printf("streams: %ld inputs, %ld of them ran\n", inputs, ran);
    return ran == 0;
}
#endif
