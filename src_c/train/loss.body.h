/* SPDX-License-Identifier: MIT
 * loss.body.h: softmax, and the losses with their gradients. */

/* The maximum of one row. NaN may be ignored. */
INLINE real max_of_row(const real *logits, crnn_dim V)
{
    real lanes[LINE];
    line high = line_set1((real)-INFINITY);
    crnn_dim v = 0;
    for (; v + LINE <= V; v += LINE)
        high = line_max(high, line_load(logits + v));
    if (v < V && v > 0) /* the last line overlaps the one before */
        high = line_max(high, line_load(logits + V - LINE)), v = V;
    line_store(lanes, high);
    real max = fold_max(lanes);
    for (; v < V; ++v)
        max = logits[v] > max ? logits[v] : max;
    return max;
}

/* The sum of p = exp(logits - max) over one row. p may be logits, or NULL if only the sum is needed. Any NaN makes
 * the sum NaN. */
static real exp_row(real *p, const real *logits, crnn_dim V, real max)
{
    real lanes[LINE];
    line shift = line_set1(max), sum = line_set1(0);
    crnn_dim v = 0;
    for (; v + LINE <= V; v += LINE) {
        line e = line_exp_nonpositive(line_sub(line_load(logits + v), shift));
        if (p)
            line_store(p + v, e);
        sum = line_add(sum, e);
    }
    if (v < V) {
        line e = line_exp_nonpositive(line_sub(line_load_n(logits + v, V - v), shift));
        if (p)
            line_store_n(p + v, e, V - v);
        sum = line_add(sum, line_first(e, V - v));
    }
    line_store(lanes, sum);
    return fold_sum(lanes);
}

INLINE void scale_row(real *x, real factor, crnn_dim n)
{
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE)
        line_put(x + i, line_mul(line_get(x + i, remaining), line_set1(factor)), remaining);
}

/* x = factor * x - spread * w; w is 1 if weights is NULL. */
INLINE void scale_row_less(real *x, real factor, real spread, const real *weights, crnn_dim n)
{
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        line w = weights ? line_get(weights + i, remaining) : line_set1(1);
        line y = line_mul(line_get(x + i, remaining), line_set1(factor));
        line_put(x + i, line_fnma(line_set1(spread), w, y), remaining);
    }
}

static void softmax(real *p, const real *logits, crnn_dim M, crnn_dim V)
{
    float_mode mode = kernel_floats();
    for (crnn_dim m = 0; m < M; ++m) {
        const real *logits_m = logits + m * V;
        real total = exp_row(p + m * V, logits_m, V, max_of_row(logits_m, V));
        scale_row(p + m * V, 1 / total, V);
    }
    float_mode_restore(mode);
}

static void log_softmax(real *y, crnn_dim ldy, const real *logits, const real *start, crnn_dim lds, crnn_dim M, crnn_dim V)
{
    float_mode mode = kernel_floats();
    for (crnn_dim m = 0; m < M; ++m) {
        const real *logits_m = logits + m * V;
        real *y_m = y + m * ldy;
        const real max = max_of_row(logits_m, V);
        const double total = log_of_sum((double)exp_row(NULL, logits_m, V, max)) + (double)max;
        const line shift = line_set1((real)((start ? (double)start[m * lds] : 0) - total));
        for (crnn_dim v = 0, remaining = V; remaining > 0; v += LINE, remaining -= LINE)
            line_put(y_m + v, line_add(line_get(logits_m + v, remaining), shift), remaining);
    }
    float_mode_restore(mode);
}

/* The sum of w (max - logits) over one row; w is 1 if weights is NULL. */
static real sum_below(const real *logits, const real *weights, crnn_dim V, real max)
{
    line total = line_set1(0);
    for (crnn_dim v = 0, remaining = V; remaining > 0; v += LINE, remaining -= LINE) {
        line w = weights ? line_get(weights + v, remaining) : line_set1(1);
        line below = line_sub(line_set1(max), line_get(logits + v, remaining));
        total = line_add(total, line_first(line_mul(w, below), remaining));
    }
    return fold_line(total);
}

/* For a row that is ignored: it is padding, or has no target. */
INLINE void zero_row(real *loss, real *dx, crnn_dim n)
{
    *loss = 0;
    if (dx)
        memset(dx, 0, (size_t)n * sizeof(real));
}

/* A row of a softmax with its target. */
typedef struct {
    crnn_dim g; /* of logits and loss */
    int32_t target;
    real logit, largest, below, total; /* at the target; of all; sums: see sum_below and exp_row */
    real at_target;                    /* what the loss of the target is multiplied by */
} softmax_row;

