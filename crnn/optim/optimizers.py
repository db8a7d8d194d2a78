# SPDX-License-Identifier: MIT
"""Optimizers over one flat buffer. `RULES` lists them by the names that the command line uses.

Each update is one pass of a C kernel over the parameters, the gradient and the optimizer's own arrays; the formulas are
in optim.body.h and agree with those of torch.optim. Learning rates and bias corrections are rounded to the precision of
the parameters before use, so an update is bit-identical everywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from crnn._attributes import fixed_attributes
from crnn._core import optim as kernels
from crnn._core.gemm import aligned_empty
from crnn._float_mode import in_ieee_mode
from crnn.checks import Array, check_count, check_flag, check_number, check_threads

__all__ = [
    "RULES",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "global_norm",
    "keeps_no_parameters",
    "norm_of",
]


def _check_rate(name: str, value: Any) -> float:
    return check_number(name, value, 0.0)


def _check_arrays(name: str, value: Any) -> dict[str, Array]:
    return dict(value)


@fixed_attributes(  # the last two are for rules of users
    {"lr": _check_rate, "weight_decay": _check_rate, "updates": check_count, "arrays": _check_arrays}
)
class Optimizer(ABC):
    """What all optimizers share: a learning rate, a count of updates, and arrays of the parameters' size.

    A subclass passes the names of its arrays to ``__init__``, implements `_step` by a call of its kernel, and is listed
    in `RULES`. Its arguments are attributes of the same names. ``lr`` and ``weight_decay`` may be set at any time, and
    take effect with the next update; the other arguments cannot change.

    Attributes
    ----------
    lr, weight_decay : float
    updates : int
        Updates done.
    arrays : dict of str to array
        Arrays (n,) of the parameters' size and dtype, such as a moving average of the gradient. Created by the first
        update; from then on the optimizer belongs to the training of one model. `crnn.fit` refuses an optimizer that
        has done updates, unless it resumes from a checkpoint: make a new one, or call `reset`.
    """

    _sums_of_squares: ClassVar[frozenset[str]] = frozenset({"v", "square_avg", "square_sum"})  # never below 0

    lr: float
    weight_decay: float
    array_names: tuple[str, ...]
    updates: int
    arrays: dict[str, Array]

    def __init__(self, lr: float, weight_decay: float, array_names: tuple[str, ...]) -> None:
        self.array_names = array_names
        self.lr = check_number("lr", lr, 0.0)
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        self._set(updates=0, arrays={})

    def _set(self, **state: Any) -> None:
        """Set parts of the state in one statement, so that an interrupt leaves a valid one."""
        vars(self).update(state)

    @in_ieee_mode
    def update(
        self, params: Array, grads: Array, *, factor: float = 1.0, lr_scale: float = 1.0, threads: int = 1
    ) -> None:
        """Update the parameters once.

        Parameters
        ----------
        params : array (n,)
            Changed in place.
        grads : array (n,)
            The gradient. Not modified.
        factor : float
            Multiplies the gradient as it is read, so that clipping by norm needs no separate pass.
        lr_scale : float
            Multiplies ``lr``: the value of a schedule.
        threads : int
            Threads that share the work if there are many parameters. The result is bit-identical for any number.
        """
        threads = check_threads(threads)
        if not issubclass(type(params), np.ndarray):
            raise TypeError(f"params: expected an array, got {type(params).__name__}")
        self._update(params, grads, factor, lr_scale, threads)

    def _update(self, params: Array, grads: Array, factor: float, lr_scale: float, threads: int) -> None:
        """`update`, for callers in IEEE mode that have checked the types of arguments."""
        arrays, shape, dtype = self.arrays, params.shape, params.dtype
        if not arrays:
            arrays = {name: aligned_empty(shape, dtype) for name in self.array_names}
            for array in arrays.values():
                array.fill(self._fill())
        for name, array in arrays.items():
            if array.shape != shape or (array.dtype is not dtype and array.dtype != dtype):
                raise ValueError(
                    f"params: expected {array.dtype} of shape {array.shape}, as before, got {dtype} of shape "
                    f"{shape}: this optimizer's {name} belongs to another model; make one for each"
                )
        self._count(arrays)
        self._step(params, grads, factor, self.lr * lr_scale, threads)

    def _fill(self) -> float:
        """What ``arrays`` start from."""
        return 0.0

    def _count(self, arrays: dict[str, Array]) -> None:
        """Set ``arrays`` and count an update."""
        self._set(arrays=arrays, updates=self.updates + 1)

    @abstractmethod
    def _step(self, params: Array, grads: Array, factor: float, lr: float, threads: int) -> None:
        """One update, with ``factor``, the scheduled learning rate and ``threads`` as `update` describes."""

    def state(self) -> dict[str, float]:
        """The numbers that change from update to update, for checkpoints; ``arrays`` is the rest of the state."""
        return {"updates": self.updates}

    def check_state(self, numbers: dict[str, float], arrays: dict[str, Array]) -> None:
        """Raise ValueError unless numbers and arrays can be the state of an optimizer with these arguments."""
        if set(numbers) != set(self.state()):
            raise ValueError(f"state: expected {sorted(self.state())}, got {sorted(numbers)!r:.200}")
        updates = check_number("updates", check_count("updates", numbers["updates"]), 0, 1 << 53)
        names = set(self.array_names) if updates else set()  # the first update creates them
        if set(arrays) != names:
            raise ValueError(f"arrays: expected {sorted(names)}, got {sorted(arrays)}")
        for name in self._sums_of_squares & set(arrays):
            if not (arrays[name] >= 0).all():
                raise ValueError(f"{name}: expected numbers of at least 0, got some below")

    def set_state(self, numbers: dict[str, float], arrays: dict[str, Array]) -> None:
        """Continue from a checkpoint: from what `state` and ``arrays`` were then. Raises what `check_state` raises."""
        self.check_state(numbers, arrays)
        self._set(updates=int(numbers["updates"]), arrays=arrays)

    def reset(self) -> None:
        """Forget all updates, so that the optimizer is as it was made. For the training of another model."""
        self._set(updates=0, arrays={})

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({settings})"

    def settings(self) -> dict[str, Any]:
        """The arguments that make an optimizer like this one."""
        not_arguments = ("updates", "arrays", "array_names")
        return {k: value for k, value in vars(self).items() if k not in not_arguments and not k.startswith("_")}


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g, w -= lr v.

    Parameters
    ----------
    lr : float
    momentum : float
        In [0, 1).
    nesterov : bool
        w -= lr (g + momentum v) instead.
    weight_decay : float
        g is the gradient plus weight_decay * w.

    Examples
    --------
    >>> import numpy as np
    >>> w = np.array([1.0, 2.0])
    >>> SGD(lr=0.5).update(w, np.array([1.0, -2.0]))
    >>> w
    array([0.5, 3. ])
    """

    momentum: float
    nesterov: bool

    def __init__(
        self, lr: float = 0.1, momentum: float = 0.0, *, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay, ("velocity",) if momentum else ())
        self.momentum = check_number("momentum", momentum, 0.0, 1.0)
        self.nesterov = check_flag("nesterov", nesterov)
        if self.nesterov and not momentum:
            raise ValueError("nesterov: expected a momentum above 0 with it, got momentum=0")

    def _step(self, params: Array, grads: Array, factor: float, lr: float, threads: int) -> None:
        velocity = self.arrays.get("velocity")
        kernels.sgd(params, velocity, grads, factor, lr, self.momentum, self.weight_decay, self.nesterov, threads)


