# SPDX-License-Identifier: MIT
"""What the programs of this folder train, on every rank: a small language model. Returns a digest of its weights."""

import hashlib

import crnn

TEXT = "to be or not to be, that is the question. " * 100


def train(comm=None, checkpoint=None):
    """Train on the ranks of ``comm``; without, in 8 shards on this process. The digest is the same for all."""
    corpus = crnn.TextCorpus.from_text(TEXT, valid=0.1)
    model = crnn.LanguageModel(corpus.vocab, hidden_size=32, seed=1)
    options = {"shards": 8, "batch_size": 16, "epochs": 2, "progress": False, "checkpoint": checkpoint}
    model.fit(corpus, comm=comm, **options)
    return hashlib.sha256(model.flat_params.astype("<f4").tobytes()).hexdigest()


if __name__ == "__main__":
    print("one process:", train())