/* What all rows of a softmax have in common. */
typedef struct {
    real *loss, *dlogits;
    const real *logits, *weights;
    real smoothing, scale, spread;
    double weight_of_all;
    crnn_dim V;
} softmax_loss;

/* Losses and gradients of some rows, one step of the calculation for all of them after the other: each step of one row is
 * a chain of operations that wait for each other, and takes twice the time alone. */
static void softmax_rows(const softmax_loss *s, softmax_row *rows, int count)
{
    const crnn_dim V = s->V;
    for (int i = 0; i < count; ++i) { /* read before dlogits overwrites it: they may be one array */
        rows[i].logit = s->logits[rows[i].g * V + rows[i].target];
        rows[i].largest = max_of_row(s->logits + rows[i].g * V, V);
    }
    for (int i = 0; i < count && s->smoothing != 0; ++i)
        rows[i].below = sum_below(s->logits + rows[i].g * V, s->weights, V, rows[i].largest);
    for (int i = 0; i < count; ++i)
        rows[i].total = exp_row(s->dlogits ? s->dlogits + rows[i].g * V : NULL, s->logits + rows[i].g * V, V,
                                rows[i].largest);
    const real spread_of_all = s->spread * (real)s->weight_of_all;
    for (int i = 0; i < count; ++i) {
        const softmax_row *row = &rows[i];
        const real at_target = (1 - s->smoothing) * (s->weights ? s->weights[row->target] : 1);
        const double log_total = log_of_sum((double)row->total);
        double loss = (double)at_target * (log_total + (double)row->largest - (double)row->logit);
        if (s->smoothing != 0)
            loss += (double)s->spread * (s->weight_of_all * log_total + (double)row->below);
        s->loss[row->g] = (real)loss;
        if (!s->dlogits)
            continue;
        real *dlogits = s->dlogits + row->g * V;
        const real factor = s->scale * (at_target + spread_of_all) / row->total;
        if (s->smoothing == 0)
            scale_row(dlogits, factor, V);
        else
            scale_row_less(dlogits, factor, s->scale * s->spread, s->weights, V);
        rows[i].at_target = at_target;
    }
    for (int i = 0; i < count && s->dlogits; ++i) /* last: a load waits for a vector that has just been stored there */
        s->dlogits[rows[i].g * V + rows[i].target] -= s->scale * rows[i].at_target;
}

/* With a_v = smoothing / V * w_v, and (1 - smoothing) * w_v more at the target, the loss is sum_v a_v (L - logits_v),
 * where L = log sum_v exp(logits_v); its gradient is (sum_v a_v) * softmax - a. */
static void softmax_cross_entropy(real *loss, real *dlogits, const real *logits, const int32_t *targets,
                                  const real *weights, real smoothing, real scale, int32_t ignore, crnn_dim V,
                                  const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    const softmax_loss all = {.loss = loss, .dlogits = dlogits, .logits = logits, .weights = weights,
                              .smoothing = smoothing, .scale = scale, .spread = smoothing / (real)V, .V = V,
                              .weight_of_all = smoothing == 0 ? 0 : weights ? sum(weights, V) : (double)V};
    enum { TOGETHER = 8 }; /* rows; more leave the first-level cache */
    softmax_row together[TOGETHER];
    int count = 0;
    crnn_dim end = rows->b1;
    for (crnn_dim t = 0; t < rows->T; ++t) {
        end = end_of_held_rows(rows, t, end);
        for (crnn_dim i = rows->b0; i < end; ++i) {
            const crnn_dim b = row_at(rows, i), g = row_of(rows, t, b);
            if (targets[g] == ignore || t >= steps_of(rows, b)) {
                zero_row(loss + g, dlogits ? dlogits + g * V : NULL, V);
                continue;
            }
            assert(0 <= targets[g] && targets[g] < V);
            together[count++] = (softmax_row){.g = g, .target = targets[g]};
            if (count == TOGETHER) {
                softmax_rows(&all, together, count);
                count = 0;
            }
        }
    }
    softmax_rows(&all, together, count);
    float_mode_restore(mode);
}

/* Per class, with p = sigmoid(x), t the target and w the weight of a positive label:
 *     loss = w t log(1 + e^-x) + (1 - t) log(1 + e^x)        its gradient = (1 - t) p - w t (1 - p)
 * Both are computed from e^-|x|, without cancellation in small results. A term without a target, or with a factor 0, is
 * 0, even if the other factor is infinite or NaN. */
