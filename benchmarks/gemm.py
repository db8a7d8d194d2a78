# SPDX-License-Identifier: MIT
"""gemm: y (M, H) = x (M, H) @ w (H, H), our kernel beside NumPy's BLAS and the machine's peak, on one thread.

M = 4096 is a layer's input product for a whole window (T 128, B 32); M = 32 is one time step's recurrent product.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.checks import need_close
from benchmarks.measure import OURS, Contender, Figure, race
from benchmarks.peak import PEAK, peak
from benchmarks.rows import Row, Setting


def measure(steps: int, H: int, setting: Setting) -> dict[str, Figure]:
    from crnn._core import gemm

    batch = 32
    work = 2.0 * steps * batch * H * H / 1e9
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, H), np.float32)
    w = rng.standard_normal((H, H), np.float32)
    packed = gemm.Packed(H, H, "float32").pack(w)
    y = gemm.aligned_empty((steps, batch, H), "float32")
    flat, product = x.reshape(-1, H), np.empty((steps * batch, H), np.float32)

    def ours() -> None:
        gemm.linear_forward(y, x, packed, None, 0, batch)

    def numpys() -> None:
        np.matmul(flat, w, out=product)

    ours()
    numpys()
    need_close("numpy", product, y.reshape(-1, H))
    return race(
        {
            OURS: Contender(ours, work),
            "numpy": Contender(numpys, work, blas_kernel()),
            PEAK: peak(setting.threads),
        },
        setting.effort,
    )


def blas_kernel() -> str:
    """What NumPy multiplies with: library, version and the kernels it chose for this CPU."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "BLAS unknown: threadpoolctl not installed"
    pools: list[dict[str, Any]] = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return ", ".join(f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in pools)


ROWS = [
    Row(f"gemm-{name}{H}", "GFLOP/s", partial(measure, steps, H), quick=H == 128)
    for name, steps in (("", 128), ("step-", 1))
    for H in (64, 128, 256, 512)
]
