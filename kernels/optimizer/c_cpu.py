"""Optimizer steps in C: each array read and written once; see csrc/optimizer/steps.h."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core.registry import Call, Kernel
from tilewright.kernels.activation.c_cpu import describe, door


def _sgd(call: Call, outs: Sequence[np.ndarray]) -> None:
    a = call.attrs
    door("sgd_step", *call.inputs, a["lr"], a["momentum"], a["nesterov"], a["weight_decay"])


def _adam(call: Call, outs: Sequence[np.ndarray]) -> None:
    numbers = (call.attrs[name] for name in ("step", "lr", "beta1", "beta2", "eps", "weight_decay"))
    door("adam_step", *call.inputs, *numbers, call.op == "adamw_step")


def _clip(call: Call, outs: Sequence[np.ndarray]) -> Any:
    return door("clip_grad_norm", call.inputs[0], call.attrs["max_norm"])


KERNELS = [Kernel(op, "c", run, describe=describe)
           for op, run in (("sgd_step", _sgd), ("adam_step", _adam), ("adamw_step", _adam), ("clip_grad_norm", _clip))]
