# SPDX-License-Identifier: MIT
"""Tables (CSV): read, found out, and made into sequences, labels and series."""
