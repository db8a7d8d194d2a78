/* SPDX-License-Identifier: MIT
 * isa_avx2_f64.c: every kernel in float64 for AVX2 and FMA. */
#define CRNN_AVX2
#define CRNN_F64
#include "kernels.body.h"
