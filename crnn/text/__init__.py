# SPDX-License-Identifier: MIT
"""Texts: vocabularies, corpora and the windows they are trained in. Needs numpy alone and knows no model."""

from crnn.text.corpus import TextCorpus
from crnn.text.reading import EOS, TextError
from crnn.text.vocab import UNKNOWN, Vocab, VocabError
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
