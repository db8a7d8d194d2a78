/* SPDX-License-Identifier: MIT
 * packing.body.h: weights into the panels that a product reads one line per k; see CRNN_PACKED_SIZE in crnn.h. */

static void pack_gates(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N, crnn_dim gates)
{
    enum { ACROSS = 4 }; /* panels written together: runs of 4 lines of w are read 2.5 x as fast from beyond the
                          * second-level cache as single ones */
    const crnn_dim apart = gates * K * LINE; /* from one panel of a gate to its next */
    for (crnn_dim gate = 0; gate < gates; ++gate)
        for (crnn_dim n = 0; n < N; n += ACROSS * LINE) {
            real *panel = packed + n * gates * K + gate * K * LINE;
            const real *w_kn = w + gate * N + n; /* w[k, gate*N + n ...] */
            if (N - n >= ACROSS * LINE)
                for (crnn_dim k = 0; k < K; ++k, w_kn += ldw, panel += LINE)
                    UNROLL
                    for (int j = 0; j < ACROSS; ++j)
                        line_store(panel + j * apart, line_load(w_kn + j * LINE));
            else
                for (crnn_dim k = 0; k < K; ++k, w_kn += ldw, panel += LINE)
                    for (crnn_dim j = 0; j * LINE < N - n; ++j)
                        line_store(panel + j * apart, line_get(w_kn + j * LINE, N - n - j * LINE));
        }
}

/* packed[k][j] = w[j][k] for K columns and `lanes` <= LINE rows of w; the other lanes are zero. */
static void pack_transposed_panel(real *packed, const real *w, crnn_dim ldw, crnn_dim K, int lanes)
{
    enum { BLOCK = 64 }; /* columns of w read together: whole cache lines, and runs of them */
    const int whole = lanes / TRANSPOSED * TRANSPOSED;
    for (crnn_dim k0 = 0; k0 < K; k0 += BLOCK) {
        const crnn_dim k1 = k0 + BLOCK < K ? k0 + BLOCK : K;
        for (int j = 0; j < whole; j += TRANSPOSED) {
            crnn_dim k = k0;
            for (; k + TRANSPOSED <= k1; k += TRANSPOSED)
                transpose_block(packed + k * LINE + j, LINE, w + j * ldw + k, ldw);
            for (; k < k1; ++k)
                for (int i = j; i < j + TRANSPOSED; ++i)
                    packed[k * LINE + i] = w[i * ldw + k];
        }
        for (int j = whole; j < LINE; ++j)
            for (crnn_dim k = k0; k < k1; ++k)
                packed[k * LINE + j] = j < lanes ? w[j * ldw + k] : 0;
    }
}

static void pack_transposed(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N)
{
    for (crnn_dim n = 0; n < N; n += LINE, packed += K * LINE)
        pack_transposed_panel(packed, w + n * ldw, ldw, K, N - n < LINE ? (int)(N - n) : LINE);
}
