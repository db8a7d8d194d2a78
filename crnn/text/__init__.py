# SPDX-License-Identifier: MIT
"""Text data: vocabularies, corpora and training windows. Depends on NumPy only, not on models."""

from crnn.text.corpus import TextCorpus
from crnn.text.errors import TextError, VocabError
from crnn.text.reading import EOS
from crnn.text.vocab import UNKNOWN, Vocab
from crnn.text.windows import IGNORE_INDEX, BPTTWindows, contiguous_batches

__all__ = [
    "EOS",
    "IGNORE_INDEX",
    "UNKNOWN",
    "BPTTWindows",
    "TextCorpus",
    "TextError",
    "Vocab",
    "VocabError",
    "contiguous_batches",
]
