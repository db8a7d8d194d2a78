/* SPDX-License-Identifier: MIT
 * isa_avx512_f32.c: every kernel in float32 for AVX-512 F, DQ, VL. */
#define CRNN_AVX512
#define CRNN_F32
#include "kernels.body.h"