static void sigmoid_cross_entropy(real *loss, real *dlogits, const real *logits, const real *targets,
                                  const real *pos_weights, real scale, crnn_dim V, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    const line zero = line_set1(0), one = line_set1(1);
    crnn_dim end = rows->b1;
    for (crnn_dim t = 0; t < rows->T; ++t) {
        end = end_of_held_rows(rows, t, end);
        for (crnn_dim i = rows->b0; i < end; ++i) {
            const crnn_dim b = row_at(rows, i), g = row_of(rows, t, b);
            const real *logits_g = logits + g * V, *targets_g = targets + g * V;
            real *dlogits_g = dlogits ? dlogits + g * V : NULL;
            if (t >= steps_of(rows, b)) {
                zero_row(loss + g, dlogits_g, V);
                continue;
            }
            line total = zero;
            for (crnn_dim v = 0, remaining = V; remaining > 0; v += LINE, remaining -= LINE) {
                line x = line_get(logits_g + v, remaining), target = line_get(targets_g + v, remaining);
                line positive = pos_weights ? line_mul(line_get(pos_weights + v, remaining), target) : target;
                line negative = line_sub(one, target);
                line e = line_exp_nonpositive(line_copysign(x, line_set1(-1))), log_term = line_log1p(e);
                line loss_positive = line_mul(positive, line_add(line_max(zero, line_sub(zero, x)), log_term));
                line loss_negative = line_mul(negative, line_add(line_max(zero, x), log_term));
                line loss_v = line_add(line_pick(target, zero, loss_positive, zero),
                                       line_pick(one, target, loss_negative, zero));
                total = line_add(total, line_first(loss_v, remaining));
                if (!dlogits_g)
                    continue;
                line larger = line_div(one, line_add(one, e)), smaller = line_mul(e, larger);
                line p = line_pick(x, zero, larger, smaller), not_p = line_pick(x, zero, smaller, larger);
                line up = line_pick(one, target, line_mul(negative, p), zero);
                line down = line_pick(target, zero, line_mul(positive, not_p), zero);
                line_put(dlogits_g + v, line_mul(line_set1(scale), line_sub(up, down)), remaining);
            }
            loss[g] = fold_line(total);
        }
    }
    float_mode_restore(mode);
}

/* The loss of an error e = y - t, and its derivative. The order of the arguments of min and max propagates NaN. */
INLINE line residual_loss(int kind, line e, line parameter, line *slope)
{
    const line zero = line_set1(0), half = line_set1((real)0.5);
    line above, below;
    switch (kind) {
    case CRNN_SQUARED:
        *slope = line_add(e, e);
        return line_mul(e, e);
    case CRNN_HUBER: /* e^2 / 2 up to delta, then delta (|e| - delta / 2): with e clipped to c, c (e - c / 2) */
        *slope = line_max(line_sub(zero, parameter), line_min(parameter, e));
        return line_mul(*slope, line_fnma(half, *slope, e));
    case CRNN_QUANTILE: /* (1 - q) e above the target, -q e below it */
        above = line_sub(line_set1(1), parameter);
        below = line_sub(zero, parameter);
        break;
    default: /* CRNN_ABSOLUTE */
        above = line_set1(1);
        below = line_set1(-1);
    }
    *slope = line_pick(e, zero, above, line_pick(zero, e, below, e));
    return line_mul(*slope, e);
}

static void regression_loss(real *loss, real *dy, const real *y, const real *targets, int kind, const real *parameters,
                            crnn_dim P, real scale, crnn_dim N, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    const line zero = line_set1(0);
    crnn_dim end = rows->b1;
    for (crnn_dim t = 0; t < rows->T; ++t) {
        end = end_of_held_rows(rows, t, end);
        for (crnn_dim i = rows->b0; i < end; ++i) {
            const crnn_dim b = row_at(rows, i), g = row_of(rows, t, b);
            const real *targets_g = targets + g * N;
            if (t >= steps_of(rows, b)) {
                zero_row(loss + g, dy ? dy + g * P * N : NULL, P * N);
                continue;
            }
            line total = zero;
            for (crnn_dim p = 0; p < P; ++p) {
                const line parameter = line_set1(parameters ? parameters[p] : 0);
                const crnn_dim start = (g * P + p) * N; /* y[t, b, p*N] */
                for (crnn_dim n = 0, remaining = N; remaining > 0; n += LINE, remaining -= LINE) {
                    line target = line_get(targets_g + n, remaining), slope;
                    line e = line_sub(line_get(y + start + n, remaining), target);
                    line loss_n = residual_loss(kind, e, parameter, &slope);
                    line known = line_abs(target), any = line_set1(-1); /* known > any unless NaN */
                    total = line_add(total, line_pick(known, any, loss_n, zero)); /* also 0 beyond the end of the row */
                    if (dy)
                        line_put(dy + start + n, line_mul(line_set1(scale), line_pick(known, any, slope, zero)),
                                 remaining);
                }
            }
            loss[g] = fold_line(total);
        }
    }
    float_mode_restore(mode);
}
