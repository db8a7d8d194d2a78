# SPDX-License-Identifier: MIT
"""Networks: configuration, cells, parameters, state, forward and backward pass. `crnn.RNN` is the public class."""
