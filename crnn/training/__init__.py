# SPDX-License-Identifier: MIT
"""Training: `fit`, its options, checkpoints, log and reporters. Knows models only by the protocol `Trainable`."""
