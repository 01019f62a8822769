"""An ONNX graph while it is put together: nodes and constants, each value known by its name."""
from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .. import __version__
from ..core.errors import ArgumentError

OPSET, IR_VERSION = 21, 10  # the first with scales by blocks and int4; what onnx 1.16 and onnxruntime 1.18 read

Value = tuple[np.dtype, int | str]  # dtype, and number of features or what stands for it


def onnx() -> Any:
    """The onnx package; ArgumentError with the command where it is not installed."""
    try:
        import onnx  # absolute: not this package
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:
        raise ArgumentError("the export needs the onnx package, which is not installed: pip install onnx") from None
    return onnx


class Graph:
    """Nodes in the order of computation. `scope` is the layer that is being written: it begins the names."""

    def __init__(self, fusible: bool = False) -> None:
        self.onnx = onnx()
        self.fusible = fusible  # see `export`
        self.scope = ""
        self._ends: list[Value] = []  # what goes into the first layer and comes out of the last one
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._used: Counter[str] = Counter()

    def layer(self, takes: Value, gives: Value) -> None:
        """Note the dtype and the features of what goes into a layer and comes out of it."""
        self._ends = [self._ends[0] if self._ends else takes, gives]

    def constant(self, name: str, value: Any) -> str:
        """An array that belongs to the layer: "0.weight"."""
        name = self.scope + name
        self._constants[name] = self.onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def number(self, value: Any) -> str:
        """A NumPy scalar or a few numbers, once for the whole graph."""
        name = f"{value.dtype}: {value}"
        if name not in self._constants:
            self._constants[name] = self.onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(self, op: str, *inputs: str | None, **attributes: Any) -> str:
        """A node of the standard operators; None leaves an optional input out. Returns the name of its result."""
        name = f"{self.scope}{op}"
        self._used[name] += 1
        if (count := self._used[name]) > 1:
            name += f"_{count}"
        names = ["" if i is None else i for i in inputs]
        while names[-1] == "":  # no runtime minds one in the middle; onnxruntime does at the end
            names.pop()
        self._nodes.append(self.onnx.helper.make_node(op, names, [name], name, **attributes))
        return name

    def model(self, result: str, name: str) -> Any:
        """The checked ModelProto of a graph from `x` to `y`, the value called `result`."""
        make = self.onnx.helper
        ends = self._ends or [(np.dtype(np.float32), "features")] * 2
        x, y = (make.make_tensor_value_info(what, make.np_dtype_to_tensor_dtype(dtype), ["rows", features])
                for what, (dtype, features) in zip("xy", ends, strict=True))
        nodes = [*self._nodes, make.make_node("Identity", [result], ["y"], "y")]
        graph = make.make_graph(nodes, name, [x], [y], list(self._constants.values()))
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                producer_name="tilewright", producer_version=__version__)
        self.onnx.checker.check_model(model, full_check=True)
        return model
