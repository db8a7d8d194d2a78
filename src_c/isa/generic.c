/* SPDX-License-Identifier: MIT
 * isa_generic_f32.c: every kernel in float32 for plain C: the readable reference, and the fallback. */
#define CRNN_GENERIC
#define CRNN_F32
#include "kernels.body.h"
