/* SPDX-License-Identifier: MIT
 * stack_times.c: a program without Python that times single steps and whole windows of a model: a stack of LSTM layers
 * of one size, and an output layer. c_program.py compiles it with libcrnn.a and runs it.
 *
 *     stack_times FILE ISA FORMAT LAYERS D H V T
 *
 * FORMAT: how weights are stored, 0 as floats, 1 bf16, 2 int8 (CRNN_AS_ARRAYS, ...). FILE: float32, for every layer W_xh, W_hh, b_h; then W_hy, b_y, and a window x (T, D). Each line of the standard input
 * is a command, "step N BLOCK", "window N BLOCK" or "nothing N BLOCK"; the answer on the standard output is binary:
 * int64 ns[N], the nanoseconds of BLOCK calls each; double, CPU seconds of the program so far; float y[V], the last output. */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crnn_stream.h"

enum { MAX_LAYERS = 16, GATES = 4 };

static int64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *allocate(size_t size)
{
    void *memory = NULL;
    if (!size || posix_memalign(&memory, CRNN_LINE_BYTES, size)) {
        fputs("no such model, or no memory\n", stderr);
        exit(1);
    }
    return memory;
}

static const float *read_floats(FILE *file, crnn_dim count)
{
    float *values = allocate((size_t)count * sizeof *values);
    if (fread(values, sizeof *values, (size_t)count, file) != (size_t)count) {
        fputs("the file is too short\n", stderr);
        exit(1);
    }
    return values;
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fputs("expected FILE ISA FORMAT LAYERS D H V T\n", stderr);
        return 2;
    }
    FILE *file = fopen(argv[1], "rb");
    const int format = atoi(argv[3]), layers = atoi(argv[4]);
    const crnn_dim D = atol(argv[5]), H = atol(argv[6]), V = atol(argv[7]), T = atol(argv[8]);
    if (!file || layers < 1 || layers > MAX_LAYERS) {
        fputs("no such file, or too many layers\n", stderr);
        return 2;
    }
    crnn_layer_weights layer[MAX_LAYERS] = {{0}};
    for (int k = 0; k < layers; ++k) {
        layer[k].cell = crnn_cell_find("lstm");
        layer[k].hidden_size = H;
        layer[k].W_xh = read_floats(file, (k ? H : D) * GATES * H);
        layer[k].W_hh = read_floats(file, H * GATES * H);
        layer[k].b_h = read_floats(file, GATES * H);
        layer[k].W_xh_format = layer[k].W_hh_format = format;
    }
    crnn_model_config config = {.input_size = D, .num_layers = layers, .layers = layer, .output_size = V};
    config.W_hy_format = format;
    config.W_hy = read_floats(file, H * V);
    config.b_y = read_floats(file, V);
    const float *x = read_floats(file, T * D);
    fclose(file);

    int isa = 0;
    while (isa + 1 < crnn_isa_count() && strcmp(crnn_isa_name(isa), argv[2]))
        ++isa;
    const crnn_kernels_f32 *kernels = crnn_f32(isa);
    crnn_model *model = crnn_model_init(allocate(crnn_model_size(&config, kernels)), &config, kernels);
    crnn_streams *step = crnn_streams_init(allocate(crnn_streams_size(model, 1, 1)), model, 1, 1);
    crnn_streams *window = crnn_streams_init(allocate(crnn_streams_size(model, 1, CRNN_STREAM_BLOCK)), model, 1,
                                             CRNN_STREAM_BLOCK);
    float *ys = allocate((size_t)(T * V) * sizeof *ys);

    char kind[16];
    long n, block;
    while (scanf("%15s %ld %ld", kind, &n, &block) == 3) {
        int64_t *ns = allocate((size_t)n * sizeof *ns);
        const float *y = ys;
        memset(ns, 0, (size_t)n * sizeof *ns); /* so that no page is touched first inside the clock's readings */
        for (long i = 0; i < n; ++i) {
            const int64_t start = now(CLOCK_MONOTONIC);
            if (kind[0] == 's') {
                for (long k = 0; k < block; ++k)
                    crnn_streams_step(step, ys, x, NULL, 1);
            } else if (kind[0] == 'w') {
                for (long k = 0; k < block; ++k) {
                    crnn_streams_reset(window, NULL, 1);
                    crnn_streams_run(window, ys, x, T, 0);
                }
                y = ys + (T - 1) * V;
            }
            ns[i] = now(CLOCK_MONOTONIC) - start;
        }
        const double cpu = (double)now(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
        fwrite(ns, sizeof *ns, (size_t)n, stdout);
        fwrite(&cpu, sizeof cpu, 1, stdout);
        fwrite(y, sizeof *y, (size_t)V, stdout);
        fflush(stdout);
        free(ns);
    }
    return 0;
}
