/*@ pool_max: arithmetic */
static inline float minus_infinity(void)
{
    float_bits u;
    u.bits = 0xff800000u;
    return u.value;
}

/* best (H) = max(best, h) */
static void pool_max(float *best, const float *h, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        const float value = (float)(h[j] + 0.0f), before = (float)(best[j] + 0.0f);
        best[j] = !(value <= before) && before == before ? value : before;
    }
}

/*@ pool_mean: times plus */
/* sum (H) += h; mean (H) = sum * factor */
static void pool_mean(float *mean, float *sum, const float *h, float factor, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        sum[j] = plus(sum[j], h[j]);
        mean[j] = times(sum[j], factor);
    }
}

/*@ softmax_sum: exp */
/* The largest of y (n), and the sum of exp(y - most), each of which is written to p unless that is 0. The sum is that
 * of 16 sums, which are added in halves. */
static float softmax_sum(float *p, const float *y, int n, float *most)
{
    float sums[16];
    int i, half;
    *most = y[0];
    for (i = 1; i < n; ++i)
        *most = y[i] > *most ? y[i] : *most;
    for (i = 0; i < 16; ++i)
        sums[i] = 0.0f;
    for (i = 0; i < n; ++i) {
        const float e = exp_of_nonpositive((float)(y[i] - *most));
        sums[i % 16] = (float)(sums[i % 16] + e);
        if (p)
            p[i] = e;
    }
    for (half = 8; half > 0; half /= 2)
        for (i = 0; i < half; ++i)
            sums[i] = (float)(sums[i] + sums[i + half]);
    return sums[0];
}

/*@ softmax: softmax_sum times */
/* p (n) = softmax(y) */
static void softmax(float *p, const float *y, int n)
{
    float most;
    const float factor = (float)(1.0f / softmax_sum(p, y, n, &most));
    int i;
    for (i = 0; i < n; ++i)
        p[i] = times(p[i], factor);
}

/*@ log_softmax: softmax_sum plus */
/* a * b, rounded before anything is added to it */
static inline double rounded_product(double a, double b)
{
    volatile double product = a * b;
    return product;
}

/* log x, x >= 1: x = 2^k m with m about 1, and log m = 2 artanh((m - 1) / (m + 1)), as a series. */
static double log_of_sum(double x)
{
    static const double terms[] = {1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3};
    double_bits m;
    double f, f2, series = terms[0];
    int i, k;
    if (!(x >= 1))
        return x; /* NaN */
    m.value = x;
    k = (int)((m.bits - UINT64_C(0x3fe6a09e667f3bcd)) >> 52);
    m.bits -= (uint64_t)k << 52;
    f = (m.value - 1) / (m.value + 1);
    f2 = rounded_product(f, f);
    for (i = 1; i < 5; ++i)
        series = rounded_product(series, f2) + terms[i];
    return rounded_product(k, 0x1.62e42fefa39efp-1) + (2 * f + rounded_product(2 * f, rounded_product(series, f2)));
}

/* y (n) = log softmax(y) + start */
static void log_softmax(float *y, int n, float start)
{
    float most, shift;
    const double total = log_of_sum((double)softmax_sum(0, y, n, &most));
    int i;
    shift = (float)((double)start - (total + (double)most));
    for (i = 0; i < n; ++i)
        y[i] = plus(y[i], shift);
}
