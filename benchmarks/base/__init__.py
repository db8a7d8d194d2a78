# SPDX-License-Identifier: MIT
"""Contenders, figures and their measurement. Imports no other folder of the benchmarks."""
