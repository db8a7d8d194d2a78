/* SPDX-License-Identifier: MIT
 * avx512.c: every kernel for AVX-512 F, DQ, VL and BW. */
#include "simd/avx512.h"

#include "isa/kernels.body.h"
