# SPDX-License-Identifier: MIT
"""Learners: networks and models that learn from a stream, one step at a time."""
