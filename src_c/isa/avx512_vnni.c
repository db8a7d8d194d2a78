/* SPDX-License-Identifier: MIT
 * avx512_vnni.c: products with int8 and int4 weights by VPDPBUSD. A compiler without the instruction makes those of
 * avx512, and the set counts as absent. */
#if defined(__AVX512VNNI__) || (defined(_MSC_VER) && !defined(__clang__)) /* which knows the instructions of all sets */
#define USE_VPDPBUSD
#endif
#include "simd/avx512.h"

#include "isa/formats.body.h"
#include "quant/int8.body.h"
#include "quant/int4.body.h"

const crnn_quantised crnn_int8_avx512_vnni = INT8_FUNCTIONS, crnn_int4_avx512_vnni = INT4_FUNCTIONS;

int crnn_avx512_vnni_is_compiled(void);
int crnn_avx512_vnni_is_compiled(void)
{
#if defined(USE_VPDPBUSD)
    return 1;
#else
    return 0;
#endif
}
