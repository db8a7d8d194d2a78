/* SPDX-License-Identifier: MIT
 * avx512.h: the native vector of AVX-512 F, DQ, VL and BW, and the tiles of its matrix products. The operations are
 * explained in simd.h, the tiles in tiles.body.h. */
#include <immintrin.h>

#if !defined(__AVX512F__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) || !defined(__AVX512BW__)
#error "this file needs AVX-512 F, DQ, VL and BW switched on"
#endif

#include "simd/real.h"

#define CRNN_ISA avx512
#define VECS 1 /* in a line */
enum { VEC = LINE / VECS };

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
#include "simd/avx.h"

#if defined(CRNN_F32)
#define HAS_HALF_LINES
typedef __m256 half;
INLINE half half_load(const real *p) { return _mm256_loadu_ps(p); }
INLINE void half_store(real *p, half a) { _mm256_storeu_ps(p, a); }
INLINE half half_set1(real x) { return _mm256_set1_ps(x); }
INLINE half half_fma(half a, half b, half c) { return _mm256_fmadd_ps(a, b, c); }
#endif

/* ---- quantised products: explained in quant/int8.body.h and bf16.body.h ------------------------------------------ */

#if defined(CRNN_F32)

typedef __m512i ivec;
INLINE ivec ivec_load(const void *p) { return _mm512_loadu_si512(p); }

/* With the element type of its arithmetic: gcc 12 copies an array of __m512i in every pass of a loop. */
#if defined(__GNUC__)
typedef __v16si isum;
#define TO_ISUM(a) ((isum)(a))
#define TO_IVEC(a) ((ivec)(a))
#else /* MSVC has no casts between vectors */
typedef __m512i isum;
#define TO_ISUM(a) (a)
#define TO_IVEC(a) (a)
#endif
INLINE isum isum_zero(void) { return TO_ISUM(_mm512_setzero_si512()); }
INLINE isum isum_load(const int32_t *p) { return TO_ISUM(ivec_load(p)); }
INLINE vec isum_to_vec(isum a) { return _mm512_cvtepi32_ps(TO_IVEC(a)); }

INLINE __m512i broadcast_bytes(const void *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}

#if defined(USE_VPDPBUSD) /* unsigned times signed */
enum { INT8_OFFSET = 128 };
typedef __m512i quad;
INLINE quad quad_load(const void *p) { return broadcast_bytes(p); }
INLINE isum quad_dot(isum acc, quad x, ivec w) { return TO_ISUM(_mm512_dpbusd_epi32(TO_IVEC(acc), x, w)); }
#else /* |x| times w with the sign of x, in pairs, whose sums fit into 16 bits */
enum { INT8_OFFSET = 0 };
typedef struct {
    __m512i size;
    __mmask64 negative;
} quad;
INLINE quad quad_load(const void *p)
{
    const __m512i x = broadcast_bytes(p);
    return (quad){_mm512_abs_epi8(x), _mm512_movepi8_mask(x)};
}
INLINE isum quad_dot(isum acc, quad x, ivec w)
{
    const __m512i pairs = _mm512_maddubs_epi16(x.size, _mm512_mask_sub_epi8(w, x.negative, _mm512_setzero_si512(), w));
    return TO_ISUM(_mm512_add_epi32(TO_IVEC(acc), _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))));
}
#endif

