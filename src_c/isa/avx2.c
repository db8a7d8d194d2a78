/* SPDX-License-Identifier: MIT
 * avx2.c: every kernel for AVX2 and FMA. */
#include "simd/avx2.h"

#include "isa/kernels.body.h"
