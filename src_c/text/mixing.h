/* SPDX-License-Identifier: MIT
 * mixing.h: the next byte, predicted bit by bit from what followed the same contexts before, and from the probabilities
 * of a network. Context mixing as in Mahoney's PAQ (Adaptive weighing of context models for lossless data compression,
 * 2005): for each context a bit history in a hashed table, for each history a learnt probability; a mixer adds their
 * logits, with weights that are learnt by the gradient of the code length.
 *
 * All arithmetic is of integers, after `crnn_frequencies` has made integers of the network's probabilities. Logits are
 * in units of 1/256, probabilities of a 1 in 1/65536 unless stated otherwise. The file refuses nothing: its callers
 * check that symbols are below V. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "text/range_coder.h"

enum {
    MIX_CONTEXTS = 18,
    MIX_INPUTS = MIX_CONTEXTS + 6, /* contexts, the last 1 and 2 bytes, a match, 2 of the network, 1 */
    MIX_SETS = 3,                  /* of weights: each adds the inputs with one of its vectors of weights */
    MIX_LOGIT = 2815,              /* the largest */
    MIX_NODES = 16,                /* bytes of a line of the table: a check, and a history for each prefix of 4 bits */
    MIX_HISTORIES = 251,
    MIX_STEPS = 33,                /* logits that a refinement has values for */
    MIX_LONGEST = 31,              /* classes of lengths of a match, less 1 */
    MIX_MOST_BYTES = 8 * (CRNN_MOST_BYTES + 1),
};

/* Sizes of arrays, as powers of 2. */
typedef struct {
    int lines, history, positions;
} crnn_mixer_bits;

typedef struct {
    crnn_mixer_bits bits;
    uint8_t *table;           /* (2^lines, MIX_NODES) */
    uint8_t *past;            /* (2^history): the last bytes, at their position modulo its size */
    uint32_t *positions;      /* (2^positions): behind the last 6 bytes with this hash */
    int16_t *direct[2];       /* (2^16), (2^20): probabilities after the last 1 and 2 bytes, less 1/2 */
    int16_t *refinement[2];   /* (2^16, MIX_STEPS): what a probability became, in two contexts, less what it was */
    int32_t *weights[MIX_SETS]; /* in 1/65536, less what they begin with */
    int32_t *final;           /* (256, MIX_SETS), likewise: of the three sets */
    uint32_t *followers;      /* (2^16): the last 4 bytes that followed the last 2 */
    /* constant */
    int32_t start_contexts, start_network; /* weights begin with: of contexts, last bytes, a match; of the network */
    int alphabet_size;
    int16_t first[257];       /* symbols below each byte */
    uint8_t next[256][2];     /* histories */
    uint8_t counts[256][3];   /* of a history: zeros, ones, the last bit if there were both */
    uint16_t squash[2 * MIX_LOGIT + 1];
    int16_t stretch[4096];
    uint32_t reciprocal[1024];
    /* learnt: probabilities in 22 bits above a count in 10 */
    uint32_t of_history[MIX_CONTEXTS][256], of_match[MIX_LONGEST + 1];
    /* what was read */
    uint64_t position, line, line_before; /* the last: where this line and the one before it begin */
    uint32_t last4, last8;                /* bytes, the last one lowest */
    uint32_t word, word_before, word_before_that, line_start; /* hashes of words; up to 4 bytes */
    uint64_t match;
    uint32_t match_length;                /* 0: no match */
    uint32_t hashes[MIX_CONTEXTS];
    /* of the bit that is predicted */
    uint8_t *slots[MIX_CONTEXTS], *lines[MIX_CONTEXTS];
    int32_t inputs[MIX_INPUTS];
    int32_t *chosen[MIX_SETS + 1], logits[MIX_SETS + 1];
    int16_t *of_direct[2], *of_refinement[2];
    int logit_steps[2], match_class, expected; /* -1: no match that agrees with the bits so far; the bit of it */
} crnn_mixer;

enum { MIX_LARGEST_WEIGHT = 1 << 24, MIX_RATE = 48, MIX_FINAL_RATE = 32 };

static const int32_t MIX_CHOICES[MIX_SETS] = {3 * 256, 64, 2048}; /* vectors of weights of each set */

static inline uint32_t mix_hash(uint32_t a, uint32_t b)
{
    uint32_t h = a * 0x9E3779B1u ^ b * 0x85EBCA6Bu;
    h ^= h >> 15, h *= 0x2C1B3C6Du;
    return h ^ h >> 13;
}

