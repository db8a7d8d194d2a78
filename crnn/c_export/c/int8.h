/*@ int8: times */
/* ---- weights of 8 bits: w[k, n] = q[n, k] * scales[n] -------------------------------------------------------------- */

/* p (K) = x in multiples of what is returned; NaN if there is a NaN or an infinity. */
static float to_int8(int8_t *p, const float *x, int K)
{
    float most = 0.0f, inverse;
    float_bits scale, rounded;
    int k, finite = 1;
    for (k = 0; k < K; ++k) {
        const float size = magnitude(x[k]);
        most = size > most ? size : most;
        finite &= size <= FLT_MAX;
    }
    for (k = 0; k < K && (!finite || most < 0x1p-100f); ++k)
        p[k] = 0;
    scale.bits = 0x7fc00000u;
    if (!finite)
        return scale.value;
    if (most < 0x1p-100f)
        return 0.0f;
    inverse = (float)(127.0f / most);
    for (k = 0; k < K; ++k) {
        volatile float product = x[k] * inverse; /* rounded before the sum, whose last bits are the integer */
        rounded.value = (float)(product + 0x1.8p23f);
        p[k] = (int8_t)((int32_t)rounded.bits - 0x4b400000);
    }
    return (float)(most / 127.0f);
}

#if defined(CRNN_SIMD) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>

/* Four integers of 8 bits as two pairs of 16: those at 0 and 2, and those at 1 and 3. */
typedef struct {
    int16x2_t even, odd;
} two_pairs;

static inline two_pairs pairs_at(const int8_t *p)
{
    two_pairs pairs;
    uint32_t word;
    __builtin_memcpy(&word, p, sizeof word);
    pairs.even = __sxtb16((int8x4_t)word);
    pairs.odd = __sxtb16((int8x4_t)(word >> 8 | word << 24));
    return pairs;
}

static inline int32_t add_four(int32_t sum, two_pairs p, const int8_t *q)
{
    const two_pairs of_q = pairs_at(q);
    return __smlad(p.odd, of_q.odd, __smlad(p.even, of_q.even, sum));
}
#define HAS_PAIRS
#endif

/* The exact sums of four columns, which are read side by side. */
static void four_int8_columns(int32_t *sums, const int8_t *p, const int8_t *q, int K)
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int k = 0;
#if defined(HAS_PAIRS)
    for (; k + 4 <= K; k += 4) {
        const two_pairs of_p = pairs_at(p + k);
        s0 = add_four(s0, of_p, q + k);
        s1 = add_four(s1, of_p, q + K + k);
        s2 = add_four(s2, of_p, q + 2 * K + k);
        s3 = add_four(s3, of_p, q + 3 * K + k);
    }
#endif
    for (; k < K; ++k) {
        const int32_t value = p[k];
        s0 += value * q[k];
        s1 += value * q[K + k];
        s2 += value * q[2 * K + k];
        s3 += value * q[3 * K + k];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

static int32_t int8_column(const int8_t *p, const int8_t *q, int K)
{
    int32_t sum = 0;
    int k;
    for (k = 0; k < K; ++k)
        sum += p[k] * q[k];
    return sum;
}

/* y (N) += x (K) @ w. p (K): scratch. */
static void add_int8_product(float *y, const float *x, int8_t *p, const int8_t *q, const float *scales, int K, int N)
{
    const float scale = to_int8(p, x, K);
    int n, j;
    for (n = 0; n < N; n += 4) {
        const int columns = N - n < 4 ? N - n : 4;
        int32_t sums[4] = {0, 0, 0, 0};
        if (columns == 4)
            four_int8_columns(sums, p, q + n * K, K);
        for (j = 0; j < columns; ++j) {
            const int32_t sum = columns == 4 ? sums[j] : int8_column(p, q + (n + j) * K, K);
            y[n + j] = multiply_add((float)sum, times(scale, scales[n + j]), y[n + j]);
        }
    }
}

/*@ int8_row: plus */
/* y (N) = bias (N) + w[k, :] */
static void int8_row_plus_bias(float *y, const int8_t *q, const float *scales, const float *bias, int k, int K, int N)
{
    int n;
    for (n = 0; n < N; ++n)
        y[n] = plus(bias[n], (float)((float)q[n * K + k] * scales[n]));
}

/*@ int8_column: */
/* x (K) = w[:, n] */
static void int8_column_of(float *x, const int8_t *q, const float *scales, int n, int K)
{
    int k;
    for (k = 0; k < K; ++k)
        x[k] = (float)((float)q[n * K + k] * scales[n]);
}
