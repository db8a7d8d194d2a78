# SPDX-License-Identifier: MIT
"""The ``crnn`` command: one file per verb. Every verb is a few calls that Python users also have."""

from crnn.cli.command import main

__all__ = ["main"]
