/* SPDX-License-Identifier: MIT
 * tables.h: the kernel tables, one per instruction set and precision; dispatch.c chooses among those that were built. */
#ifndef CRNN_TABLES_H
#define CRNN_TABLES_H

#include "crnn.h"

extern const crnn_kernels_f32 crnn_f32_generic, crnn_f32_avx2, crnn_f32_avx512, crnn_f32_neon;
extern const crnn_kernels_f64 crnn_f64_generic, crnn_f64_avx2, crnn_f64_avx512, crnn_f64_neon;

#endif
