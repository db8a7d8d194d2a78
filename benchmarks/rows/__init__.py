# SPDX-License-Identifier: MIT
"""The benchmark rows: one module per subject, each with its ROWS. Modules import base and contenders, but no rows."""
