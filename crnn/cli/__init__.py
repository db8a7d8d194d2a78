# SPDX-License-Identifier: MIT
"""The ``crnn`` command: one file per subcommand, each a few calls of the public Python API."""

from crnn.cli.command import main

__all__ = ["main"]
