# SPDX-License-Identifier: MIT
"""Speed and memory of crnn, compared with other libraries on this machine. `python -m benchmarks --help`."""
