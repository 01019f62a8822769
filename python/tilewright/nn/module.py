"""Module: parameters and other state by name; saving and loading."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..core.device_arrays import DeviceArray, host_copy, overwritten, to_device, to_host
from ..core.errors import DataError, DTypeError, ShapeError, TilewrightError
from ..data import read_safetensors, write_safetensors


class Parameter(Tensor):
    """A tensor that a module learns: a leaf that requires a gradient."""

    __slots__ = ()

    def __init__(self, data: Any):
        super().__init__(data, requires_grad=True)


class Module:
    """Base of layers and models: write `forward`, call the module.

    Parameters and modules that are attributes (also in lists and tuples) are found by themselves, in the order in which
    they were set, and named by their path: "encoder.0.weight". `training` says in which mode `train()` and `eval()`
    left the module.

    >>> import tilewright as tw
    >>> model = tw.nn.Sequential(tw.nn.Linear(3, 2, seed=0), tw.nn.ReLU())
    >>> [(name, p.shape) for name, p in model.named_parameters()]
    [('0.weight', (2, 3)), ('0.bias', (2,))]
    >>> model
    Sequential(
      0: Linear(weight (2, 3), bias (2,))
      1: ReLU()
    )
    """

    training = True
    beside: tuple[str, ...] = ()  # attributes that are arrays but no parameters, and move to a device with them
    takes_activation = False  # whether a Sequential may call it with the name of the activation that follows

    def forward(self, *args: Any) -> Any:
        """What the module computes."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any) -> Any:
        return self.forward(*args)

    def __repr__(self) -> str:
        own = [f"{name} {value.shape}" for name, value in vars(self).items() if isinstance(value, Parameter)]
        below = [f"{name.removeprefix('layers.')}: {child!r}" for name, child in self.named_children()]
        if not below:
            return f"{type(self).__name__}({', '.join(own)})"
        lines = "\n".join(own + below).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n)"

    # ---- what is in it

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly in this one."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                yield from ((f"{name}.{i}", v) for i, v in enumerate(value) if isinstance(v, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with the prefix of their state's names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}{name}.")

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """All parameters with their names; one that is used in several places stands there once."""
        found: dict[int, tuple[str, Parameter]] = {}
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter):
                    found.setdefault(id(value), (prefix + name, value))
        return list(found.values())

    def parameters(self) -> list[Parameter]:
        """All parameters."""
        return [p for _, p in self.named_parameters()]

    def train(self, mode: bool = True) -> Module:
        """Switch to training mode (dropout is active); returns the module."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to evaluation mode; returns the module."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters():
            p.grad = None

    def to_device(self) -> Module:
        """Move all parameters to the CUDA device, where they stay; returns the module. Gradients are forgotten.

        An optimizer is made after that, or moved by its own `to_device`. Inputs and labels go there by `tw.to_device`;
        `state_dict` and `save` still give copies on the host.
        """
        return self._moved(to_device, False)

    def to_host(self) -> Module:
        """Move all parameters back from the CUDA device; returns the module. Gradients are forgotten."""
        return self._moved(to_host, True)

    def _moved(self, move: Callable[[Any], Any], there: bool) -> Module:
        for p in self.parameters():
            if isinstance(p.data, DeviceArray) == there:
                p.data, p.grad, p._spare = move(p.data), None, None
        for _, module in self.named_modules():
            for name in module.beside:
                value = getattr(module, name)
                if value is not None and isinstance(value, DeviceArray) == there:
                    setattr(module, name, move(value))
        return self

    # ---- state

    def extra_state(self) -> dict[str, np.ndarray]:
        """State of this module alone that is no parameter; `load_extra_state` takes it back."""
        return {}

    def load_extra_state(self, state: dict[str, np.ndarray]) -> None:
        """Take over what `extra_state` gave: same names, shapes and dtypes."""

    def check_extra_state(self, state: dict[str, np.ndarray]) -> None:
        """Raise what `load_extra_state` would: all modules are asked before any of them takes its part."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and of everything else that a resumed training needs, by name."""
        state = {name: host_copy(p.data) for name, p in self.named_parameters()}
        for prefix, module in self.named_modules():
            state.update((prefix + name, value) for name, value in module.extra_state().items())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state with exactly the names, shapes and dtypes of this module's.

        Raises DataError (names), ShapeError, DTypeError, or ArgumentError for numbers that a layer cannot have, before
        anything is changed.
        """
        new = check_state(type(self).__name__, state, self.state_dict())
        extra = [(module, {name: new[prefix + name] for name in module.extra_state()})
                 for prefix, module in self.named_modules()]
        for module, part in extra:
            module.check_extra_state(part)
        for name, p in self.named_parameters():
            p.data = overwritten(p.data, new[name])
            p._version.count += 1
        for module, part in extra:
            module.load_extra_state(part)

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the state as a safetensors file, atomically.

        >>> import tempfile, tilewright as tw
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> tw.nn.Linear(3, 2, seed=0).save(path, {"made by": "an example"})
        >>> tw.nn.Linear(3, 2, seed=1).load(path)
        {'made by': 'an example'}
        """
        write_safetensors(path, self.state_dict(), metadata)

    def load(self, path: str | os.PathLike[str]) -> dict[str, str]:
        """Read a state written by `save`; returns its metadata. Raises, naming the file, before anything is changed."""
        state, metadata = read_safetensors(path)
        try:
            self.load_state_dict(state)
        except TilewrightError as error:
            raise type(error)(f"{path}: {error}") from None
        return metadata


def check_state(owner: str, state: Mapping[str, Any], expected: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of `state`, if their names, shapes and dtypes are those expected."""
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        raise DataError(f"{owner}: the state does not fit; missing: {', '.join(missing) or 'nothing'}; "
                        f"unknown: {', '.join(unknown) or 'nothing'}")
    new = {name: np.asarray(value) for name, value in state.items()}
    for name, own in expected.items():
        if new[name].shape != own.shape:
            raise ShapeError(f"{owner}: {name} has shape {own.shape}, the state's has {new[name].shape}")
        if new[name].dtype != own.dtype:
            raise DTypeError(f"{owner}: {name} is {own.dtype}, the state's is {new[name].dtype}")
    return new
