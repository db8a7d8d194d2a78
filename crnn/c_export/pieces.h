/*@ checks: */
/* The results have the bits of crnn's own, on every machine. That needs arithmetic as C defines it. */
#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "compile without -ffast-math and its parts: they change the order of sums"
#endif
#if FLT_RADIX != 2 || FLT_MANT_DIG != 24 || DBL_MANT_DIG != 53 || INT_MAX < 0x7fffffff
#error "needs IEEE float and double, and an int of 32 bits or more"
#endif
#if !defined(FLT_EVAL_METHOD) || (FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 1 && FLT_EVAL_METHOD != 16)
#error "needs float arithmetic in float (on 32-bit x86: -msse2 -mfpmath=sse), and C99"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/*@ arithmetic: checks */
/* ---- arithmetic: every operation is rounded once, and results below FLT_MIN are zero ------------------------------ */

/* Whether the machine multiplies and adds in one instruction. Otherwise the same is computed in double. */
#if defined(__GNUC__) && (defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA) || \
                          defined(__aarch64__) || defined(__s390x__) || defined(__riscv_flen))
#define HAS_FMA
#endif

typedef union {
    float value;
    uint32_t bits;
} float_bits;

typedef union {
    double value;
    uint64_t bits;
} double_bits;

static inline float magnitude(float a)
{
    float_bits u;
    u.value = a;
    u.bits &= 0x7fffffffu;
    return u.value;
}

/* a * b + c rounded to odd: where the exact sum lies between two doubles, the one whose last bit is 1. Rounded again, to
 * float, it gives what the exact sum gives. The product of two floats is exact in double. */
static inline double fused_to_odd(float a, float b, float c)
{
    const double product = (double)a * (double)b, sum = product + (double)c, other = sum - product;
    const double error = (product - (sum - other)) + ((double)c - other);
    double_bits u;
    u.value = sum;
    if ((error > 0 || error < 0) && (u.bits & 1u) == 0) {
        if ((error > 0) == (sum > 0))
            ++u.bits;
        else
            --u.bits;
    }
    return u.value;
}

/* A result that is at most FLT_MIN. It is zero if, rounded to 24 bits, it would still be below FLT_MIN. */
static inline float tiny(double exact)
{
    const double size = exact < 0 ? -exact : exact;
    if (size < 0x1.ffffffp-127)
        return exact < 0 ? -0.0f : exact > 0 ? 0.0f : (float)exact;
    if (size <= (double)FLT_MIN)
        return exact < 0 ? -FLT_MIN : FLT_MIN;
    return (float)exact; /* NaN */
}

/* a * b + c, rounded once. For sums that cannot be below FLT_MIN, or where it does not matter. */
static inline float fused(float a, float b, float c)
{
#if defined(HAS_FMA)
    return __builtin_fmaf(a, b, c);
#else
    double_bits u;
    u.value = (double)a * (double)b + (double)c;
    if ((u.bits & 0x1fffffffu) != 0x10000000u) /* not half-way between two floats */
        return (float)u.value;
    return (float)fused_to_odd(a, b, c);
#endif
}

/* a * b + c, rounded once. */
static inline float multiply_add(float a, float b, float c)
{
    const float sum = fused(a, b, c);
    return magnitude(sum) > FLT_MIN ? sum : tiny(fused_to_odd(a, b, c));
}

/* The number, or zero if it is below FLT_MIN. */
static inline float normal_or_zero(float a)
{
    float_bits u;
    u.value = a;
    if ((u.bits & 0x7f800000u) == 0)
        u.bits &= 0x80000000u;
    return u.value;
}

/*@ times: arithmetic */
static inline float times(float a, float b)
{
    const float product = (float)(a * b);
    return magnitude(product) > FLT_MIN ? product : tiny((double)a * (double)b);
}

/*@ plus: arithmetic */
static inline float plus(float a, float b) { return normal_or_zero((float)(a + b)); }

/*@ minus: arithmetic */
static inline float minus(float a, float b) { return normal_or_zero((float)(a - b)); }

/*@ exponential: arithmetic */
/* ---- tanh and sigmoid: one polynomial ------------------------------------------------------------------------------ */

/* 2^n, n being in the low bits of t. */
static inline float power_of_2(float t)
{
    float_bits u;
    u.value = t;
    u.bits = 0x3f800000u + (u.bits << 23);
    return u.value;
}

/* e^r - 1 = r + r^2 q(r), where x = n ln 2 + r, and in *rounded a number whose low bits are n. */
static inline float exp_minus_1(float x, int exact, float *rounded)
{
    const float t = fused(x, 0x1.715476p0f, 0x1.8p23f), n = (float)(t - 0x1.8p23f);
    float r = fused(-n, 0x1.62e43p-1f, x), r2, q;
    if (exact)
        r = fused(-n, -0x1.05c61p-29f, r);
    r2 = (float)(r * r);
    q = fused(0x1.a124f2p-13f, r, 0x1.6d4324p-10f);
    q = fused(q, r2, fused(0x1.1110e0p-7f, r, 0x1.5554eap-5f));
    q = fused(q, r2, fused(0x1.555556p-3f, r, 0.5f));
    *rounded = t;
    return fused(r2, q, r);
}

