/* SPDX-License-Identifier: MIT
 * vecmath.body.h: exp, tanh, sigmoid and log1p of a line, and log of one double. One text with fused
 * multiply-adds, so the bits are the same everywhere. float32: at most 2 ulp, all but exp monotone
 * (tests/test_vecmath.py sweeps them).
 *
 * The first three rest on x = n ln 2 + r with |r| <= ln 2 / 2, and on
 *     e^r - 1 = r + r^2 q(r)
 * where q is a polynomial, Chebyshev-fitted to (e^r - 1 - r) / r^2 over that interval. n is found by adding 1.5 * 2^p,
 * which leaves n in the low bits of the sum: they can be shifted straight into an exponent. */

#if defined(CRNN_F32)
#define LN2_HIGH 0x1.62e43p-1f
#define LN2_LOW -0x1.05c61p-29f
#define LOG2_E 0x1.715476p0f
#define ROUND_TO_INT 0x1.8p23f
#define EXP_MIN -0x1.5d589ep6f   /* the first x with a normal e^x */
#define EXP_UNDER -0x1.5d58a0p6f /* the number before it */
#define EXP_ZERO -88.0f          /* n is -127 here */
#define EXP_MAX 0x1.62e42ep6f    /* the last x with a finite e^x */
static const real exp_q[] = {0x1.a124f2p-13f, 0x1.6d4324p-10f, 0x1.1110e0p-7f, 0x1.5554eap-5f, 0x1.555556p-3f, 0.5f};
#else
#define LN2_HIGH 0x1.62e42fefa39efp-1
#define LN2_LOW 0x1.abc9e3b39803fp-56
#define LOG2_E 0x1.71547652b82fep0
#define ROUND_TO_INT 0x1.8p52
#define EXP_MIN -0x1.6232bdd7abcd2p9
#define EXP_UNDER -0x1.6232bdd7abcd3p9
#define EXP_ZERO -709.0
#define EXP_MAX 0x1.62e42fefa39efp9
static const real exp_q[] = {0x1.61bfaa228dde5p-33, 0x1.1f7f2776cfaf2p-29, 0x1.ae642c82e33d5p-26, 0x1.27e4d41966f2fp-22,
                             0x1.71de3a5aa7bb7p-19, 0x1.a01a01a9e991bp-16, 0x1.a01a01a0196acp-13, 0x1.6c16c16c15a68p-10,
                             0x1.1111111111111p-7, 0x1.5555555555557p-5, 0x1.5555555555555p-3, 0x1.0000000000000p-1};
#endif
enum { EXP_TERMS = sizeof exp_q / sizeof exp_q[0] };

/* e^r - 1, and in *rounded the number whose low bits are n. In float32 the part of n ln 2 below ln 2's last bit matters
 * only where the result is scaled by a large 2^n and nothing is added to it: tanh does without. */
INLINE line line_expm1_reduced(line x, const int exact_ln2, line *rounded)
{
    line t = line_fma(x, line_set1(LOG2_E), line_set1(ROUND_TO_INT));
    line n = line_sub(t, line_set1(ROUND_TO_INT));
    line r = line_fnma(n, line_set1(LN2_HIGH), x);
    if (exact_ln2)
        r = line_fnma(n, line_set1(LN2_LOW), r);
    line r2 = line_mul(r, r), q = line_fma(line_set1(exp_q[0]), r, line_set1(exp_q[1]));
    UNROLL
    for (int i = 2; i < EXP_TERMS; i += 2) /* pairs, in powers of r^2: half as long a chain */
        q = line_fma(q, r2, line_fma(line_set1(exp_q[i]), r, line_set1(exp_q[i + 1])));
    *rounded = t;
    return line_fma(r2, q, r);
}

/* e^x: inf above EXP_MAX, 0 below EXP_MIN, NaN for NaN. */
LARGE line line_exp(line x)
{
    line t, p = line_add(line_expm1_reduced(x, 1, &t), line_set1(1));
    line y = line_pick(x, line_set1(EXP_MAX), line_set1((real)INFINITY), line_scale_exponent(p, t));
    line zero_or_nan = line_pick(line_set1(EXP_MIN), x, line_set1(0), x);
    return line_pick(x, line_set1(EXP_UNDER), y, zero_or_nan);
}

/* e^x for x <= 0, without a comparison: 2^n + 2^n (e^r - 1), and 2^n is 0 from EXP_ZERO down. NaN for NaN. */
LARGE line line_exp_nonpositive(line x)
{
    line t, p = line_expm1_reduced(line_max(line_set1(EXP_ZERO), x), 1, &t);
    line power = line_scale_exponent(line_set1(1), t);
    return line_fma(power, p, power);
}

