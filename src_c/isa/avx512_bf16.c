/* SPDX-License-Identifier: MIT
 * avx512_bf16.c: products with bf16 weights by VDPBF16PS. No document promises how it rounds between the two products of a
 * pair, so it is asked before it is used. A compiler without the instruction, or with vectors that C cannot convert to
 * those of bf16 (MSVC), makes the products of avx512, and the set counts as absent. */
#if defined(__AVX512BF16__)
#define USE_VDPBF16PS
#endif
#include "simd/avx512.h"

#include "isa/formats.body.h"
#include "quant/bf16.body.h"

const crnn_quantised crnn_bf16_avx512_bf16 = BF16_FUNCTIONS;

/* Whether there is the instruction and computes what two fma do, in some thousand trials. */
int crnn_avx512_bf16_keeps_order(void);
int crnn_avx512_bf16_keeps_order(void)
{
    enum { TRIALS = 256, EXPONENTS = 24 };
#if defined(USE_VDPBF16PS)
    const float_mode mode = kernel_floats();
    uint32_t random = 1, x[LINE], w[LINE];
    float acc[LINE], once[LINE];
    int same = 1;
    for (int trial = 0; trial < TRIALS; ++trial) {
        for (int lane = 0; lane < LINE; ++lane) {
            uint32_t drawn[3];
            for (int i = 0; i < 3; ++i) {
                random = random * 1664525 + 1013904223;
                drawn[i] = random;
            }
            /* of any sign and mantissa, and of exponents close enough for the sums to round */
            const uint32_t exponents = (127 - EXPONENTS / 2) << 7;
            x[lane] = (drawn[0] & 0x807f807f) + exponents * 0x10001 + (drawn[0] >> 8 & 7) * 0x800080;
            w[lane] = (drawn[1] & 0x807f807f) + exponents * 0x10001 + (drawn[1] >> 8 & 7) * 0x800080;
            acc[lane] = float_of_bits((drawn[2] & 0x807fffff) + ((127 - EXPONENTS + (drawn[2] >> 24) % 8) << 23));
        }
        const vec x_even = ivec_even_bf16(ivec_load(x)), x_odd = ivec_odd_bf16(ivec_load(x));
        const vec w_even = ivec_even_bf16(ivec_load(w)), w_odd = ivec_odd_bf16(ivec_load(w));
        const vec start = vec_load(acc);
        vec_store(once, bf16_dot(start, (bf16_x)ivec_load(x), (bf16_w)ivec_load(w)));
        vec_store(acc, vec_fma(x_even, w_even, vec_fma(x_odd, w_odd, start)));
        same &= memcmp(acc, once, sizeof acc) == 0;
    }
    float_mode_restore(mode);
    return same;
#else
    return 0;
#endif
}
