/* SPDX-License-Identifier: MIT
 * gemm.body.h: packed matrix products. A tile of m rows and nl panels is held in registers while k runs from 0 to K:
 * each element's chain of fused multiply-adds is never split, so the tile's shape does not show in the bits.
 * Tiles widen over outputs only. Refuses alpha, beta and strides: the callers need none. */

/* Largest tile. Few rows take more panels, so that enough independent chains hide the latency of an fma. */
#if defined(CRNN_AVX512)
enum { TILE_ROWS = 12, TILE_PANELS = 8 };
#define PANELS_FOR(m) ((m) == 1 ? 8 : (m) <= 4 ? 4 : 2)
#elif defined(CRNN_AVX2)
enum { TILE_ROWS = 6, TILE_PANELS = 4 };
#define PANELS_FOR(m) ((m) == 1 ? 4 : (m) <= 3 ? 2 : 1)
#elif defined(CRNN_NEON)
enum { TILE_ROWS = 6, TILE_PANELS = 4 };
#define PANELS_FOR(m) ((m) == 1 ? 4 : (m) <= 3 ? 2 : 1)
#else
enum { TILE_ROWS = 4, TILE_PANELS = 1 };
#define PANELS_FOR(m) 1
#endif

/* The m rows that a tile works on, as one pointer each. */
typedef struct {
    real *y[TILE_ROWS];          /* out: row of y at the tile's first column */
    const real *init[TILE_ROWS]; /* what the chain starts from; NULL: zero */
    const real *x[TILE_ROWS];    /* row of x */
} tile_rows;

INLINE void tile_start(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, const real *const *init, crnn_dim cols)
{
    crnn_dim last = cols - (nl - 1) * LINE; /* columns of the last panel */
    UNROLL
    for (int i = 0; i < m; ++i)
        UNROLL
        for (int j = 0; j < nl; ++j)
            acc[i][j] = !init[i] ? line_set1(0)
                        : j < nl - 1 || last == LINE ? line_load(init[i] + j * LINE)
                                                     : line_load_n(init[i] + j * LINE, last);
}

INLINE void tile_finish(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, real *const *y, crnn_dim cols)
{
    crnn_dim last = cols - (nl - 1) * LINE;
    UNROLL
    for (int i = 0; i < m; ++i) {
        UNROLL
        for (int j = 0; j < nl - 1; ++j)
            line_store(y[i] + j * LINE, acc[i][j]);
        if (last == LINE)
            line_store(y[i] + (nl - 1) * LINE, acc[i][nl - 1]);
        else
            line_store_n(y[i] + (nl - 1) * LINE, acc[i][nl - 1], last);
    }
}

/* y[i][:] = init[i][:] + x[i][0..K) @ w: m rows, nl panels, cols <= nl * LINE columns. */
INLINE void tile_forward(const int m, const int nl, const tile_rows *rows, const real *w, crnn_dim K, crnn_dim cols)
{
    line acc[TILE_ROWS][TILE_PANELS];
    tile_start(acc, m, nl, rows->init, cols);
    const real *x[TILE_ROWS];
    UNROLL
    for (int i = 0; i < m; ++i)
        x[i] = rows->x[i];
    for (crnn_dim k = 0; k < K; ++k) {
        line w_k[TILE_PANELS];
        UNROLL
        for (int j = 0; j < nl; ++j)
            w_k[j] = line_load(w + (j * K + k) * LINE);
        UNROLL
        for (int i = 0; i < m; ++i) {
            line x_ik = line_set1(x[i][k]);
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_fma(x_ik, w_k[j], acc[i][j]);
        }
    }
    tile_finish(acc, m, nl, rows->y, cols);
}

