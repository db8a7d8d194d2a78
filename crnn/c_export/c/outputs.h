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

/*@ softmax: exp times */
/* p (n) = softmax(y). The sum is that of 16 sums, which are added in halves. */
static void softmax(float *p, const float *y, int n)
{
    float sums[16], most = y[0], factor;
    int i, half;
    for (i = 1; i < n; ++i)
        most = y[i] > most ? y[i] : most;
    for (i = 0; i < 16; ++i)
        sums[i] = 0.0f;
    for (i = 0; i < n; ++i) {
        p[i] = exp_of_nonpositive((float)(y[i] - most));
        sums[i % 16] = (float)(sums[i % 16] + p[i]);
    }
    for (half = 8; half > 0; half /= 2)
        for (i = 0; i < half; ++i)
            sums[i] = (float)(sums[i] + sums[i + half]);
    factor = (float)(1.0f / sums[0]);
    for (i = 0; i < n; ++i)
        p[i] = times(p[i], factor);
}
