# SPDX-License-Identifier: MIT
"""Thin typed wrappers around the C kernels, by subject: check, release the GIL, call C. No maths, no models."""
