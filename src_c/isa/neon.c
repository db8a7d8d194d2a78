/* SPDX-License-Identifier: MIT
 * neon.c: every kernel for 64-bit ARM. */
#include "simd/neon.h"

#include "isa/kernels.body.h"
