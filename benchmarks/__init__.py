# SPDX-License-Identifier: MIT
"""Speed and memory of crnn, measured beside its peers on the machine at hand. `python -m benchmarks --help`."""
