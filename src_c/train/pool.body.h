/* SPDX-License-Identifier: MIT
 * pool.body.h: pooling over time, forward and backward: the mean of a sequence's vectors, or the maximum per column.
 * Padding is ignored. The steps of streams do the arithmetic of the forward kernels, and so have their bits. */

/* out[b] = (sum_t h[t,b]) * (1 / length) */
static void pool_mean_forward(real *out, const real *h, crnn_dim H, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    for (crnn_dim i = rows->b0; i < rows->b1; ++i)
        memset(out + row_at(rows, i) * H, 0, (size_t)H * sizeof(real));
    for (row_walk w = walk_from(rows, 0, 0); w.end > rows->b0; walk_next(&w)) {
        const crnn_dim b = row_at(rows, w.i);
        real *out_b = out + b * H;
        const real *h_tb = h + row_of(rows, w.t, b) * H; /* h[t, b, :] */
        for (crnn_dim j = 0, remaining = H; remaining > 0; j += LINE, remaining -= LINE)
            line_put(out_b + j, line_add(line_get(out_b + j, remaining), line_get(h_tb + j, remaining)), remaining);
    }
    for (crnn_dim i = rows->b0; i < rows->b1; ++i) {
        const crnn_dim b = row_at(rows, i);
        scale_row(out + b * H, 1 / (real)steps_of(rows, b), H);
    }
    float_mode_restore(mode);
}

/* sum += h; out = sum * factor */
static void pool_mean_step(real *out, real *sum, const real *h, real factor, crnn_dim H)
{
    float_mode mode = kernel_floats();
    for (crnn_dim j = 0, remaining = H; remaining > 0; j += LINE, remaining -= LINE) {
        const line total = line_add(line_get(sum + j, remaining), line_get(h + j, remaining));
        line_put(sum + j, total, remaining);
        line_put(out + j, line_mul(total, line_set1(factor)), remaining);
    }
    float_mode_restore(mode);
}

/* forward: out[b] = (sum_t h[t,b]) * (1 / length), so the gradient of every step is dout * (1 / length). */
static void pool_mean_backward(real *dh, const real *dout, crnn_dim H, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    crnn_dim end = rows->b1;
    for (crnn_dim t = 0; t < rows->T; ++t) {
        end = end_of_held_rows(rows, t, end);
        for (crnn_dim i = rows->b0; i < end; ++i) {
            const crnn_dim b = row_at(rows, i), steps = steps_of(rows, b);
            const real *dout_b = dout + b * H;
            real *dh_tb = dh + row_of(rows, t, b) * H;
            if (t >= steps) {
                memset(dh_tb, 0, (size_t)H * sizeof(real));
                continue;
            }
            const line weight = line_set1(1 / (real)steps);
            for (crnn_dim j = 0, remaining = H; remaining > 0; j += LINE, remaining -= LINE)
                line_put(dh_tb + j, line_mul(weight, line_get(dout_b + j, remaining)), remaining);
        }
    }
    float_mode_restore(mode);
}

/* Plain loops without a sum: comparisons are exact in any order, and compilers vectorise them. Adding 0 flushes
 * denormals to 0, which comparing and copying on ARM do not. */

/* out[b,j] = h[t,b,j] at the first t where it is largest, t = which[b,j]; NaN counts as larger than any number. */
static void pool_max_forward(real *out, int32_t *which, const real *h, crnn_dim H, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    for (row_walk w = walk_from(rows, 0, 0); w.end > rows->b0; walk_next(&w)) {
        const crnn_dim b = row_at(rows, w.i);
        const int32_t t = (int32_t)w.t;
        const real *RESTRICT h_tb = h + row_of(rows, w.t, b) * H;
        real *RESTRICT out_b = out + b * H;
        int32_t *RESTRICT which_b = which + b * H;
        for (crnn_dim j = 0; t == 0 && j < H; ++j) {
            out_b[j] = (real)-INFINITY;
            which_b[j] = 0;
        }
        for (crnn_dim j = 0; j < H; ++j) {
            const real value = h_tb[j] + 0, best = out_b[j];
            const int32_t before = which_b[j];
            const int larger = !(value <= best) & (best == best); /* & instead of &&, which would be a branch */
            out_b[j] = larger ? value : best;
            which_b[j] = larger ? t : before;
        }
    }
    float_mode_restore(mode);
}

/* best = max(best, h); out = best */
static void pool_max_step(real *out, real *best, const real *h, crnn_dim H)
{
    float_mode mode = kernel_floats();
    real *RESTRICT best_ = best;
    const real *RESTRICT h_ = h;
    for (crnn_dim j = 0; j < H; ++j) {
        const real value = h_[j] + 0, before = best_[j] + 0;
        best_[j] = (!(value <= before) & (before == before)) ? value : before;
    }
    memmove(out, best, (size_t)H * sizeof(real));
    float_mode_restore(mode);
}

/* forward: out[b,j] = h[which[b,j],b,j], so only that step gets the gradient. */
static void pool_max_backward(real *dh, const real *dout, const int32_t *which, crnn_dim H, const crnn_rows *rows)
{
    float_mode mode = kernel_floats();
    crnn_dim end = rows->b1;
    for (crnn_dim t = 0; t < rows->T; ++t) {
        end = end_of_held_rows(rows, t, end);
        for (crnn_dim i = rows->b0; i < end; ++i) {
            const crnn_dim b = row_at(rows, i);
            const real *RESTRICT dout_b = dout + b * H;
            const int32_t *RESTRICT which_b = which + b * H;
            real *RESTRICT dh_tb = dh + row_of(rows, t, b) * H;
            for (crnn_dim j = 0; j < H; ++j)
                dh_tb[j] = which_b[j] == t ? dout_b[j] + 0 : 0;
        }
    }
    float_mode_restore(mode);
}
