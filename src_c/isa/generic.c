/* SPDX-License-Identifier: MIT
 * generic.c: every kernel for plain C: the readable reference, and the fallback. */
#include "simd/generic.h"

#include "isa/kernels.body.h"
