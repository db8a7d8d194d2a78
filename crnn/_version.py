# SPDX-License-Identifier: MIT
"""The version, said once: pyproject.toml reads it from here, and importing crnn need not read its metadata."""

__version__ = "0.1.0"
