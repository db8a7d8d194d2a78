/* SPDX-License-Identifier: MIT
 * sums.body.h: sums of arrays in double, whichever precision the array has. */

/* ---- over a flat array, in lanes --------------------------------------------------------------------------------- */

static double fold_doubles(double lanes[LINE])
{
    for (int half = LINE / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

static double sum(const real *x, crnn_dim n)
{
    float_mode mode = kernel_floats();
    double lanes[LINE] = {0};
    crnn_dim i = 0;
    for (; i + LINE <= n; i += LINE)
        for (int j = 0; j < LINE; ++j)
            lanes[j] += (double)x[i + j];
    for (int j = 0; i < n; ++i, ++j)
        lanes[j] += (double)x[i];
    volatile double total = fold_doubles(lanes); /* keeps the last additions before the mode is restored */
    float_mode_restore(mode);
    return total;
}

static double sum_of_squares(const real *x, crnn_dim n)
{
    float_mode mode = kernel_floats();
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

static double squared_distance(const real *x, const real *y, crnn_dim n)
{
    float_mode mode = kernel_floats();
    double lanes[LINE] = {0};
    crnn_dim i = 0;
    for (; i + LINE <= n; i += LINE)
        for (int j = 0; j < LINE; ++j) {
            const double difference = (double)x[i + j] - (double)y[i + j];
            lanes[j] += difference * difference;
        }
    for (int j = 0; i < n; ++i, ++j) {
        const double difference = (double)x[i] - (double)y[i];
        lanes[j] += difference * difference;
    }
    volatile double total = fold_doubles(lanes);
    float_mode_restore(mode);
    return total;
}

/* ---- per column of a matrix, over its rows in rising order ------------------------------------------------------- */

static void column_sums(double *sums, double *counts, const real *x, crnn_dim M, crnn_dim N)
{
    float_mode mode = kernel_floats();
    for (crnn_dim m = 0; m < M; ++m) {
        const real *RESTRICT x_m = x + m * N;
        double *RESTRICT sums_ = sums, *RESTRICT counts_ = counts;
        for (crnn_dim n = 0; n < N; ++n) {
            const int known = x_m[n] == x_m[n];
            sums_[n] += known ? (double)x_m[n] : 0;
            counts_[n] += known ? 1 : 0;
        }
    }
    float_mode_restore(mode);
}

static void column_squares(double *squares, const real *x, const double *means, crnn_dim M, crnn_dim N)
{
    float_mode mode = kernel_floats();
    for (crnn_dim m = 0; m < M; ++m) {
        const real *RESTRICT x_m = x + m * N;
        double *RESTRICT squares_ = squares;
        for (crnn_dim n = 0; n < N; ++n) {
            const double deviation = (double)x_m[n] - means[n];
            squares_[n] += x_m[n] == x_m[n] ? deviation * deviation : 0;
        }
    }
    float_mode_restore(mode);
}
