# SPDX-License-Identifier: MIT
"""To and from other libraries: each a module of its own, which ``import crnn`` does not import."""
