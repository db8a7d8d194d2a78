# SPDX-License-Identifier: MIT
"""Conversion from and to ONNX.

    model --writing--> ModelProto --files--> a file       `save`, `to_model`
    a file --files--> ModelProto --own--> the same model  a file of crnn's
                                 --foreign--> a model     a file of another program: recurrent layers and one head;
                                                          `unrolled`: layers that are written out step by step

The library onnx is imported when one of the functions is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crnn._float_mode import in_ieee_mode
from crnn.interop.onnx import foreign, own, writing
from crnn.interop.onnx.files import Tensors, check_messages, name_of, read
from crnn.interop.onnx.files import onnx as onnx_library
from crnn.interop.onnx.writing import DEFAULT_OPSET, OPSETS
from crnn.io.atomic_write import PathLike, replacing
from crnn.io.model_file import ModelFileError
from crnn.models.outputs.targets import Label
from crnn.text.vocab import Vocab

if TYPE_CHECKING:
    import onnx

__all__ = ["DEFAULT_OPSET", "OPSETS", "from_model", "load", "save", "to_model"]


@in_ieee_mode
def to_model(
    model: Any,
    *,
    opset: int = DEFAULT_OPSET,
    ids: bool | None = None,
    lengths: bool | None = None,
    state: bool | None = None,
) -> onnx.ModelProto:
    """The model as an ONNX graph.

    Parameters
    ----------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor
    opset : int
        Version of ONNX's operators, one of `OPSETS`.
    ids : bool, optional
        Whether the input is ids instead of real numbers; without an embedding they stand for one-hot vectors. If not
        given: for a model with an embedding or a vocabulary.
    lengths : bool, optional
        Whether there is an input ``lengths``, for batches with padding. If not given: for models that are bidirectional
        or pool, whose results padding would change.
    state : bool, optional
        Whether the state before the first step is an input, and that after the last one an output, so that a sequence
        can be continued. If not given: for models that are not bidirectional and do not pool.

    Returns
    -------
    proto : onnx.ModelProto
        Inputs:

        ``x`` or ``ids``
            Axes as in Python: (T, B, D) for an RNN or LanguageModel, (B, T, D) for a model of whole sequences; ids
            are int64 (T, B) or (B, T). float64 if the model standardises its inputs, otherwise the model's dtype.
        ``lengths``
            int32 (B,).
        ``h_in``, ``c_in``
            (L * directions, B, H), or ``h_in_0``, ``h_in_1``, ... if the layers' sizes differ. Zeros at the start, or
            nothing if the initial state is trained: that is the default then.
        ``max_in`` (B, H); ``sum_in`` (B, H) and ``steps_in`` (B, 1)
            What has been pooled; at the start -inf, or zeros.

        Outputs: ``y`` (T, B, H * directions) of an RNN; ``logits`` of a LanguageModel; ``logits``, ``probabilities``
        and ``labels`` of models of classes; ``values`` of a SequenceRegressor, as `predict` returns them; and for each
        input of a state the state after the last step, ``h_out`` for ``h_in``. Outputs for padding have no meaning.

    Raises
    ------
    ImportError
        The library onnx is not installed.
    TypeError
        The model is of another kind.
    ValueError
        It cannot be expressed, waits for `fit`, or holds a value that is not finite; the message says what.
    """
    return writing.model_proto(model, opset=opset, ids=ids, lengths=lengths, state=state)


def save(
    model: Any,
    path: PathLike,
    *,
    opset: int = DEFAULT_OPSET,
    ids: bool | None = None,
    lengths: bool | None = None,
    state: bool | None = None,
) -> None:
    """Write `to_model` to a file, atomically; `load` gives back the same model.

    Parameters
    ----------
    model, opset, ids, lengths, state
        As in `to_model`.
    path : str or path

    Raises
    ------
    ImportError, TypeError, ValueError
        As in `to_model`.
    OSError
        The file cannot be written. An existing file is then unchanged.
    """
    content = to_model(model, opset=opset, ids=ids, lengths=lengths, state=state).SerializeToString()
    with replacing(path) as file:
        file.write(content)


@in_ieee_mode
def from_model(
    proto: onnx.ModelProto,
    *,
    kind: str | None = None,
    classes: Sequence[Label] | None = None,
    vocab: Vocab | None = None,
) -> Any:
    """The model of an ONNX graph, as `load` reads it from a file. The graph is not changed."""
    if not isinstance(proto, onnx_library().ModelProto):
        raise TypeError(f"proto: expected an onnx.ModelProto, got {type(proto).__name__}")
    check_messages(proto.SerializeToString(), proto.DESCRIPTOR)
    return _model_of(proto, Tensors(proto), {"kind": kind, "classes": classes, "vocab": vocab})


@in_ieee_mode
def load(
    path: PathLike,
    *,
    kind: str | None = None,
    classes: Sequence[Label] | None = None,
    vocab: Vocab | None = None,
) -> Any:
    """Read a model from an ONNX file.

    A file that `save` wrote gives back the same model, bit for bit. From a file of another program, such as PyTorch's
    exporters and tf2onnx, LSTM, GRU and RNN nodes one after the other and at most one linear layer are read. A file in
    which the exporter has unrolled the layers into steps is read if these are the steps of a cell; the model takes any
    number of steps.

    Parameters
    ----------
    path : str or path
        Values that lie in other files are read if these are in the same folder.
    kind : str, optional
        The kind of a model with a linear layer. If not given: a LanguageModel if that layer is as large as ``vocab`` at
        each step; a SequenceTagger with a softmax, sigmoid or argmax at each step, or with ``classes``, a
        SequenceClassifier if the steps are pooled before; otherwise a SequenceRegressor.
    classes : sequence of str, int or bool, optional
        Names of the classes.
    vocab : Vocab, optional
        The vocabulary of the ids.

    Returns
    -------
    model : RNN, LanguageModel, SequenceClassifier, SequenceTagger or SequenceRegressor

    Raises
    ------
    ImportError
        The library onnx is not installed.
    ModelFileError
        The file is damaged or has been changed, or holds something that the model would not have: the message names
        the node, initializer, input or output. Nothing in the graph is ignored. `from_model` raises ValueError.
    TypeError, ValueError
        ``kind``, ``classes`` and ``vocab`` do not fit each other, or the file, or were given for a file of crnn's.
    OSError
        The file cannot be read.
    """
    try:
        proto, tensors = read(path)
        return _model_of(proto, tensors, {"kind": kind, "classes": classes, "vocab": vocab})
    except ModelFileError:
        raise
    except ValueError as error:
        raise ModelFileError(f"{name_of(path)}: {error}") from None


def _model_of(proto: onnx.ModelProto, tensors: Tensors, given: dict[str, Any]) -> Any:
    header = own.header_of(proto)
    if header is None:
        return foreign.model_of(proto, tensors, **given)
    foreign.options_given(given)
    return own.model_of(header, proto, tensors)
