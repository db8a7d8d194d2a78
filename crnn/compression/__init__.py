# SPDX-License-Identifier: MIT
"""Lossless compression of bytes by a network that learns them while it predicts them. docs/compression.md."""
