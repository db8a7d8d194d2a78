# SPDX-License-Identifier: MIT
"""The passes of network and head together over a window: outputs, losses and gradients."""
