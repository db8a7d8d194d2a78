# SPDX-License-Identifier: MIT
"""src_c/text/mixing.h once more, in Python's integers and written from its description, for contents of one block."""

CONTEXTS, LOGIT, STEPS = 18, 2815, 33
WORD = (1 << 32) - 1


def hashed(a, b):
    h = (a * 0x9E3779B1 & WORD) ^ (b * 0x85EBCA6B & WORD)
    h = (h ^ h >> 15) * 0x2C1B3C6D & WORD
    return h ^ h >> 13


def clip(x, most):
    return max(-most, min(most, x))


def logistic():
    power, squash = 1 << 32, {}
    for x in range(LOGIT + 1):
        p = max(1, (power << 16) // ((1 << 32) + power))
        squash[-x], squash[x] = p, 65536 - p
        power = power * 4278222876 >> 32
    return squash


SQUASH = logistic()
STRETCH = [next((x for x in range(-LOGIT, LOGIT) if SQUASH[x] >= 16 * p + 8), LOGIT) for p in range(4096)]
MOST = [40, 24, 12, 8, 6, 5]


def exists(counts):
    return min(counts) < len(MOST) and max(counts) <= MOST[min(counts)]


HISTORIES = [
    (zeros, total - zeros, last)
    for total in range(41)
    for zeros in range(total + 1)
    if exists((zeros, total - zeros))
    for last in range(1 + (0 < zeros < total))
]


def following(history, bit):
    counts = list(history[:2])
    counts[bit] += 1
    other = counts[1 - bit]
    if other > 2:
        counts[1 - bit] = min(other, other.bit_length())
    while not exists(counts):
        larger = counts[bit] > counts[1 - bit] or not counts[1 - bit]
        counts[bit if larger else 1 - bit] -= 1
    return HISTORIES.index((*counts, bit if all(counts) else 0))


NEXT = [[following(history, bit) for bit in (0, 1)] for history in HISTORIES]


class Adaptive:
    """A probability of 22 bits, that moves by the reciprocal of how often it has."""

    def __init__(self, p):
        self.p, self.n = p, 0

    def learn(self, bit):
        self.p += (((bit << 22) - self.p) >> 3) * (655360 // (10 * self.n + 16)) >> 13
        self.n = min(1023, self.n + 1)


class Mixer:
    """``decisions``: what was coded, (probability of a 1 in 2^24, bit)."""

    def __init__(self, alphabet, line_bits, position_bits, trained=False):
        self.alphabet, self.line_bits, self.position_bits = alphabet, line_bits, position_bits
        self.table = [bytearray(16) for _ in range(1 << line_bits)]
        self.positions, self.direct, self.refined, self.weights, self.followers = {}, {}, {}, {}, {}
        self.of_history = [
            [Adaptive(((10 * ones + 4 << 20) // (10 * (zeros + ones) + 8)) << 2) for zeros, ones, _ in HISTORIES]
            for _ in range(CONTEXTS)
        ]
        self.of_match = [Adaptive(0x3FFFFF - 0x1FFFFF // (i + 1)) for i in range(32)]
        self.past, self.lines = b"", [0, 0]
        self.words, self.match, self.length = [0, 0, 0], 0, 0
        self.starts = (4000, 60000) if trained else (8500, 26000)
        self.decisions = []

    def last(self, n):
        return int.from_bytes(self.past[-n:], "big") if n else 0

    def context_hashes(self):
        past, column = self.past, len(self.past) - self.lines[0]
        above = past[self.lines[1] + column] if self.lines[1] + column < self.lines[0] else 0
        earlier = int.from_bytes(past[-8:-4], "big")
        last4, last1 = self.last(4), self.last(1)
        word, before, before_that = self.words
        pairs = [(self.last(n), 0) for n in (1, 2, 3, 4)]
        pairs += [(last4, earlier & mask) for mask in (0xFF, 0xFFFF, 0xFFFFFF)]
        pairs += [(word, last1), (word, before), (word, before * 3 + before_that * 7 & WORD)]
        pairs += [(last4 & 0xF0F0FFFF, 0), (column, last1), (column, above)]
        followers = self.followers.get(self.last(2), 0)
        pairs += [(followers, last1), (self.last(3), followers & 0xFFFF), (before, last1)]
        pairs += [(word, int.from_bytes(past[self.lines[0] :][:4], "big")), (last4 & 0xFFFF00, 0)]
        return [hashed(hashed(a, i + 1), b) for i, (a, b) in enumerate(pairs)]

    def find_match(self):
        past, n = self.past, len(self.past)
        if n < 6:
            return
        place = hashed(self.last(4), int.from_bytes(past[-8:-4], "big") & 0xFFFF) >> (32 - self.position_bits)
        if self.length == 0 and self.positions.get(place):
            self.match = self.positions[place]
            while self.length < 60 and self.byte(self.match - 1 - self.length) == self.byte(n - 1 - self.length):
                self.length += 1
            self.length = self.length if self.length >= 6 else 0
        self.positions[place] = n

    def byte(self, position):
        return self.past[position] if 0 <= position < len(self.past) else 0

    def line(self, h):
        lines = [self.table[(h ^ i) & (1 << self.line_bits) - 1] for i in range(3)]
        for line in lines:
            if line[0] == h >> 24:
                return line
        least = min(lines, key=lambda line: line[1])
        least[:] = bytes([h >> 24]) + bytes(15)
        return least

    def code(self, frequencies, symbol):
        """One symbol, whose frequencies have the sum 2^24."""
        self.find_match()
        hashes, candidates, prefix = self.context_hashes(), list(range(len(self.alphabet))), 1
        for number in range(8):
            bit = self.alphabet[symbol] >> (7 - number) & 1
            ones = [i for i in candidates if self.alphabet[i] >> (7 - number) & 1]
            if number in (0, 4):
                self.found = [self.line(hashed(h, prefix if number else 0)) for h in hashes]
            free = 0 < len(ones) < len(candidates)
            network = 65535 if len(ones) == len(candidates) else 1
            if free:
                network = (sum(frequencies[i] for i in ones) << 16) // sum(frequencies[i] for i in candidates)
            p, learn, learn_inputs = self.predict(prefix, number, network)
            if free:
                self.decisions.append((max(4, min(65532, p)) << 8, bit))
                learn(bit)
            learn_inputs(bit)
            candidates = ones if bit else [i for i in candidates if i not in ones]
            prefix = prefix * 2 + bit
        self.end_byte(self.alphabet[symbol])

    def predict(self, prefix, number, network):
        node = prefix if number < 4 else (1 << number - 4) | prefix % (1 << number - 4)
        last1, inputs, longest = self.last(1), [], 0
        slots = [line[node] for line in self.found]
        for i, slot in enumerate(slots):
            inputs.append(STRETCH[self.of_history[i][slot].p >> 10] if slot else 0)
            longest = i + 1 if slot and i < 7 else longest
        direct = [(0, last1, prefix), (1, hashed(self.last(2), prefix) >> 12)]
        inputs += [STRETCH[self.direct.get(key, 32768) >> 4] for key in direct]
        expected, length = None, 0
        if self.length:
            byte = self.byte(self.match)
            if (byte | 256) >> (8 - number) == prefix:
                expected = byte >> (7 - number) & 1
                length = self.length if self.length <= 15 else min(31, 15 + (self.length - 15) // 4)
        of_match = STRETCH[self.of_match[length].p >> 10] if expected is not None else 0
        inputs.append(-of_match if expected == 0 else of_match)
        began = sum(inputs) * self.starts[0] + STRETCH[network >> 4] * self.starts[1]
        inputs += [STRETCH[network >> 4], network - 32768 >> 5, 256]
        length_class = 0 if expected is None else 1 + sum(length >= least for least in (8, 12, 16, 20, 24, 28))
        of_match = 0 if expected is None else expected + 1
        sets = [prefix + 256 * of_match, length_class * 8 + longest, last1 * 8 + number]
        chosen = [self.weights.setdefault((i, which), [0] * len(inputs)) for i, which in enumerate(sets)]
        logits = [clip(began + sum(w * x for w, x in zip(of, inputs, strict=True)) >> 16, LOGIT) for of in chosen]
        final = self.weights.setdefault(prefix, [65536 // 3] * 3)
        logit = clip(sum(w * x for w, x in zip(final, logits, strict=True)) >> 16, LOGIT)
        at = logit + LOGIT
        refined = [(0, last1 << 8 | prefix), (1, hashed(self.last(3), prefix) >> 16)]
        p, near = 2 * SQUASH[logit], []
        for key in refined:
            row = self.refined.setdefault(key, [SQUASH[min(LOGIT, step * 176 - LOGIT)] for step in range(STEPS)])
            p += (row[at // 176] * (176 - at % 176) + row[at // 176 + 1] * (at % 176)) // 176
            near.append((row, at // 176 + (at % 176 >= 88)))

        def learn(bit):
            rate = 48 + max(0, (1 << 17) - len(self.past)) // 1024
            rows = [(of, inputs, x, rate) for of, x in zip(chosen, logits, strict=True)] + [(final, logits, logit, 32)]
            for of, x, output, rate in rows:
                error = ((bit << 16) - SQUASH[output]) * rate
                of[:] = [clip(w + (each * error + (1 << 21) >> 22), 1 << 24) for w, each in zip(of, x, strict=True)]
            for row, step in near:
                row[step] += (bit << 16) - bit - row[step] >> 6

        def learn_inputs(bit):
            for i, line in enumerate(self.found):  # two contexts may share a line
                self.of_history[i][line[node]].learn(bit)
                line[node] = NEXT[line[node]][bit]
            if expected is not None:
                self.of_match[length].learn(expected == bit)
            for key, rate in zip(direct, (5, 4), strict=True):
                value = self.direct.get(key, 32768)
                self.direct[key] = value + ((bit << 16) - bit - value >> rate)

        return p >> 2, learn, learn_inputs

    def end_byte(self, c):
        if self.length and self.byte(self.match) == c:
            self.match, self.length = self.match + 1, min(65535, self.length + 1)
        else:
            self.length = 0
        pair = self.last(2)
        self.past += bytes([c])
        self.followers[pair] = (self.followers.get(pair, 0) << 8 | c) & WORD
        letter = c >= 128 or chr(c).isalpha()
        if letter:
            self.words[0] = hashed(self.words[0], (ord(chr(c).lower()) if c < 128 else c) + 1)
        elif self.words[0]:
            self.words = [0, *self.words[:2]]
        if c == 10:
            self.lines = [len(self.past), self.lines[0]]
