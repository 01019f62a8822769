"""tilewright: hand-written kernels in C, Numba and CUDA behind one Python call.

    import tilewright as tw
    y = tw.linear(x, w, bias, activation="gelu")
    print(tw.explain("linear", x, w, bias))

Names load on first use: importing this package imports neither Numba nor SciPy, and compiles nothing.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ops import *  # noqa: F403  what __getattr__ finds last, for readers and type checkers

__version__ = "0.1.0"

_HOMES = {
    "core.dispatch": ("use_backend",),
    "core.capability": ("backends",),
    "core.threads": ("set_num_threads", "get_num_threads", "threads"),
    "core.native": ("get_include", "get_library"),
    "core.packed": ("pack", "PackedMatrix"),
    "core.quantized": ("quantize_weight", "QuantizedMatrix"),
    "core.device_arrays": ("DeviceArray", "to_device", "to_host"),
    "core.device": ("stream",),
    "config": ("warmup", "show_config"),
    "explanation": ("explain",),
    "autograd": ("Tensor", "compile", "no_grad", "gradcheck"),
}
_PLACES = {name: home for home, names in _HOMES.items() for name in names}
_PARTS = {"autograd": "autograd", "bench": "bench", "data": "data", "errors": "core.errors", "nn": "nn", "onnx": "onnx",
          "ops": "ops", "optim": "optim", "quant": "quant"}


def __getattr__(name: str) -> Any:
    """A name of `_HOMES`, a part, or else a public call of `ops`."""
    if name.startswith("_"):
        raise AttributeError(f"module 'tilewright' has no attribute {name!r}")
    if name in _PARTS:
        value: Any = importlib.import_module(f"tilewright.{_PARTS[name]}")
    else:
        module = importlib.import_module(f"tilewright.{_PLACES.get(name, 'ops')}")
        if name not in _PLACES and name not in module.__all__:
            raise AttributeError(f"module 'tilewright' has no attribute {name!r}")
        value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    ops = importlib.import_module("tilewright.ops")
    return sorted([*_PLACES, *_PARTS, *ops.__all__, "__version__"])
