# SPDX-License-Identifier: MIT
"""What ``fit`` of the models does before training: arguments, sizes, starting weights, data and their weights."""
