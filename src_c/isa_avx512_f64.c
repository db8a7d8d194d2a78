/* SPDX-License-Identifier: MIT
 * isa_avx512_f64.c: every kernel in float64 for AVX-512 F, DQ, VL. */
#define CRNN_AVX512
#define CRNN_F64
#include "kernels.body.h"
