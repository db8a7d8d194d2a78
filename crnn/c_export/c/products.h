/*@ least: arithmetic */
/* Whether every x (n) that is not zero is at least `least`. */
static int all_at_least(const float *x, int n, float least)
{
    int i, found = 0;
    for (i = 0; i < n; ++i) {
        const float size = magnitude(x[i]);
        found |= (size > 0) & (size < least);
    }
    return !found;
}

/*@ product: least */
/* ---- y (N) += x (K) @ w. Every sum is taken in the order of k, whatever the machine ---------------------------------
 * w (K, N) is stored in panels of 16 columns, the last one narrower: a panel is a matrix (K, 16). */
enum { PANEL = 16 };

#if defined(CRNN_SIMD) && defined(__AVX512F__)
#include <immintrin.h>
typedef __m512 vector;
enum { LANES = 16 };
static inline vector vector_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void vector_store(float *p, vector a) { _mm512_storeu_ps(p, a); }
static inline vector vector_of(float a) { return _mm512_set1_ps(a); }
static inline vector vector_fused(vector a, vector b, vector c) { return _mm512_fmadd_ps(a, b, c); }
#define HAS_VECTORS
#elif defined(CRNN_SIMD) && defined(__AVX__) && defined(__FMA__)
#include <immintrin.h>
typedef __m256 vector;
enum { LANES = 8 };
static inline vector vector_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void vector_store(float *p, vector a) { _mm256_storeu_ps(p, a); }
static inline vector vector_of(float a) { return _mm256_set1_ps(a); }
static inline vector vector_fused(vector a, vector b, vector c) { return _mm256_fmadd_ps(a, b, c); }
#define HAS_VECTORS
#elif defined(CRNN_SIMD) && defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
typedef float32x4_t vector;
enum { LANES = 4 };
static inline vector vector_load(const float *p) { return vld1q_f32(p); }
static inline void vector_store(float *p, vector a) { vst1q_f32(p, a); }
static inline vector vector_of(float a) { return vdupq_n_f32(a); }
static inline vector vector_fused(vector a, vector b, vector c) { return vfmaq_f32(c, a, b); }
#define HAS_VECTORS
#endif

#if defined(HAS_VECTORS)
/* Four vectors of columns, so that their sums run side by side: where they are in y, and in w. */
static inline void four_vectors(float *y, const float *x, const float *w, int K, const int *columns, const int *panels)
{
    vector a0 = vector_load(y + columns[0]), a1 = vector_load(y + columns[1]);
    vector a2 = vector_load(y + columns[2]), a3 = vector_load(y + columns[3]);
    int k;
    for (k = 0; k < K; ++k, w += PANEL) {
        const vector v = vector_of(x[k]);
        a0 = vector_fused(v, vector_load(w + panels[0]), a0);
        a1 = vector_fused(v, vector_load(w + panels[1]), a1);
        a2 = vector_fused(v, vector_load(w + panels[2]), a2);
        a3 = vector_fused(v, vector_load(w + panels[3]), a3);
    }
    vector_store(y + columns[0], a0);
    vector_store(y + columns[1], a1);
    vector_store(y + columns[2], a2);
    vector_store(y + columns[3], a3);
}
#endif

static void eight_columns(float *y, const float *x, const float *w, int K, int stride)
{
    float a0 = y[0], a1 = y[1], a2 = y[2], a3 = y[3], a4 = y[4], a5 = y[5], a6 = y[6], a7 = y[7];
    int k;
    for (k = 0; k < K; ++k, w += stride) {
        const float v = x[k];
        a0 = fused(v, w[0], a0);
        a1 = fused(v, w[1], a1);
        a2 = fused(v, w[2], a2);
        a3 = fused(v, w[3], a3);
        a4 = fused(v, w[4], a4);
        a5 = fused(v, w[5], a5);
        a6 = fused(v, w[6], a6);
        a7 = fused(v, w[7], a7);
    }
    y[0] = a0;
    y[1] = a1;
    y[2] = a2;
    y[3] = a3;
    y[4] = a4;
    y[5] = a5;
    y[6] = a6;
    y[7] = a7;
}

static float one_column(float sum, const float *x, const float *w, int K, int stride)
{
    int k;
    for (k = 0; k < K; ++k, w += stride)
        sum = fused(x[k], *w, sum);
    return sum;
}

static float one_column_with_tiny_sums(float sum, const float *x, const float *w, int K, int stride)
{
    int k;
    for (k = 0; k < K; ++k, w += stride)
        sum = multiply_add(x[k], *w, sum);
    return sum;
}

/* `normal`: y's elements are multiples of FLT_MIN. If also the smallest product of w and x is large enough, at
 * least 2^-80, so are all sums: they cannot be between 0 and FLT_MIN, which then need not be checked. `least`: the
 * smallest x for which this is so. Returns whether the elements of y are multiples of FLT_MIN now. */
static int add_product(float *y, const float *x, const float *w, int K, int N, float least, int normal)
{
    int n = 0, j;
    normal = normal && all_at_least(x, K, least);
#if defined(HAS_VECTORS)
    for (; normal && n + PANEL <= N; ) {
        const int panel = n / PANEL, count = N / PANEL - panel;
        int columns[4], panels[4], i;
        /* four vectors are 4 * LANES columns of as many panels as there are; too few: some are computed twice */
        for (i = 0; i < 4; ++i) {
            const int column = i * LANES, p = column / PANEL < count ? column / PANEL : count - 1;
            columns[i] = p * PANEL + column % PANEL;
            panels[i] = p * K * PANEL + column % PANEL;
        }
        four_vectors(y + n, x, w, K, columns, panels);
        j = 4 * LANES < count * PANEL ? 4 * LANES : count * PANEL;
        n += j;
        w += j * K;
    }
#endif
    for (; n < N; n += PANEL) {
        const int columns = N - n < PANEL ? N - n : PANEL;
        for (j = 0; normal && j + 8 <= columns; j += 8)
            eight_columns(y + n + j, x, w + j, K, columns);
        for (; j < columns; ++j)
            y[n + j] = normal ? one_column(y[n + j], x, w + j, K, columns)
                              : one_column_with_tiny_sums(y[n + j], x, w + j, K, columns);
        w += K * columns;
    }
    return normal;
}

/*@ row: plus */
/* y (N) = bias (N) + w[k, :] */
static void row_plus_bias(float *y, const float *w, const float *bias, int k, int K, int N)
{
    int n;
    for (n = 0; n < N; ++n) {
        const int first = n / 16 * 16, columns = N - first < 16 ? N - first : 16;
        y[n] = plus(bias[n], w[first * K + k * columns + n % 16]);
    }
}

/*@ column: */
/* x (K) = w[:, n] */
static void column_of(float *x, const float *w, int n, int K, int N)
{
    const int first = n / 16 * 16, columns = N - first < 16 ? N - first : 16;
    int k;
    for (k = 0; k < K; ++k)
        x[k] = w[first * K + k * columns + n % 16];
}
