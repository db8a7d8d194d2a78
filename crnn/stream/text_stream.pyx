# SPDX-License-Identifier: MIT
"""TextStream: a language model that reads a text as it comes, says what it expects next, and writes on from there."""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from libc.stdint cimport int32_t
from libc.string cimport memcpy
from crnn._core.arrays cimport data
from crnn.stream.stream cimport Stream, StreamWeights, enter, leave

import numpy as np

from crnn._core import loss
from crnn.text.windows import IGNORE_INDEX
from crnn.text.generation import TextGenerator
from crnn.text.reading import EOS, TextError

cnp.import_array()

cdef enum:
    BLOCK = 1 << 18  # logits of a long text that are in memory at a time: 1 MiB
    LEAST = 32       # steps that share a pass through the weights

cdef enum Ending:    # of what has been read
    BY_TOKEN, IN_WORD, AT_SPACE


cdef class TextStream:
    """A language model on one text, as much at a time as there is; ``model.stream()`` makes one.

    However a text is cut, by `feed`, `surprisal`, `run` and `step` in any order, it is read with the bits of the whole; only
    words, where they are the tokens, have to stay whole. What is given is checked before any of it is read. One thread at
    a time: a second one that comes in meanwhile gets a RuntimeError, and changes nothing.

    Attributes
    ----------
    vocab : Vocab
    input_size, output_size : int
        Both V, the size of the vocabulary.
    weights : StreamWeights
        Shared by all streams of the model; ``crnn.Stream(text_stream.weights)`` is one without a text.

    Examples
    --------
    >>> import crnn
    >>> corpus = crnn.TextCorpus.from_text("to be or not to be, " * 200, valid=0.1, test=0.1)
    >>> model = crnn.LanguageModel(corpus.vocab, hidden_size=32, seed=1)
    >>> log = crnn.fit(model, corpus, epochs=8, batch_size=4, bptt=16, optimizer=crnn.optim.Adam(lr=1e-2))
    >>> stream = model.stream().feed("to be or n")
    >>> stream.top_tokens(1)[0][0]
    'o'
    >>> stream.generate(9, temperature=0)          # a fork writes; the stream stays where it is
    'ot to be,'
    >>> expected, odd = stream.copy().surprisal("ot").sum(), stream.copy().surprisal("or").sum()
    >>> bool(expected < 1 < odd)
    True
    """

    cdef Stream stream
    cdef cnp.ndarray logits     # of the next token, (V,), where `known`
    cdef float *logits_
    cdef bint known
    cdef int busy, last_id
    cdef Ending ending
    cdef readonly object vocab

    def __cinit__(self, StreamWeights weights not None, vocab not None):
        if not weights.input_size == weights.output_size == len(vocab):
            raise ValueError(f"vocab: expected {weights.input_size} tokens, as {weights!r} has, got {len(vocab)}")
        self.stream, self.vocab = Stream(weights), vocab
        self.logits = np.zeros(weights.output_size, np.float32)
        self.logits_ = <float *>cnp.PyArray_DATA(self.logits)

    @property
    def weights(self):
        return self.stream.weights

    @property
    def input_size(self):
        return self.stream.weights.input_size

    @property
    def output_size(self):
        return self.stream.weights.output_size

    # ---- ids ---------------------------------------------------------------------------------------------------------

    def step(self, x, out=None):
        """The logits of the token after one more.

        Parameters
        ----------
        x : int
            An id, from 0 to V-1.
        out : float32 array (V,), optional
            Where to write the logits; C-contiguous.

        Returns
        -------
        array (V,)
            Fresh, or ``out``.
        """
        cdef StreamWeights weights = self.stream.weights
        cdef cnp.npy_intp V = weights.output_size
        cdef int overflow = 0
        cdef long number
        cdef float *out_
        if not PyLong_CheckExact(x):
            x = weights.one_input(x)
        number = PyLong_AsLongAndOverflow(x, &overflow)
        if overflow or not 0 <= number < V:
            raise ValueError(f"x: expected an id from 0 to {V - 1}, got {x}")
        if out is None:
            out = cnp.PyArray_SimpleNew(1, &V, cnp.NPY_FLOAT32)
            out_ = <float *>cnp.PyArray_DATA(<cnp.ndarray>out)
        else:
            out_ = <float *>data("out", out, cnp.NPY_FLOAT32, True, 1, V)
        enter(&self.busy, "stream")
        if self.stream.releases:
            with nogil:
                self.stream.step_id_into(self.logits_, <int32_t>number)
        else:
            self.stream.step_id_into(self.logits_, <int32_t>number)
        memcpy(out_, self.logits_, V * sizeof(float))
        self.known, self.last_id, self.ending = True, number, BY_TOKEN
        leave(&self.busy)
        return out

    def run(self, xs, out=None):
        """The logits after each of T more tokens in one call, with the bits of `step`.

        Parameters
        ----------
        xs : integers (T,)
            Ids.
        out : float32 array (T, V), optional
            Where to write them; C-contiguous, apart from xs.

        Returns
        -------
        array (T, V)
            Fresh, or ``out``.
        """
        ids = self.stream.weights.many_inputs("xs", xs, "T")
        cdef Py_ssize_t T = len(ids)
        enter(&self.busy, "stream")
        try:
            out = self.stream.run(ids, out)
            if T:
                self.now_after(ids[T - 1], out[T - 1], BY_TOKEN)
        finally:
            leave(&self.busy)
        return out

    cdef int now_after(self, int id, logits, Ending ending) except -1:
        self.logits[:] = logits
        self.known, self.last_id, self.ending = True, id, ending
        return 0

    # ---- text --------------------------------------------------------------------------------------------------------

    def feed(self, text):
        """Read on. Returns the stream itself.

        Parameters
        ----------
        text : str, bytes (unit "byte"), or ids (N,)
            May be empty. Of any length: memory does not grow with it.

        Raises
        ------
        VocabError
            A token is not in the vocabulary; nothing has been read.
        """
        self.read(text, None)
        return self

    def surprisal(self, text):
        """Read on, and say how unexpected each token was: nats, given all before it.

        Parameters
        ----------
        text : str, bytes (unit "byte"), or ids (N,)

        Returns
        -------
        float32 array (N,), fresh
            -log of the probability of each token; `LanguageModel.losses` gives the same for the whole text.

        Raises
        ------
        TextError
            Nothing was read before, so that the first token has nothing to be predicted from.
        VocabError
            As for `feed`.
        """
        nats = []
        self.read(text, nats)
        return np.concatenate(nats) if nats else np.empty(0, np.float32)

    cdef int read(self, text, list nats) except -1:
        """``nats``: where to append them, or None."""
        cdef Py_ssize_t V = self.stream.weights.output_size, rows, start, n
        cdef Ending ending = BY_TOKEN
        if isinstance(text, (str, bytes)):
            ids = self.vocab.encode(text)
            ending = AT_SPACE if text[max(len(text) - 1, 0):].isspace() else IN_WORD
        else:
            ids = self.stream.weights.many_inputs("text", text, "N")
        enter(&self.busy, "stream")
        try:
            if len(ids) and nats is not None:
                self.need_known()
            # Row 0: the logits before a block's first token; each row tells the loss of the token after it.
            rows = max(1, min(len(ids), max(BLOCK // V, LEAST)))
            logits = np.empty((rows + 1, V), np.float32)
            logits[0] = self.logits
            for start in range(0, len(ids), rows):
                block = ids[start:start + rows]
                n = len(block)
                self.stream.run(block, logits[1:n + 1])
                if nats is not None:
                    losses = np.empty((n, 1), np.float32)
                    loss.softmax_cross_entropy(losses, None, logits[:n, None], block[:, None], 1.0, IGNORE_INDEX, 0, 1)
                    nats.append(losses[:, 0])
                logits[0] = logits[n]
                self.now_after(block[n - 1], logits[n], ending)
            if len(text):
                self.ending = ending  # a space alone may be no token
        finally:
            leave(&self.busy)
        return 0

    cdef int need_known(self) except -1:
        if not self.known:
            raise TextError("stream: expected at least one token to go on from, got none; feed a text first")
        return 0

    def next_probabilities(self):
        """The probability of each token to be the next, given all that was read.

        Returns
        -------
        float32 array (V,), fresh
            By id; sums to 1 up to rounding.

        Raises
        ------
        TextError
            Nothing was read since the stream was made, was reset, or had its state set.
        """
        enter(&self.busy, "stream")
        try:
            self.need_known()
            p = np.empty((1, len(self.logits)), np.float32)
            loss.softmax(p, self.logits[None])
        finally:
            leave(&self.busy)
        return p[0]

    def top_tokens(self, count=10):
        """The tokens that are likeliest to be the next: a list of pairs (token, probability), likeliest first.

        Parameters
        ----------
        count : int
            How many; as many as there are if it is more.
        """
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"count: expected an integer of at least 1, got {count!r:.60}")
        p = self.next_probabilities()
        likeliest = np.argsort(-p, kind="stable")[:count]
        return [(self.vocab.tokens[id], float(p[id])) for id in likeliest]

    def generate(self, length=200, *, temperature=1.0, top_k=None, top_p=None, stop=None, seed=None):
        """The text that the model goes on with from here, as `LanguageModel.generate` after the same text.

        A fork writes it: the stream stays where it is.
        """
        return "".join(self.iter_generate(length, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop,
                                          seed=seed))

    def iter_generate(self, length=200, *, temperature=1.0, top_k=None, top_p=None, stop=None, seed=None):
        """Yield what `generate` gives, piece by piece as it is drawn; from where the stream stands now.

        Parameters
        ----------
        length, temperature, top_k, top_p, stop, seed
            As in `LanguageModel.iter_generate`.

        Raises
        ------
        TextError
            As for `next_probabilities`.
        """
        generator = TextGenerator(length, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop, seed=seed)
        cdef TextStream fork = self.copy()
        fork.need_known()
        logits = fork.logits.copy()
        after_word = fork.ending == IN_WORD or fork.ending == BY_TOKEN and self.vocab.token(fork.last_id) != EOS
        return generator.generate(logits, lambda id: fork.step(id, logits), self.vocab, after_word)

    # ---- state -------------------------------------------------------------------------------------------------------

    def reset(self):
        """Back to the state before the first token: zeros, or the learnt one."""
        enter(&self.busy, "stream")
        try:
            self.stream.reset()
            self.known = False
        finally:
            leave(&self.busy)

    @property
    def state(self):
        """The state, of the form that the network's own has for a batch of one; a copy. Writable as a whole.

        What comes next is not part of it: after setting it, `feed` at least a token.
        """
        enter(&self.busy, "stream")
        try:
            return self.stream.state
        finally:
            leave(&self.busy)

    @state.setter
    def state(self, value):
        enter(&self.busy, "stream")
        try:
            self.stream.state = value
            self.known = False
        finally:
            leave(&self.busy)

    def copy(self):
        """Another stream that goes on from here by itself."""
        cdef TextStream other = TextStream.__new__(TextStream, self.stream.weights, self.vocab)
        enter(&self.busy, "stream")
        try:
            other.stream = self.stream.copy()
            other.logits[:] = self.logits
            other.known, other.last_id, other.ending = self.known, self.last_id, self.ending
        finally:
            leave(&self.busy)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        cdef TextStream now = self.copy()
        return _text_stream_from, (now.weights, now.vocab, now.stream.state, now.logits if now.known else None,
                                   now.last_id, <int>now.ending)

    def __repr__(self):
        return f"TextStream({self.stream.weights.describe()})"


def _text_stream_from(weights, vocab, state, logits, last_id, ending):
    """For pickle."""
    cdef TextStream stream = TextStream(weights, vocab)
    stream.stream.state = state
    if logits is not None:
        stream.now_after(last_id, logits, ending)
    return stream
