"""`tw.onnx.export`: a model as an ONNX file."""
from __future__ import annotations

import os

from .. import nn
from ..data.files import write_atomically
from .graph import Graph
from .layers import write


def export(model: nn.Module, path: str | os.PathLike[str], *, name: str = "model", fusible: bool = False) -> None:
    """Write a model of linear layers, norms and activations, float or quantized, as an ONNX file (opset 21).

    The graph takes `x` (rows, features) and returns `y`, rows being any number, in the model's dtype. Dropout is left
    out. Constants have the names of the model's state ("0.weight"). docs/QUANTIZATION.md says what quantized layers
    become. fusible: store weight-only layers so that onnxruntime makes products of its own of them, many times as fast;
    by default these round x as well, so that a label may differ.

    The file is checked by `onnx.checker` before it is written, atomically. Raises ArgumentError for a layer without an
    ONNX form, or where the onnx package is not installed; DataError where the file cannot be written.

    >>> import tempfile, tilewright as tw
    >>> path = tempfile.mkdtemp() + "/model.onnx"
    >>> tw.onnx.export(tw.nn.MLP([4, 8, 3], seed=0), path)
    """
    graph = Graph(fusible)
    result = write(graph, model, "x")
    write_atomically(path, [graph.model(result, name).SerializeToString()])
