/* SPDX-License-Identifier: MIT
 * neon.h: the native vector of 64-bit ARM, and the tiles of its matrix products. The operations are
 * explained in simd.h, the tiles in tiles.body.h. */
#include <arm_neon.h>

#if !defined(__aarch64__) && !defined(_M_ARM64)
#error "this file is for 64-bit ARM"
#endif

#include "simd/real.h"

#define CRNN_ISA neon
#define VECS 4 /* in a line */
enum { VEC = LINE / VECS };

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

/* ---- quantised products: explained in quant/int8.body.h and bf16.body.h ------------------------------------------ */

#if defined(CRNN_F32)

typedef int32x4_t ivec;
INLINE ivec ivec_load(const void *p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }

typedef ivec isum;
INLINE isum isum_zero(void) { return vdupq_n_s32(0); }
INLINE isum isum_load(const int32_t *p) { return vld1q_s32(p); }
INLINE vec isum_to_vec(isum a) { return vcvtq_f32_s32(a); }

enum { INT8_OFFSET = 0 };
typedef int8x16_t quad;
INLINE quad quad_load(const void *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return vreinterpretq_s8_s32(vdupq_n_s32(bytes));
}
INLINE isum quad_dot(isum acc, quad x, ivec w)
{
    const int8x16_t w_k = vreinterpretq_s8_s32(w);
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(acc, x, w_k);
#else /* sums of two products fit into 16 bits */
    const int16x8_t low = vmull_s8(vget_low_s8(x), vget_low_s8(w_k)), high = vmull_high_s8(x, w_k);
    return vpadalq_s16(acc, vpaddq_s16(low, high));
#endif
}

/* int4 */
typedef isum group_sum;
INLINE int32_t group_start_of(int32_t even, int32_t odd) { return even + odd; }
INLINE ivec four_load(const void *p) { return vreinterpretq_s32_s8(quad_load(p)); }
INLINE group_sum group_start(const void *p) { return four_load(p); }
INLINE ivec low_halves(ivec w) { return vandq_s32(w, vdupq_n_s32(0x0f0f0f0f)); }
INLINE ivec high_halves(ivec w) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(w), 4)); }
INLINE group_sum group_dot(group_sum sum, ivec x, ivec w) { return quad_dot(sum, vreinterpretq_s8_s32(x), w); }
INLINE isum group_add(isum total, group_sum sum, const uint8_t *multipliers)
{
    uint32_t bytes;
    memcpy(&bytes, multipliers, sizeof bytes);
    const uint16x8_t halves = vmovl_u8(vcreate_u8(bytes));
    return vmlaq_s32(total, sum, vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(halves))));
}

INLINE vec ivec_even_bf16(ivec pairs) { return vreinterpretq_f32_s32(vshlq_n_s32(pairs, 16)); }
INLINE vec ivec_odd_bf16(ivec pairs) { return vreinterpretq_f32_s32(vandq_s32(pairs, vdupq_n_s32(-0x10000))); }
INLINE ivec ivec_pairs_bf16(ivec even, ivec odd)
{
    return vorrq_s32(vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(even), 16)), odd);
}
INLINE void ivec_store(void *p, ivec a) { memcpy(p, &a, sizeof a); }
INLINE void ivec_store_upper(void *p, ivec a)
{
    const uint16x4_t halves = vshrn_n_u32(vreinterpretq_u32_s32(a), 16);
    memcpy(p, &halves, sizeof halves);
}
INLINE ivec vec_round_bf16(vec x)
{
    const int32x4_t bits = BITS_OF(x), size = vandq_s32(bits, vdupq_n_s32(INT32_MAX));
    const int32x4_t to_even = vandq_s32(vshrq_n_s32(bits, 16), vdupq_n_s32(1));
    int32x4_t sum = vaddq_s32(vaddq_s32(bits, vdupq_n_s32(0x7fff)), to_even);
    sum = vbslq_s32(vcgtq_s32(size, vdupq_n_s32(BF16_INFINITY)), vorrq_s32(bits, vdupq_n_s32(BF16_QUIET)), sum);
    sum = vbslq_s32(vcltq_s32(size, vdupq_n_s32(BF16_NORMAL)), vandq_s32(bits, vdupq_n_s32(INT32_MIN)), sum);
    return vandq_s32(sum, vdupq_n_s32(-0x10000));
}
#endif

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

enum { TILE_ROWS = 6, TILE_PANELS = 4 };
#define PANELS_FOR(m) ((m) == 1 ? 4 : (m) <= 3 ? 2 : 1)
#define PANELS_FAR PANELS_FOR(1)
#define ROWS_ALIASED TILE_ROWS
#define FOR_EACH_TILE(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(4, 1) T(5, 1) T(6, 1)
