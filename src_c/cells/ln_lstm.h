/* SPDX-License-Identifier: MIT
 * ln_lstm.h: a bounded LSTM whose gates are layer-normalised. The cell of Bellard's NNCP, 2019; normalisation: Ba, Kiros,
 * Hinton 2016.
 *     a = xw + h' @ W_hh                        blocks i, f, g, o
 *     n = (a - mean(a)) / sqrt(variance(a) + 1e-5)          over the H units of each block
 *     i, f, o = sigmoid(gain * n + bias)   g = tanh(gain * n + bias)
 *     c = f * c' + min(i, 1 - f) * g       h = o * c          so c and h stay in [-1, 1] if c0 is there
 * min is i where both are equal, and so is its gradient. Stored for the backward pass: n, the factors 1 / sqrt(...), and
 * c; the gates are computed again. A row is finished when its whole product is: its sums over units come first. */

enum { LN_LSTM_I, LN_LSTM_F, LN_LSTM_G, LN_LSTM_O, LN_LSTM_GATES };
enum { LN_LSTM_GAIN, LN_LSTM_BIAS = LN_LSTM_GAIN + LN_LSTM_GATES }; /* vectors: one of each for every gate */

/* means[gate] = the sum of all lanes of sums[gate], divided by H; the other lanes are 0. */
NOCLONE static void ln_lstm_means(real means[LINE], const line sums[LN_LSTM_GATES], crnn_dim H)
{
    real lanes[LN_LSTM_GATES][LINE];
    for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
        line_store(lanes[gate], sums[gate]);
    for (int half = LINE / 2; half > 0; half /= 2) /* as fold_sum, for all gates at once */
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
            for (int i = 0; i < half; ++i)
                lanes[gate][i] = FLUSHED(lanes[gate][i] + lanes[gate][i + half]);
    line_store(means, line_set1(0));
    for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
        means[gate] = lanes[gate][0];
    line_store(means, line_div(line_load(means), line_set1((real)H)));
}

/* s OVERWRITTEN with the gates of a line, from its n. One copy of this code for forward and backward. */
NOCLONE static void ln_lstm_gates_of(line s[LN_LSTM_GATES], const line n[LN_LSTM_GATES], const void *const *vectors,
                                     crnn_dim j, crnn_dim columns)
{
    UNROLL
    for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
        s[gate] = line_fma(n[gate], line_get((const real *)vectors[LN_LSTM_GAIN + gate] + j, columns),
                           line_get((const real *)vectors[LN_LSTM_BIAS + gate] + j, columns));
    s[LN_LSTM_I] = line_sigmoid(s[LN_LSTM_I]);
    s[LN_LSTM_F] = line_sigmoid(s[LN_LSTM_F]);
    s[LN_LSTM_G] = line_tanh(s[LN_LSTM_G]);
    s[LN_LSTM_O] = line_sigmoid(s[LN_LSTM_O]);
}

/* `gates` contains the finished products a of a whole row. */
INLINE void ln_lstm_row(cell_line first)
{
    const crnn_layer *l = first.layer;
    line n[LN_LSTM_GATES], s[LN_LSTM_GATES], sum[LN_LSTM_GATES];
    real means[LINE], scales[LINE];
    for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
        sum[gate] = line_set1(0);
    for (cell_line at = first; at.columns > 0; at = next_line(at))
        UNROLL
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
            sum[gate] = line_add(sum[gate], get_gate(at, l->gates, gate));
    ln_lstm_means(means, sum, l->H);
    for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
        sum[gate] = line_set1(0);
    for (cell_line at = first; at.columns > 0; at = next_line(at))
        UNROLL
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate) {
            const line deviation = line_sub(get_gate(at, l->gates, gate), line_set1(means[gate]));
            const line there = line_first(deviation, at.columns);
            sum[gate] = line_fma(there, there, sum[gate]);
        }
    ln_lstm_means(scales, sum, l->H);
    const line deviations = line_sqrt(line_add(line_load(scales), line_set1((real)1e-5)));
    line_store(scales, line_div(line_set1(1), deviations));
    if (l->scales)
        memcpy((real *)l->scales + first.row * LN_LSTM_GATES, scales, LN_LSTM_GATES * sizeof(real));
    for (cell_line at = first; at.columns > 0; at = next_line(at)) {
        UNROLL
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate) {
            const line deviation = line_sub(get_gate(at, l->gates, gate), line_set1(means[gate]));
            n[gate] = line_mul(deviation, line_set1(scales[gate]));
            if (l->scales)
                put_gate(at, l->gates, gate, n[gate]);
        }
        ln_lstm_gates_of(s, n, l->vectors, at.j, at.columns);
        const line in = line_min(line_sub(line_set1(1), s[LN_LSTM_F]), s[LN_LSTM_I]);
        const line c = line_fma(s[LN_LSTM_F], get_before(at, l->c, l->c0), line_mul(in, s[LN_LSTM_G]));
        put_step(at, l->c, c);
        put_h(at, line_mul(s[LN_LSTM_O], c));
    }
}

static void ln_lstm_finish(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    for (int i = 0; i < m; ++i)
        ln_lstm_row(line_at(l, l->H, LN_LSTM_GATES, rows->t[i], rows->b[i], n0, n));
}

