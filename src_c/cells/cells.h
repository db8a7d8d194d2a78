/* SPDX-License-Identifier: MIT
 * cells.h: every cell, once. A cell's number is its place in this list; names, not numbers, are stored in files. */
#include "time_loop.h"

#include "rnn.h"
#include "lstm.h"
#include "gru.h"
#include "original_gru.h"
#include "min_gru.h"
#include "ln_lstm.h"

static const crnn_cell *const cells[] = {&tanh_cell, &relu_cell, &lstm_cell, &gru_cell, &original_gru_cell,
                                         &min_gru_cell, &ln_lstm_cell, NULL};