class Adagrad(Optimizer):
    """w -= lr g / (sqrt(s) + eps), where s is ``initial`` plus the sum of all g^2 so far. Duchi, Hazan, Singer 2011.

    Parameters
    ----------
    lr, eps : float
    initial : float
        ``Adagrad(lr=0.1, eps=0, initial=1e-8)`` is the ``lr g / sqrt(s + 1e-8)`` of min-char-rnn.
    weight_decay : float
        g is the gradient plus weight_decay * w.
    """

    eps: float
    initial: float

    def __init__(
        self, lr: float = 0.01, eps: float = 1e-10, *, initial: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(lr, weight_decay, ("square_sum",))
        self.eps = check_number("eps", eps, 0.0)
        self.initial = check_number("initial", initial, 0.0)
        if not eps and not initial:
            raise ValueError(
                "eps: expected above 0 unless initial is, got 0 for both, which is 0 / 0 at a zero gradient"
            )

    def _fill(self) -> float:
        return self.initial

    def _step(self, params: Array, grads: Array, factor: float, lr: float, threads: int) -> None:
        kernels.adagrad(params, self.arrays["square_sum"], grads, factor, lr, self.eps, self.weight_decay, threads)


class RMSprop(Optimizer):
    """s = alpha s + (1 - alpha) g^2, w -= lr g / (sqrt(s) + eps). Tieleman, Hinton 2012.

    Parameters
    ----------
    lr : float
    alpha : float
        In [0, 1).
    eps : float
    momentum : float
        In [0, 1); if above 0, v = momentum v + g / (sqrt(s) + eps), w -= lr v.
    weight_decay : float
        g is the gradient plus weight_decay * w.
    """

    alpha: float
    eps: float
    momentum: float

    def __init__(
        self,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        *,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay, ("square_avg", "velocity") if momentum else ("square_avg",))
        self.alpha = check_number("alpha", alpha, 0.0, 1.0)
        self.eps = check_number("eps", eps, 1e-30)
        self.momentum = check_number("momentum", momentum, 0.0, 1.0)

    def _step(self, params: Array, grads: Array, factor: float, lr: float, threads: int) -> None:
        square_avg, velocity = self.arrays["square_avg"], self.arrays.get("velocity")
        kernels.rmsprop(
            params,
            square_avg,
            velocity,
            grads,
            factor,
            lr,
            self.alpha,
            self.eps,
            self.momentum,
            self.weight_decay,
            threads,
        )


class Adam(Optimizer):
    """m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and with m and v corrected for their bias towards 0
    w -= lr m / (sqrt(v) + eps). Kingma, Ba 2015.

    Parameters
    ----------
    lr : float
    beta1, beta2 : float
        In [0, 1).
    eps : float
    weight_decay : float
        g is the gradient plus weight_decay * w.
    """

    beta1: float
    beta2: float
    eps: float
    decoupled: ClassVar[bool] = False

    def __init__(
        self,
        lr: float = 1e-2,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(lr, weight_decay, ("m", "v"))
        self.beta1 = check_number("beta1", beta1, 0.0, 1.0)
        self.beta2 = check_number("beta2", beta2, 0.0, 1.0)
        self.eps = check_number("eps", eps, 1e-30)
        self._power1 = self._power2 = 1.0  # beta^updates, as products: pow() differs between machines

    def _count(self, arrays: dict[str, Array]) -> None:
        power1, power2 = self._power1 * self.beta1, self._power2 * self.beta2
        self._set(arrays=arrays, updates=self.updates + 1, _power1=power1, _power2=power2)

    def _step(self, params: Array, grads: Array, factor: float, lr: float, threads: int) -> None:
        decay = (0.0, lr * self.weight_decay) if self.decoupled else (self.weight_decay, 0.0)
        kernels.adam(
            params,
            self.arrays["m"],
            self.arrays["v"],
            grads,
            factor,
            lr / (1.0 - self._power1),
            self.beta1,
            self.beta2,
            1.0 / math.sqrt(1.0 - self._power2),
            self.eps,
            *decay,
            threads,
        )

    def state(self) -> dict[str, float]:
        return super().state() | {"power1": self._power1, "power2": self._power2}

    def check_state(self, numbers: dict[str, float], arrays: dict[str, Array]) -> None:
        super().check_state(numbers, arrays)
        for name, beta in (("power1", self.beta1), ("power2", self.beta2)):
            power = check_number(name, numbers[name], 0.0, math.nextafter(1.0, 2.0))
            if not math.isclose(power, beta ** numbers["updates"], rel_tol=1e-3, abs_tol=1e-300):
                raise ValueError(f"{name}: expected {beta} to the power of {numbers['updates']}, got {power}")

    def set_state(self, numbers: dict[str, float], arrays: dict[str, Array]) -> None:
        super().set_state(numbers, arrays)
        self._power1, self._power2 = float(numbers["power1"]), float(numbers["power2"])

    def reset(self) -> None:
        super().reset()
        self._power1 = self._power2 = 1.0


class AdamW(Adam):
    """`Adam` with decoupled weight decay: w -= lr weight_decay w before each update. Loshchilov, Hutter 2019."""

    decoupled = True

    def __init__(
        self,
        lr: float = 1e-2,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay=weight_decay)


# Every optimizer by name: what ``optimizer=`` in `crnn.fit` and ``crnn train --optimizer`` take, and what tests are
# parametrized over.
RULES: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
}
OWN_RULES = frozenset(RULES.values())  # a program may list further ones


def keeps_no_parameters(optimizer: Optimizer) -> bool:
    """Whether `Optimizer.update` is known to keep no reference to the parameters: crnn's own is, a user's is not."""
    return type(optimizer) in OWN_RULES and not {"update", "_step"} & vars(optimizer).keys()


@in_ieee_mode
def global_norm(grads: Array, *, threads: int = 1) -> float:
    """The 2-norm of a flat gradient, summed in float64 in an order that does not depend on ``threads``."""
    return norm_of(grads, check_threads(threads))


def norm_of(grads: Array, threads: int) -> float:
    """`global_norm`, for callers in IEEE mode that have checked ``threads``."""
    return math.sqrt(kernels.sum_of_squares(np.ascontiguousarray(grads), threads))
