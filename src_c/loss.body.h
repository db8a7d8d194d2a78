/* SPDX-License-Identifier: MIT
 * loss.body.h: softmax, alone and fused with cross-entropy, and sums over flat arrays. */

/* The sum of p = exp(logits - max) over one row; *largest is the max. p may be logits, or NULL where only the sum is
 * wanted. NaN anywhere makes the sum NaN. */
static real exp_row(real *p, const real *logits, crnn_dim V, real *largest)
{
    real lanes[LINE];
    line high = line_set1((real)-INFINITY), sum = line_set1(0);
    crnn_dim v = 0;
    for (; v + LINE <= V; v += LINE)
        high = line_max(high, line_load(logits + v));
    line_store(lanes, high);
    real max = fold_max(lanes);
    for (; v < V; ++v)
        max = logits[v] > max ? logits[v] : max;

    line shift = line_set1(max);
    for (v = 0; v + LINE <= V; v += LINE) {
        line e = line_exp_nonpositive(line_sub(line_load(logits + v), shift));
        if (p)
            line_store(p + v, e);
        sum = line_add(sum, e);
    }
    line_store(lanes, sum);
    if (v < V) {
        real rest[LINE];
        line e = line_exp_nonpositive(line_sub(line_load_n(logits + v, V - v), shift));
        line_store(rest, e);
        if (p)
            line_store_n(p + v, e, V - v);
        for (int i = 0; i < V - v; ++i)
            lanes[i] += rest[i];
    }
    *largest = max;
    return fold_sum(lanes);
}

INLINE void scale_row(real *x, real factor, crnn_dim n)
{
    for (crnn_dim i = 0, left = n; left > 0; i += LINE, left -= LINE)
        line_put(x + i, line_mul(line_get(x + i, left), line_set1(factor)), left);
}

static void softmax(real *p, const real *logits, crnn_dim M, crnn_dim V)
{
    float_mode mode = denormals_off();
    for (crnn_dim m = 0; m < M; ++m) {
        real largest, total = exp_row(p + m * V, logits + m * V, V, &largest);
        scale_row(p + m * V, 1 / total, V);
    }
    float_mode_restore(mode);
}

static void softmax_cross_entropy(real *loss, real *dlogits, const real *logits, const int32_t *targets, real scale,
                                  int32_t ignore, crnn_dim T, crnn_dim B, crnn_dim V, crnn_dim b0, crnn_dim b1)
{
    float_mode mode = denormals_off();
    for (crnn_dim t = 0; t < T; ++t)
        for (crnn_dim b = b0; b < b1; ++b) {
            const crnn_dim g = t * B + b;
            const real *logits_g = logits + g * V;               /* logits[t, b, :] */
            real *dlogits_g = dlogits ? dlogits + g * V : NULL;
            const int32_t target = targets[g];
            if (target == ignore) {
                loss[g] = 0;
                if (dlogits_g)
                    memset(dlogits_g, 0, (size_t)V * sizeof(real));
                continue;
            }
            assert(0 <= target && target < V);
            const real logit = logits_g[target]; /* read before dlogits may take its place */
            real largest, total = exp_row(dlogits_g, logits_g, V, &largest);
            loss[g] = (real)(log_of_sum((double)total) + (double)largest - (double)logit);
            if (dlogits_g) {
                scale_row(dlogits_g, scale / total, V);
                dlogits_g[target] -= scale;
            }
        }
    float_mode_restore(mode);
}

/* ---- sums over flat arrays: lanes of double ------------------------------------------------------------------------ */

static double fold_doubles(double lanes[LINE])
{
    for (int half = LINE / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

static double sum(const real *x, crnn_dim n)
{
    float_mode mode = denormals_off();
    double lanes[LINE] = {0};
    crnn_dim i = 0;
    for (; i + LINE <= n; i += LINE)
        for (int j = 0; j < LINE; ++j)
            lanes[j] += (double)x[i + j];
    for (int j = 0; i < n; ++i, ++j)
        lanes[j] += (double)x[i];
    volatile double total = fold_doubles(lanes); /* keeps the last additions this side of the mode's return */
    float_mode_restore(mode);
    return total;
}

static double sum_of_squares(const real *x, crnn_dim n)
{
    float_mode mode = denormals_off();
    double lanes[LINE] = {0};
    crnn_dim i = 0;
    for (; i + LINE <= n; i += LINE)
        for (int j = 0; j < LINE; ++j)
            lanes[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i < n; ++i, ++j)
        lanes[j] += (double)x[i] * (double)x[i];
    volatile double total = fold_doubles(lanes);
    float_mode_restore(mode);
    return total;
}
