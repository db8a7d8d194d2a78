# SPDX-License-Identifier: MIT
"""The version, said once: pyproject.toml reads it here, and importing crnn reads no metadata."""

__version__ = "0.1.0"
