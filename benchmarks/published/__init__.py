# SPDX-License-Identifier: MIT
"""Tasks with figures that others have published, solved by the task models' own `fit`. See docs/published.md."""
