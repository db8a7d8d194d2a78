/* SPDX-License-Identifier: MIT
 * kernels.body.h: all kernels of one precision on one instruction set, and their table: the only external symbol.
 * Included by the files of the instruction sets, which are compiled twice, with CRNN_F32 and with CRNN_F64. */
#include "simd/simd.h"

#include "simd/vecmath.body.h"
#include "linalg/rows.body.h"
#include "linalg/packing.body.h"
#include "linalg/tiles.body.h"
#include "linalg/gemm.body.h"
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
#define TABLE(prefix, isa) PASTE(prefix, isa) /* crnn_f32_avx2 */
#define CRNN_KERNEL(type, name, arguments) .name = name,
#if defined(CRNN_F32)
const crnn_kernels_f32 TABLE(crnn_f32_, CRNN_ISA) = {
#else
const crnn_kernels_f64 TABLE(crnn_f64_, CRNN_ISA) = {
#endif
    .isa = NAME_OF(CRNN_ISA),
    .cells = cells,
#include "kernels.def"
};
