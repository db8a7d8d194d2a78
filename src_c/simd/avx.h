/* SPDX-License-Identifier: MIT
 * avx.h: the operations that AVX2 and AVX-512 spell alike. X(op) is the intrinsic of `op` for a vec. */
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

#if defined(CRNN_F32)
#define TRANSPOSES_BLOCKS
INLINE void transpose_block(float *to, crnn_dim ldto, const float *from, crnn_dim ldfrom)
{
    __m256 row[8], pair[8], four[8];
    UNROLL
    for (int i = 0; i < 8; ++i)
        row[i] = _mm256_loadu_ps(from + i * ldfrom);
    UNROLL
    for (int i = 0; i < 8; i += 2) { /* columns 0 1 4 5, then 2 3 6 7, of rows i and i+1 */
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 8; i += 4) /* columns 0 4, 1 5, 2 6, 3 7 of rows i .. i+3 */
        UNROLL
        for (int j = 0; j < 2; ++j) {
            four[i + 2 * j] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], 0x44);
            four[i + 2 * j + 1] = _mm256_shuffle_ps(pair[i + j], pair[i + j + 2], 0xee);
        }
    UNROLL
    for (int i = 0; i < 4; ++i) {
        _mm256_storeu_ps(to + i * ldto, _mm256_permute2f128_ps(four[i], four[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * ldto, _mm256_permute2f128_ps(four[i], four[i + 4], 0x31));
    }
}
#endif