static inline int32_t mix_clip(int64_t x, int32_t most) { return (int32_t)(x > most ? most : x < -most ? -most : x); }
static inline int32_t mix_squash(const crnn_mixer *m, int32_t logit) { return m->squash[logit + MIX_LOGIT]; }
static inline int32_t mix_stretch(const crnn_mixer *m, int32_t p) { return m->stretch[p >> 4]; }
static inline uint8_t mix_byte(const crnn_mixer *m, uint64_t position)
{
    return m->past[position & (((uint64_t)1 << m->bits.history) - 1)];
}

/* ---- constants: no function of libm has the same bits everywhere ------------------------------------------------ */

/* squash[x] = 65536 / (1 + e^(-x/256)), and its inverse. */
static inline void mix_make_logistic(crnn_mixer *m)
{
    const uint64_t factor = 4278222876u; /* 2^32 e^(-1/256) */
    uint64_t power = (uint64_t)1 << 32;
    int32_t logit = -MIX_LOGIT;
    for (int x = 0; x <= MIX_LOGIT; ++x, power = power * factor >> 32) {
        const uint32_t p = (uint32_t)((power << 16) / (((uint64_t)1 << 32) + power));
        m->squash[MIX_LOGIT - x] = (uint16_t)(p > 0 ? p : 1);
        m->squash[MIX_LOGIT + x] = (uint16_t)(65536 - (p > 0 ? p : 1));
    }
    for (int32_t p = 0; p < 4096; ++p) {
        while (logit < MIX_LOGIT && mix_squash(m, logit) < 16 * p + 8)
            ++logit;
        m->stretch[p] = (int16_t)logit;
    }
}

static inline int mix_history_exists(int zeros, int ones)
{
    static const uint8_t most[] = {40, 24, 12, 8, 6, 5};
    const int fewer = zeros < ones ? zeros : ones;
    return fewer < 6 && zeros + ones - fewer <= most[fewer];
}

static inline int mix_find_history(const crnn_mixer *m, int zeros, int ones, int last)
{
    int i = 0;
    while (m->counts[i][0] != zeros || m->counts[i][1] != ones || m->counts[i][2] != last)
        ++i;
    return i;
}

/* All histories, the shortest first. One more bit adds to its count, and reduces the other if that is more than 2 (to
 * about its logarithm: what is recent says more); counts that there is no history for become smaller. */
static inline void mix_make_histories(crnn_mixer *m)
{
    int n = 0;
    for (int sum = 0; sum <= 40; ++sum)
        for (int zeros = 0; zeros <= sum; ++zeros)
            for (int last = 0; mix_history_exists(zeros, sum - zeros) && last <= (zeros && zeros < sum); ++last, ++n) {
                m->counts[n][0] = (uint8_t)zeros, m->counts[n][1] = (uint8_t)(sum - zeros);
                m->counts[n][2] = (uint8_t)last;
            }
    for (int i = 0; i < n; ++i)
        for (int bit = 0; bit < 2; ++bit) {
            int c[2] = {m->counts[i][0], m->counts[i][1]}, log = 0;
            ++c[bit];
            while (c[!bit] >> log > 1)
                ++log;
            if (c[!bit] > log + 1)
                c[!bit] = log + 1;
            while (!mix_history_exists(c[0], c[1]))
                --c[c[bit] > c[!bit] || !c[!bit] ? bit : !bit];
            m->next[i][bit] = (uint8_t)mix_find_history(m, c[0], c[1], c[0] && c[1] ? bit : 0);
        }
    for (int i = 0; i < n; ++i)
        for (int context = 0; context < MIX_CONTEXTS; ++context)
            m->of_history[context][i] =
                (((m->counts[i][1] * 10u + 4) << 20) / ((m->counts[i][0] + m->counts[i][1]) * 10u + 8) << 12) & ~1023u;
}

/* m: with its arrays and their sizes, otherwise zeros. alphabet (V) rises. trained: whether the network is. */
static inline void crnn_mixer_begin(crnn_mixer *m, const uint8_t *alphabet, int V, int trained)
{
    m->start_contexts = trained ? 4000 : 8500, m->start_network = trained ? 60000 : 26000;
    mix_make_logistic(m);
    mix_make_histories(m);
    for (uint32_t n = 0; n < 1024; ++n)
        m->reciprocal[n] = 655360 / (10 * n + 16);
    for (uint32_t i = 0; i <= MIX_LONGEST; ++i)
        m->of_match[i] = (0x3FFFFFu - 0x1FFFFFu / (i + 1)) << 10;
    m->alphabet_size = V;
    for (int byte = 0, symbol = 0; byte <= 256; ++byte) {
        m->first[byte] = (int16_t)symbol;
        symbol += symbol < V && alphabet[symbol] == byte;
    }
}

