# SPDX-License-Identifier: MIT
"""For ``cimport crnn.stream``: what stream.pxd declares."""

from crnn.stream.stream cimport *
