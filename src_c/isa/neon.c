/* SPDX-License-Identifier: MIT
 * isa_neon_f32.c: every kernel in float32 for 64-bit ARM. */
#define CRNN_NEON
#define CRNN_F32
#include "kernels.body.h"
