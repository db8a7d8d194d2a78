# SPDX-License-Identifier: MIT
"""The libraries that run a stack of layers with our weights, in each precision that they have. PyTorch, JAX and NumPy,
which are written for single rows, are not among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from benchmarks.base.measure import Missing, unavailable
from benchmarks.contenders.layers import GATES
from benchmarks.contenders.litert import litert_run
from benchmarks.contenders.onnx_peers import Graph, onnx_graph, onnxruntime_int8_run, onnxruntime_run, openvino_run
from benchmarks.contenders.precisions import PRECISIONS

Array = NDArray[Any]
Run = Callable[[], Any]  # returns the output: an array, or something with .numpy(). The next call may overwrite it


@dataclass(frozen=True)
class Work:
    """A stack of layers, with an output layer if there are its weights, over x (T, B, D).

    ``carried``: each run continues from the state of the previous one; otherwise from zero. ``last``: the output is
    that of the last step only.
    """

    params: Mapping[str, Array]
    cell: str
    x: Array
    carried: bool = False
    last: bool = False


@dataclass(frozen=True)
class Peer:
    """A library in one of the `PRECISIONS`. ``cells``: those that it has in this precision."""

    library: str
    precision: str
    modules: tuple[str, ...]
    make: Callable[[Work, int], Run]
    cells: tuple[str, ...] = tuple(GATES)

    @property
    def name(self) -> str:
        """As in the report."""
        return self.library if self.precision == "float32" else f"{self.library}, {self.precision}"

    @property
    def tolerance(self) -> float:
        """How far its outputs may be from those of crnn in float32."""
        return PRECISIONS[self.precision]

    def missing(self, cell: str) -> Missing | None:
        """Why it cannot run here; None if it can."""
        if cell not in self.cells:
            return Missing(f"{self.library} has no {cell} in {self.precision}")
        return unavailable(*self.modules)


def _onnx(run: Callable[[Graph, Array, int], Run], work: Work, threads: int) -> Run:
    T, B, _ = work.x.shape
    graph = onnx_graph(work.params, work.cell, T, B, carried=work.carried, last=work.last)
    return run(graph, work.x, threads)


def _litert(precision: str, work: Work, threads: int) -> Run:
    return litert_run(
        work.params, work.cell, work.x, threads, precision, carried=work.carried, last=work.last
    )


ONNX, OPENVINO, LITERT = ("onnx", "onnxruntime"), ("onnx", "openvino"), ("ai_edge_litert", "flatbuffers")
PEERS = (
    Peer("onnxruntime", "float32", ONNX, partial(_onnx, onnxruntime_run)),
    Peer("onnxruntime", "int8", ONNX, partial(_onnx, onnxruntime_int8_run), cells=("lstm",)),
    Peer("openvino", "float32", OPENVINO, partial(_onnx, openvino_run)),
    Peer("openvino", "bf16", OPENVINO, partial(_onnx, partial(openvino_run, precision="bf16"))),
    Peer("litert", "float32", LITERT, partial(_litert, "float32")),
    Peer("litert", "int8", LITERT, partial(_litert, "int8")),
)
