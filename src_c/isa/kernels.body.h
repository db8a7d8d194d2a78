/* SPDX-License-Identifier: MIT
 * kernels.body.h: all kernels of one precision on one instruction set, and their table: the only external symbol.
 * Included by the files of the instruction sets, which are compiled twice, with CRNN_F32 and with CRNN_F64. */
#include "simd/simd.h"

#include "simd/vecmath.body.h"
#include "linalg/rows.body.h"
#include "linalg/layout.h"
#include "linalg/packing.body.h"
#include "linalg/tiles.body.h"
#include "quant/quantised.h"
#if defined(CRNN_F32)
#include "quant/packing.body.h"
#include "quant/bf16.body.h"
#include "quant/int8.body.h"
#include "quant/int4.body.h"
static const crnn_quantised bf16_format = BF16_FUNCTIONS, int8_format = INT8_FUNCTIONS, int4_format = INT4_FUNCTIONS;
#endif
#include "linalg/gemm.body.h"
#include "linalg/weight_gradient.body.h"
#include "cells/cells.h"
#include "linalg/sums.body.h"
#include "train/loss.body.h"
#include "train/pool.body.h"
#include "train/optim.body.h"
#include "linalg/orthonormal.body.h"
#include "linalg/finite.body.h"
#include "text/sampling.body.h"

#define PASTE(a, b) a##b
#define QUOTE(isa) #isa
#define NAME_OF(isa) QUOTE(isa)
#define SYMBOL(prefix, isa) PASTE(prefix, isa) /* crnn_f32_avx2 */
#define BF16_FORMAT bf16_format
#define INT8_FORMAT int8_format
#define INT4_FORMAT int4_format
#include "isa/table.body.h"
