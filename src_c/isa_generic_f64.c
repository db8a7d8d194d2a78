/* SPDX-License-Identifier: MIT
 * isa_generic_f64.c: every kernel in float64 for plain C: the readable reference, and the fallback. */
#define CRNN_GENERIC
#define CRNN_F64
#include "kernels.body.h"