/* dw[i][:] += sum over k of x[k*ldx + i] * dy[k][:]: m rows of dw, nl packed panels of dy, CRNN_GRAD_ROWS apart. */
INLINE void tile_backward_weight(const int m, const int nl, real *dw, crnn_dim lddw, const real *x, crnn_dim ldx,
                                 const real *dy, crnn_dim K, crnn_dim cols)
{
    line acc[TILE_ROWS][TILE_PANELS];
    real *dw_i[TILE_ROWS];
    UNROLL
    for (int i = 0; i < m; ++i)
        dw_i[i] = dw + i * lddw;
    tile_start(acc, m, nl, (const real *const *)dw_i, cols);
    for (crnn_dim k = 0; k < K; ++k, x += ldx, dy += LINE) {
        line dy_k[TILE_PANELS];
        UNROLL
        for (int j = 0; j < nl; ++j)
            dy_k[j] = line_load(dy + j * CRNN_GRAD_ROWS * LINE);
        UNROLL
        for (int i = 0; i < m; ++i) {
            line x_ki = line_set1(x[i]);
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_fma(x_ki, dy_k[j], acc[i][j]);
        }
    }
    tile_finish(acc, m, nl, dw_i, cols);
}

/* The tiles that exist: m = 1 .. TILE_ROWS, nl = 1 .. PANELS_FOR(m). */
#if defined(CRNN_AVX512)
#define FOR_EACH_TILE(T)                                                                                               \
    T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6) T(1, 7) T(1, 8) T(2, 1) T(2, 2) T(2, 3) T(2, 4) T(3, 1) T(3, 2)    \
    T(3, 3) T(3, 4) T(4, 1) T(4, 2) T(4, 3) T(4, 4) T(5, 1) T(5, 2) T(6, 1) T(6, 2) T(7, 1) T(7, 2) T(8, 1) T(8, 2)    \
    T(9, 1) T(9, 2) T(10, 1) T(10, 2) T(11, 1) T(11, 2) T(12, 1) T(12, 2)
#elif defined(CRNN_AVX2) || defined(CRNN_NEON)
#define FOR_EACH_TILE(T)                                                                                               \
    T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(4, 1) T(5, 1) T(6, 1)
#else
#define FOR_EACH_TILE(T) T(1, 1) T(2, 1) T(3, 1) T(4, 1)
#endif

