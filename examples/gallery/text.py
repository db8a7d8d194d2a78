# SPDX-License-Identifier: MIT
"""
A language model writes, and says what surprises it
===================================================

A language model reads a text character by character. At each step it gives every character a probability to
come next. With these probabilities it can write, and it can measure how unexpected a given text is.

The text here is the prose of Python's documentation, which is part of every installation. If the environment
variable ``CRNN_DATA`` names a folder with a file ``input.txt``, that is used instead.
"""

import os
import re
from pathlib import Path
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np

import crnn

data = Path(os.environ.get("CRNN_DATA", "."), "input.txt")
if data.exists():
    text = data.read_text(encoding="utf-8")[:400_000]
else:
    blocks = [" ".join(block.split()) for name in sorted(topics) for block in topics[name].split("\n\n")]
    sentences = re.compile(r"[A-Z][\w ,.;:'\"()*`-]{60,}\.")
    text = "\n".join(block for block in dict.fromkeys(blocks) if sentences.fullmatch(block))
print(f"{len(text):,} characters; the first: {text[:60]!r}")

# %%
# Train
# -----
# The corpus maps characters to integers and keeps the last 5 % for validation. One layer of 128 LSTM units
# learns from 32 places of the text in parallel, 64 characters at a time.

corpus = crnn.TextCorpus.from_text(text, valid=0.05, test=0)
model = crnn.LanguageModel(corpus.vocab, cell="lstm", hidden_size=128, seed=1)
model.fit(corpus, max_updates=600)
model.log.plot()
plt.title("Loss in nats per character")

# %%
# Write
# -----
# At a low temperature the model writes what it finds most probable, and repeats itself. At 1 it draws from
# its probabilities as they are. Above 1 it takes more risks, and makes more mistakes.

for temperature in (0.3, 0.7, 1.0, 1.3):
    written = model.generate("The value of", length=140, temperature=temperature, seed=2)
    print(f"temperature {temperature}: The value of{written}\n")

# %%
# What surprises it
# -----------------
# The surprisal of a character is -log2 of its probability, in bits. It is high at the beginnings of words and
# low within them. In the second sentence one letter is wrong: the model expects something else there, and
# knows as little about the letters after it.

sentences = ["The method is called with the arguments.", "The method is called wixh the arguments."]
# sphinx_gallery_thumbnail_number = 2
figure, panels = plt.subplots(2, 1, figsize=(9, 4.5), sharey=True, layout="constrained")
for ax, sentence in zip(panels, sentences, strict=True):
    bits = model.stream().feed("\n").surprisal(sentence) / np.log(2)
    ax.bar(range(len(bits)), bits, color=plt.colormaps["viridis_r"](bits / 12))
    ax.set_xticks(range(len(sentence)), list(sentence), fontfamily="monospace")
    ax.set_ylabel("bits")
    ax.set_title(f"{bits.mean():.2f} bits per character", loc="left", fontsize=10)
plt.show()
