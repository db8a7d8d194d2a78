/* SPDX-License-Identifier: MIT
 * generic.h: plain C, whose vector is one number, and the tiles of its matrix products. The operations are explained in
 * simd.h, the tiles in tiles.body.h. */
#include "simd/real.h"

#define CRNN_ISA generic
#undef UNROLL /* a line is 16 numbers: unrolled loops over them are not faster, and make the largest part of a wheel */
#define UNROLL
#if defined(CRNN_F32)
#define VECS 16 /* in a line */
#else
#define VECS 8
#endif
enum { VEC = LINE / VECS };

typedef real vec;

#define LARGE NOCLONE static /* inlined, these operations on 16 numbers are half of this set's code, and at most 3 % faster */

#if defined(NO_FLUSH_TO_ZERO) /* what loads and arithmetic do elsewhere while kernel_floats() */
#if defined(CRNN_F32)
INLINE real flushed(real a) { return fabsf(a) < FLT_MIN ? copysignf(0, a) : a; }
#else
INLINE real flushed(real a) { return fabs(a) < DBL_MIN ? copysign(0, a) : a; }
#endif
#else
INLINE real flushed(real a) { return a; }
#endif
#define FLUSHED(a) flushed(a)

INLINE vec vec_load(const real *p) { return flushed(*p); }
INLINE void vec_store(real *p, vec a) { *p = a; }
INLINE vec vec_load_n(const real *p, crnn_dim n) { return n ? flushed(*p) : 0; }
INLINE void vec_store_n(real *p, vec a, crnn_dim n)
{
    if (n)
        *p = a;
}
INLINE vec vec_set1(real x) { return flushed(x); }
INLINE vec vec_add(vec a, vec b) { return flushed(a + b); }
INLINE vec vec_sub(vec a, vec b) { return flushed(a - b); }
INLINE vec vec_mul(vec a, vec b) { return flushed(a * b); }
INLINE vec vec_div(vec a, vec b) { return flushed(a / b); }
#if defined(CRNN_F32)
INLINE vec vec_fma(vec a, vec b, vec c) { return flushed(fmaf(a, b, c)); }
INLINE vec vec_sqrt(vec a) { return sqrtf(a); }
INLINE vec vec_abs(vec a) { return fabsf(a); }
INLINE vec vec_copysign(vec a, vec sign) { return copysignf(a, sign); }
#else
INLINE vec vec_fma(vec a, vec b, vec c) { return flushed(fma(a, b, c)); }
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
    real_word p_bits, t_bits; /* unsigned: bits that are shifted out are discarded */
    memcpy(&p_bits, &p, sizeof p);
    memcpy(&t_bits, &t, sizeof t);
    p_bits += t_bits << EXPONENT_SHIFT;
    memcpy(&p, &p_bits, sizeof p);
    return p;
}

/* ---- quantised products: explained in quant/int8.body.h and bf16.body.h ------------------------------------------ */

#if defined(CRNN_F32)

typedef int32_t ivec;
INLINE ivec ivec_load(const void *p)
{
    ivec a;
    memcpy(&a, p, sizeof a);
    return a;
}

typedef ivec isum;
INLINE isum isum_zero(void) { return 0; }
INLINE isum isum_load(const int32_t *p) { return *p; }
INLINE vec isum_to_vec(isum a) { return (vec)a; }

enum { INT8_OFFSET = 0 };
typedef struct {
    int8_t k[4];
} quad;
INLINE quad quad_load(const void *p)
{
    quad x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE isum quad_dot(isum acc, quad x, ivec w)
{
    const quad w_k = quad_load(&w);
    return acc + x.k[0] * w_k.k[0] + x.k[1] * w_k.k[1] + x.k[2] * w_k.k[2] + x.k[3] * w_k.k[3];
}

/* int4 */
typedef int32_t group_sum;
INLINE int32_t group_start_of(int32_t even, int32_t odd) { return even + odd; }
INLINE group_sum group_start(const void *p) { return ivec_load(p); }
INLINE ivec four_load(const void *p) { return ivec_load(p); }
INLINE ivec low_halves(ivec w) { return w & 0x0f0f0f0f; }
INLINE ivec high_halves(ivec w) { return (ivec)((uint32_t)w >> 4 & 0x0f0f0f0f); }
INLINE group_sum group_dot(group_sum sum, ivec x, ivec w) { return quad_dot(sum, quad_load(&x), w); }
INLINE isum group_add(isum total, group_sum sum, const uint8_t *multipliers) { return total + sum * multipliers[0]; }

INLINE vec ivec_even_bf16(ivec pair) /* the first in memory */
{
    uint16_t halves[2];
    memcpy(halves, &pair, sizeof halves);
    return float_of_bits((uint32_t)halves[0] << 16);
}
INLINE vec ivec_odd_bf16(ivec pair)
{
    uint16_t halves[2];
    memcpy(halves, &pair, sizeof halves);
    return float_of_bits((uint32_t)halves[1] << 16);
}
INLINE void ivec_store(void *p, ivec a) { memcpy(p, &a, sizeof a); }
INLINE void ivec_store_upper(void *p, ivec a)
{
    const uint16_t half = (uint16_t)((uint32_t)a >> 16);
    memcpy(p, &half, sizeof half);
}
INLINE ivec ivec_pairs_bf16(ivec even, ivec odd)
{
    uint16_t halves[2];
    ivec_store_upper(halves, even);
    ivec_store_upper(halves + 1, odd);
    return ivec_load(halves);
}
INLINE ivec vec_round_bf16(vec x) { return (ivec)bf16_rounded(x); }
#endif

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

enum { TILE_ROWS = 4, TILE_PANELS = 1 };
#define PANELS_FOR(m) 1
#define PANELS_FAR PANELS_FOR(1)
#define ROWS_ALIASED TILE_ROWS
#define FOR_EACH_TILE(T) T(1, 1) T(2, 1) T(3, 1) T(4, 1)
