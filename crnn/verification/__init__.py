# SPDX-License-Identifier: MIT
"""`crnn.verify`: trains a small model of everything that is registered, and compares the results with known hashes.

    parts.py  the list of parts  -->  checker.py  runs them, compares with hashes.py  <--  renew.py  writes hashes.py
"""