/* ---- a byte ----------------------------------------------------------------------------------------------------- */

static inline int mix_is_letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128; }

static inline void mix_begin_byte(crnn_mixer *m)
{
    const uint32_t c4 = m->last4, c8 = m->last8, c1 = c4 & 255;
    const uint32_t column = (uint32_t)(m->position - m->line);
    const uint32_t above = m->line_before + column < m->line ? mix_byte(m, m->line_before + column) : 0;
    const uint32_t followers = m->followers[c4 & 0xFFFF];
    const uint32_t of[MIX_CONTEXTS][2] = {
        {c1, 0}, {c4 & 0xFFFF, 0}, {c4 & 0xFFFFFF, 0}, {c4, 0}, {c4, c8 & 255}, {c4, c8 & 0xFFFF}, {c4, c8 & 0xFFFFFF},
        {m->word, c1}, {m->word, m->word_before}, {m->word, m->word_before * 3 + m->word_before_that * 7},
        {c4 & 0xF0F0FFFF, 0}, {column, c1}, {column, above}, {followers, c1}, {c4 & 0xFFFFFF, followers & 0xFFFF},
        {m->word_before, c1}, {m->word, m->line_start}, {c4 & 0xFFFF00, 0},
    };
    for (uint32_t i = 0; i < MIX_CONTEXTS; ++i)
        m->hashes[i] = mix_hash(mix_hash(of[i][0], i + 1), of[i][1]);
    if (m->position >= 6) {
        uint32_t *behind = m->positions + (mix_hash(c4, c8 & 0xFFFF) >> (32 - m->bits.positions));
        if (m->match_length == 0 && *behind > 0) {
            m->match = *behind;
            while (m->match_length < 60 && mix_byte(m, m->match - 1 - m->match_length)
                       == mix_byte(m, m->position - 1 - m->match_length))
                ++m->match_length;
            if (m->match_length < 6)
                m->match_length = 0;
        }
        *behind = (uint32_t)m->position;
    }
}

static inline void mix_end_byte(crnn_mixer *m, int c)
{
    const int letter = mix_is_letter(c);
    uint32_t *followers = m->followers + (m->last4 & 0xFFFF);
    if (m->match_length > 0 && mix_byte(m, m->match) == c) {
        ++m->match;
        m->match_length += m->match_length < 65535;
    } else {
        m->match_length = 0;
    }
    m->past[m->position++ & (((uint64_t)1 << m->bits.history) - 1)] = (uint8_t)c;
    m->last8 = m->last8 << 8 | m->last4 >> 24;
    m->last4 = m->last4 << 8 | (uint32_t)c;
    *followers = *followers << 8 | (uint32_t)c;
    if (letter)
        m->word = mix_hash(m->word, (uint32_t)(c >= 'A' && c <= 'Z' ? c + 32 : c) + 1);
    else if (m->word)
        m->word_before_that = m->word_before, m->word_before = m->word, m->word = 0;
    if (c == '\n')
        m->line_before = m->line, m->line = m->position, m->line_start = 0;
    else if (m->position - m->line <= 4)
        m->line_start = m->line_start << 8 | (uint32_t)c;
}

/* ---- a bit ------------------------------------------------------------------------------------------------------ */

/* The line of the table for a context: its own, or an empty one in place of that which has seen least. */
static inline uint8_t *mix_line(crnn_mixer *m, uint32_t hash)
{
    const uint32_t mask = ((uint32_t)1 << m->bits.lines) - 1;
    const uint8_t check = (uint8_t)(hash >> 24);
    uint8_t *least = NULL;
    for (uint32_t i = 0; i < 3; ++i) {
        uint8_t *line = m->table + (size_t)((hash ^ i) & mask) * MIX_NODES;
        if (line[0] == check)
            return line;
        if (!least || line[1] < least[1])
            least = line;
    }
    memset(least, 0, MIX_NODES);
    least[0] = check;
    return least;
}

static inline void mix_learn_adaptive(const crnn_mixer *m, uint32_t *value, int bit)
{
    const uint32_t n = *value & 1023;
    const int32_t p = (int32_t)(*value >> 10), error = (bit << 22) - p;
    const int32_t change = (int32_t)((int64_t)(error >> 3) * m->reciprocal[n] >> 13);
    *value = (uint32_t)(p + change) << 10 | (n < 1023 ? n + 1 : n);
}