/* int4 */
typedef isum group_sum;
INLINE ivec four_load(const void *p) { return broadcast_bytes(p); }
INLINE group_sum group_start(const void *p) { return (isum)broadcast_bytes(p); }
INLINE ivec low_halves(ivec w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
INLINE ivec high_halves(ivec w) { return low_halves(_mm512_srli_epi16(w, 4)); }
#if defined(USE_VPDPBUSD) /* sums of 32 products fit into 16 bits: one instruction multiplies and adds them */
INLINE int32_t group_start_of(int32_t even, int32_t odd) { return even + odd; }
INLINE group_sum group_dot(group_sum sum, ivec x, ivec w) { return (isum)_mm512_dpbusd_epi32((ivec)sum, w, x); }
INLINE isum group_add(isum total, group_sum sum, const uint8_t *multipliers)
{
    const __m512i once = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)multipliers));
    return (isum)_mm512_dpwssd_epi32((ivec)total, (ivec)sum, once);
}
#else /* sums in 16 bits, of k = 0 and 1 and of k = 2 and 3 */
INLINE int32_t group_start_of(int32_t even, int32_t odd) { return (int32_t)((uint32_t)odd << 16 | (even & 0xffff)); }
INLINE group_sum group_dot(group_sum sum, ivec x, ivec w)
{
    return (isum)_mm512_add_epi16((ivec)sum, _mm512_maddubs_epi16(w, x));
}
INLINE isum group_add(isum total, group_sum sum, const uint8_t *multipliers)
{
    const __m512i once = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)multipliers));
    const __m512i twice = _mm512_or_si512(once, _mm512_slli_epi32(once, 16));
    return (isum)_mm512_add_epi32((ivec)total, _mm512_madd_epi16((ivec)sum, twice));
}
#endif

#if defined(USE_VDPBF16PS)
typedef uint16_t bf16_element;
typedef __m512bh bf16_x, bf16_w;
INLINE bf16_element bf16_store(uint32_t rounded) { return (uint16_t)(rounded >> 16); }
INLINE bf16_x bf16_x_load(const void *p) { return (bf16_x)broadcast_bytes(p); }
INLINE bf16_w bf16_w_load(const void *p) { return (bf16_w)ivec_load(p); }
INLINE vec bf16_dot(vec acc, bf16_x x, bf16_w w) { return _mm512_dpbf16_ps(acc, x, w); }
/* Intel's manual defines these conversions as bf16_rounded. */
INLINE void vec_store_bf16(void *p, vec x) { _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(x)); }
INLINE ivec vec_pairs_bf16(vec even, vec odd)
{
    static const uint16_t pairs[] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(ivec_load(pairs), (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}
#endif
INLINE vec ivec_even_bf16(ivec pairs) { return FROM_BITS(_mm512_slli_epi32(pairs, 16)); }
INLINE vec ivec_odd_bf16(ivec pairs) { return FROM_BITS(_mm512_and_si512(pairs, _mm512_set1_epi32(-0x10000))); }
INLINE ivec ivec_pairs_bf16(ivec even, ivec odd) { return _mm512_or_si512(_mm512_srli_epi32(even, 16), odd); }
INLINE void ivec_store(void *p, ivec a) { _mm512_storeu_si512(p, a); }
INLINE void ivec_store_upper(void *p, ivec a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)));
}
INLINE ivec vec_round_bf16(vec x)
{
    const __m512i bits = BITS_OF(x), size = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MAX));
    const __m512i to_even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i sum = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), to_even);
    sum = _mm512_mask_or_epi32(sum, _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(BF16_INFINITY)), bits,
                               _mm512_set1_epi32(BF16_QUIET));
    sum = _mm512_mask_and_epi32(sum, _mm512_cmplt_epi32_mask(size, _mm512_set1_epi32(BF16_NORMAL)), bits,
                                _mm512_set1_epi32(INT32_MIN));
    return _mm512_and_si512(sum, _mm512_set1_epi32(-0x10000));
}
#endif

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

enum { TILE_ROWS = 12, TILE_PANELS = 8 };
#define PANELS_FOR(m) ((m) == 1 ? 8 : (m) <= 6 ? 4 : 2)
#define PANELS_FAR 4
#define ROWS_ALIASED 6
#define FOR_EACH_TILE(T)                                                                                               \
    T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(1, 5) T(1, 6) T(1, 7) T(1, 8) T(2, 1) T(2, 2) T(2, 3) T(2, 4) T(3, 1) T(3, 2)    \
    T(3, 3) T(3, 4) T(4, 1) T(4, 2) T(4, 3) T(4, 4) T(5, 1) T(5, 2) T(5, 3) T(5, 4) T(6, 1) T(6, 2) T(6, 3) T(6, 4)                                    \
    T(7, 1) T(7, 2) T(8, 1) T(8, 2) T(9, 1) T(9, 2) T(10, 1) T(10, 2) T(11, 1) T(11, 2) T(12, 1) T(12, 2)
