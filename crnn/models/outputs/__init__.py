# SPDX-License-Identifier: MIT
"""The outputs of models: head, pooling, losses, targets, decoding, and the results of evaluations."""
