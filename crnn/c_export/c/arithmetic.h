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

/*@ clear: */
static void clear(float *to, int n)
{
    int i;
    for (i = 0; i < n; ++i)
        to[i] = 0.0f;
}

/*@ copy: */
static void copy(float *to, const float *from, int n)
{
    int i;
    for (i = 0; i < n; ++i)
        to[i] = from[i];
}
