/* SPDX-License-Identifier: MIT
 * peak.c: the multiply-adds per second of one core: independent chains in registers, without memory access. The vector
 * width is that of the instruction set in the compiler's flags; the compiler contracts a*b + c to an fma if there is one.
 * Compiled by peak.py when a benchmark runs, with -O2 -ffp-contract=fast. GCC and Clang only. */

#if defined(__AVX512F__)
enum { BYTES = 64, CHAINS = 16 }; /* 32 registers */
#elif defined(__AVX__)
enum { BYTES = 32, CHAINS = 12 }; /* 16 registers */
#elif defined(__ARM_NEON)
enum { BYTES = 16, CHAINS = 16 }; /* 32 registers */
#else
enum { BYTES = 16, CHAINS = 12 };
#endif

typedef float vec __attribute__((vector_size(BYTES)));

double crnn_peak_flops(long n) { return 2.0 * CHAINS * (BYTES / sizeof(float)) * (double)n; }

/* n rounds of one multiply-add on every chain. The result is returned so that the compiler keeps the work. */
float crnn_peak(long n, float factor, float term)
{
    vec chain[CHAINS], f = {0}, c = {0};
    f += factor;
    c += term;
    for (int i = 0; i < CHAINS; ++i)
        chain[i] = c * (float)i;
    for (long k = 0; k < n; ++k) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; ++i)
            chain[i] = chain[i] * f + c;
    }
    vec sum = chain[0];
    for (int i = 1; i < CHAINS; ++i)
        sum += chain[i];
    float total = 0;
    for (int i = 0; i < (int)(BYTES / sizeof(float)); ++i)
        total += sum[i];
    return total;
}
