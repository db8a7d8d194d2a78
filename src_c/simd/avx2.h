/* SPDX-License-Identifier: MIT
 * avx2.h: the native vector of AVX2 and FMA, and the tiles of its matrix products. The operations are
 * explained in simd.h, the tiles in tiles.body.h. */
#include <immintrin.h>

#if !defined(__AVX2__) || (!defined(__FMA__) && !defined(_MSC_VER))
#error "this file needs AVX2 and FMA switched on"
#endif

#include "simd/real.h"

#define CRNN_ISA avx2
#define VECS 2 /* in a line */
enum { VEC = LINE / VECS };

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
#include "simd/avx.h"

#if defined(CRNN_F32)
#define HAS_HALF_LINES
typedef vec half;
INLINE half half_load(const real *p) { return vec_load(p); }
INLINE void half_store(real *p, half a) { vec_store(p, a); }
INLINE half half_set1(real x) { return vec_set1(x); }
INLINE half half_fma(half a, half b, half c) { return vec_fma(a, b, c); }
#endif

/* ---- quantised products: explained in quant/int8.body.h and bf16.body.h ------------------------------------------ */

#if defined(CRNN_F32)

typedef __m256i ivec;
INLINE ivec ivec_load(const void *p) { return _mm256_loadu_si256(p); }

/* With the element type of its arithmetic: gcc 12 copies an array of __m256i in every pass of a loop. */
#if defined(__GNUC__)
typedef __v8si isum;
#define TO_ISUM(a) ((isum)(a))
#define TO_IVEC(a) ((ivec)(a))
#else /* MSVC has no casts between vectors */
typedef __m256i isum;
#define TO_ISUM(a) (a)
#define TO_IVEC(a) (a)
#endif
INLINE isum isum_zero(void) { return TO_ISUM(_mm256_setzero_si256()); }
INLINE isum isum_load(const int32_t *p) { return TO_ISUM(ivec_load(p)); }
INLINE vec isum_to_vec(isum a) { return _mm256_cvtepi32_ps(TO_IVEC(a)); }

/* |x| times w with the sign of x, in pairs, whose sums fit into 16 bits. */
enum { INT8_OFFSET = 0 };
typedef struct {
    __m256i x, size;
} quad;
INLINE quad quad_load(const void *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    const __m256i x = _mm256_set1_epi32(bytes);
    return (quad){x, _mm256_abs_epi8(x)};
}
INLINE isum quad_dot(isum acc, quad x, ivec w)
{
    const __m256i pairs = _mm256_maddubs_epi16(x.size, _mm256_sign_epi8(w, x.x));
    return TO_ISUM(_mm256_add_epi32(TO_IVEC(acc), _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}

/* int4: sums in 16 bits, of k = 0 and 1 and of k = 2 and 3 */
typedef isum group_sum;
INLINE int32_t group_start_of(int32_t even, int32_t odd) { return (int32_t)((uint32_t)odd << 16 | (even & 0xffff)); }
INLINE ivec four_load(const void *p)
{
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}
INLINE group_sum group_start(const void *p) { return (isum)four_load(p); }
INLINE ivec low_halves(ivec w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
INLINE ivec high_halves(ivec w) { return low_halves(_mm256_srli_epi16(w, 4)); }
INLINE group_sum group_dot(group_sum sum, ivec x, ivec w)
{
    return (isum)_mm256_add_epi16((ivec)sum, _mm256_maddubs_epi16(w, x));
}
INLINE isum group_add(isum total, group_sum sum, const uint8_t *multipliers)
{
    const __m256i once = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)multipliers));
    const __m256i twice = _mm256_or_si256(once, _mm256_slli_epi32(once, 16));
    return (isum)_mm256_add_epi32((ivec)total, _mm256_madd_epi16((ivec)sum, twice));
}

INLINE vec ivec_even_bf16(ivec pairs) { return FROM_BITS(_mm256_slli_epi32(pairs, 16)); }
INLINE vec ivec_odd_bf16(ivec pairs) { return FROM_BITS(_mm256_and_si256(pairs, _mm256_set1_epi32(-0x10000))); }
INLINE ivec ivec_pairs_bf16(ivec even, ivec odd) { return _mm256_or_si256(_mm256_srli_epi32(even, 16), odd); }
INLINE void ivec_store(void *p, ivec a) { _mm256_storeu_si256((__m256i *)p, a); }
INLINE void ivec_store_upper(void *p, ivec a)
{
    const __m256i halves = _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_setzero_si256());
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(halves, 0x08)));
}
INLINE ivec vec_round_bf16(vec x)
{
    const __m256i bits = BITS_OF(x), size = _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MAX));
    const __m256i to_even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    __m256i sum = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), to_even);
    sum = _mm256_blendv_epi8(sum, _mm256_or_si256(bits, _mm256_set1_epi32(BF16_QUIET)),
                             _mm256_cmpgt_epi32(size, _mm256_set1_epi32(BF16_INFINITY)));
    sum = _mm256_blendv_epi8(sum, _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MIN)),
                             _mm256_cmpgt_epi32(_mm256_set1_epi32(BF16_NORMAL), size));
    return _mm256_and_si256(sum, _mm256_set1_epi32(-0x10000));
}
#endif

/* ---- tiles ------------------------------------------------------------------------------------------------------- */

enum { TILE_ROWS = 6, TILE_PANELS = 4 };
#define PANELS_FOR(m) ((m) == 1 ? 4 : (m) <= 3 ? 2 : 1)
#define PANELS_FAR PANELS_FOR(1)
#define ROWS_ALIASED TILE_ROWS
#define FOR_EACH_TILE(T) T(1, 1) T(1, 2) T(1, 3) T(1, 4) T(2, 1) T(2, 2) T(3, 1) T(3, 2) T(4, 1) T(5, 1) T(6, 1)
