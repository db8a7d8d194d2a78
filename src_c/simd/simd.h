/* SPDX-License-Identifier: MIT
 * simd.h: `real`, and `line`: 64 bytes of reals, the one vector type every kernel is written in.
 * Each instruction set gives a native `vec` and its operations; a line is 1, 2, 4 or (generic) LINE of them.
 * No operation here is approximate, so a line has the same bits everywhere. */
#ifndef CRNN_SIMD_H
#define CRNN_SIMD_H

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "compat.h"
#include "crnn.h"

#if defined(__FAST_MATH__)
#error "the order of arithmetic is a promise: build without fast-math"
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "the bits are a promise: build with arithmetic in the precision of its type (on i386: -msse2 -mfpmath=sse)"
#endif

#if defined(CRNN_F32)
typedef float real;
typedef int32_t real_bits;
enum { EXPONENT_SHIFT = 23 };
#elif defined(CRNN_F64)
typedef double real;
typedef int64_t real_bits;
enum { EXPONENT_SHIFT = 52 };
#else
#error "define CRNN_F32 or CRNN_F64"
#endif

enum { LINE = CRNN_LINE_BYTES / sizeof(real) };

/* ---- the native vector -------------------------------------------------------------------------------------------
 * vec_min(a, b) is a < b ? a : b and vec_max(a, b) is a > b ? a : b: b where either is NaN.
 * vec_pick(a, b, x, y) is a > b ? x : y.   vec_scale_exponent(p, t) adds the low bits of t to the exponent of p. */

#if defined(CRNN_AVX512)
#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__)
#error "this file needs AVX-512 F, DQ and VL switched on"
#endif
#include <immintrin.h>
#define CRNN_ISA avx512
enum { VEC = LINE };
#if defined(CRNN_F32)
typedef __m512 vec;
#define X(op) _mm512_##op##_ps
#define MASK(n) ((__mmask16)((1u << (n)) - 1))
#define BITS_OF _mm512_castps_si512
#define FROM_BITS _mm512_castsi512_ps
#define BITS_ADD _mm512_add_epi32
#define BITS_SHL _mm512_slli_epi32
#else
typedef __m512d vec;
#define X(op) _mm512_##op##_pd
#define MASK(n) ((__mmask8)((1u << (n)) - 1))
#define BITS_OF _mm512_castpd_si512
#define FROM_BITS _mm512_castsi512_pd
#define BITS_ADD _mm512_add_epi64
#define BITS_SHL _mm512_slli_epi64
#endif
INLINE vec vec_load_n(const real *p, crnn_dim n) { return X(maskz_loadu)(MASK(n), p); }
INLINE void vec_store_n(real *p, vec a, crnn_dim n) { X(mask_storeu)(p, MASK(n), a); }
INLINE vec vec_pick(vec a, vec b, vec x, vec y)
{
#if defined(CRNN_F32)
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
#else
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(a, b, _CMP_GT_OQ), y, x);
#endif
}

#elif defined(CRNN_AVX2)
#if !defined(__AVX2__) || (!defined(__FMA__) && !defined(_MSC_VER))
#error "this file needs AVX2 and FMA switched on"
#endif
#include <immintrin.h>
#define CRNN_ISA avx2
enum { VEC = LINE / 2 };
/* vec_mask(n) is a window of this: n set lanes, then clear ones. */
#if defined(CRNN_F32)
typedef __m256 vec;
#define X(op) _mm256_##op##_ps
#define BITS_OF _mm256_castps_si256
#define FROM_BITS _mm256_castsi256_ps
#define BITS_ADD _mm256_add_epi32
#define BITS_SHL _mm256_slli_epi32
static const real_bits lanes_set[2 * 8] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
#else
typedef __m256d vec;
#define X(op) _mm256_##op##_pd
#define BITS_OF _mm256_castpd_si256
#define FROM_BITS _mm256_castsi256_pd
#define BITS_ADD _mm256_add_epi64
#define BITS_SHL _mm256_slli_epi64
static const real_bits lanes_set[2 * 4] = {-1, -1, -1, -1, 0, 0, 0, 0};
#endif
INLINE __m256i vec_mask(crnn_dim n) { return _mm256_loadu_si256((const __m256i *)(lanes_set + VEC - n)); }
INLINE vec vec_load_n(const real *p, crnn_dim n) { return X(maskload)(p, vec_mask(n)); }
INLINE void vec_store_n(real *p, vec a, crnn_dim n) { X(maskstore)(p, vec_mask(n), a); }
INLINE vec vec_pick(vec a, vec b, vec x, vec y) { return X(blendv)(y, x, X(cmp)(a, b, _CMP_GT_OQ)); }