/* A learnt probability near `logit` in a context, between those of the two nearest steps. */
static inline int32_t mix_refine(crnn_mixer *m, int which, uint32_t context, int32_t logit)
{
    const int32_t width = (2 * MIX_LOGIT + 2) / (MIX_STEPS - 1), at = logit + MIX_LOGIT, step = at / width;
    const int32_t part = at - step * width;
    int16_t *row = m->refinement[which] + (size_t)context * MIX_STEPS;
    int32_t p[2];
    for (int i = 0; i < 2; ++i) {
        const int32_t place = (step + i) * width - MIX_LOGIT;
        p[i] = mix_squash(m, place > MIX_LOGIT ? MIX_LOGIT : place) + row[step + i];
    }
    m->logit_steps[which] = step + (part * 2 >= width);
    m->of_refinement[which] = row;
    return (p[0] * (width - part) + p[1] * part) / width;
}

static inline void mix_learn_refined(crnn_mixer *m, int which, int bit)
{
    const int step = m->logit_steps[which];
    const int32_t place = step * ((2 * MIX_LOGIT + 2) / (MIX_STEPS - 1)) - MIX_LOGIT;
    const int32_t base = mix_squash(m, place > MIX_LOGIT ? MIX_LOGIT : place);
    int16_t *value = m->of_refinement[which] + step;
    const int32_t p = base + *value;
    *value = (int16_t)mix_clip(p + (((bit << 16) - bit - p) >> 6) - base, 32767);
}

static inline void mix_learn_direct(int16_t *value, int bit, int rate)
{
    *value = (int16_t)(*value + ((bit ? 32767 - *value : -32768 - *value) >> rate));
}

/* The probability of a 1 as the next bit of a byte whose bits so far are `prefix`, with a 1 before them. network: what
 * the network's frequencies say about it. Keeps what `mix_learn` and `mix_learn_inputs` need. */
static inline int32_t mix_predict(crnn_mixer *m, uint32_t prefix, int bit_number, int32_t network)
{
    const uint32_t c1 = m->last4 & 255;
    const uint32_t node = bit_number < 4 ? prefix : (prefix & ((1u << (bit_number - 4)) - 1)) | 1u << (bit_number - 4);
    const uint32_t expected_byte = m->match_length > 0 ? mix_byte(m, m->match) : 0;
    const int matched = m->match_length > 0 && (expected_byte | 256) >> (8 - bit_number) == prefix;
    const int expected = matched ? (int)(expected_byte >> (7 - bit_number) & 1) : 0;
    int32_t *x = m->inputs;
    uint32_t length = m->match_length, longest = 0, of_length = 0;
    for (uint32_t i = 0; i < MIX_CONTEXTS; ++i) {
        m->slots[i] = m->lines[i] + node;
        *x++ = *m->slots[i] ? mix_stretch(m, (int32_t)(m->of_history[i][*m->slots[i]] >> 16)) : 0;
        longest = *m->slots[i] && i < 7 ? i + 1 : longest;
    }
    m->of_direct[0] = m->direct[0] + (c1 << 8 | prefix);
    m->of_direct[1] = m->direct[1] + (mix_hash(m->last4 & 0xFFFF, prefix) >> 12);
    *x++ = mix_stretch(m, *m->of_direct[0] + 32768);
    *x++ = mix_stretch(m, *m->of_direct[1] + 32768);
    if (matched) {
        length = length > 15 ? 15 + ((length - 15) >> 2) : length;
        length = length > MIX_LONGEST ? MIX_LONGEST : length;
        of_length = length < 8 ? 1 : length < 28 ? length / 4 : 7;
        *x = mix_stretch(m, (int32_t)(m->of_match[length] >> 16));
        *x = expected ? *x : -*x;
    } else {
        *x = 0;
    }
    m->match_class = matched ? (int)length : -1, m->expected = expected;
    ++x;
    *x++ = mix_stretch(m, network);
    *x++ = (network - 32768) >> 5;
    *x = 256;
    const uint32_t choice[MIX_SETS] = {
        prefix + 256 * (matched ? (uint32_t)expected + 1 : 0), of_length * 8 + longest, c1 * 8 + (uint32_t)bit_number};
    m->chosen[MIX_SETS] = m->final + prefix * MIX_SETS;
    int64_t sum = 0;
    int32_t of_contexts = 0;
    for (int i = 0; i < MIX_CONTEXTS + 3; ++i)
        of_contexts += m->inputs[i];
    for (int set = 0; set < MIX_SETS; ++set) {
        const int32_t *w = m->chosen[set] = m->weights[set] + choice[set] * MIX_INPUTS;
        int64_t of_set = 0;
        for (int i = 0; i < MIX_INPUTS; ++i)
            of_set += (int64_t)w[i] * m->inputs[i];
        of_set += (int64_t)m->start_contexts * of_contexts + (int64_t)m->start_network * mix_stretch(m, network);
        m->logits[set] = mix_clip(of_set >> 16, MIX_LOGIT);
        sum += (int64_t)(m->chosen[MIX_SETS][set] + 65536 / MIX_SETS) * m->logits[set];
    }
    const int32_t logit = m->logits[MIX_SETS] = mix_clip(sum >> 16, MIX_LOGIT);
    const int32_t p = mix_squash(m, logit);
    return (2 * p + mix_refine(m, 0, c1 << 8 | prefix, logit)
            + mix_refine(m, 1, mix_hash(m->last4 & 0xFFFFFF, prefix) >> 16, logit)) >> 2;
}

