# SPDX-License-Identifier: MIT
"""RNN: the public class of a stack of recurrent layers on arrays. Independent of text, losses and optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from numpy.typing import ArrayLike

from crnn import _parallel as parallel
from crnn._core.arrays import pinned
from crnn._core.rows import Lengths
from crnn._options import options_of, takes_options
from crnn.array_input import in_precision, real_numbers
from crnn.checks import Array, check_threads
from crnn.nn.cells import equations
from crnn.nn.config import NetworkConfig, NetworkOptions, config_from, memory_of, network_json_types
from crnn.nn.dropout import Masks
from crnn.nn.init import UNINITIALISED, uniform_draws
from crnn.nn.initial_weights import InitialWeights
from crnn.nn.learning.config import LearnerConfig
from crnn.nn.module import Module
from crnn.nn.params import Parameters, Shapes
from crnn.nn.program import Phase
from crnn.nn.slices import Slice
from crnn.nn.stack import Stack
from crnn.nn.state import State, StateLike
from crnn.nn.tape import Tape
from crnn.nn.windows import Window, run_windows, saves_memory
from crnn.stream.parts import StreamParts

# Of the arrays of all steps of a small batch, which a network keeps after an inference for the next one.
KEPT_BYTES = 1 << 22


class RNN(Module, kind="RNN", config_types=network_json_types()):
    """A stack of recurrent layers. Each layer applies its cell, with the same weights, at every time step: for "tanh"

        h_t = tanh( x_t W_xh + h_{t-1} W_hh + b_h )

    In the equations of the cells, xw is x_t W_xh + b_h, h' is h_{t-1}, c' is c_{t-1}, and each gate has a block of H
    columns of the weights and of xw:

    {equations}

    Conventions
    -----------
    T is the number of time steps, B of sequences in the batch, D the input_size, H the hidden_size, L the number of
    layers, G the number of gates. Arrays are time-major and C-contiguous, in the network's ``dtype``: x (T, B, D),
    y (T, B, output_size). output_size is H, or 2*H if bidirectional, the forward direction first. With dense_layers y
    has the outputs of all layers, the lowest first, and output_size is the sum of theirs. x may also be integer ids
    (T, B) in 0 .. D-1, which stand for one-hot vectors; their product with W_xh is a row look-up.

    state is an array (L*directions, B, H), ordered by layer and then by direction; for an LSTM it is a pair (h, c) of
    such arrays. If the layers' sizes differ, each array is a list of arrays (B, H_l) instead.

    lengths are integers (B,) in any order: sequence b consists of the steps 0 .. lengths[b]-1. Later steps are padding:
    they are not computed, and outputs there are 0. The state after the last step is that after the last step of each
    sequence.

    Parameters are named ``layer0.W_xh`` (D, G*H), ``layer0.W_hh`` (H, G*H), ``layer0.b_h`` (G*H,), ``layer1.W_xh`` and
    so on. Each gate is a block of H columns: LSTM i, f, g, o; GRU r, z, n (PyTorch's order). A gru also has
    ``layer0.b_hn`` (H,), an ln_lstm ``layer0.gain_i`` and ``layer0.bias_i`` (H,), and those of f, g, o. The reverse
    direction has ``layer0.reverse.W_xh`` and so on. A trainable initial state is ``layer0.h0`` (H,), and ``layer0.c0``
    (H,). With an embedding of size E, the first parameter is ``embedding`` (D, E), ``layer0.W_xh`` is (E, G*H), and x
    must be ids.

    Results are bit-identical for any number of threads, on every instruction set and at every position in the batch.
    Every option is also an attribute. What a network was built from cannot change.

    Parameters
    ----------
    input_size : int
        D: size of the input at each step, or the number of ids.
    hidden_size : int or sequence of int
        H: units of every layer, or a sequence with the units of each layer.
    num_layers : int, optional
        L: 1 unless given, or the length of ``hidden_size``.
    cell : str
        The name of one of the cells above.
    seed : int
        Seed of the initial weights, which are the same on every machine.
    {options}

    Examples
    --------
    >>> import numpy as np, crnn
    >>> net = crnn.RNN(input_size=3, hidden_size=4, cell="gru", bidirectional=True, seed=0)
    >>> x = np.ones((5, 2, 3), np.float32)
    >>> y, state = net(x, lengths=[5, 3])
    >>> y.shape, state.shape
    ((5, 2, 8), (2, 2, 4))
    >>> y, state, tape = net.forward(x)
    >>> dx, dstate = net.backward(tape, np.ones_like(y))
    >>> net.grads["layer0.reverse.W_hh"].shape
    (4, 12)
    """

    stack: Stack
    _config: NetworkConfig
    _kept: list[Tape]  # at most one: that of the last inference, with its packed weights

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int | None = None,
        cell: str = "tanh",
        *,
        seed: int = 0,
        **options: Unpack[NetworkOptions],
    ) -> None:
        config = config_from(
            options,
            type(self).__name__,
            input_size=input_size,
            hidden_size=hidden_size,
            num_layers=num_layers,
            cell=cell,
        )
        with memory_of(vars(config)):
            parameters = Parameters(config.shapes(), config.dtype)
        self._setup(config, parameters, seed)
        if seed is not UNINITIALISED:
            self.initial_weights.check_rules(self._parameters.shapes)
            self._parameters.settle(config.precision)

    @classmethod
    def from_parameters(cls, parameters: Parameters, config: NetworkConfig, seed: int) -> Self:
        """A network whose parameters are ``parameters``, such as a part of a model's buffer; borrowed."""
        net = cls.__new__(cls)
        net._setup(config, parameters, seed)
        return net

    def _setup(self, config: NetworkConfig, parameters: Parameters, seed: int) -> None:
        """Set all attributes; draw the initial weights unless ``seed`` is UNINITIALISED."""
        config.check_dropouts()
        self._config, self._parameters, self._kept = config, parameters, []
        self.stack = Stack(config, parameters)
        if seed is not UNINITIALISED:
            self.initial_weights.draw_network(uniform_draws(seed))

    @property
    def initial_weights(self) -> InitialWeights:
        """What draws the weights of this network, and those of a head on it."""
        return InitialWeights(self._config, self.stack.cell, self._parameters.values)

    # ---- configuration --------------------------------------------------------------------------------------------

    @classmethod
    def shapes_of(cls, config: Mapping[str, Any], **attached: Any) -> Shapes:
        """Names and shapes of the parameters of a network with this `config`."""
        return config_from(config).shapes()

    def config(self) -> dict[str, Any]:
        """The arguments that make a network of this shape, as values that JSON can hold."""
        return self._config.to_dict()

    if TYPE_CHECKING:  # every option of the network is a property, see below
        input_size: int
        num_layers: int
        cell: str
        dtype: str
        embedding_size: int | None

        def __getattr__(self, name: str) -> Any:
            """The option ``name``."""

    @property
    def precision(self) -> str | Mapping[str, str] | None:
        """What `quantize` has rounded: "int8", "int4", "bf16", a mapping from weight matrices to them, or None."""
        precision: str | Mapping[str, str] | None = self.config()["precision"]  # a copy
        return precision

    @property
    def hidden_size(self) -> int | list[int]:
        """H: units of every layer, or a list if they differ."""
        sizes = self.hidden_sizes
        return list(sizes) if len(set(sizes)) > 1 else sizes[0]

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Units of each layer."""
        return self._config.hidden_sizes

    @property
    def directions(self) -> int:
        """2 for a bidirectional network, otherwise 1."""
        return self._config.directions

    @property
    def gates(self) -> int:
        """G: number of gates of the cell, such as 1 for tanh, 3 for a GRU, 4 for an LSTM."""
        return self.stack.cell.gates

    @property
    def output_size(self) -> int:
        """Size of y: units of the top layer, or with dense_layers of all layers, all directions together."""
        return self._config.output_size

    def __repr__(self) -> str:
        return f"RNN({self.describe()}, dtype={self.dtype!r})"

    def describe(self) -> str:
        """The arguments as Python source: sizes, cell, and every option that differs from its default."""
        always = ("input_size", "hidden_size", "num_layers", "cell", "embedding_size")
        others = [o for o in options_of(NetworkConfig) if o.name not in (*always, "dtype")]
        shown = [*always, *(o.name for o in others if getattr(self, o.name) != o.default)]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)

    def _calibration_outputs(self, inputs: Any) -> list[Array]:
        return [self(inputs)[0]]

    def _stream_parts(self) -> StreamParts:
        if self.bidirectional:
            raise ValueError(
                "stream: expected a network that reads forward, got bidirectional=True, which needs whole sequences"
            )
        layers = [
            {name.removeprefix(prefix): array for name, array in self.stack.params.items() if name.startswith(prefix)}
            for prefix in (f"layer{layer}." for layer in range(self.num_layers))
        ]
        precisions = {name: self._config.precision_of(name) for name in self.stack.params if name != "embedding"}
        return StreamParts(
            type(self).__name__,
            self.cell,
            self.input_size,
            layers,
            embedding=self.stack.params.get("embedding"),
            dense_layers=self._config.dense_layers,
            precisions={name: kind for name, kind in precisions.items() if kind is not None},
        )

    def _new_learner(self, config: LearnerConfig) -> Any:
        from crnn.nn.learning.network import NetworkLearner  # not earlier: `import crnn` does not wait for it

        return NetworkLearner(self, config, ids=self.embedding_size is not None)

    def frozen(self) -> Self:
        """A copy whose parameters are read-only: the fastest network for inference of the same weights many times.

        After `params` or `flat_params` have been used, a call of a network packs the weights again, since they may have
        changed: at batch 1 this costs as much as two to five steps. A frozen network packs them once. Later changes of
        this network do not affect it.

        Examples
        --------
        >>> import numpy as np, crnn
        >>> net = crnn.RNN(input_size=3, hidden_size=4, seed=0)
        >>> fast, x = net.frozen(), np.ones((5, 2, 3), np.float32)
        >>> np.array_equal(fast(x)[0], net(x)[0]), fast.flat_params.flags.writeable
        (True, False)
        """
        copy = self._changed(self.stack.params)
        copy._parameters.make_read_only()
        copy.stack.frozen = True
        return copy

    # ---- forward --------------------------------------------------------------------------------------------------

    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
    ) -> tuple[Array, StateLike]:
        """Run all steps for inference, without dropout.

        Parameters
        ----------
        x, state, lengths, threads
            As in `forward`.

        Returns
        -------
        y : array (T, B, output_size)
            Output of the top layer, with dense_layers of all layers; fresh.
        state
            State after the last step, fresh.
        """
        threads = check_threads(threads)
        checked, given = self.stack.check_padded(x, lengths, keep=False)
        if given is None:
            return self._infer(checked, state, threads)
        if not given.packed or not saves_memory(self.stack, checked, given):
            tape = self.run(checked, state, given, threads, None, None, keep=False)
            return tape.padded(tape.y), tape.after.value
        y = given.padded_zeros((self.output_size,), self.dtype)
        rows, where = y.reshape(-1, self.output_size), given.padded_rows()[None]

        def put(window: Window, tape: Tape, part: Slice) -> None:
            rows[window.of(where)[:, part.rows]] = tape.y[:, part.rows]

        after = run_windows(self.stack, checked, state, given, threads, put)
        return y, after.value

    def _infer(self, x: Array, state: StateLike | None, threads: int) -> tuple[Array, StateLike]:
        """`__call__` for a checked x without lengths, on a tape and packed weights that are kept for the next call."""
        try:
            kept = self._kept.pop()  # not two steps: another thread may call too
        except IndexError:
            kept = None
        tape = self.stack.new_tape(x, state, kept, threads=threads, keep=False)
        self._run_forward(tape, None)
        y, after = tape.take_y(), tape.after.copied()
        tape.release()
        if not self._kept and tape.held_bytes <= KEPT_BYTES:
            self._kept.append(tape)
        return y, after

    def last_state(self, x: Array, lengths: Lengths | None, threads: int) -> State:
        """The state after the last step of a checked x, which is packed if there are lengths. For inference."""
        if not saves_memory(self.stack, x, lengths):
            return self.run(x, None, lengths, threads, None, None, keep=False).after
        return run_windows(self.stack, x, None, lengths, threads)

    def forward(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        threads: int = 1,
        tape: Tape | None = None,
        dropout_seed: int | None = None,
        precision: Literal["bf16"] | None = None,
    ) -> tuple[Array, StateLike, Tape]:
        """Run all steps and keep what `backward` needs.

        Parameters
        ----------
        x : array (T, B, D), or integer ids (T, B)
            T and B at least 1. Not modified. The tape may borrow it: do not change it before `backward`. Numbers of
            another type are converted to the network's dtype; missing ones are refused.
        state : see the class, optional
            State before the first step. If not given: the trainable initial state if there is one, otherwise zeros.
        lengths : integers (B,), optional
            Steps of each sequence, from 1 to T; all T if not given.
        threads : int
            Number of threads that the batch is split over.
        tape : Tape, optional
            From an earlier call of this network; overwritten instead of allocating a new one if it has the right shape.
        dropout_seed : int, optional
            Apply dropout, with masks drawn from this seed. If not given, nothing is dropped.
        precision : {"bf16"}, optional
            Compute the matrix products of this pass, of `backward` and of the gradients with operands rounded to
            bfloat16 and sums in float32; everything else is float32. If not given: in the network's dtype.

        Returns
        -------
        y : array (T, B, output_size)
            Output of the top layer. Belongs to the tape; with lengths it is fresh.
        state
            State after the last step. Belongs to the tape.
        tape : Tape
            For `backward`.

        Raises
        ------
        ValueError
            A shape, a length or an id is wrong; x, where it is not padding, or the state is not finite, or a number
            overflows in the network's dtype; the tape is that of another network; or the network is not trained in
            this precision, because it is float64 or quantised.
        TypeError
            x or the state is not numbers.
        """
        masks = None if dropout_seed is None else Masks(dropout_seed)
        tape = self.run_forward(x, state, lengths, threads, tape, masks, keep=True, precision=precision)
        return tape.padded(tape.y), tape.after.value, tape

    def run_forward(
        self,
        x: ArrayLike,
        state: StateLike | None,
        lengths: ArrayLike | None,
        threads: int,
        tape: Tape | None,
        masks: Masks | None,
        *,
        keep: bool,
        precision: str | None = None,
    ) -> Tape:
        """`forward` with given masks. With ``keep=False`` the tape cannot be used for a backward pass."""
        threads = check_threads(threads)
        checked, given = self.stack.check_padded(x, lengths)
        return self.run(checked, state, given, threads, tape, masks, keep=keep, precision=precision)

    def run(
        self,
        x: Array,
        state: StateLike | None,
        lengths: Lengths | None,
        threads: int,
        tape: Tape | None,
        masks: Masks | None,
        **options: Any,
    ) -> Tape:
        """`run_forward` of a checked x, which is packed if there are lengths. ``options``: of `Stack.new_tape`."""
        tape = self.stack.new_tape(x, state, tape, lengths=lengths, threads=threads, **options)
        self._run_forward(tape, masks)
        return tape

    def _run_forward(self, tape: Tape, masks: Masks | None) -> None:
        """Run all steps of a tape that has its x and its state."""
        stack, version = self.stack, self._parameters.version
        packed = version is not None and tape.version is version
        stack.draw_masks(tape, masks)

        def phases() -> list[Phase]:
            pack: Phase = (1, lambda _: stack.pack_forward(tape))
            forward: Phase = (tape.parts, lambda part: stack.forward(tape, tape.part(part)))
            return [forward] if packed else [pack, forward]

        stack.run_phases(tape, ("forward", tape.parts, packed), phases)
        tape.version = version
        tape.complete = True

    # ---- backward -------------------------------------------------------------------------------------------------

    def backward(
        self, tape: Tape, dy: ArrayLike | None, dstate: StateLike | None = None, *, threads: int = 1
    ) -> tuple[Array | None, StateLike]:
        """Backpropagate through all steps of a tape, and ACCUMULATE the gradients of the parameters in `grads`.

        The parameters must be those of the tape's forward pass.

        Parameters
        ----------
        tape : Tape
            From `forward` of this network.
        dy : array (T, B, output_size), or None
            Gradient of the loss at y. Not modified; padding is not read. None means zero, and needs a ``dstate``.
        dstate : see the class, optional
            Gradient of the loss at the state after the last step; zero if not given.
        threads : int

        Returns
        -------
        dx : array (T, B, D), or None for ids
            Gradient at x, 0 for padding. Belongs to the tape; with lengths it is fresh.
        dstate
            Gradient at the state before the first step. Belongs to the tape.
        """
        threads, stack = check_threads(threads), self.stack
        stack.check_complete(tape)
        dafter: State | None = None
        if dstate is not None:
            dafter = stack.new_state(tape.batch)
            dafter.assign("dstate", dstate, finite=False)
        dy_array, pin = None, None
        if dy is not None or dstate is None:  # last, since it is borrowed: no later conversion can change it
            dy_array, shape = real_numbers("dy", dy), (tape.steps, tape.batch, self.output_size)
            if dy_array.shape != shape:
                raise ValueError(f"dy: expected shape {shape}, got {dy_array.shape}")
            dy_array = in_precision("dy", dy_array, self.dtype)
            dy_array = dy_array if tape.lengths is None else tape.lengths.pack(dy_array)
            pin = pinned(dy_array)
        self.run_backward(tape, dy_array, dafter)
        parallel.run(threads, lambda part: stack.weight_gradients(tape, part, threads))
        del pin
        stack.finish_gradients(tape)
        assert tape.dbefore is not None
        dx = stack.dx(tape)
        return None if dx is None else tape.padded(dx), tape.dbefore.value

    def run_backward(self, tape: Tape, dy: Array | None, dafter: State | None) -> None:
        """Compute the gradients at all states and at x, from checked ones at y and at the state after the last step.

        ``dy`` is packed if x is; None is zero. Those of the parameters are not computed.
        """
        stack = self.stack
        stack.pack_backward(tape)

        def rows(number: int) -> None:
            part = tape.part(number)
            tape.dy[:, part.rows] = 0 if dy is None else dy[:, part.rows]
            stack.backward(tape, dafter, part)

        parallel.run(tape.parts, rows)


if RNN.__doc__:  # None under python -OO
    RNN.__doc__ = RNN.__doc__.replace("    {equations}", equations(indent=8))
takes_options(NetworkConfig)(RNN)
for _each in options_of(NetworkConfig):
    if _each.name not in vars(RNN):
        setattr(RNN, _each.name, property(attrgetter(f"_config.{_each.name}"), doc=_each.help))
