# SPDX-License-Identifier: MIT
"""
Watching a log for unusual lines
================================

A model that has read the log of a healthy service finds normal lines easy to predict. A line that it cannot
predict is unusual, whatever the reason: nobody has to write a rule for it. This example makes up the log of a
web server, trains a small model on 3,000 lines, and scores new lines as they arrive.
"""

import matplotlib.pyplot as plt
import numpy as np

import crnn

rng = np.random.default_rng(0)
PAGES = ["/", "/about", "/login", "/cart", "/search?q=shoes", "/item/%d"]
AGENTS = ["Firefox", "Chrome", "Safari"]


def normal_line(second):
    page = PAGES[rng.choice(6, p=[0.3, 0.1, 0.1, 0.1, 0.1, 0.3])]
    page = page % rng.integers(100, 999) if "%" in page else page
    posted = page in ("/login", "/cart")
    method, status = ("POST", 302) if posted else ("GET", rng.choice([200, 304], p=[0.8, 0.2]))
    time = f"{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
    address, taken, agent = rng.integers(1, 20), rng.integers(5, 60), rng.choice(AGENTS)
    return f"{time} 10.0.0.{address} {method} {page} {status} {taken}ms {agent}\n"


lines = [normal_line(3 * i) for i in range(3400)]
print("".join(lines[:4]))

# %%
# Train
# -----
# The model reads bytes, so that no character that turns up later is unknown to it.

corpus = crnn.TextCorpus.from_text("".join(lines[:3000]), unit="byte", valid=0.05, test=0)
model = crnn.LanguageModel(corpus.vocab, cell="gru", hidden_size=64, seed=1)
model.fit(corpus, max_updates=400)

# %%
# Score
# -----
# A stream keeps the state between calls. Every line starts from a copy of one that has just read the end of a
# line; a copy takes a microsecond. The score is the mean surprisal of the line's bytes, in bits.

unusual = {
    40: "00:02:00 10.0.0.7 GET /../../etc/passwd 403 9ms curl\n",
    120: "00:06:00 10.0.0.3 GET /search?q=';DROP TABLE users;-- 500 31ms Chrome\n",
    205: "Traceback (most recent call last):\n",
    290: "00:14:30 10.0.0.5 POST /login 302 48211ms Firefox\n",
    350: "00:17:30 203.0.113.9 GET /about 200 12ms Chrome\n",
}
start = model.stream().feed("\n")
arriving = [unusual.get(i, line) for i, line in enumerate(lines[3000:])]
scores = np.array([start.copy().surprisal(line).mean() / np.log(2) for line in arriving])
limit = np.quantile([start.copy().surprisal(line).mean() / np.log(2) for line in lines[2000:3000]], 0.999)
for i in np.flatnonzero(scores > limit):
    print(f"{scores[i]:5.2f} bits  {arriving[i]}", end="")

# %%
# The limit is the score that one in a thousand normal lines exceeds. All five lines that do not belong here
# are above it, and one that does: of 400 normal lines with random numbers, that is no surprise.

is_unusual = np.isin(np.arange(len(scores)), list(unusual))
figure, ax = plt.subplots(figsize=(9, 4), layout="constrained")
ax.plot(np.flatnonzero(~is_unusual), scores[~is_unusual], ".", color="tab:blue", label="normal lines")
ax.plot(np.flatnonzero(is_unusual), scores[is_unusual], "o", color="tab:red", label="unusual lines")
ax.axhline(limit, color="black", lw=1, ls="--", label="limit")
for i in unusual:
    ax.annotate(arriving[i].strip()[:34], (i, scores[i]), xytext=(4, 4), textcoords="offset points", fontsize=7)
ax.set(xlabel="line", ylabel="bits per byte", yscale="log", xlim=(0, 470), ylim=(0.4, 30))
ax.legend(loc="upper right")
plt.show()
