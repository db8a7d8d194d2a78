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
