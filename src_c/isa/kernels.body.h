/* SPDX-License-Identifier: MIT
 * kernels.body.h: all kernels of one precision on one instruction set, and their table: the only external symbol.
 * Included by the isa_*.c files, which differ in two definitions and in the flags they are compiled with. */
#include "simd.h"

#include "vecmath.body.h"
#include "rows.body.h"
#include "gemm.body.h"
#include "rnn.body.h"
#include "lstm.body.h"
#include "gru.body.h"
#include "sums.body.h"
#include "loss.body.h"
#include "pool.body.h"
#include "optim.body.h"
#include "orthonormal.body.h"

#include "tables.h"

#define PASTE(a, b) a##b
#define QUOTE(isa) #isa
#define NAME_OF(isa) QUOTE(isa)
#if defined(CRNN_F32)
#define EXPAND(prefix, isa) PASTE(prefix, isa)
#define TABLE_NAME(isa) EXPAND(crnn_f32_, isa)
const crnn_kernels_f32 TABLE_NAME(CRNN_ISA) = {
#else
#define EXPAND(prefix, isa) PASTE(prefix, isa)
#define TABLE_NAME(isa) EXPAND(crnn_f64_, isa)
const crnn_kernels_f64 TABLE_NAME(CRNN_ISA) = {
#endif
    .isa = NAME_OF(CRNN_ISA),
    .exp = exp_array,
    .tanh = tanh_array,
    .sigmoid = sigmoid_array,
    .log1p = log1p_array,
    .pack_gates = pack_gates,
    .pack_transposed = pack_transposed,
    .linear_forward = linear_forward,
    .linear_backward_weight = linear_backward_weight,
    .recurrent_backward_weight = recurrent_backward_weight,
    .bias_backward = bias_backward,
    .rows_add_bias = rows_add_bias,
    .rows_backward = rows_backward,
    .rnn_forward = rnn_forward,
    .rnn_backward = rnn_backward,
    .lstm_forward = lstm_forward,
    .lstm_backward = lstm_backward,
    .gru_forward = gru_forward,
    .gru_backward = gru_backward,
    .softmax_cross_entropy = softmax_cross_entropy,
    .sigmoid_cross_entropy = sigmoid_cross_entropy,
    .regression_loss = regression_loss,
    .softmax = softmax,
    .pool_mean_forward = pool_mean_forward,
    .pool_mean_backward = pool_mean_backward,
    .pool_max_forward = pool_max_forward,
    .pool_max_backward = pool_max_backward,
    .sum = sum,
    .sum_of_squares = sum_of_squares,
    .column_sums = column_sums,
    .column_squares = column_squares,
    .scale = scale,
    .clip = clip,
    .sgd = sgd,
    .adagrad = adagrad,
    .rmsprop = rmsprop,
    .adam = adam,
    .orthonormalize = orthonormalize,
};
