# SPDX-License-Identifier: MIT
"""gemm: y (M, H) = x (M, H) @ w (H, H), crnn's kernel, NumPy's BLAS and the machine's peak, on one thread.

M = 4096 is a layer's input product for a whole window (T 128, B 32); M = 32 is one time step's recurrent product.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.base.checks import require_close
from benchmarks.base.measure import OURS, Contender, Figure, race
from benchmarks.base.row import Row, Setting
from benchmarks.contenders.blas import blas_kernel
from benchmarks.contenders.peak import PEAK, peak


def measure(steps: int, H: int, setting: Setting) -> dict[str, Figure]:
    """Figures in GFLOP/s of the products of ``steps`` batches of 32 rows with w (H, H)."""
    from crnn._core import gemm

    batch = 32
    work = 2.0 * steps * batch * H * H / 1e9
    rng = np.random.default_rng(0)
    x = rng.standard_normal((steps, batch, H), np.float32)
    w = rng.standard_normal((H, H), np.float32)
    packed = gemm.Packed(H, H, "float32").pack(w)
    y = gemm.aligned_empty((steps, batch, H), "float32")
    flat, product = x.reshape(-1, H), np.empty((steps * batch, H), np.float32)

    def run_crnn() -> None:
        gemm.linear_forward(y, x, packed, None, 0, batch)

    def run_numpy() -> None:
        np.matmul(flat, w, out=product)

    run_crnn()
    run_numpy()
    require_close("numpy", product, y.reshape(-1, H))
    return race(
        {
            OURS: Contender(run_crnn, work),
            "numpy": Contender(run_numpy, work, blas_kernel()),
            PEAK: peak(setting.threads),
        },
        setting.effort,
    )


ROWS = [
    Row(f"gemm-{name}{H}", "GFLOP/s", partial(measure, steps, H), quick=H == 128)
    for name, steps in (("", 128), ("step-", 1))
    for H in (64, 128, 256, 512)
]
