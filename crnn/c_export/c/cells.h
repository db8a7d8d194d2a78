/*@ tanh_finish: tanh */
/* h (H) from the finished sums a (H). */
static void tanh_finish(float *h, const float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j)
        h[j] = tanh_of(a[j]);
}

/*@ relu_finish: */
/* h (H) from the finished sums a (H). */
static void relu_finish(float *h, const float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j)
        h[j] = 0.0f > a[j] ? 0.0f : a[j];
}

/*@ lstm_finish: tanh sigmoid times */
/* h, c (H) from the finished sums a (4 H) of the gates i, f, g, o. */
static void lstm_finish(float *h, float *c, float *a, int H)
{
    int j;
    for (j = 0; j < 2 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 2 * H; j < 3 * H; ++j)
        a[j] = tanh_of(a[j]);
    for (j = 3 * H; j < 4 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 0; j < H; ++j)
        c[j] = multiply_add(a[H + j], c[j], times(a[j], a[2 * H + j]));
    for (j = 0; j < H; ++j)
        h[j] = tanh_of(c[j]);
    for (j = 0; j < H; ++j)
        h[j] = times(a[3 * H + j], h[j]);
}

/*@ gru_finish: tanh sigmoid minus */
/* h (H) from the finished sums a (4 H): r, z, h' @ W_hn + b_hn, and x @ W_xn + b_n. */
static void gru_finish(float *h, float *a, int H)
{
    int j;
    for (j = 0; j < 2 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 0; j < H; ++j)
        a[3 * H + j] = multiply_add(a[j], a[2 * H + j], a[3 * H + j]);
    for (j = 0; j < H; ++j)
        a[3 * H + j] = tanh_of(a[3 * H + j]);
    for (j = 0; j < H; ++j)
        h[j] = multiply_add(a[H + j], minus(h[j], a[3 * H + j]), a[3 * H + j]);
}

/*@ original_gru_reset: sigmoid times */
/* The gates r and z from their finished sums a (4 H), and a[3 H:] = r * h'. */
static void original_gru_reset(const float *h, float *a, int H)
{
    int j;
    for (j = 0; j < 2 * H; ++j)
        a[j] = sigmoid_of(a[j]);
    for (j = 0; j < H; ++j)
        a[3 * H + j] = times(a[j], h[j]);
}

/*@ original_gru_finish: tanh minus */
/* h (H) from a (4 H): r, z, and the finished sum of n. */
static void original_gru_finish(float *h, float *a, int H)
{
    int j;
    for (j = 2 * H; j < 3 * H; ++j)
        a[j] = tanh_of(a[j]);
    for (j = 0; j < H; ++j)
        h[j] = multiply_add(a[H + j], minus(h[j], a[2 * H + j]), a[2 * H + j]);
}

/*@ min_gru_finish: sigmoid plus minus */
/* h (H) from the sums a (2 H) of z and n. */
static void min_gru_finish(float *h, float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        const float z = sigmoid_of(a[j]), b = a[H + j], n = 0.0f > b ? sigmoid_of(b) : plus(b, 0.5f);
        h[j] = multiply_add(z, minus(n, h[j]), h[j]);
    }
}

/*@ square_root: arithmetic */
/* The square root of a normal x > 0, or NaN. Newton's method, then the nearest float by squares that are exact. */
static float square_root(float x)
{
    float_bits u, above, below;
    double root, middle;
    int i;
    u.value = x;
    if (!(x <= FLT_MAX))
        return x; /* infinity, NaN */
    u.bits = (u.bits >> 1) + 0x1fbd1df5u;
    root = (double)u.value;
    for (i = 0; i < 4; ++i)
        root = 0.5 * (root + (double)x / root);
    u.value = (float)root;
    above.bits = u.bits + 1;
    below.bits = u.bits - 1;
    middle = 0.5 * ((double)u.value + (double)above.value);
    if ((double)x > middle * middle)
        return above.value;
    middle = 0.5 * ((double)u.value + (double)below.value);
    return (double)x < middle * middle ? below.value : u.value;
}

/*@ divided: arithmetic */
static inline float divided(float a, float b)
{
    const float quotient = (float)(a / b);
    return magnitude(quotient) > FLT_MIN ? quotient : tiny((double)a / (double)b);
}

/*@ normalise: square_root divided times plus minus */
/* The mean of 16 sums, of H numbers in all, which are added in halves. */
static float mean_of_sums(float *sums, int H)
{
    int i, half;
    for (half = 8; half > 0; half /= 2)
        for (i = 0; i < half; ++i)
            sums[i] = plus(sums[i], sums[i + half]);
    return divided(sums[0], (float)H);
}

/* a (H) = gain * (a - mean) / sqrt(variance + 1e-5) + bias */
static void normalise(float *a, const float *gain, const float *bias, int H)
{
    float sums[16], squares[16], mean, scale;
    int j;
    for (j = 0; j < 16; ++j)
        sums[j] = squares[j] = 0.0f;
    for (j = 0; j < H; ++j)
        sums[j % 16] = plus(sums[j % 16], a[j]);
    mean = mean_of_sums(sums, H);
    for (j = 0; j < H; ++j) {
        a[j] = minus(a[j], mean);
        squares[j % 16] = multiply_add(a[j], a[j], squares[j % 16]);
    }
    scale = divided(1.0f, square_root(plus(mean_of_sums(squares, H), 1e-5f)));
    for (j = 0; j < H; ++j)
        a[j] = multiply_add(times(a[j], scale), gain[j], bias[j]);
}

/*@ ln_lstm_finish: normalise tanh sigmoid */
/* h, c (H) from the normalised sums a (4 H) of the gates i, f, g, o. */
static void ln_lstm_finish(float *h, float *c, const float *a, int H)
{
    int j;
    for (j = 0; j < H; ++j) {
        const float i = sigmoid_of(a[j]), f = sigmoid_of(a[H + j]), shut = minus(1.0f, f);
        c[j] = multiply_add(f, c[j], times(shut < i ? shut : i, tanh_of(a[2 * H + j])));
        h[j] = times(sigmoid_of(a[3 * H + j]), c[j]);
    }
}
