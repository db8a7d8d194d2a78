/* SPDX-License-Identifier: MIT
 * isa_avx2_f32.c: every kernel in float32 for AVX2 and FMA. */
#define CRNN_AVX2
#define CRNN_F32
#include "kernels.body.h"