static void run_tile_forward(int m, int nl, const tile_rows *rows, const real *w, crnn_dim K, crnn_dim cols)
{
    switch (m * 16 + nl) {
#define CASE(m, nl) case (m) * 16 + (nl): tile_forward(m, nl, rows, w, K, cols); break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}

static void run_tile_backward_weight(int m, int nl, real *dw, crnn_dim lddw, const real *x, crnn_dim ldx, const real *dy,
                                     crnn_dim K, crnn_dim cols)
{
    switch (m * 16 + nl) {
#define CASE(m, nl) case (m) * 16 + (nl): tile_backward_weight(m, nl, dw, lddw, x, ldx, dy, K, cols); break;
        FOR_EACH_TILE(CASE)
#undef CASE
    }
}

/* ---- whole products ------------------------------------------------------------------------------------------------ */

/* Where row g of a product starts from: base + stride * (ids ? ids[g] : g). A bias has stride 0. base NULL: zero. */
typedef struct {
    const real *base;
    crnn_dim stride;
    const int32_t *ids;
} row_source;

/* What is done to the elements of y once their chains are complete, while they are in the first cache. */
typedef enum { KEEP, TANH, RELU, TANH_BACKWARD, RELU_BACKWARD } epilogue;

/* One line of it. h is the forward value at the same place, read only by the backward forms:
 * h = tanh(a) gives da = dh * (1 - h*h); h = max(a, 0) gives da = h > 0 ? dh : 0. */
INLINE line epilogue_line(epilogue e, line y, line h)
{
    switch (e) {
    case TANH: return line_tanh(y);
    case RELU: return line_max(line_set1(0), y);
    case TANH_BACKWARD: return line_mul(y, line_fnma(h, h, line_set1(1)));
    case RELU_BACKWARD: return line_pick(h, line_set1(0), y, line_set1(0));
    default: return y;
    }
}

INLINE void epilogue_row(epilogue e, real *y, const real *h, crnn_dim n)
{
    for (crnn_dim j = 0, left = n; left > 0; j += LINE, left -= LINE)
        line_put(y + j, epilogue_line(e, line_get(y + j, left), line_get(h + j, left)), left);
}

/* m rows of n columns; h has y's layout. Kept out of line: the switch on e is decided once for the whole tile. */
static void run_epilogue(epilogue e, real *const *y, const real *h_base, const real *y_base, int m, crnn_dim n)
{
#define ROWS(E, h) for (int i = 0; i < m; ++i) epilogue_row(E, y[i], h, n);
    switch (e) {
    case TANH: ROWS(TANH, y[i]) break;
    case RELU: ROWS(RELU, y[i]) break;
    case TANH_BACKWARD: ROWS(TANH_BACKWARD, h_base + (y[i] - y_base)) break;
    case RELU_BACKWARD: ROWS(RELU_BACKWARD, h_base + (y[i] - y_base)) break;
    default: break;
    }
#undef ROWS
}

/* y[g,:] = e( init(g) + x[g,:] @ w ) for the rows g = t*B + b, 0 <= t < T, b0 <= b < b1. w packed (K, N). */
static void product(real *y, row_source init, const real *x, const real *w, epilogue e, const real *h,
                    crnn_dim T, crnn_dim B, crnn_dim K, crnn_dim N, crnn_dim b0, crnn_dim b1)
{
    assert(T > 0 && K > 0 && N > 0 && 0 <= b0 && b0 < b1 && b1 <= B);
    const crnn_dim width = b1 - b0, M = T * width, panels = CRNN_PANELS(real, N);
    /* Rows of x that stay in the second cache while all of w passes by. */
    crnn_dim chunk = (128 * 1024 / (crnn_dim)sizeof(real)) / K;
    chunk = chunk < 4 * TILE_ROWS ? 4 * TILE_ROWS : chunk;
    for (crnn_dim m0 = 0; m0 < M; m0 += chunk) {
        crnn_dim rows_here = M - m0 < chunk ? M - m0 : chunk;
        crnn_dim blocks = (rows_here + TILE_ROWS - 1) / TILE_ROWS;
        int nl = 0;
        for (crnn_dim p = 0; p < panels; p += nl) {
            crnn_dim done = 0;
            int most = PANELS_FOR(rows_here / blocks + (rows_here % blocks != 0));
            nl = panels - p < most ? (int)(panels - p) : most;
            crnn_dim n0 = p * LINE, cols = N - n0 < nl * LINE ? N - n0 : nl * LINE;
            for (crnn_dim block = 0; block < blocks; ++block) {
                int m = (int)(rows_here / blocks + (block < rows_here % blocks));
                assert(0 < m && m <= TILE_ROWS && 0 < nl && nl <= PANELS_FOR(m));
                crnn_dim first = m0 + done, t = first / width, b = b0 + first % width;
                tile_rows rows;
                for (int i = 0; i < m; ++i) {
                    crnn_dim g = t * B + b;
                    rows.y[i] = y + g * N + n0;
                    rows.x[i] = x + g * K;
                    rows.init[i] = init.base ? init.base + init.stride * (init.ids ? init.ids[g] : g) + n0 : NULL;
                    if (++b == b1)
                        b = b0, ++t;
                }
                run_tile_forward(m, nl, &rows, w + p * K * LINE, K, cols);
                if (e != KEEP)
                    run_epilogue(e, rows.y, h, y, m, cols);
                done += m;
            }
        }
    }
}

static void pack(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N)
{
    for (crnn_dim n = 0; n < N; n += LINE)
        for (crnn_dim k = 0; k < K; ++k, packed += LINE) {
            const real *w_kn = w + k * ldw + n; /* w[k, n:n+LINE] */
            line_store(packed, line_get(w_kn, N - n));
        }
}

static void pack_transposed(real *packed, const real *w, crnn_dim ldw, crnn_dim K, crnn_dim N)
{
    enum { BLOCK = 16 }; /* columns of w read together, so that a cache line of w is used up while it is near */
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

static void linear_forward(real *y, const real *x, const real *w, const real *bias,
                           crnn_dim T, crnn_dim B, crnn_dim K, crnn_dim N, crnn_dim b0, crnn_dim b1)
{
    float_mode mode = denormals_off();
    product(y, (row_source){bias, 0, NULL}, x, w, KEEP, NULL, T, B, K, N, b0, b1);
    float_mode_restore(mode);
}

static void linear_backward_weight(real *dw, const real *x, const real *dy, real *scratch,
                                   crnn_dim M, crnn_dim K, crnn_dim N, crnn_dim n0, crnn_dim n1)
{
    assert(M >= 0 && K > 0 && n0 % LINE == 0 && 0 <= n0 && n0 <= n1 && n1 <= N);
    float_mode mode = denormals_off();
    const crnn_dim blocks = (K + TILE_ROWS - 1) / TILE_ROWS;
    const int most = PANELS_FOR(TILE_ROWS);
    for (crnn_dim m0 = 0; m0 < M; m0 += CRNN_GRAD_ROWS) {
        crnn_dim rows_here = M - m0 < CRNN_GRAD_ROWS ? M - m0 : CRNN_GRAD_ROWS;
        const real *x_m = x + m0 * K; /* x[m0, :] */
        for (crnn_dim n = n0; n < n1;) {
            int nl = most * LINE <= n1 - n ? most : 1;
            crnn_dim cols = n1 - n < nl * LINE ? n1 - n : nl * LINE;
            for (int j = 0; j < nl; ++j)
                pack(scratch + j * CRNN_GRAD_ROWS * LINE, dy + m0 * N + n + j * LINE, N, rows_here,
                     cols - j * LINE < LINE ? cols - j * LINE : LINE);
            crnn_dim k = 0;
            for (crnn_dim block = 0; block < blocks; ++block) {
                int m = (int)(K / blocks + (block < K % blocks));
                run_tile_backward_weight(m, nl, dw + k * N + n, N, x_m + k, K, scratch, rows_here, cols);
                k += m;
            }
            n += nl * LINE;
        }
    }
    float_mode_restore(mode);
}

static void bias_backward(real *db, const real *dy, crnn_dim M, crnn_dim N, crnn_dim n0, crnn_dim n1)
{
    float_mode mode = denormals_off();
    crnn_dim n = n0;
    for (; n + 4 * LINE <= n1; n += 4 * LINE) { /* four chains at a time hide the latency of an addition */
        line db0 = line_load(db + n), db1 = line_load(db + n + LINE);
        line db2 = line_load(db + n + 2 * LINE), db3 = line_load(db + n + 3 * LINE);
        for (crnn_dim m = 0; m < M; ++m) {
            const real *dy_m = dy + m * N + n; /* dy[m, n:] */
            db0 = line_add(db0, line_load(dy_m));
            db1 = line_add(db1, line_load(dy_m + LINE));
            db2 = line_add(db2, line_load(dy_m + 2 * LINE));
            db3 = line_add(db3, line_load(dy_m + 3 * LINE));
        }
        line_store(db + n, db0);
        line_store(db + n + LINE, db1);
        line_store(db + n + 2 * LINE, db2);
        line_store(db + n + 3 * LINE, db3);
    }
    for (crnn_dim left = n1 - n; left > 0; n += LINE, left -= LINE) {
        line db_n = line_get(db + n, left);
        for (crnn_dim m = 0; m < M; ++m)
            db_n = line_add(db_n, line_get(dy + m * N + n, left));
        line_put(db + n, db_n, left);
    }
    float_mode_restore(mode);
}

static void rows_add_bias(real *y, const real *w, const real *bias, crnn_dim V, crnn_dim N)
{
    float_mode mode = denormals_off();
    for (crnn_dim v = 0; v < V; ++v, y += N, w += N)
        for (crnn_dim n = 0, left = N; left > 0; n += LINE, left -= LINE)
            line_put(y + n, line_add(line_get(bias + n, left), line_get(w + n, left)), left);
    float_mode_restore(mode);
}

static void rows_backward(real *dw, const int32_t *ids, const real *dy, crnn_dim M, crnn_dim N, crnn_dim n0, crnn_dim n1)
{
    float_mode mode = denormals_off();
    for (crnn_dim m = 0; m < M; ++m) {
        assert(ids[m] >= 0);
        real *dw_id = dw + (crnn_dim)ids[m] * N; /* dw[ids[m], :] */
        const real *dy_m = dy + m * N;           /* dy[m, :] */
        for (crnn_dim n = n0, left = n1 - n0; left > 0; n += LINE, left -= LINE)
            line_put(dw_id + n, line_add(line_get(dw_id + n, left), line_get(dy_m + n, left)), left);
    }
    float_mode_restore(mode);
}
