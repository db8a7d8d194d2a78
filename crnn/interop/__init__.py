# SPDX-License-Identifier: MIT
"""Conversion from and to other libraries. ``import crnn`` does not import these modules."""
