# SPDX-License-Identifier: MIT
"""Learners of models: what reads the network, and what their inputs and targets are."""
