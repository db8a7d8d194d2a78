/* SPDX-License-Identifier: MIT
 * optim.body.h: clipping and the update rules, each one pass over the flat buffers. g below is factor * gradient, plus
 * weight_decay * w if the rule includes it. Formulas as in PyTorch's torch.optim, so that results can be compared. */

static void scale(real *x, real factor, crnn_dim n)
{
    float_mode mode = kernel_floats();
    scale_row(x, factor, n);
    float_mode_restore(mode);
}

static int clip(real *x, real limit, crnn_dim n)
{
    float_mode mode = kernel_floats();
    const line high = line_set1(limit), low = line_set1(-limit), one = line_set1(1);
    line largest = line_set1(0);
    real lanes[LINE];
    /* This order of arguments propagates NaN. The product flushes denormals to 0; on ARM a comparison does not. */
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        const line x_i = line_mul(one, line_get(x + i, remaining));
        largest = line_max(line_abs(x_i), largest);
        line_put(x + i, line_max(low, line_min(high, x_i)), remaining);
    }
    line_store(lanes, largest);
    const int clipped = fold_max(lanes) > limit;
    float_mode_restore(mode);
    return clipped;
}

/* g = factor * gradient + weight_decay * w */
INLINE line decayed(line g, line w, line factor, line weight_decay)
{
    return line_fma(weight_decay, w, line_mul(factor, g));
}

/* v = momentum * v + g;  w -= lr * (nesterov ? g + momentum * v : v).  If momentum is 0, velocity is not accessed. */
static void sgd(real *w, real *velocity, const real *g, real factor, real lr, real momentum, real weight_decay,
                int nesterov, crnn_dim n)
{
    float_mode mode = kernel_floats();
    const line f = line_set1(factor), rate = line_set1(lr), mu = line_set1(momentum), decay = line_set1(weight_decay);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        line w_i = line_get(w + i, remaining), step = decayed(line_get(g + i, remaining), w_i, f, decay);
        if (momentum != 0) {
            line v_i = line_fma(mu, line_get(velocity + i, remaining), step);
            line_put(velocity + i, v_i, remaining);
            step = nesterov ? line_fma(mu, v_i, step) : v_i;
        }
        line_put(w + i, line_fnma(rate, step, w_i), remaining);
    }
    float_mode_restore(mode);
}

/* s += g^2;  w -= lr * g / (sqrt(s) + eps).  Duchi, Hazan, Singer 2011. */
static void adagrad(real *w, real *square_sum, const real *g, real factor, real lr, real eps, real weight_decay,
                    crnn_dim n)
{
    float_mode mode = kernel_floats();
    const line f = line_set1(factor), rate = line_set1(lr), small = line_set1(eps), decay = line_set1(weight_decay);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        line w_i = line_get(w + i, remaining), g_i = decayed(line_get(g + i, remaining), w_i, f, decay);
        line s_i = line_fma(g_i, g_i, line_get(square_sum + i, remaining));
        line_put(square_sum + i, s_i, remaining);
        line step = line_div(g_i, line_add(line_sqrt(s_i), small));
        line_put(w + i, line_fnma(rate, step, w_i), remaining);
    }
    float_mode_restore(mode);
}

/* s = alpha * s + (1 - alpha) * g^2;  step = g / (sqrt(s) + eps);  with momentum v = momentum * v + step;
 * w -= lr * (v or step).  Tieleman, Hinton 2012. */
static void rmsprop(real *w, real *square_avg, real *velocity, const real *g, real factor, real lr, real alpha, real eps,
                    real momentum, real weight_decay, crnn_dim n)
{
    float_mode mode = kernel_floats();
    const line f = line_set1(factor), rate = line_set1(lr), small = line_set1(eps), decay = line_set1(weight_decay);
    const line old = line_set1(alpha), fresh = line_set1(1 - alpha), mu = line_set1(momentum);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        line w_i = line_get(w + i, remaining), g_i = decayed(line_get(g + i, remaining), w_i, f, decay);
        line s_i = line_fma(fresh, line_mul(g_i, g_i), line_mul(old, line_get(square_avg + i, remaining)));
        line_put(square_avg + i, s_i, remaining);
        line step = line_div(g_i, line_add(line_sqrt(s_i), small));
        if (momentum != 0) {
            step = line_fma(mu, line_get(velocity + i, remaining), step);
            line_put(velocity + i, step, remaining);
        }
        line_put(w + i, line_fnma(rate, step, w_i), remaining);
    }
    float_mode_restore(mode);
}

/* m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g^2
 * w -= decoupled_decay * w + step_size * m / (sqrt(v) * root_correction + eps)
 * At update t step_size = lr / (1 - beta1^t), root_correction = 1 / sqrt(1 - beta2^t); AdamW's decoupled_decay is
 * lr * weight_decay, Adam's is 0.  Kingma, Ba 2015; Loshchilov, Hutter 2019. */
static void adam(real *w, real *m, real *v, const real *g, real factor, real step_size, real beta1, real beta2,
                 real root_correction, real eps, real weight_decay, real decoupled_decay, crnn_dim n)
{
    float_mode mode = kernel_floats();
    const line f = line_set1(factor), step = line_set1(step_size), decay = line_set1(weight_decay);
    const line b1 = line_set1(beta1), b2 = line_set1(beta2), c1 = line_set1(1 - beta1), c2 = line_set1(1 - beta2);
    const line root = line_set1(root_correction), small = line_set1(eps), shrink = line_set1(decoupled_decay);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        line w_i = line_get(w + i, remaining), g_i = decayed(line_get(g + i, remaining), w_i, f, decay);
        line m_i = line_fma(c1, g_i, line_mul(b1, line_get(m + i, remaining)));
        line v_i = line_fma(c2, line_mul(g_i, g_i), line_mul(b2, line_get(v + i, remaining)));
        line_put(m + i, m_i, remaining);
        line_put(v + i, v_i, remaining);
        line ratio = line_div(m_i, line_fma(line_sqrt(v_i), root, small));
        w_i = line_fnma(shrink, w_i, w_i);
        line_put(w + i, line_fnma(step, ratio, w_i), remaining);
    }
    float_mode_restore(mode);
}

/* w += min(1, strength * factors) * (anchor - w): the weight decay of dynamic evaluation (Krause et al. 2018), and the
 * bound of a distance. w = anchor stays as it is. */
static void pull(real *w, const real *anchor, const real *factors, real strength, crnn_dim n)
{
    float_mode mode = kernel_floats();
    const line one = line_set1(1), rate = line_set1(strength), constant = line_min(rate, one);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) {
        const line w_i = line_get(w + i, remaining);
        const line d = factors ? line_min(line_mul(rate, line_get(factors + i, remaining)), one) : constant;
        line_put(w + i, line_fma(d, line_sub(line_get(anchor + i, remaining), w_i), w_i), remaining);
    }
    float_mode_restore(mode);
}
