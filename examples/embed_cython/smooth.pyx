# SPDX-License-Identifier: MIT
# cython: language_level=3
"""A loop over samples with a network in it and no Python: for compiled code that has to answer sample by sample.

    python setup.py build_ext --inplace
"""

from crnn.stream cimport Stream


def follow(Stream stream not None, const float[::1] samples not None, float[::1] out not None):
    """out[i] = what the network makes of samples[i]: a network of one input and one output, a step a sample."""
    cdef Py_ssize_t i
    if stream.input_size != 1 or stream.output_size != 1 or len(samples) != len(out):
        raise ValueError("expected a stream of one input and one output, and as many outputs as samples")
    with nogil:
        for i in range(samples.shape[0]):
            if stream.step_into(&out[i], &samples[i]) < 0:
                with gil:
                    raise RuntimeError("another thread is at work on this stream")
