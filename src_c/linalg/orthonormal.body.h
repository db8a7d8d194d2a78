/* SPDX-License-Identifier: MIT
 * orthonormal.body.h: Gram-Schmidt in a fixed order, for orthogonal initial weights that are the same everywhere. */

static real dot(const real *x, const real *y, crnn_dim n)
{
    real lanes[LINE];
    line sum = line_set1(0);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE) /* missing lanes add 0 */
        sum = line_fma(line_get(x + i, remaining), line_get(y + i, remaining), sum);
    line_store(lanes, sum);
    return fold_sum(lanes);
}

/* y -= factor * x */
static void subtract_multiple(real *y, const real *x, real factor, crnn_dim n)
{
    const line f = line_set1(factor);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE)
        line_put(y + i, line_fnma(f, line_get(x + i, remaining), line_get(y + i, remaining)), remaining);
}

/* Each column loses its share along the earlier ones, twice: the second pass takes what rounding left in the first
 * ("twice is enough", Giraud, Langou, Rozloznik 2005). */
static crnn_dim orthonormalize(real *q, crnn_dim n, crnn_dim H)
{
    float_mode mode = kernel_floats();
    crnn_dim failed = 0;
    for (crnn_dim j = 0; j < n && !failed; ++j) {
        real *q_j = q + j * H;
        const real before = dot(q_j, q_j, H);
        for (int pass = 0; pass < 2; ++pass)
            for (crnn_dim i = 0; i < j; ++i)
                subtract_multiple(q_j, q + i * H, dot(q + i * H, q_j, H), H);
        const real after = dot(q_j, q_j, H);
        real root[LINE];
        line_store(root, line_sqrt(line_set1(after)));
        if (after > before * (real)1e-10)
            scale_row(q_j, 1 / root[0], H);
        else
            failed = 1 + j;
    }
    float_mode_restore(mode);
    return failed;
}
