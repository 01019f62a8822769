"""What PyTorch and cuBLAS take for the same calls on the same device, by the same events."""
from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from ..core import device
from ..core.registry import Case, Spec
from . import gpu
from .accuracy import Expectation

SAME = 1e-3  # a peer must compute the same function; how exactly is not our business


@dataclass(frozen=True, slots=True)
class Peer:
    """Seconds on the device, operands in its cache or not; or why there are none."""

    name: str
    kernel: float | None
    cold: float | None
    reason: str = ""


def calls() -> dict[str, Callable[..., Any]]:
    """PyTorch's functions by the operation that they do; float32 products are cuBLAS's, without tf32."""
    torch: Any = importlib.import_module("torch")
    f = torch.nn.functional
    return {
        "matmul": torch.matmul, "linear": f.linear, "relu": f.relu, "gelu": f.gelu, "silu": f.silu,
        "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": f.softplus, "hardswish": f.hardswish,
        "softmax": lambda x: f.softmax(x, -1), "log_softmax": lambda x: f.log_softmax(x, -1),
        "layer_norm": lambda x, w=None, b=None: f.layer_norm(x, x.shape[-1:], w, b), "cross_entropy": f.cross_entropy,
    }


def missing() -> str | None:
    """Why there is no PyTorch on a device here; None: there is."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    torch: Any = importlib.import_module("torch")
    return None if torch.cuda.is_available() else "the installed PyTorch has no CUDA device"


def measure(spec: Spec, case: Case) -> Peer | None:
    """PyTorch's times for a case; None where it has no such call, or not with these attributes."""
    call = calls().get(spec.name)
    if call is None or set(case.attrs) - {"approximate"} or any(isinstance(x, tuple) for x in case.inputs):
        return None
    torch: Any = importlib.import_module("torch")
    inputs = [None if x is None else torch.from_numpy(np.ascontiguousarray(x)).cuda() for x in case.inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()

    def run() -> Any:
        return call(*inputs, **case.attrs)

    try:
        result = run()
    except (TypeError, RuntimeError) as error:  # no residual there, or another dtype
        return Peer("torch", None, None, f"does not take this call: {error}")
    result = result.cpu().numpy()
    expected, = Expectation(spec, case).expected
    if not np.allclose(result.reshape(expected.shape), expected, SAME, SAME):
        return Peer("torch", None, None, "computes another function")
    room = device.current().empty((gpu.FLUSH,), np.uint8)
    return Peer("torch", median(gpu.queued(run, room, gpu.IN_A_ROW, warm=True) for _ in range(gpu.ROUNDS)),
                median(gpu.queued(run, room, 1, warm=False) for _ in range(gpu.ROUNDS)))
