/* SPDX-License-Identifier: MIT
 * real.h: `real`, float or double as CRNN_F32 or CRNN_F64 says, and how many of them are a line. */
#ifndef CRNN_REAL_H
#define CRNN_REAL_H

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

#include "simd/compat.h"
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
typedef uint32_t real_word;
enum { EXPONENT_SHIFT = 23 };
#elif defined(CRNN_F64)
typedef double real;
typedef int64_t real_bits;
typedef uint64_t real_word;
enum { EXPONENT_SHIFT = 52 };
#else
#error "define CRNN_F32 or CRNN_F64"
#endif

enum { LINE = CRNN_LINE_BYTES / sizeof(real) };

INLINE uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* A float rounded to its upper 16 bits, bf16: nearest, halves to even; a denormal is zero, a NaN remains one. The lower
 * bits are zero. vec_round_bf16 does the same with every lane. */
enum { BF16_INFINITY = 0x7f800000, BF16_QUIET = 0x400000, BF16_NORMAL = 0x800000 };
INLINE uint32_t bf16_rounded(float x)
{
    const uint32_t bits = float_bits(x), size = bits & 0x7fffffff;
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    return size > BF16_INFINITY ? (bits | BF16_QUIET) & 0xffff0000 : size < BF16_NORMAL ? bits & 0x80000000 : rounded;
}

#endif
