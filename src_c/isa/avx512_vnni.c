/* SPDX-License-Identifier: MIT
 * avx512_vnni.c: products with int8 weights by VPDPBUSD. */
#define USE_VPDPBUSD
#include "simd/avx512.h"

#include "isa/formats.body.h"
#include "quant/int8.body.h"

const crnn_quantised crnn_int8_avx512_vnni = INT8_FUNCTIONS;
