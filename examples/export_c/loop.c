/* SPDX-License-Identifier: MIT
 * The functions of a microcontroller's program that names a gesture after every step; see docs/export-c.md. */
#include "gesture.h"

static gesture_state state; /* one sequence; 396 bytes here */

void setup(void);
int loop(const double x[GESTURE_INPUTS]);

void setup(void) { gesture_init(&state); }

int loop(const double x[GESTURE_INPUTS]) /* after every step: the class of the sequence so far */
{
    float y[GESTURE_OUTPUTS];
    if (!gesture_step(&state, x, y))
        return -1; /* an x that is NaN or infinite; the state has not changed */
    return gesture_most_probable(y); /* its name: gesture_classes[...] */
}