/* What is learnt from a bit after `mix_predict`: weights by the gradient of its code length, then what they weigh. */
static inline void mix_learn(crnn_mixer *m, int bit)
{
    const int32_t early = m->position < 1 << 17 ? (int32_t)(((1 << 17) - m->position) >> 10) : 0;
    for (int set = 0; set <= MIX_SETS; ++set) {
        const int32_t rate = set < MIX_SETS ? early + MIX_RATE : MIX_FINAL_RATE;
        const int32_t n = set < MIX_SETS ? MIX_INPUTS : MIX_SETS;
        const int32_t *x = set < MIX_SETS ? m->inputs : m->logits;
        const int64_t error = (int64_t)((bit << 16) - mix_squash(m, m->logits[set])) * rate;
        int32_t *w = m->chosen[set];
        for (int i = 0; i < n; ++i)
            w[i] = mix_clip(w[i] + ((x[i] * error + (1 << 21)) >> 22), MIX_LARGEST_WEIGHT);
    }
    mix_learn_refined(m, 0, bit);
    mix_learn_refined(m, 1, bit);
}

static inline void mix_learn_inputs(crnn_mixer *m, int bit)
{
    for (int i = 0; i < MIX_CONTEXTS; ++i) {
        mix_learn_adaptive(m, &m->of_history[i][*m->slots[i]], bit);
        *m->slots[i] = m->next[*m->slots[i]][bit];
    }
    if (m->match_class >= 0)
        mix_learn_adaptive(m, &m->of_match[m->match_class], m->expected == bit);
    mix_learn_direct(m->of_direct[0], bit, 5);
    mix_learn_direct(m->of_direct[1], bit, 4);
}

/* Codes the next symbol, and learns it: writes `symbol`, or reads one if that is -1. Returns it, or -1 where the bytes
 * are none that an encoder writes. frequencies (V): of `crnn_frequencies`, for the symbols, from the network. A bit
 * that follows from those before it, because no other byte is in the alphabet, is not written. To write, there is room
 * for MIX_MOST_BYTES. */
static inline int crnn_mixer_code(crnn_mixer *m, crnn_range_coder *coder, const uint32_t *frequencies, int symbol)
{
    uint32_t below[257]; /* sums of frequencies */
    uint32_t prefix = 1;
    int least = 0, end = m->alphabet_size; /* symbols that the bits so far leave */
    below[0] = 0;
    for (int i = 0; i < end; ++i)
        below[i + 1] = below[i] + frequencies[i];
    mix_begin_byte(m);
    for (int number = 0; number < 8; ++number) {
        const int middle = m->first[(prefix * 2 + 1) << (7 - number) & 255];
        int bit = middle == least; /* if it follows */
        if (number == 0 || number == 4)
            for (int i = 0; i < MIX_CONTEXTS; ++i)
                m->lines[i] = mix_line(m, mix_hash(m->hashes[i], number ? prefix : 0));
        int32_t network = bit ? 65535 : 1;
        if (middle > least && middle < end)
            network = (int32_t)(((uint64_t)(below[end] - below[middle]) << 16) / (below[end] - below[least]));
        const int32_t p = mix_predict(m, prefix, number, network);
        if (middle > least && middle < end) {
            const uint32_t one = (uint32_t)(p < 4 ? 4 : p > 65532 ? 65532 : p) << 8;
            bit = symbol < 0 ? crnn_decode_bit(coder, one) : symbol >= middle;
            if (bit < 0)
                return -1;
            if (symbol >= 0)
                crnn_encode_bit(coder, one, bit);
            mix_learn(m, bit);
        }
        mix_learn_inputs(m, bit);
        *(bit ? &least : &end) = middle;
        prefix = prefix * 2 + (uint32_t)bit;
    }
    mix_end_byte(m, (int)(prefix & 255));
    return least;
}
