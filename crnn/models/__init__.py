# SPDX-License-Identifier: MIT
"""Models: a network with a head, a loss and targets. The public classes are attributes of `crnn`."""
