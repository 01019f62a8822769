"""Ways through a model: its linear layers by name, copies with other layers in their places, what they are given."""
from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..core import arrays
from ..core.errors import ArgumentError, DTypeError, ShapeError
from ..core.registry import HALVES
from ..nn import Activation, Dropout, LayerNorm, Linear, Module, Parameter, RMSNorm, Sequential, fused

ROWS = 1024  # of a batch that goes through a model
HOMOGENEOUS = (None, "relu", "leaky_relu")  # f(x / s) = f(x) / s for positive s


def linears(model: Module, skip: Iterable[str] = ()) -> dict[str, Linear]:
    """The Linear layers by name, without those that are, or lie in, what `skip` names.

    ArgumentError for a name that does not exist, or if nothing is left.
    """
    if not isinstance(model, Module):
        raise ArgumentError(f"nothing to quantize: the model is no Module of tilewright.nn but {type(model).__name__}")
    if not isinstance(skip, Iterable):
        raise ArgumentError(f"skip holds names of layers, as in state_dict(), it is {skip!r}")
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    modules = named(model)
    every = {name: m for name, m in modules.items() if type(m) is Linear}
    unknown = [name for name in skip if name not in modules]
    if unknown:
        raise ArgumentError(f"there is no layer {', '.join(map(repr, unknown))} to skip; linear layers are: "
                            f"{', '.join(map(repr, every)) or 'none'}")
    skipped = {id(m) for name in skip for _, m in modules[name].named_modules()}
    left = {name: m for name, m in once(every).items() if id(m) not in skipped}
    if not left:
        raise ArgumentError(f"nothing to quantize: the model has {len(every)} linear layers, all of them skipped"
                            if every else "nothing to quantize: the model has no linear layers")
    return left


def named(model: Module) -> dict[str, Module]:
    """This module and all below it by name, as in `skip`: without the point at the end."""
    return {prefix.rstrip("."): module for prefix, module in model.named_modules()}


def once(modules: Mapping[str, Any]) -> dict[str, Any]:
    """The same without second names for one module."""
    return {name: m for name, m in modules.items() if name == next(n for n, other in modules.items() if other is m)}


def replaced(model: Module, layers: Mapping[str, Module], old: Mapping[str, Module]) -> Any:
    """A copy of the model in evaluation mode in which layers[name] stands wherever old[name] does."""
    return copy.deepcopy(model, {id(old[name]): layer for name, layer in layers.items()}).eval()


def batches(data: Any, what: str = "calibration") -> list[np.ndarray]:
    """Rows for a model, some at a time: of one array, or of arrays (or tuples that begin with one, as Batches gives).

    ArgumentError where there is none, or a NaN or an infinity in one; DTypeError for what are no numbers.
    """
    if isinstance(data, (np.ndarray, Tensor)) or hasattr(data, "__array__"):
        whole = np.asarray(data)
        parts = [whole[i:i + ROWS] for i in range(0, len(whole), ROWS)] if whole.ndim else []
    elif isinstance(data, Iterable):
        parts = [arrays.as_array(part[0] if isinstance(part, tuple) else part, what) for part in data]
    else:
        raise DTypeError(f"{what} is an array of rows, or batches of such, not {data!r}")
    if not any(part.size for part in parts):
        raise ArgumentError(f"{what}: there is not one row")
    for number, part in enumerate(parts):
        if part.dtype.kind not in "fiub" and arrays.name_of(part.dtype) not in HALVES:
            raise DTypeError(f"{what}: batch {number} is {part.dtype}; rows are numbers")
        bad = part.size - int(np.count_nonzero(np.isfinite(part)))
        if bad:
            raise ArgumentError(f"{what}: {bad} of the {part.size} values of batch {number} are NaN or infinite")
    return parts


class _Watched(Module):
    """A Linear that shows what it is given."""

    takes_activation = True

    def __init__(self, layer: Linear, see: Callable[[np.ndarray], None]):
        self.weight, self.bias, self.see = layer.weight, layer.bias, see  # not the layer: its mode is not ours to set

    def forward(self, x: Any, activation: str | None = None) -> Tensor:
        x = x if isinstance(x, Tensor) else Tensor(x)
        self.see(x.data)
        return fused.linear(x, self.weight, self.bias, activation)


def watch(model: Module, layers: Mapping[str, Linear], data: Iterable[np.ndarray],
          see: Callable[[str, np.ndarray], None]) -> None:
    """Run the model on the data; see(name, x) is told what each of the layers is given. Changes nothing."""
    def teller(name: str) -> Callable[[np.ndarray], None]:
        return lambda x: see(name, x)

    watching = replaced(model, {name: _Watched(layer, teller(name)) for name, layer in layers.items()}, layers)
    with no_grad():
        for x in data:
            try:
                watching(Tensor(x))
            except ShapeError as error:
                raise ShapeError(f"calibration: the model does not take rows of shape {x.shape[1:]}: {error}") from None


def in_one_place(model: Module) -> Callable[..., bool]:
    """A test whether modules and their parameters each stand in one place only, so that they may be changed there."""
    places: Counter[int] = Counter()
    for _, module in model.named_modules():
        places.update(id(child) for _, child in module.named_children())
        places.update(id(value) for value in vars(module).values() if isinstance(value, Parameter))
    return lambda *modules: all(places[id(part)] == 1 for m in modules for part in (m, *m.parameters()))


def sequences(model: Module) -> Iterator[list[tuple[str, Module, str | None]]]:
    """The steps of each Sequential by full name, without dropout, which does nothing in evaluation."""
    for prefix, module in model.named_modules():
        if isinstance(module, Sequential) and type(module).forward is Sequential.forward:
            yield [(prefix + name, m, activation) for name, m, activation in module.steps() if type(m) is not Dropout]


def scalable(model: Module) -> dict[str, Module]:
    """For each Linear whose inputs can be divided by positive factors in the layer before: that layer."""
    found: dict[str, Module] = {}
    alone = in_one_place(model)
    for steps in sequences(model):
        before: Module | None = None
        for name, layer, activation in steps:
            if isinstance(layer, Activation) and layer.op in HOMOGENEOUS:
                continue
            if type(layer) is Linear and before is not None and alone(before, layer):
                found[name] = before
            scales = type(layer) in (Linear, LayerNorm, RMSNorm) and activation in HOMOGENEOUS
            before = layer if scales else None
    return found