/* The two that follow are a quotient of two sums, each rounded once: numerator falls and denominator rises (or the other
 * way), so that the rounded quotient is as monotone as they are.
 *
 * tanh x = (1 - E) / (1 + E) with E = e^-2|x| = 2^n + 2^n (e^r - 1), and the sign of x. 1 - E keeps all its bits for
 * small x, where n is 0. */
LARGE line line_tanh(line x)
{
    line one = line_set1(1), y = line_mul(line_set1(-2), line_abs(x));
    line t, p = line_expm1_reduced(line_max(line_set1(EXP_ZERO), y), sizeof(real) > 4, &t);
    line power = line_scale_exponent(one, t);
    line above = line_fnma(power, p, line_sub(one, power)), below = line_fma(power, p, line_add(one, power));
    return line_copysign(line_div(above, below), x);
}

/* sigmoid x = 1 / (1 + E) with E = e^-x = 2^n + 2^n (e^r - 1). 1 + 2^n would lose its last bit where n is 24 (in double
 * 53); the smaller of the two meets the small term first. */
LARGE line line_sigmoid(line x)
{
    line one = line_set1(1), y = line_max(line_set1(EXP_ZERO), line_min(line_set1(-EXP_ZERO), line_sub(line_set1(0), x)));
    line t, p = line_expm1_reduced(y, 1, &t);
    line power = line_scale_exponent(one, t);
    return line_div(one, line_add(line_max(one, power), line_fma(power, p, line_min(one, power))));
}

/* log(1 + x) for 0 <= x <= 1, NaN for NaN: 2 artanh(f) with f = x / (2 + x) <= 1/3. artanh(f) is f + f^3 g(f^2), g being
 * a polynomial Chebyshev-fitted over that interval. 2f is x - f x; so all is x - f (x - 2 f^2 g), where the rounding of
 * f counts for half at most. */
#if defined(CRNN_F32)
static const real artanh_g[] = {0x1.dba26p-4f, 0x1.bc8cf8p-4f, 0x1.24c926p-3f, 0x1.9998d4p-3f, 0x1.555556p-2f};
#else
static const real artanh_g[] = {0x1.401d3e65cdc48p-4, 0x1.32e0d25c9c761p-5, 0x1.bc37f0140c19ep-5, 0x1.e0a2d581ab68fp-5,
                                0x1.111abdc8abe16p-4, 0x1.3b13515f6f9efp-4, 0x1.745d19937b1fcp-4, 0x1.c71c71bedea97p-4,
                                0x1.2492492499d46p-3, 0x1.9999999999944p-3, 0x1.5555555555555p-2};
#endif
enum { ARTANH_TERMS = sizeof artanh_g / sizeof artanh_g[0] };

LARGE line line_log1p(line x)
{
    line f = line_div(x, line_add(line_set1(2), x)), f2 = line_mul(f, f), g = line_set1(artanh_g[0]);
    UNROLL
    for (int i = 1; i < ARTANH_TERMS; ++i)
        g = line_fma(g, f2, line_set1(artanh_g[i]));
    return line_fnma(f, line_fnma(line_add(f2, f2), g, x), x);
}

/* log x for finite x >= 1: x = 2^k m with m about 1, and log m = 2 artanh(f), f = (m - 1) / (m + 1), as a series in
 * f^2 <= 0.03 that is cut where `real` no longer sees it. */
#if defined(CRNN_F32)
static const double log_odd[] = {1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3};
#else
static const double log_odd[] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                                 1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3};
#endif
enum { LOG_TERMS = sizeof log_odd / sizeof log_odd[0] };

INLINE double log_of_sum(double x)
{
    if (!(x >= 1))
        return x; /* NaN */
    int64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t k = (bits - 0x3fe6a09e667f3bcd) >> 52; /* so that sqrt(1/2) <= m < sqrt(2) */
    bits -= k * ((int64_t)1 << 52);
    double m;
    memcpy(&m, &bits, sizeof m);
    double f = (m - 1) / (m + 1), f2 = f * f, series = log_odd[0];
    UNROLL
    for (int i = 1; i < LOG_TERMS; ++i)
        series = series * f2 + log_odd[i];
    return (double)k * 0x1.62e42fefa39efp-1 + (2 * f + 2 * f * (series * f2));
}

#define DEFINE_MAP(name)                                                                                               \
    static void name##_array(real *y, const real *x, crnn_dim n)                                                       \
    {                                                                                                                  \
        float_mode mode = kernel_floats();                                                                             \
        for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE)                               \
            line_put(y + i, line_##name(line_get(x + i, remaining)), remaining);                                       \
        float_mode_restore(mode);                                                                                      \
    }
DEFINE_MAP(exp)
DEFINE_MAP(tanh)
DEFINE_MAP(sigmoid)
DEFINE_MAP(log1p)
#undef DEFINE_MAP
