/*@ bf16: arithmetic */
/* ---- weights of 16 bits: the upper half of a float ------------------------------------------------------------------ */

static inline float of_bf16(uint16_t upper)
{
    float_bits u;
    u.bits = (uint32_t)upper << 16;
    return u.value;
}

/*@ bf16_product: bf16 least */
static float to_bf16(float x)
{
    float_bits u;
    u.value = x;
    if ((u.bits & 0x7fffffffu) > 0x7f800000u)
        u.bits |= 0x400000u; /* NaN */
    else
        u.bits += 0x7fffu + (u.bits >> 16 & 1u);
    u.bits &= 0xffff0000u;
    return u.value;
}

static float bf16_column(float sum, const float *x, const uint16_t *w, int K)
{
    int k;
    for (k = 0; k < K; ++k)
        sum = multiply_add(x[k], of_bf16(w[k]), sum);
    return sum;
}

/* Whether no x (n) is more than `most`. */
static int all_at_most(const float *x, int n, float most)
{
    int i, found = 0;
    for (i = 0; i < n; ++i)
        found |= magnitude(x[i]) > most;
    return !found;
}

/* The products are exact, unless they overflow. */
static void four_bf16_columns(float *y, const float *x, const uint16_t *w, int K)
{
    float a0 = y[0], a1 = y[1], a2 = y[2], a3 = y[3];
    int k;
    for (k = 0; k < K; ++k) {
        a0 = (float)(a0 + (float)(x[k] * of_bf16(w[k])));
        a1 = (float)(a1 + (float)(x[k] * of_bf16(w[K + k])));
        a2 = (float)(a2 + (float)(x[k] * of_bf16(w[2 * K + k])));
        a3 = (float)(a3 + (float)(x[k] * of_bf16(w[3 * K + k])));
    }
    y[0] = a0;
    y[1] = a1;
    y[2] = a2;
    y[3] = a3;
}

/* y (N) += x (K) @ w. Of each pair of k the odd one is added first: so they lie in w, whose columns have a zero for the
 * k that is missing if K is odd, and in `rounded`, scratch of the same size. least, normal: see add_product;
 * most: no product with a smaller x overflows. */
static int add_bf16_product(float *y, const float *x, float *rounded, const uint16_t *w, int K, int N, float least,
                            float most, int normal)
{
    const int even = K + K % 2;
    int k, n = 0, exact;
    rounded[even - 2] = 0.0f;
    for (k = 0; k < K; ++k)
        rounded[k ^ 1] = to_bf16(x[k]);
    normal = normal && all_at_least(rounded, even, least);
    exact = normal && all_at_most(rounded, even, most);
    for (; exact && n + 4 <= N; n += 4)
        four_bf16_columns(y + n, rounded, w + n * even, even);
    for (; n < N; ++n)
        y[n] = bf16_column(y[n], rounded, w + n * even, even);
    return normal;
}

/*@ bf16_row: bf16 plus */
/* y (N) = bias (N) + w[k, :] */
static void bf16_row_plus_bias(float *y, const uint16_t *w, const float *bias, int k, int K, int N)
{
    int n;
    for (n = 0; n < N; ++n)
        y[n] = plus(bias[n], of_bf16(w[n * (K + K % 2) + (k ^ 1)]));
}

/*@ bf16_column_of: bf16 */
/* x (K) = w[:, n] */
static void bf16_column_of(float *x, const uint16_t *w, int n, int K)
{
    int k;
    for (k = 0; k < K; ++k)
        x[k] = of_bf16(w[n * (K + K % 2) + (k ^ 1)]);
}
