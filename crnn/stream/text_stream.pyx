# SPDX-License-Identifier: MIT
"""TextStream: a language model that reads a text as it arrives, predicts the next token, and continues the text."""

cimport numpy as cnp
from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_CheckExact
from libc.stdint cimport int32_t
from libc.string cimport memcpy
from crnn._core.arrays cimport data
from crnn.stream.stream cimport Stream, StreamWeights, acquire, release

import numpy as np

from crnn._core import loss
from crnn.text.windows import IGNORE_INDEX
from crnn.text.generation import TextGenerator
from crnn.text.errors import TextError
from crnn.text.reading import EOS

cnp.import_array()

cdef enum:
    BLOCK = 1 << 18  # logits of a long text that are in memory at the same time: 1 MiB
    MIN_BLOCK = 32   # steps that share a pass through the weights

cdef enum Ending:    # how the text so far ends
    BY_TOKEN, IN_WORD, AT_SPACE


cdef class TextStream:
    """A language model that reads one text incrementally; ``model.stream()`` makes one.

    The text may be passed in pieces to `feed`, `surprisal`, `run` and `step`, in any order: results are bit-identical
    to those for the whole text. If the tokens are words, a piece must not end within a word. A piece is checked before
    any of it is read. Only one thread at a time may use a stream: a concurrent call raises RuntimeError and changes
    nothing.

    Attributes
    ----------
    vocab : Vocab
    input_size, output_size : int
        Both V, the size of the vocabulary.
    weights : StreamWeights
        Shared by all streams of the model; ``crnn.Stream(text_stream.weights)`` is a stream of ids.

    Examples
    --------
    >>> import crnn
    >>> corpus = crnn.TextCorpus.from_text("to be or not to be, " * 200, valid=0.1, test=0.1)
    >>> model = crnn.LanguageModel(corpus.vocab, hidden_size=32, seed=1)
    >>> log = crnn.fit(model, corpus, epochs=8, batch_size=4, bptt=16, optimizer=crnn.optim.Adam(lr=1e-2))
    >>> stream = model.stream().feed("to be or n")
    >>> stream.top_tokens(1)[0][0]
    'o'
    >>> stream.generate(9, temperature=0)          # from a copy; the stream does not change
    'ot to be,'
    >>> probable, improbable = stream.copy().surprisal("ot").sum(), stream.copy().surprisal("or").sum()
    >>> bool(probable < 1 < improbable)
    True
    """

    cdef object __weakref__
    cdef Stream stream
    cdef cnp.ndarray logits     # (V,) of the next token, valid if `known`
    cdef void *logits_
    cdef bint known
    cdef int busy, last_id
    cdef Ending ending
    cdef readonly object vocab

    def __cinit__(self, StreamWeights weights not None, vocab not None):
        if not weights.input_size == weights.output_size == len(vocab):
            raise ValueError(f"vocab: expected {weights.input_size} tokens, as {weights!r} has, got {len(vocab)}")
        self.stream, self.vocab = Stream(weights), vocab
        self.logits = np.zeros(weights.output_size, weights.dtype)
        self.logits_ = cnp.PyArray_DATA(self.logits)

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
        """Read one token, and return the logits of the next one.

        Parameters
        ----------
        x : int
            The id of the token, from 0 to V-1.
        out : array (V,), optional
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
        cdef void *out_
        if not PyLong_CheckExact(x):
            x = weights.one_input(x)
        number = PyLong_AsLongAndOverflow(x, &overflow)
        if overflow or not 0 <= number < V:
            raise ValueError(f"x: expected an id from 0 to {V - 1}, got {x}")
        if out is None:
            out = cnp.PyArray_SimpleNew(1, &V, weights.real)
            out_ = cnp.PyArray_DATA(<cnp.ndarray>out)
        else:
            out_ = data("out", out, weights.real, True, 1, V)
        acquire(&self.busy, "stream")
        if self.stream.releases:
            with nogil:
                self.stream.advance(self.logits_, NULL, <int32_t>number)
        else:
            self.stream.advance(self.logits_, NULL, <int32_t>number)
        memcpy(out_, self.logits_, cnp.PyArray_NBYTES(self.logits))
        self.known, self.last_id, self.ending = True, number, BY_TOKEN
        release(&self.busy)
        return out

    def run(self, xs, out=None):
        """Read T tokens in one call, and return the logits after each, bit-identical to those of `step`.

        Parameters
        ----------
        xs : integers (T,)
            Ids of the tokens.
        out : array (T, V), optional
            Where to write them; C-contiguous, not overlapping xs.

        Returns
        -------
        array (T, V)
            Fresh, or ``out``.
        """
        ids = self.stream.weights.many_inputs("xs", xs, "T")
        cdef Py_ssize_t T = len(ids)
        acquire(&self.busy, "stream")
        try:
            out = self.stream.run(ids, out)
            if T:
                self.set_prediction(ids[T - 1], np.asarray(out)[T - 1], BY_TOKEN)
        finally:
            release(&self.busy)
        return out

    cdef int set_prediction(self, int id, logits, Ending ending) except -1:
        """Store the logits of the token after ``id``, the last one read."""
        self.logits[:] = logits
        self.known, self.last_id, self.ending = True, id, ending
        return 0

    # ---- text --------------------------------------------------------------------------------------------------------

    def feed(self, text):
        """Read more text. Returns the stream itself.

        Parameters
        ----------
        text : str, bytes (unit "byte"), or ids (N,)
            May be empty. Memory use does not grow with its length. With unit "word" it ends after a whole word: none
            continues in the next call.

        Raises
        ------
        VocabError
            A token is not in the vocabulary; then nothing is read.
        """
        self.read(text, None)
        return self

    def surprisal(self, text):
        """Read more text, and return the surprisal of each token in nats, given all tokens before it.

        Parameters
        ----------
        text : str, bytes (unit "byte"), or ids (N,)

        Returns
        -------
        array (N,), fresh
            -log of the probability of each token; `LanguageModel.losses` gives the same for the whole text.

        Raises
        ------
        TextError
            Nothing was read before, so there is no prediction of the first token.
        VocabError
            As for `feed`.
        """
        nats = []
        self.read(text, nats)
        return np.concatenate(nats) if nats else np.empty(0, self.logits.dtype)

    cdef int read(self, text, list nats) except -1:
        """Read text or ids, and append the surprisals to ``nats`` unless it is None."""
        cdef Py_ssize_t V = self.stream.weights.output_size, rows, start, n
        cdef Ending ending = BY_TOKEN
        cdef bint empty
        if isinstance(text, (str, bytes)):
            ids = self.vocab.encode(text)
            ending = AT_SPACE if text[max(len(text) - 1, 0):].isspace() else IN_WORD
            empty = len(text) == 0
        else:
            ids = self.stream.weights.many_inputs("text", text, "N")
            empty = len(ids) == 0
        acquire(&self.busy, "stream")
        try:
            if len(ids) and nats is not None:
                self.need_known()
            # Row i has the logits that predict token i of a block; row 0 is from before the block.
            rows = max(1, min(len(ids), max(BLOCK // V, MIN_BLOCK)))
            logits = np.empty((rows + 1, V), self.logits.dtype)
            logits[0] = self.logits
            for start in range(0, len(ids), rows):
                block = ids[start:start + rows]
                n = len(block)
                self.stream.run(block, logits[1:n + 1])
                if nats is not None and self.stream.weights.log_probabilities:
                    nats.append(-logits[np.arange(n), block])
                elif nats is not None:
                    losses = np.empty((n, 1), self.logits.dtype)
                    loss.softmax_cross_entropy(losses, None, logits[:n, None], block[:, None], 1.0, IGNORE_INDEX, 0, 1)
                    nats.append(losses[:, 0])
                logits[0] = logits[n]
                self.set_prediction(block[n - 1], logits[n], ending)
            if not empty:
                self.ending = ending  # also if there are no tokens, as in a text of a space, for unit "word"
        finally:
            release(&self.busy)
        return 0

    cdef int need_known(self) except -1:
        """Raise TextError unless there is a prediction of the next token."""
        if not self.known:
            raise TextError("stream: expected at least one token to continue from, got none; feed a text first")
        return 0

    def next_probabilities(self):
        """The probability that each token is the next one, given all tokens so far.

        Returns
        -------
        array (V,), fresh
            Indexed by id; the sum is 1 up to rounding.

        Raises
        ------
        TextError
            Nothing was read since the stream was made or reset, or since its state was set.
        """
        acquire(&self.busy, "stream")
        try:
            self.need_known()
            p = np.empty((1, len(self.logits)), self.logits.dtype)
            loss.softmax(p, self.logits[None])
        finally:
            release(&self.busy)
        return p[0]

    def top_tokens(self, count=10):
        """The most probable next tokens: a list of pairs (token, probability), most probable first.

        Parameters
        ----------
        count : int
            Number of tokens; at most V are returned.
        """
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise ValueError(f"count: expected an integer of at least 1, got {count!r:.60}")
        p = self.next_probabilities()
        most_probable = np.argsort(-p, kind="stable")[:count]
        return [(self.vocab.tokens[id], float(p[id])) for id in most_probable]

    def generate(self, length=200, *, temperature=1.0, top_k=None, top_p=None, stop=None, seed=None, ban=(),
                 allow_unknown=False):
        """The model's continuation of the text so far, as `LanguageModel.generate` returns it for that prompt.

        It is generated from a copy; the stream does not change. For parameters and errors see `iter_generate`.
        """
        return "".join(self.iter_generate(length, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop,
                                          seed=seed, ban=ban, allow_unknown=allow_unknown))

    def iter_generate(self, length=200, *, temperature=1.0, top_k=None, top_p=None, stop=None, seed=None, ban=(),
                      allow_unknown=False):
        """Yield what `generate` returns, in pieces as the tokens are sampled, from the stream's current state.

        Parameters
        ----------
        length, temperature, top_k, top_p, stop, seed, ban, allow_unknown
            As in `LanguageModel.iter_generate`.

        Raises
        ------
        TextError
            As for `next_probabilities`.
        """
        generator = TextGenerator(self.vocab, length, temperature=temperature, top_k=top_k, top_p=top_p, stop=stop,
                                  seed=seed, ban=ban, allow_unknown=allow_unknown)
        cdef TextStream fork = self.copy()
        fork.need_known()
        logits = fork.logits.copy()
        after_word = fork.ending == IN_WORD or fork.ending == BY_TOKEN and self.vocab.token(fork.last_id) != EOS
        return generator.generate(logits, lambda id: fork.step(id, logits), after_word)

    # ---- state -------------------------------------------------------------------------------------------------------

    def reset(self):
        """Reset to the initial state: the trainable one, or zeros."""
        acquire(&self.busy, "stream")
        try:
            self.stream.reset()
            self.known = False
        finally:
            release(&self.busy)

    @property
    def state(self):
        """The state, in the form of the network's own state for a batch of one; a copy. Assign a state to set it.

        The state does not include the prediction of the next token: after setting it, `feed` at least one token.
        """
        acquire(&self.busy, "stream")
        try:
            return self.stream.state
        finally:
            release(&self.busy)

    @state.setter
    def state(self, value):
        acquire(&self.busy, "stream")
        try:
            self.stream.state = value
            self.known = False
        finally:
            release(&self.busy)

    def copy(self):
        """A copy of this stream, which continues independently."""
        cdef TextStream other = TextStream.__new__(TextStream, self.stream.weights, self.vocab)
        acquire(&self.busy, "stream")
        try:
            other.stream = self.stream.copy()
            other.logits[:] = self.logits
            other.known, other.last_id, other.ending = self.known, self.last_id, self.ending
        finally:
            release(&self.busy)
        return other

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        cdef TextStream copy = self.copy()
        return text_stream_from, (copy.weights, copy.vocab, copy.stream.state, copy.logits if copy.known else None,
                                   copy.last_id, <int>copy.ending)

    def __repr__(self):
        return f"TextStream({self.stream.weights.describe()})"


def text_stream_from(weights, vocab, state, logits, last_id, ending):
    """A stream that has read something: its state, the logits that follow, the last id, how far a line end was read.

    For pickles, and for snapshots of learners. Raises ValueError.
    """
    cdef TextStream stream = TextStream(weights, vocab)
    stream.stream.state = state
    if logits is not None:
        if np.shape(logits) != (stream.output_size,) or not 0 <= last_id < stream.output_size or not 0 <= ending <= 2:
            raise ValueError(f"logits: expected those after a token from 0 to {stream.output_size - 1}, "
                             f"got shape {np.shape(logits)} after {last_id!r:.20}, ending {ending!r:.20}")
        stream.set_prediction(last_id, logits, ending)
    return stream
