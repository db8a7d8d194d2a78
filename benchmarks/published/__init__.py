# SPDX-License-Identifier: MIT
"""Tasks with published results, solved by the `fit` methods of the task models. See docs/published.md."""
