/* SPDX-License-Identifier: MIT
 * table.body.h: the table of the instruction set CRNN_ISA, whose quantised products are BF16_FORMAT, INT8_FORMAT and
 * INT4_FORMAT. The file of an instruction set may include it again, for one that differs in these only. */
#define CRNN_KERNEL(type, name, arguments) .name = name,
#if defined(CRNN_F32)
const crnn_kernels_f32 SYMBOL(crnn_f32_, CRNN_ISA) = {
    .bf16 = &BF16_FORMAT,
    .int8 = &INT8_FORMAT,
    .int4 = &INT4_FORMAT,
#else
const crnn_kernels_f64 SYMBOL(crnn_f64_, CRNN_ISA) = {
#endif
    .isa = NAME_OF(CRNN_ISA),
    .cells = cells,
#include "kernels.def"
};
#undef CRNN_KERNEL
