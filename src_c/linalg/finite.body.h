/* SPDX-License-Identifier: MIT
 * finite.body.h: whether numbers are finite. */

/* By the exponents, which no mode or flag of the machine changes. No early exit: compilers turn it into vector code. */
static int all_finite(const real *x, crnn_dim n)
{
    const real_bits exponent = sizeof(real) == 4 ? (real_bits)0x7f800000u : (real_bits)0x7ff0000000000000u;
    real_bits wrong = 0;
    for (crnn_dim i = 0; i < n; ++i) {
        real_bits bits;
        memcpy(&bits, &x[i], sizeof bits);
        wrong |= (bits & exponent) == exponent;
    }
    return !wrong;
}
