"""Layers. Seeds are integers or NumPy Generators; the same seed gives the same bits on every machine."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import ops
from ..autograd import Tensor, apply
from ..autograd.buffers import empty_like
from ..autograd.tape import Node, recording
from ..autograd.tensor import made
from ..core.device_arrays import DeviceArray
from ..core.errors import ArgumentError, ShapeError
from ..core.replay import recorded
from . import fused
from .activations import Activation
from .activations import activation as activation_named
from .module import Module, Parameter

Seed = int | np.random.Generator | None


class Linear(Module):
    """y = x @ weight.T + bias for x (..., in_features).

    weight (out_features, in_features) and bias (out_features,) start uniform in +-1/sqrt(in_features), as PyTorch's do
    (Kaiming uniform with a = sqrt(5); He et al. 2015).

    >>> import numpy as np, tilewright as tw
    >>> tw.nn.Linear(3, 2, seed=0)(np.ones((5, 3), np.float32)).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, *, seed: Seed = None,
                 dtype: Any = np.float32):
        if in_features < 0 or out_features < 0:
            raise ShapeError(f"Linear: {in_features} inputs and {out_features} outputs")
        rng = np.random.default_rng(seed)
        bound = in_features ** -0.5 if in_features else 0.0
        self.weight = Parameter(rng.uniform(-bound, bound, (out_features, in_features)).astype(dtype))
        self.bias = Parameter(rng.uniform(-bound, bound, out_features).astype(dtype)) if bias else None

    def forward(self, x: Any) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return fused.linear(x if isinstance(x, Tensor) else Tensor(x), self.weight, self.bias, None)


class LayerNorm(Module):
    """Each row brought to mean 0 and variance 1, times weight (features,), plus bias (features,). Ba et al. 2016.

    >>> import numpy as np, tilewright as tw
    >>> tw.nn.LayerNorm(2, eps=0.0)(np.array([[1.0, 3.0]])).data
    array([[-1.,  1.]])
    """

    def __init__(self, features: int, eps: float = 1e-5, *, dtype: Any = np.float32):
        self.weight, self.bias = Parameter(np.ones(features, dtype)), Parameter(np.zeros(features, dtype))
        self.eps = eps

    def forward(self, x: Any) -> Tensor:
        """(..., features) -> the same shape."""
        return apply("layer_norm", (x, self.weight, self.bias), {"eps": self.eps})


class RMSNorm(Module):
    """Each row divided by its root mean square, times weight (features,). Zhang and Sennrich 2019.

    >>> import numpy as np, tilewright as tw
    >>> tw.nn.RMSNorm(2, eps=0.0)(np.array([[-3.0, 3.0]])).data
    array([[-1.,  1.]])
    """

    def __init__(self, features: int, eps: float = 1e-5, *, dtype: Any = np.float32):
        self.weight = Parameter(np.ones(features, dtype))
        self.eps = eps

    def forward(self, x: Any) -> Tensor:
        """(..., features) -> the same shape."""
        return apply("rms_norm", (x, self.weight), {"eps": self.eps})


class Dropout(Module):
    """In training each element is dropped with probability p, and the others are divided by 1 - p.

    Srivastava et al. 2014. Which ones depends on the seed, on how often the module was called, and on nothing else:
    both numbers are part of the state, so that a resumed training drops what an uninterrupted one drops, on every
    backend.

    >>> import numpy as np, tilewright as tw
    >>> layer = tw.nn.Dropout(0.5, seed=1)
    >>> sorted(set(layer(np.ones(100)).data)), layer.eval()(np.ones(3)).data.tolist()
    ([np.float64(0.0), np.float64(2.0)], [1.0, 1.0, 1.0])
    """

    def __init__(self, p: float = 0.5, *, seed: Seed = None):
        if not 0 <= p <= 1:
            raise ArgumentError(f"Dropout: p is a probability, not {p}")
        self.p = p
        self.seed = seed if isinstance(seed, int) else int(np.random.default_rng(seed).integers(2**32))
        if not 0 <= self.seed < 2**32:
            raise ArgumentError(f"Dropout: seed lies in [0, 2**32), not {seed}")
        self.calls = 0

    def forward(self, x: Any) -> Tensor:
        """Any shape -> the same shape."""
        if not isinstance(x, Tensor):
            x = Tensor(x)
        if not self.training or self.p == 0:
            return x
        if isinstance(x.data, DeviceArray) or not x.data.dtype.isnative:
            return apply("dropout", (x,), {"p": self.p, "seed": self._next_key()})
        y, key = empty_like(x.data), np.empty((), np.uint64)
        recorded(self._drop, (y, key), x.data)
        t = made(y)
        if x.requires_grad and recording():
            t._node = Node("dropout", _dropout_backward, (x._node or x,), (self.p, key), ())
            t.requires_grad = True
        return t

    def _next_key(self) -> int:
        key = (self.calls % 2**32) << 32 | self.seed
        self.calls += 1
        return key

    def _drop(self, y: np.ndarray, key: np.ndarray, x: np.ndarray) -> None:
        key[...] = self._next_key()
        ops.dropout(x, self.p, int(key), out=y)

    def extra_state(self) -> dict[str, np.ndarray]:
        return {"seed_and_calls": np.array([self.seed, self.calls], np.int64)}

    def load_extra_state(self, state: dict[str, np.ndarray]) -> None:
        self.seed, self.calls = (int(n) for n in state["seed_and_calls"])


