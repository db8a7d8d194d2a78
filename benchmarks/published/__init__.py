# SPDX-License-Identifier: MIT
"""Tasks with published figures, learnt by the task models: `python -m benchmarks.published`."""
