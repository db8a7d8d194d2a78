/* SPDX-License-Identifier: MIT
 * formats.body.h: what the formats of quantised weights need of an instruction set. */
#include "simd/simd.h"

#include "linalg/tiles.body.h"
#include "quant/quantised.h"
#include "quant/packing.body.h"
