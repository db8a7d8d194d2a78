/* SPDX-License-Identifier: MIT
 * avx512.c: every kernel for AVX-512 F, DQ, VL and BW; and the tables of its extensions, whose quantised products stand in
 * separate files. */
#include "simd/avx512.h"

#include "isa/kernels.body.h"

#if defined(CRNN_F32)
extern const crnn_quantised crnn_int8_avx512_vnni, crnn_int4_avx512_vnni, crnn_bf16_avx512_bf16;

#undef CRNN_ISA
#define CRNN_ISA avx512_vnni
#undef INT8_FORMAT
#define INT8_FORMAT crnn_int8_avx512_vnni
#undef INT4_FORMAT
#define INT4_FORMAT crnn_int4_avx512_vnni
#include "isa/table.body.h"

#undef CRNN_ISA
#define CRNN_ISA avx512_bf16
#undef BF16_FORMAT
#define BF16_FORMAT crnn_bf16_avx512_bf16
#include "isa/table.body.h"
#endif