def _dropout_backward(dy: Any, saved: Any, parents: tuple[Any, ...]) -> tuple[Any]:
    p, key = saved
    dx = empty_like(dy)
    recorded(_drop_again, (dx,), dy, p, key)
    return dx,


def _drop_again(dx: np.ndarray, dy: np.ndarray, p: float, key: np.ndarray) -> None:
    ops.dropout_backward(dy, p, int(key), out=dx)


class Embedding(Module):
    """A row of weight (num_embeddings, embedding_dim) for each index; rows start normally distributed.

    >>> import numpy as np, tilewright as tw
    >>> tw.nn.Embedding(10, 4, seed=0)(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, seed: Seed = None, dtype: Any = np.float32):
        rng = np.random.default_rng(seed)
        self.weight = Parameter(rng.standard_normal((num_embeddings, embedding_dim)).astype(dtype))

    def forward(self, indices: Any) -> Tensor:
        """Integers of any shape -> shape + (embedding_dim,)."""
        return apply("embedding", (indices, self.weight), {})


class Sequential(Module):
    """Modules one after the other. A Linear and the activation behind it run as one operation.

    So does any module whose `takes_activation` is true: it is called with the activation's name behind x.

    >>> import numpy as np, tilewright as tw
    >>> model = tw.nn.Sequential(tw.nn.Linear(4, 3, seed=0), tw.nn.GELU(), tw.nn.Linear(3, 1, seed=1))
    >>> len(model), model(np.zeros((2, 4), np.float32)).shape
    (3, (2, 1))
    """

    def __init__(self, *layers: Module):
        self.layers = layers
        self._steps: list[tuple[Module, str | None]] = []  # a module, and the activation that it takes along
        for layer in layers:
            before, taken = self._steps[-1] if self._steps else (None, None)
            if isinstance(layer, Activation) and layer.fused and taken is None and before is not None and (
                    type(before) is Linear or before.takes_activation):
                self._steps[-1] = before, layer.fused
            else:
                self._steps.append((layer, None))

    def forward(self, x: Any) -> Any:
        """What the last module makes of what the ones before it made of x."""
        for layer, activation in self._steps:
            if type(layer) is Linear:
                x = fused.linear(x if isinstance(x, Tensor) else Tensor(x), layer.weight, layer.bias, activation)
            else:
                x = layer(x) if activation is None else layer(x, activation)
        return x

    def steps(self) -> list[tuple[str, Module, str | None]]:
        """What runs one after the other: the module's name in here, the module, the activation fused with it."""
        names = {id(layer): str(i) for i, layer in enumerate(self.layers)}
        return [(names[id(layer)], layer, activation) for layer, activation in self._steps]

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules, named by their numbers."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Module:
        return self.layers[i]


class MLP(Sequential):
    """A multi-layer perceptron: Linear, norm, activation, dropout for every hidden size, then Linear.

    sizes: inputs, hidden sizes, outputs. activation: a name as in `tw.linear`. dropout: probability, 0 for none.
    norm: None, "layer" or "rms". Raises ArgumentError for names that do not exist.

    >>> import numpy as np, tilewright as tw
    >>> model = tw.nn.MLP([64, 32, 10], activation="gelu", seed=0)
    >>> model(np.zeros((5, 64), np.float32)).shape
    (5, 10)
    """

    def __init__(self, sizes: Sequence[int], activation: str = "relu", *, dropout: float = 0.0, norm: str | None = None,
                 bias: bool = True, seed: Seed = None, dtype: Any = np.float32):
        if len(sizes) < 2:
            raise ArgumentError(f"MLP: sizes name at least the inputs and the outputs, not {list(sizes)}")
        norms: dict[str | None, Any] = {None: None, "layer": LayerNorm, "rms": RMSNorm}
        if norm not in norms:
            raise ArgumentError(f"MLP: norm is None, 'layer' or 'rms', not {norm!r}")
        rng = np.random.default_rng(seed)
        layers: list[Module] = []
        for fan_in, fan_out in zip(sizes, sizes[1:-1], strict=False):
            layers.append(Linear(fan_in, fan_out, bias, seed=rng, dtype=dtype))
            if norm is not None:
                layers.append(norms[norm](fan_out, dtype=dtype))
            layers.append(activation_named(activation))
            if dropout:
                layers.append(Dropout(dropout, seed=rng))
        layers.append(Linear(sizes[-2], sizes[-1], bias, seed=rng, dtype=dtype))
        super().__init__(*layers)
