/* SPDX-License-Identifier: MIT
 * An audio effect: what a plugin calls for every block of samples, in mono or with a state for each channel. It neither
 * allocates nor locks. amp.c and amp.h come from a model of one sample after the other:
 *     model = crnn.SequenceRegressor(hidden_size=16, cell="lstm", pooling=None).fit(dry, wet)
 *     crnn.export_c(model, "amp.c") */
#include "amp.h"

typedef struct {
    amp_state channels[2];
} effect;

void effect_reset(effect *e);
void effect_process(effect *e, float *const *samples, int channels, int count);

void effect_reset(effect *e)
{
    int channel;
    for (channel = 0; channel < 2; ++channel)
        amp_init(&e->channels[channel]);
}

/* samples[channel][0 .. count-1], OVERWRITTEN; at most two channels. */
void effect_process(effect *e, float *const *samples, int channels, int count)
{
    int channel, i;
    for (channel = 0; channel < channels; ++channel)
        for (i = 0; i < count; ++i) {
            const double x[AMP_INPUTS] = {(double)samples[channel][i]}; /* float in a model with scale=False */
            double y[AMP_OUTPUTS];
            if (amp_step(&e->channels[channel], x, y))
                samples[channel][i] = (float)y[0];
        }
}