/*@ tanh: exponential */
/* (1 - E) / (1 + E) with E = e^-2|x| = 2^n + 2^n (e^r - 1), and the sign of x. */
static inline float tanh_of(float x)
{
    const float y = (float)(-2.0f * magnitude(x));
    float t;
    const float p = exp_minus_1(-88.0f > y ? -88.0f : y, 0, &t), power = power_of_2(t);
    const float above = fused(-power, p, (float)(1.0f - power)), below = fused(power, p, (float)(1.0f + power));
    float_bits u, sign;
    u.value = (float)(above / below);
    sign.value = x;
    u.bits = (u.bits & 0x7fffffffu) | (sign.bits & 0x80000000u);
    return u.value;
}

/*@ sigmoid: exponential */
/* 1 / (1 + E) with E = e^-x = 2^n + 2^n (e^r - 1). */
static inline float sigmoid_of(float x)
{
    float y = (float)(0.0f - x), t, p, power;
    y = 88.0f < y ? 88.0f : y;
    y = -88.0f > y ? -88.0f : y;
    p = exp_minus_1(y, 1, &t);
    power = power_of_2(t);
    p = fused(power, p, 1.0f < power ? 1.0f : power);
    return normal_or_zero((float)(1.0f / (float)((1.0f > power ? 1.0f : power) + p)));
}

/*@ exp: exponential */
/* e^x for x <= 0. */
static inline float exp_of_nonpositive(float x)
{
    float t;
    const float p = exp_minus_1(-88.0f > x ? -88.0f : x, 1, &t), power = power_of_2(t);
    return multiply_add(power, p, power);
}

/*@ finite: arithmetic */
static inline int is_finite(float a)
{
    float_bits u;
    u.value = a;
    return (u.bits & 0x7f800000u) != 0x7f800000u;
}

/*@ copy: */
static void copy(float *to, const float *from, int n)
{
    int i;
    for (i = 0; i < n; ++i)
        to[i] = from[i];
}

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

/*@ tanh_finish: tanh */
/* h (H) from the finished sums a (H). */
static void tanh_finish(float *h, const float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j)
        h[j] = tanh_of(a[j]);
}

/*@ relu_finish: */
/* h (H) from the finished sums a (H). */
static void relu_finish(float *h, const float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j)
        h[j] = 0.0f > a[j] ? 0.0f : a[j];
}

/*@ lstm_finish: tanh sigmoid times */
/* h, c (H) from the finished sums a (4 H) of the gates i, f, g, o. */
static void lstm_finish(float *h, float *c, float *a, int H)
{
    int j;
    for (j = 0; j < 2 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 2 * H; j < 3 * H; ++j)
        a[j] = tanh_of(a[j]);
    for (j = 3 * H; j < 4 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 0; j < H; ++j)
        c[j] = multiply_add(a[H + j], c[j], times(a[j], a[2 * H + j]));
    for (j = 0; j < H; ++j)
        h[j] = tanh_of(c[j]);
    for (j = 0; j < H; ++j)
        h[j] = times(a[3 * H + j], h[j]);
}

/*@ gru_finish: tanh sigmoid minus */
/* h (H) from the finished sums a (4 H): r, z, h' @ W_hn + b_hn, and x @ W_xn + b_n. */
static void gru_finish(float *h, float *a, int H)
{
    int j;
    for (j = 0; j < 2 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 0; j < H; ++j)
        a[3 * H + j] = multiply_add(a[j], a[2 * H + j], a[3 * H + j]);
    for (j = 0; j < H; ++j)
        a[3 * H + j] = tanh_of(a[3 * H + j]);
    for (j = 0; j < H; ++j)
        h[j] = multiply_add(a[H + j], minus(h[j], a[3 * H + j]), a[3 * H + j]);
}

/*@ original_gru_reset: sigmoid times */
/* The gates r and z from their finished sums a (4 H), and a[3 H:] = r * h'. */
static void original_gru_reset(const float *h, float *a, int H)
{
    int j;
    for (j = 0; j < 2 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 0; j < H; ++j)
        a[3 * H + j] = times(a[j], h[j]);
}

/*@ original_gru_finish: tanh minus */
/* h (H) from a (4 H): r, z, and the finished sum of n. */
static void original_gru_finish(float *h, float *a, int H)
{
    int j;
    for (j = 2 * H; j < 3 * H; ++j)
        a[j] = tanh_of(a[j]);
    for (j = 0; j < H; ++j)
        h[j] = multiply_add(a[H + j], minus(h[j], a[2 * H + j]), a[2 * H + j]);
}

/*@ min_gru_finish: sigmoid plus minus */
/* h (H) from the sums a (2 H) of z and n. */
static void min_gru_finish(float *h, float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        const float z = sigmoid_of(a[j]), b = a[H + j], n = 0.0f > b ? sigmoid_of(b) : plus(b, 0.5f);
        h[j] = multiply_add(z, minus(n, h[j]), h[j]);
    }
}

