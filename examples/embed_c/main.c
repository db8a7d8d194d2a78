/* SPDX-License-Identifier: MIT
 * Runs a network that was trained in Python in a C program without Python:
 *
 *     python write_weights.py net.bin                                 # writes the weights of a small network
 *     cc -O2 main.c $(crnn-config --cflags --libs) -o embed           # of the installed package
 *     ./embed net.bin < inputs                                        # float32 in, float32 out
 *
 * Reads input_size raw floats per step and writes output_size raw floats. The file of weights contains the cell's name in
 * CELL_NAME bytes, six int32, then float32 arrays in the order in which they are read below. */
#include <stdio.h>
#include <stdlib.h>

#include "crnn_stream.h"

static void fail(const char *what)
{
    fprintf(stderr, "embed: %s\n", what);
    exit(1);
}

static void *read_from(FILE *file, size_t count, size_t size)
{
    void *values = malloc(count * size);
    if (!values || fread(values, size, count, file) != count)
        fail("the file of weights is too short");
    return values;
}

static const float *read_floats(FILE *file, crnn_dim rows, crnn_dim columns)
{
    return read_from(file, (size_t)rows * (size_t)columns, sizeof(float));
}

/* Memory aligned to CRNN_LINE_BYTES, as crnn requires. */
static void *line_aligned(size_t size)
{
    char *memory = size ? malloc(size + CRNN_LINE_BYTES) : NULL;
    if (!memory)
        fail("no memory, or no such network");
    return memory + (CRNN_LINE_BYTES - (uintptr_t)memory % CRNN_LINE_BYTES) % CRNN_LINE_BYTES;
}

int main(int count, char **arguments)
{
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (!file)
        fail("expected one argument: the file of weights");

    enum { CELL_NAME = 16 };
    char *name = read_from(file, CELL_NAME, 1);
    name[CELL_NAME - 1] = '\0';
    const int number = crnn_cell_find(name);
    const crnn_cell *cell = crnn_cell_info(number);
    if (!cell)
        fail("no such cell in this build of crnn");

    enum { INPUT_SIZE, HIDDEN_SIZE, NUM_LAYERS, OUTPUT_SIZE, INITIAL_STATE, POOLING, NUMBERS };
    const int32_t *n = read_from(file, NUMBERS, sizeof(int32_t));
    const crnn_dim H = n[HIDDEN_SIZE], V = n[OUTPUT_SIZE];

    crnn_layer_weights *layers = calloc((size_t)n[NUM_LAYERS], sizeof *layers);
    for (crnn_dim i = 0, K = n[INPUT_SIZE]; i < n[NUM_LAYERS]; ++i, K = H) {
        layers[i].cell = number;
        layers[i].hidden_size = H;
        layers[i].W_xh = read_floats(file, K, cell->gates * H);
        if (cell->recurrent_gates)
            layers[i].W_hh = read_floats(file, H, cell->recurrent_gates * H);
        layers[i].b_h = read_floats(file, 1, cell->gates * H);
        for (int v = 0; cell->vectors[v]; ++v)
            layers[i].vectors[v] = read_floats(file, 1, H);
        if (n[INITIAL_STATE]) { /* that was trained; otherwise it is zero */
            layers[i].h0 = read_floats(file, 1, H);
            if (cell->has_c)
                layers[i].c0 = read_floats(file, 1, H);
        }
    }
    crnn_model_config config = {.input_size = n[INPUT_SIZE], .num_layers = n[NUM_LAYERS], .layers = layers,
                                .output_size = V, .pooling = n[POOLING]};
    if (V > 0) {
        config.W_hy = read_floats(file, H, V);
        config.b_y = read_floats(file, 1, V);
    }
    fclose(file);

    /* All memory that crnn uses. The arrays read above are not needed after crnn_model_init, which packs them. */
    const crnn_kernels_f32 *kernels = crnn_f32(crnn_isa_best());
    crnn_model *model = crnn_model_init(line_aligned(crnn_model_size(&config, kernels)), &config, kernels);
    crnn_streams *stream = crnn_streams_init(line_aligned(crnn_streams_size(model, 1, 1)), model, 1, 1);
    const size_t outputs = (size_t)crnn_model_output_size(model), inputs = (size_t)config.input_size;
    float *x = malloc(inputs * sizeof(float)), *y = malloc(outputs * sizeof(float));
    while (fread(x, sizeof(float), inputs, stdin) == inputs) {
        crnn_streams_step(stream, y, x, NULL, 1);
        if (fwrite(y, sizeof(float), outputs, stdout) != outputs)
            fail("cannot write");
    }
    return 0;
}
