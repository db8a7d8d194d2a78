/* SPDX-License-Identifier: MIT
 * layout.h: which panels of packed weights hold which columns. The gates' panels of the same whole lines of columns lie
 * side by side. The last columns of each gate, fewer than a line, follow: those of as many gates as fit share a panel,
 * one gate after the other, the rest of which is zero. An LSTM of 65 units thus has 17 panels instead of 20. Where there
 * is no whole line, or fewer than two gates fit, each gate's last columns have a panel to themselves. */
#ifndef CRNN_LAYOUT_H
#define CRNN_LAYOUT_H

#include "simd/compat.h"
#include "crnn.h"

typedef struct {
    crnn_dim full; /* whole lines of columns of each gate */
    int cols;      /* columns of each gate beyond them */
    int each;      /* gates whose last columns share a panel; the last such panel may have fewer */
    int last;      /* panels of last columns */
} panel_layout;

/* Of N columns in each gate; line: columns of a panel. shared 0: as in quantised formats, every gate has panels of its
 * own. */
INLINE panel_layout panel_layout_of(crnn_dim N, crnn_dim gates, int line, int shared)
{
    panel_layout l = {N / line, (int)(N % line), 1, 0};
    if (l.cols)
        l.last = (int)gates;
    if (shared && gates > 1 && l.full && l.cols && 2 * l.cols <= line) {
        const int fit = line / l.cols;
        l.last = ((int)gates + fit - 1) / fit;
        l.each = ((int)gates + l.last - 1) / l.last;
    }
    return l;
}

#endif
