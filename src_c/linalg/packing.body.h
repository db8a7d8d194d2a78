/* SPDX-License-Identifier: MIT
 * packing.body.h: weights into the panels that a product reads one line per k; see CRNN_PACKED_SIZE in crnn.h. */

/* The last columns of the gates, see layout.h. */
static void pack_last(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N, crnn_dim gates)
{
    const panel_layout layout = panel_layout_of(N, gates, LINE, 1);
    packed += layout.full * gates * K * LINE;
    w += layout.full * LINE;
    for (crnn_dim gate = 0; gate < gates; gate += layout.each, w += layout.each * N) {
        const crnn_dim parts = gate + layout.each < gates ? layout.each : gates - gate;
        const real *w_k = w;
        for (crnn_dim k = 0; k < K; ++k, w_k += ldw, packed += LINE)
            if (parts == 1)
                line_store(packed, line_load_n(w_k, layout.cols));
            else {
                real shared[2 * LINE]; /* a line is stored for each gate, zero beyond its columns */
                for (crnn_dim part = 0; part < parts; ++part)
                    line_store(shared + part * layout.cols, line_load_n(w_k + part * N, layout.cols));
                line_store(packed, line_load(shared));
            }
    }
}

static void pack_gates(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N, crnn_dim gates)
{
    enum { ACROSS = 4 }; /* panels written together: runs of 4 lines of w are read 2.5 x as fast from beyond the
                          * second-level cache as single ones */
    const crnn_dim apart = gates * K * LINE; /* from one panel of a gate to its next */
    const crnn_dim whole = N / LINE * LINE;
    for (crnn_dim gate = 0; gate < gates; ++gate)
        for (crnn_dim n = 0; n < whole; n += ACROSS * LINE) {
            real *panel = packed + n * gates * K + gate * K * LINE;
            const real *w_kn = w + gate * N + n; /* w[k, gate*N + n ...] */
            if (whole - n >= ACROSS * LINE)
                for (crnn_dim k = 0; k < K; ++k, w_kn += ldw, panel += LINE)
                    UNROLL
                    for (int j = 0; j < ACROSS; ++j)
                        line_store(panel + j * apart, line_load(w_kn + j * LINE));
            else
                for (crnn_dim k = 0; k < K; ++k, w_kn += ldw, panel += LINE)
                    for (crnn_dim j = 0; j * LINE < whole - n; ++j)
                        line_store(panel + j * apart, line_load(w_kn + j * LINE));
        }
    if (whole < N)
        pack_last(packed, w, ldw, K, N, gates);
}

/* transpose_block of `rows` x `columns` elements, of which some may be missing: to[k][j], zero beyond the rows. */
NOCLONE static void transpose_edge(real *to, const real *from, crnn_dim ldfrom, int rows, int columns)
{
    enum { ROW = TRANSPOSED * sizeof(real) };
    real block[TRANSPOSED * TRANSPOSED] = {0}, transposed[TRANSPOSED * TRANSPOSED];
    for (int i = 0; i < rows; ++i, from += ldfrom)
        if (columns == TRANSPOSED)
            memcpy(block + i * TRANSPOSED, from, ROW);
        else
            memcpy(block + i * TRANSPOSED, from, (size_t)columns * sizeof(real));
    transpose_block(transposed, TRANSPOSED, block, TRANSPOSED);
    for (int k = 0; k < columns; ++k)
        memcpy(to + k * LINE, transposed + k * TRANSPOSED, ROW);
}

/* packed[k][j] = w[j][k] for K columns and `lanes` <= LINE rows of w; the other lanes are zero. */
static void pack_transposed_panel(real *packed, const real *w, crnn_dim ldw, crnn_dim K, int lanes)
{
    enum { BLOCK = 64 }; /* columns of w read together: whole cache lines, and runs of them */
    for (crnn_dim k0 = 0; k0 < K; k0 += BLOCK) {
        const crnn_dim k1 = k0 + BLOCK < K ? k0 + BLOCK : K;
        for (int j = 0; j < LINE; j += TRANSPOSED) {
            const int rows = lanes - j < TRANSPOSED ? (lanes > j ? lanes - j : 0) : TRANSPOSED;
            for (crnn_dim k = k0; k < k1; k += TRANSPOSED) {
                real *to = packed + k * LINE + j;
                const real *from = w + (rows ? j * ldw + k : 0);
                if (rows == TRANSPOSED && k1 - k >= TRANSPOSED)
                    transpose_block(to, LINE, from, ldw);
                else
                    transpose_edge(to, from, ldw, rows, k1 - k < TRANSPOSED ? (int)(k1 - k) : TRANSPOSED);
            }
        }
    }
}

static void pack_transposed(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N)
{
    for (crnn_dim n = 0; n < N; n += LINE, packed += K * LINE)
        pack_transposed_panel(packed, w + n * ldw, ldw, K, N - n < LINE ? (int)(N - n) : LINE);
}
