# SPDX-License-Identifier: MIT
"""The inputs of models: sequences, texts, masks, standardisation."""