/*@ pool_max: arithmetic */
static inline float minus_infinity(void)
{
    float_bits u;
    u.bits = 0xff800000u;
    return u.value;
}

/* best (H) = max(best, h) */
static void pool_max(float *best, const float *h, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        const float value = (float)(h[j] + 0.0f), before = (float)(best[j] + 0.0f);
        best[j] = !(value <= before) && before == before ? value : before;
    }
}

/*@ pool_mean: times plus */
/* sum (H) += h; mean (H) = sum * factor */
static void pool_mean(float *mean, float *sum, const float *h, float factor, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        sum[j] = plus(sum[j], h[j]);
        mean[j] = times(sum[j], factor);
    }
}

/*@ softmax: exp times */
/* p (n) = softmax(y). The sum is that of 16 sums, which are added in halves. */
static void softmax(float *p, const float *y, int n)
{
    float sums[16], most = y[0], factor;
    int i, half;
    for (i = 1; i < n; ++i)
        most = y[i] > most ? y[i] : most;
    for (i = 0; i < 16; ++i)
        sums[i] = 0.0f;
    for (i = 0; i < n; ++i) {
        p[i] = exp_of_nonpositive((float)(y[i] - most));
        sums[i % 16] = (float)(sums[i % 16] + p[i]);
    }
    for (half = 8; half > 0; half /= 2)
        for (i = 0; i < half; ++i)
            sums[i] = (float)(sums[i] + sums[i + half]);
    factor = (float)(1.0f / sums[0]);
    for (i = 0; i < n; ++i)
        p[i] = times(p[i], factor);
}

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

/*@ bf16: arithmetic */
/* ---- weights of 16 bits: the upper half of a float ------------------------------------------------------------------ */

static inline float of_bf16(uint16_t upper)
{
    float_bits u;
    u.bits = (uint32_t)upper << 16;
    return u.value;
}

/*@ bf16_product: bf16 least */
static float to_bf16(float x)
{
    float_bits u;
    u.value = x;
    if ((u.bits & 0x7fffffffu) > 0x7f800000u)
        u.bits |= 0x400000u; /* NaN */
    else
        u.bits += 0x7fffu + (u.bits >> 16 & 1u);
    u.bits &= 0xffff0000u;
    return u.value;
}

static float bf16_column(float sum, const float *x, const uint16_t *w, int K)
{
    int k;
    for (k = 0; k < K; ++k)
        sum = multiply_add(x[k], of_bf16(w[k]), sum);
    return sum;
}

/* Whether no x (n) is more than `most`. */
static int all_at_most(const float *x, int n, float most)
{
    int i, found = 0;
    for (i = 0; i < n; ++i)
        found |= magnitude(x[i]) > most;
    return !found;
}

/* The products are exact, unless they overflow. */
static void four_bf16_columns(float *y, const float *x, const uint16_t *w, int K)
{
    float a0 = y[0], a1 = y[1], a2 = y[2], a3 = y[3];
    int k;
    for (k = 0; k < K; ++k) {
        a0 = (float)(a0 + (float)(x[k] * of_bf16(w[k])));
        a1 = (float)(a1 + (float)(x[k] * of_bf16(w[K + k])));
        a2 = (float)(a2 + (float)(x[k] * of_bf16(w[2 * K + k])));
        a3 = (float)(a3 + (float)(x[k] * of_bf16(w[3 * K + k])));
    }
    y[0] = a0;
    y[1] = a1;
    y[2] = a2;
    y[3] = a3;
}

/* y (N) += x (K) @ w. Of each pair of k the odd one is added first: so they lie in w, whose columns have a zero for the
 * k that is missing if K is odd, and in `rounded`, scratch of the same size. least, normal: see add_product;
 * most: no product with a smaller x overflows. */
static int add_bf16_product(float *y, const float *x, float *rounded, const uint16_t *w, int K, int N, float least,
                            float most, int normal)
{
    const int even = K + K % 2;
    int k, n = 0, exact;
    rounded[even - 2] = 0.0f;
    for (k = 0; k < K; ++k)
        rounded[k ^ 1] = to_bf16(x[k]);
    normal = normal && all_at_least(rounded, even, least);
    exact = normal && all_at_most(rounded, even, most);
    for (; exact && n + 4 <= N; n += 4)
        four_bf16_columns(y + n, rounded, w + n * even, even);
    for (; n < N; ++n)
        y[n] = bf16_column(y[n], rounded, w + n * even, even);
    return normal;
}

/*@ bf16_row: bf16 plus */
/* y (N) = bias (N) + w[k, :] */
static void bf16_row_plus_bias(float *y, const uint16_t *w, const float *bias, int k, int K, int N)
{
    int n;
    for (n = 0; n < N; ++n)
        y[n] = plus(bias[n], of_bf16(w[n * (K + K % 2) + (k ^ 1)]));
}

/*@ bf16_column_of: bf16 */
/* x (K) = w[:, n] */
static void bf16_column_of(float *x, const uint16_t *w, int n, int K)
{
    int k;
    for (k = 0; k < K; ++k)
        x[k] = of_bf16(w[n * (K + K % 2) + (k ^ 1)]);
}
