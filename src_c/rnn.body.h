/* SPDX-License-Identifier: MIT
 * rnn.body.h: the plain recurrent cell, tanh or ReLU, through time. One product per step from packed weights, its
 * chains starting from the input's share, the activation applied while the tile is in the first cache. */

static void rnn_forward(real *h, const real *xw, const int32_t *ids, const real *h0, const real *w_hh, int act,
                        crnn_dim T, crnn_dim B, crnn_dim H, crnn_dim b0, crnn_dim b1)
{
    assert(act == CRNN_TANH || act == CRNN_RELU);
    float_mode mode = denormals_off();
    const epilogue e = act == CRNN_TANH ? TANH : RELU;
    for (crnn_dim t = 0; t < T; ++t) {
        real *h_t = h + t * B * H;                             /* h[t, :, :] */
        const real *h_before = t == 0 ? h0 : h_t - B * H;      /* h[t-1, :, :] */
        row_source xw_t = {ids ? xw : xw + t * B * H, H, ids ? ids + t * B : NULL};
        /* h[t] = act( xw[t] + h[t-1] @ w_hh ) */
        product(h_t, xw_t, h_before, w_hh, e, NULL, 1, B, H, H, b0, b1);
    }
    float_mode_restore(mode);
}

static void rnn_backward(real *da, real *dh0, const real *h, const real *w_hh_t, int act,
                         crnn_dim T, crnn_dim B, crnn_dim H, crnn_dim b0, crnn_dim b1)
{
    assert(T > 0 && (act == CRNN_TANH || act == CRNN_RELU));
    float_mode mode = denormals_off();
    const epilogue e = act == CRNN_TANH ? TANH_BACKWARD : RELU_BACKWARD;
    for (crnn_dim b = b0; b < b1; ++b) { /* nothing comes back from beyond the last step */
        real *da_last = da + ((T - 1) * B + b) * H;
        run_epilogue(e, &da_last, h, da, 1, H);
    }
    for (crnn_dim t = T - 2; t >= 0; --t) {
        real *da_t = da + t * B * H; /* da[t, :, :] */
        /* forward: a[t+1] = xw[t+1] + h[t] @ w_hh and h[t] = act(a[t]), so
         * da[t] = ( dh[t] + da[t+1] @ w_hh^T ) * act'(h[t]) */
        product(da_t, (row_source){da_t, H, NULL}, da_t + B * H, w_hh_t, e, h + t * B * H, 1, B, H, H, b0, b1);
    }
    product(dh0, (row_source){NULL, 0, NULL}, da, w_hh_t, KEEP, NULL, 1, B, H, H, b0, b1);
    float_mode_restore(mode);
}
