# SPDX-License-Identifier: MIT
"""What is measured: one module per subject, each with its ROWS. Imports only base and contenders, and no other row."""
