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
