# SPDX-License-Identifier: MIT
# cython: language_level=3
"""A loop over samples that steps a network without Python: for compiled code that processes sample by sample.

    python setup.py build_ext --inplace
"""

from crnn.stream cimport Stream


ctypedef fused sample:
    float
    double


def follow(Stream stream not None, const sample[::1] samples not None, sample[::1] out not None):
    """out[i] = the network's output for samples[i]: one input, one output, one step per sample.

    float32 for networks and models in float32; float64 for those in float64 and for models that standardise.
    """
    cdef Py_ssize_t i
    cdef int failed
    dtype = "float32" if sample is float else "float64"
    if stream.input_size != 1 or stream.output_size != 1 or stream.weights.io_dtype != dtype:
        raise ValueError(f"stream: expected a stream of one input and one output, in {dtype}")
    if len(samples) != len(out):
        raise ValueError(f"out: expected shape ({len(samples)},), got ({len(out)},)")
    with nogil:
        for i in range(samples.shape[0]):
            if sample is float:
                failed = stream.step_into(&out[i], &samples[i])
            else:
                failed = stream.step_into_f64(&out[i], &samples[i])
            if failed < 0:
                with gil:
                    raise RuntimeError(f"samples: not finite at {i}, or another thread is using this stream")