static void ln_lstm_forward(const crnn_layer *l)
{
    float_mode mode = kernel_floats();
    const product p = {.y = l->gates, .ldy = LN_LSTM_GATES * l->H, .init = xw_of(l, LN_LSTM_GATES),
                       .x = recurrent_h(l), .w = l->w_hh, .K = l->H, .N = l->H, .gates = LN_LSTM_GATES,
                       .quantised = l->quantised, .scratch = l->scratch, .finish_whole = ln_lstm_finish,
                       .prefetch = l->scales ? lstm_prefetch : NULL, .context = l};
    run_forward(l, &p);
    float_mode_restore(mode);
}

INLINE void ln_lstm_row_backward(cell_line first)
{
    const crnn_layer *l = first.layer;
    const crnn_dim H = l->H;
    real *const dnormal = (real *)l->dnormal + l->rows.b0 * LN_LSTM_GATES * H;
    line n[LN_LSTM_GATES], s[LN_LSTM_GATES], dz[LN_LSTM_GATES], sum[LN_LSTM_GATES], with_n[LN_LSTM_GATES];
    for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
        sum[gate] = with_n[gate] = line_set1(0);
    for (cell_line at = first; at.columns > 0; at = next_line(at)) {
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate)
            n[gate] = get_gate(at, l->gates, gate);
        ln_lstm_gates_of(s, n, l->vectors, at.j, at.columns);
        const line c = get_step(at, l->c), c_before = get_before(at, l->c, l->c0), zero = line_set1(0);
        const line shut = line_sub(line_set1(1), s[LN_LSTM_F]), in = line_min(shut, s[LN_LSTM_I]), dh = get_dh(at);
        put_step(at, l->dh, dh);
        /* forward: h = o * c, and c is c' of the next step, whose gradient is l->dc */
        const line dc = line_fma(dh, s[LN_LSTM_O], get_state(at, l->dc)), din = line_mul(dc, s[LN_LSTM_G]);
        /* forward: c = f * c' + min(i, 1 - f) * g */
        dz[LN_LSTM_I] = sigmoid_gradient(line_pick(s[LN_LSTM_I], shut, zero, din), s[LN_LSTM_I]);
        const line dshut = line_pick(s[LN_LSTM_I], shut, din, zero);
        dz[LN_LSTM_F] = sigmoid_gradient(line_sub(line_mul(dc, c_before), dshut), s[LN_LSTM_F]);
        dz[LN_LSTM_G] = tanh_gradient(line_mul(dc, in), s[LN_LSTM_G]);
        dz[LN_LSTM_O] = sigmoid_gradient(line_mul(dh, c), s[LN_LSTM_O]);
        put_state(at, l->dc, line_mul(dc, s[LN_LSTM_F]));
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate) {
            /* forward: gain * n + bias */
            add_to_dvector(at, LN_LSTM_GAIN + gate, dz[gate], n[gate]);
            add_to_dvector(at, LN_LSTM_BIAS + gate, dz[gate], line_set1(1));
            const line dn = line_mul(dz[gate], get_vector(at, l->vectors[LN_LSTM_GAIN + gate]));
            line_put(dnormal + gate * H + at.j, dn, at.columns);
            sum[gate] = line_add(sum[gate], dn);
            with_n[gate] = line_fma(dn, n[gate], with_n[gate]);
        }
    }
    real means[LINE], means_with_n[LINE];
    const real *const scales = (const real *)l->scales + first.row * LN_LSTM_GATES;
    ln_lstm_means(means, sum, H);
    ln_lstm_means(means_with_n, with_n, H);
    for (cell_line at = first; at.columns > 0; at = next_line(at))
        for (int gate = 0; gate < LN_LSTM_GATES; ++gate) {
            /* forward: n = scale * (a - mean(a)), and scale depends on a too */
            const line dn = line_get(dnormal + gate * H + at.j, at.columns), n_gate = get_gate(at, l->gates, gate);
            const line centred = line_sub(dn, line_set1(means[gate]));
            const line rest = line_fnma(n_gate, line_set1(means_with_n[gate]), centred);
            put_gate(at, l->da, gate, line_mul(line_set1(scales[gate]), rest));
        }
}

static void ln_lstm_finish_backward(const void *layer, const tile_rows *rows, int m, crnn_dim n0, crnn_dim n)
{
    const crnn_layer *l = layer;
    for (int i = 0; i < m; ++i)
        ln_lstm_row_backward(line_at(l, l->H, LN_LSTM_GATES, rows->t[i], rows->b[i], n0, n));
}

static void ln_lstm_backward(const crnn_layer *l)
{
    assert(l->rows.T > 0 && l->scales);
    float_mode mode = kernel_floats();
    /* forward: a = xw + h' @ W_hh, so the gradient at h' is da @ W_hh^T */
    product p = product_back(l, l->da, LN_LSTM_GATES * l->H, LN_LSTM_GATES * l->H, NULL, lstm_prefetch_backward);
    p.finish_whole = ln_lstm_finish_backward;
    run_backward(l, &p);
    float_mode_restore(mode);
}

static const crnn_cell ln_lstm_cell = {
    .name = "ln_lstm", .gates = LN_LSTM_GATES, .gate_names = "ifgo", .candidate = LN_LSTM_G, .has_c = 1,
    .recurrent_gates = LN_LSTM_GATES, .packed_gates = LN_LSTM_GATES,
    .arrays = CRNN_USES_GATES | CRNN_USES_SCALES | CRNN_USES_DVECTORS,
    .vectors = {"gain_i", "gain_f", "gain_g", "gain_o", "bias_i", "bias_f", "bias_g", "bias_o"},
    .forward = ln_lstm_forward, .backward = ln_lstm_backward,
};
