"""Quantized models as safetensors: the arrays of the state under their names, and as metadata what stands where.

    0.weight                int8 (out, in), or uint8 (out, ceil(in / 2)) with two numbers of 4 bits in a byte
    0.weight_scales         float32 (out, groups)
    0.bias                  float32 (out,)
    0.input_scale           float32 ()      0.input_zero_point   uint8 ()      of static layers; output_... likewise
    0.balance               float32 (in,)
"""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import nn
from ..core.errors import ArgumentError, DataError, TilewrightError
from ..data import read_safetensors, write_safetensors
from .layers import QuantizedLinear, StaticLinear

FORMAT = "tilewright quant 1"
Arrays = Mapping[str, np.ndarray]


def save(model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a model, quantized or not, so that `load` can build it anew; atomically.

    The model is a layer of tilewright, or a Sequential of such. ArgumentError for other modules, DataError when the
    file cannot be written.

    >>> import tempfile, tilewright as tw
    >>> path = tempfile.mkdtemp() + "/model.safetensors"
    >>> tw.quant.save(tw.quant.quantize(tw.nn.MLP([4, 3, 2], seed=0), "weight-only", bits=4), path)
    >>> tw.quant.load(path)
    Sequential(
      0: QuantizedLinear(weight (3, 4) int4, weight-only)
      1: ReLU()
      2: QuantizedLinear(weight (2, 3) int4, weight-only)
    )
    """
    described = {"format": FORMAT, "model": json.dumps(_description(model))}
    write_safetensors(path, model.state_dict(), {**(metadata or {}), **described})


def load(path: str | os.PathLike[str]) -> Any:
    """The model that `save` wrote, in evaluation mode; DataError, naming the file, if it is none."""
    arrays, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: was not written by tw.quant.save")
    try:
        model = _built(json.loads(metadata["model"]), arrays)
        spare = set(arrays) - set(model.state_dict())
        if spare:
            raise DataError(f"nothing needs {', '.join(sorted(spare))}")
    except (TilewrightError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged: {type(error).__name__}: {error}") from None
    return model.eval()


# What the constructor of a plain layer takes, from its options and its arrays; its state is loaded afterwards.
_PLAIN: dict[type[nn.Module], Callable[[Mapping[str, Any], Arrays], tuple[Any, ...]]] = {
    nn.Linear: lambda options, a: (*a["weight"].shape[::-1], "bias" in a),
    nn.LayerNorm: lambda options, a: (len(a["weight"]), options["eps"]),
    nn.RMSNorm: lambda options, a: (len(a["weight"]), options["eps"]),
    nn.Embedding: lambda options, a: a["weight"].shape,
    nn.Dropout: lambda options, a: (options["p"],),
}
_QUANTIZED = (QuantizedLinear, StaticLinear)


def _description(module: nn.Module) -> dict[str, Any]:
    kind = type(module)
    told: dict[str, Any] = {"kind": kind.__name__}
    if isinstance(module, nn.Sequential) and kind.forward is nn.Sequential.forward:
        return {"kind": "Sequential", "layers": [_description(layer) for layer in module.layers]}
    if isinstance(module, _QUANTIZED):
        return told | module.options()
    if isinstance(module, nn.Activation):
        return told | module.attrs
    if kind not in _PLAIN:
        raise ArgumentError(f"a file cannot say how to build a {kind.__name__}; it can for Sequential, Linear, norms, "
                            "activations, Dropout and Embedding. Save its state_dict() with tw.data.write_safetensors")
    return told | {name: getattr(module, name) for name in ("eps", "p") if hasattr(module, name)}


def _built(told: Mapping[str, Any], arrays: Arrays) -> nn.Module:
    options = dict(told)
    kind = options.pop("kind")
    if kind == "Sequential":
        return nn.Sequential(*(_built(layer, _below(arrays, str(i))) for i, layer in enumerate(options["layers"])))
    for quantized in _QUANTIZED:
        if kind == quantized.__name__:
            return quantized.restored(options, arrays)
    for plain, arguments in _PLAIN.items():
        if kind == plain.__name__:
            dtype = {"dtype": arrays["weight"].dtype} if "weight" in arrays else {}
            layer = plain(*arguments(options, arrays), **dtype)
            layer.load_state_dict(arrays)
            return layer
    for activation in nn.Activation.__subclasses__():
        if kind == activation.__name__:
            return activation(**options)
    raise DataError(f"it has a layer of the unknown kind {kind!r}")


def _below(arrays: Arrays, name: str) -> Arrays:
    return {key[len(name) + 1:]: a for key, a in arrays.items() if key.startswith(name + ".")}
