# SPDX-License-Identifier: MIT
"""What rows are made of: contenders, figures, how they are measured. Imports no other folder of the benchmarks."""
