# SPDX-License-Identifier: MIT
"""What a language model consists of: its network, how well it predicts texts, and the texts that it generates."""
