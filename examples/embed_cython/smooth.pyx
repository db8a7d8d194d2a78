# SPDX-License-Identifier: MIT
# cython: language_level=3
"""A loop over samples that steps a network without Python: for compiled code that processes sample by sample.

    python setup.py build_ext --inplace
"""

from crnn.stream cimport Stream


def follow(Stream stream not None, const float[::1] samples not None, float[::1] out not None):
    """out[i] = the network's output for samples[i]: one input, one output, one step per sample."""
    cdef Py_ssize_t i
    if stream.input_size != 1 or stream.output_size != 1 or stream.weights.dtype != "float32":
        raise ValueError("stream: expected a stream of one input and one output, in float32")
    if len(samples) != len(out):
        raise ValueError(f"out: expected shape ({len(samples)},), got ({len(out)},)")
    with nogil:
        for i in range(samples.shape[0]):
            if stream.step_into(&out[i], &samples[i]) < 0:
                with gil:
                    raise RuntimeError("another thread is using this stream")