#elif defined(CRNN_NEON)
#if !defined(__aarch64__) && !defined(_M_ARM64)
#error "this file is for 64-bit ARM"
#endif
#include <arm_neon.h>
#define CRNN_ISA neon
enum { VEC = LINE / 4 };
#if defined(CRNN_F32)
typedef float32x4_t vec;
#define X(op) op##_f32
#define BITS_OF vreinterpretq_s32_f32
#define FROM_BITS vreinterpretq_f32_s32
#define BITS_ADD vaddq_s32
#define BITS_SHL vshlq_n_s32
#define SIGN_BIT vreinterpretq_u32_s32(vdupq_n_s32(INT32_MIN))
#else
typedef float64x2_t vec;
#define X(op) op##_f64
#define BITS_OF vreinterpretq_s64_f64
#define FROM_BITS vreinterpretq_f64_s64
#define BITS_ADD vaddq_s64
#define BITS_SHL vshlq_n_s64
#define SIGN_BIT vreinterpretq_u64_s64(vdupq_n_s64(INT64_MIN))
#endif
INLINE vec vec_load(const real *p) { return X(vld1q)(p); }
INLINE void vec_store(real *p, vec a) { X(vst1q)(p, a); }
INLINE vec vec_load_n(const real *p, crnn_dim n)
{
    real lanes[VEC] = {0};
    for (crnn_dim i = 0; i < n; ++i)
        lanes[i] = p[i];
    return vec_load(lanes);
}
INLINE void vec_store_n(real *p, vec a, crnn_dim n)
{
    real lanes[VEC];
    vec_store(lanes, a);
    for (crnn_dim i = 0; i < n; ++i)
        p[i] = lanes[i];
}
INLINE vec vec_set1(real x) { return X(vdupq_n)(x); }
INLINE vec vec_add(vec a, vec b) { return X(vaddq)(a, b); }
INLINE vec vec_sub(vec a, vec b) { return X(vsubq)(a, b); }
INLINE vec vec_mul(vec a, vec b) { return X(vmulq)(a, b); }
INLINE vec vec_div(vec a, vec b) { return X(vdivq)(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return X(vfmaq)(c, a, b); }
INLINE vec vec_fnma(vec a, vec b, vec c) { return X(vfmsq)(c, a, b); }
INLINE vec vec_sqrt(vec a) { return X(vsqrtq)(a); }
INLINE vec vec_abs(vec a) { return X(vabsq)(a); }
INLINE vec vec_copysign(vec a, vec sign) { return X(vbslq)(SIGN_BIT, sign, a); }
INLINE vec vec_pick(vec a, vec b, vec x, vec y) { return X(vbslq)(X(vcgtq)(a, b), x, y); }
INLINE vec vec_min(vec a, vec b) { return X(vbslq)(X(vcltq)(a, b), a, b); }
INLINE vec vec_max(vec a, vec b) { return X(vbslq)(X(vcgtq)(a, b), a, b); }
INLINE vec vec_scale_exponent(vec p, vec t)
{
    return FROM_BITS(BITS_ADD(BITS_OF(p), BITS_SHL(BITS_OF(t), EXPONENT_SHIFT)));
}

#elif defined(CRNN_GENERIC)
#define CRNN_ISA generic
enum { VEC = 1 };
typedef real vec;
INLINE vec vec_load(const real *p) { return *p; }
INLINE void vec_store(real *p, vec a) { *p = a; }
INLINE vec vec_load_n(const real *p, crnn_dim n) { return n ? *p : 0; }
INLINE void vec_store_n(real *p, vec a, crnn_dim n)
{
    if (n)
        *p = a;
}
INLINE vec vec_set1(real x) { return x; }
INLINE vec vec_add(vec a, vec b) { return a + b; }
INLINE vec vec_sub(vec a, vec b) { return a - b; }
INLINE vec vec_mul(vec a, vec b) { return a * b; }
INLINE vec vec_div(vec a, vec b) { return a / b; }
#if defined(CRNN_F32)
INLINE vec vec_fma(vec a, vec b, vec c) { return fmaf(a, b, c); }
INLINE vec vec_sqrt(vec a) { return sqrtf(a); }
INLINE vec vec_abs(vec a) { return fabsf(a); }
INLINE vec vec_copysign(vec a, vec sign) { return copysignf(a, sign); }
#else
INLINE vec vec_fma(vec a, vec b, vec c) { return fma(a, b, c); }
INLINE vec vec_sqrt(vec a) { return sqrt(a); }
INLINE vec vec_abs(vec a) { return fabs(a); }
INLINE vec vec_copysign(vec a, vec sign) { return copysign(a, sign); }
#endif
INLINE vec vec_fnma(vec a, vec b, vec c) { return vec_fma(-a, b, c); }
INLINE vec vec_pick(vec a, vec b, vec x, vec y) { return a > b ? x : y; }
INLINE vec vec_min(vec a, vec b) { return a < b ? a : b; }
INLINE vec vec_max(vec a, vec b) { return a > b ? a : b; }
INLINE vec vec_scale_exponent(vec p, vec t)
{
    uint64_t p_bits = 0, t_bits = 0; /* unsigned: what is shifted out is meant to go */
    memcpy(&p_bits, &p, sizeof p);
    memcpy(&t_bits, &t, sizeof t);
    p_bits += t_bits << EXPONENT_SHIFT;
    real_bits bits = (real_bits)p_bits;
    memcpy(&p, &bits, sizeof p);
    return p;
}
#else
#error "define CRNN_GENERIC, CRNN_AVX2, CRNN_AVX512 or CRNN_NEON"
#endif

#if defined(CRNN_AVX512) || defined(CRNN_AVX2)
INLINE vec vec_load(const real *p) { return X(loadu)(p); }
INLINE void vec_store(real *p, vec a) { X(storeu)(p, a); }
INLINE vec vec_set1(real x) { return X(set1)(x); }
INLINE vec vec_add(vec a, vec b) { return X(add)(a, b); }
INLINE vec vec_sub(vec a, vec b) { return X(sub)(a, b); }
INLINE vec vec_mul(vec a, vec b) { return X(mul)(a, b); }
INLINE vec vec_div(vec a, vec b) { return X(div)(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return X(fmadd)(a, b, c); }
INLINE vec vec_fnma(vec a, vec b, vec c) { return X(fnmadd)(a, b, c); }
INLINE vec vec_sqrt(vec a) { return X(sqrt)(a); }
INLINE vec vec_abs(vec a) { return X(andnot)(X(set1)((real)-0.0), a); }
INLINE vec vec_copysign(vec a, vec sign) { return X(or)(vec_abs(a), X(and)(X(set1)((real)-0.0), sign)); }
INLINE vec vec_min(vec a, vec b) { return X(min)(a, b); }
INLINE vec vec_max(vec a, vec b) { return X(max)(a, b); }
INLINE vec vec_scale_exponent(vec p, vec t)
{
    return FROM_BITS(BITS_ADD(BITS_OF(p), BITS_SHL(BITS_OF(t), EXPONENT_SHIFT)));
}
#endif

/* ---- the line: every vec operation, lifted ------------------------------------------------------------------------ */

enum { VECS = LINE / VEC };
typedef struct {
    vec v[VECS];
} line;

/* EACH(e) is e(0) e(1) ... e(VECS - 1), spelled out so that a line lives in registers on every compiler. */
#define EACH1(e, i) e(i)
#define EACH2(e, i) EACH1(e, i) EACH1(e, (i) + 1)
#define EACH4(e, i) EACH2(e, i) EACH2(e, (i) + 2)
#define EACH8(e, i) EACH4(e, i) EACH4(e, (i) + 4)
#define EACH16(e, i) EACH8(e, i) EACH8(e, (i) + 8)
#if defined(CRNN_AVX512)
#define EACH(e) EACH1(e, 0)
#elif defined(CRNN_AVX2)
#define EACH(e) EACH2(e, 0)
#elif defined(CRNN_NEON)
#define EACH(e) EACH4(e, 0)
#elif defined(CRNN_F32)
#define EACH(e) EACH16(e, 0)
#else
#define EACH(e) EACH8(e, 0)
#endif

#define LIFT1(name) INLINE line line_##name(line a) { line r; EACH(LIFT1_##name) return r; }
#define LIFT2(name) INLINE line line_##name(line a, line b) { line r; EACH(LIFT2_##name) return r; }
#define LIFT3(name) INLINE line line_##name(line a, line b, line c) { line r; EACH(LIFT3_##name) return r; }
#define LIFT1_sqrt(i) r.v[i] = vec_sqrt(a.v[i]);
#define LIFT1_abs(i) r.v[i] = vec_abs(a.v[i]);
#define LIFT2_add(i) r.v[i] = vec_add(a.v[i], b.v[i]);
#define LIFT2_sub(i) r.v[i] = vec_sub(a.v[i], b.v[i]);
#define LIFT2_mul(i) r.v[i] = vec_mul(a.v[i], b.v[i]);
#define LIFT2_div(i) r.v[i] = vec_div(a.v[i], b.v[i]);
#define LIFT2_min(i) r.v[i] = vec_min(a.v[i], b.v[i]);
#define LIFT2_max(i) r.v[i] = vec_max(a.v[i], b.v[i]);
#define LIFT2_copysign(i) r.v[i] = vec_copysign(a.v[i], b.v[i]);
#define LIFT2_scale_exponent(i) r.v[i] = vec_scale_exponent(a.v[i], b.v[i]);
#define LIFT3_fma(i) r.v[i] = vec_fma(a.v[i], b.v[i], c.v[i]);
#define LIFT3_fnma(i) r.v[i] = vec_fnma(a.v[i], b.v[i], c.v[i]);
LIFT1(sqrt) LIFT1(abs)
LIFT2(add) LIFT2(sub) LIFT2(mul) LIFT2(div) LIFT2(min) LIFT2(max) LIFT2(copysign) LIFT2(scale_exponent)
LIFT3(fma) LIFT3(fnma)

#define LIFT_load(i) r.v[i] = vec_load(p + (i) * VEC);
#define LIFT_store(i) vec_store(p + (i) * VEC, a.v[i]);
#define LIFT_set1(i) r.v[i] = vec_set1(x);
#define LIFT_pick(i) r.v[i] = vec_pick(a.v[i], b.v[i], x.v[i], y.v[i]);
INLINE line line_load(const real *p) { line r; EACH(LIFT_load) return r; }
INLINE void line_store(real *p, line a) { EACH(LIFT_store) }
INLINE line line_set1(real x) { line r; EACH(LIFT_set1) return r; }
INLINE line line_pick(line a, line b, line x, line y) { line r; EACH(LIFT_pick) return r; }

/* The first n < LINE reals of a line; the others load as zero and are not stored. */
INLINE crnn_dim lanes_left(crnn_dim n, crnn_dim start)
{
    return n <= start ? 0 : n - start < VEC ? n - start : VEC;
}
#define LIFT_load_n(i) r.v[i] = vec_load_n(p + (lanes_left(n, (i) * VEC) ? (i) * VEC : 0), lanes_left(n, (i) * VEC));
#define LIFT_store_n(i) if (lanes_left(n, (i) * VEC)) vec_store_n(p + (i) * VEC, a.v[i], lanes_left(n, (i) * VEC));
INLINE line line_load_n(const real *p, crnn_dim n) { line r; EACH(LIFT_load_n) return r; }
INLINE void line_store_n(real *p, line a, crnn_dim n) { EACH(LIFT_store_n) }

/* The same where n may also be LINE or more: loops over arrays count down what is left. */
INLINE line line_get(const real *p, crnn_dim left) { return left >= LINE ? line_load(p) : line_load_n(p, left); }
INLINE void line_put(real *p, line a, crnn_dim left)
{
    if (left >= LINE)
        line_store(p, a);
    else
        line_store_n(p, a, left);
}

/* The lanes of a that an array with so much left has; zero in the others. */
INLINE line line_first(line a, crnn_dim left)
{
    real lanes[LINE] = {0};
    if (left >= LINE)
        return a;
    line_store_n(lanes, a, left);
    return line_load(lanes);
}

/* LINE partial results to one, in halves: the fixed order of every sum. */
INLINE real fold_sum(real lanes[LINE])
{
    UNROLL
    for (int half = LINE / 2; half > 0; half /= 2)
        UNROLL
        for (int i = 0; i < half; ++i)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

INLINE real fold_max(real lanes[LINE])
{
    UNROLL
    for (int half = LINE / 2; half > 0; half /= 2)
        UNROLL
        for (int i = 0; i < half; ++i)
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

#endif
