/* SPDX-License-Identifier: MIT
 * isa_neon_f64.c: every kernel in float64 for 64-bit ARM. */
#define CRNN_NEON
#define CRNN_F64
#include "kernels.body.h"
