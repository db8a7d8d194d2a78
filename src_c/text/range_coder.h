/* SPDX-License-Identifier: MIT
 * range_coder.h: symbols written with their probabilities, as a range coder does (Martin 1979), and read again.
 *
 * Probabilities become integer frequencies by one function, `crnn_frequencies`, which does not round: a float times 2^24
 * is exact. From there on all arithmetic is of integers, so an archive has the same bytes everywhere. The file refuses
 * nothing: its callers check the number of symbols, and that symbols are below it. */

#ifndef CRNN_RANGE_CODER_H
#define CRNN_RANGE_CODER_H

#include <stddef.h>
#include <stdint.h>

enum {
    CRNN_FREQUENCY_BITS = 24,  /* the frequencies of a row have the sum 2^24 */
    CRNN_UNIFORM_BITS = 10,    /* of which 2^10 are shared out evenly: no symbol is impossible, none costs nothing */
    CRNN_MOST_SYMBOLS = 256,
    CRNN_MOST_BYTES = 3,       /* that a symbol takes: its frequency is at least 2^10 / 256 */
};

/* What is written or read. Of an encoder: `low` and `range` are the interval that the symbols so far leave, `bytes` its
 * first digits. Of a decoder: `low` is the distance of the archive's number from the beginning of the interval. */
typedef struct {
    uint64_t low, range;
    uint8_t *bytes;
    size_t used, size; /* bytes written, and that there is room for; or read, and that there are */
} crnn_range_coder;

/* frequencies (V) OUT: integers of at least 1, with the sum 2^24, for probabilities p (V) IN, V from 1 to 256.
 * For each symbol 2^10 / V and p 2^24 (1 - 2^-14), each rounded down; what is then missing from the sum, or too much in
 * it, is added to or taken from the first of the largest. Negative numbers and NaN count as 0, those above 1 as 1. If
 * the largest has not as much as is too much, p are no probabilities, and all are equal. */
static inline void crnn_frequencies(uint32_t *frequencies, const float *p, ptrdiff_t V)
{
    const int32_t whole = 1 << CRNN_FREQUENCY_BITS, least = (1 << CRNN_UNIFORM_BITS) / (int32_t)V;
    int64_t sum = 0;
    int32_t largest = 0;
    ptrdiff_t first = 0;
    for (ptrdiff_t i = 0; i < V; ++i) {
        const int32_t share = p[i] > 0 ? p[i] < 1 ? (int32_t)(p[i] * (float)whole) : whole : 0;
        const int32_t frequency = least + share - (share >> (CRNN_FREQUENCY_BITS - CRNN_UNIFORM_BITS));
        frequencies[i] = (uint32_t)frequency;
        sum += frequency;
        largest = frequency > largest ? frequency : largest;
    }
    if (sum - whole > largest - least) {
        for (ptrdiff_t i = 0; i < V; ++i)
            frequencies[i] = (uint32_t)(whole / (int32_t)V);
        sum = whole / (int32_t)V * (int64_t)V;
    } else {
        while (frequencies[first] != (uint32_t)largest)
            ++first;
    }
    frequencies[first] = (uint32_t)((int64_t)frequencies[first] + whole - sum);
}

static inline void crnn_begin_encoding(crnn_range_coder *coder)
{
    coder->low = 0, coder->range = UINT64_MAX, coder->used = 0;
}

/* Adds 1 to the number that the written bytes are. It never has a carry out of the first one. */
static inline void crnn_carry(crnn_range_coder *coder)
{
    for (size_t i = coder->used; i-- > 0 && ++coder->bytes[i] == 0;)
        ;
}

/* Writes the symbol whose frequency stands behind `below`, the sum of those before it. There is room for
 * CRNN_MOST_BYTES + 1 bytes. */
static inline void crnn_encode(crnn_range_coder *coder, uint32_t below, uint32_t frequency)
{
    const uint64_t unit = coder->range >> CRNN_FREQUENCY_BITS, start = coder->low + unit * below;
    if (start < coder->low)
        crnn_carry(coder);
    coder->low = start, coder->range = unit * frequency;
    while (coder->range < (uint64_t)1 << 56) {
        coder->bytes[coder->used++] = (uint8_t)(coder->low >> 56);
        coder->low <<= 8, coder->range <<= 8;
    }
}

/* Writes a yes or no; the probability of yes is `yes` / 2^24, from 2^10 to 2^24 - 2^10. */
static inline void crnn_encode_bit(crnn_range_coder *coder, uint32_t yes, int bit)
{
    crnn_encode(coder, bit ? 0 : yes, bit ? yes : ((uint32_t)1 << CRNN_FREQUENCY_BITS) - yes);
}

/* Ends the archive's number by one byte: those that are missing behind it count as zeros. */
static inline void crnn_end_encoding(crnn_range_coder *coder)
{
    const uint64_t last = coder->low + (((uint64_t)1 << 56) - 1);
    if (last < coder->low)
        crnn_carry(coder);
    coder->bytes[coder->used++] = (uint8_t)(last >> 56);
}

/* The next byte; zeros behind the last one. */
static inline uint64_t crnn_next_byte(crnn_range_coder *coder)
{
    const size_t at = coder->used++;
    return at < coder->size ? coder->bytes[at] : 0;
}

static inline void crnn_begin_decoding(crnn_range_coder *coder)
{
    coder->low = 0, coder->range = UINT64_MAX, coder->used = 0;
    for (int i = 0; i < 8; ++i)
        coder->low = coder->low << 8 | crnn_next_byte(coder);
}

/* The symbol that comes next, or -1 where the bytes are none that an encoder writes. */
static inline int crnn_decode(crnn_range_coder *coder, const uint32_t *frequencies)
{
    const uint64_t unit = coder->range >> CRNN_FREQUENCY_BITS, place = coder->low / unit;
    uint32_t below = 0;
    int symbol = 0;
    if (place >> CRNN_FREQUENCY_BITS)
        return -1;
    while (below + frequencies[symbol] <= place) /* which is below the sum of all */
        below += frequencies[symbol++];
    coder->low -= unit * below, coder->range = unit * frequencies[symbol];
    while (coder->range < (uint64_t)1 << 56)
        coder->low = coder->low << 8 | crnn_next_byte(coder), coder->range <<= 8;
    return symbol;
}

/* The yes or no that comes next, or -1. */
static inline int crnn_decode_bit(crnn_range_coder *coder, uint32_t yes)
{
    const uint32_t frequencies[2] = {yes, ((uint32_t)1 << CRNN_FREQUENCY_BITS) - yes};
    const int symbol = crnn_decode(coder, frequencies);
    return symbol < 0 ? symbol : !symbol;
}

/* Bytes of the archive that have mattered so far, the last one included. */
static inline size_t crnn_bytes_decoded(const crnn_range_coder *coder) { return coder->used - 7; }

/* Whether an encoder of the symbols so far ends here: its last byte is the smallest that is possible. */
static inline int crnn_decoding_ended(const crnn_range_coder *coder)
{
    return crnn_bytes_decoded(coder) == coder->size && coder->low < (uint64_t)1 << 56;
}

#endif
