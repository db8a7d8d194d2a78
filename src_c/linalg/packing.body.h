/* SPDX-License-Identifier: MIT
 * packing.body.h: weights into the panels that a product reads one line per k; see CRNN_PACKED_SIZE in crnn.h. */

static void pack_gates(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N, crnn_dim gates)
{
    for (crnn_dim n = 0; n < N; n += LINE)
        for (crnn_dim gate = 0; gate < gates; ++gate)
            for (crnn_dim k = 0; k < K; ++k, packed += LINE) {
                const real *w_kn = w + k * ldw + gate * N + n; /* w[k, gate*N + n ...] */
                line_store(packed, line_get(w_kn, N - n));
            }
}

static void pack_transposed(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N)
{
    enum { BLOCK = 16 }; /* columns of w read together, so that a cache line of w is read once */
    for (crnn_dim n = 0; n < N; n += LINE, packed += K * LINE) {
        int lanes = N - n < LINE ? (int)(N - n) : LINE;
        for (crnn_dim k0 = 0; k0 < K; k0 += BLOCK) {
            crnn_dim k1 = k0 + BLOCK < K ? k0 + BLOCK : K;
            for (int j = 0; j < lanes; ++j) {
                const real *w_n = w + (n + j) * ldw; /* w[n+j, :] */
                for (crnn_dim k = k0; k < k1; ++k)
                    packed[k * LINE + j] = w_n[k];
            }
            for (int j = lanes; j < LINE; ++j)
                for (crnn_dim k = k0; k < k1; ++k)
                    packed[k * LINE + j] = 0;
        }
    }
}
