"""An ONNX graph while it is put together: nodes and constants, each value known by its name."""
from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .. import __version__
from ..core.errors import ArgumentError

OPSET, IR_VERSION = 21, 10  # the first with scales by blocks and int4; what onnx 1.16 and onnxruntime 1.18 read


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

    def __init__(self) -> None:
        self.onnx = onnx()
        self.scope = ""
        self.takes: tuple[Any, int | str] = np.dtype(np.float32), "features"  # what goes into the first layer
        self.gives: int | str = "features"  # what comes out of the last one
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._used: Counter[str] = Counter()

    def layer(self, dtype: Any, inputs: int, outputs: int) -> None:
        """Note the dtype and the features of a layer that has a number of its own for them."""
        if self.gives == "features":
            self.takes = dtype, inputs
        self.gives = outputs

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
        self._nodes.append(self.onnx.helper.make_node(op, names, [name], name, **attributes))
        return name

    def model(self, result: str, name: str) -> Any:
        """The checked ModelProto of a graph from `x` to `y`, the value called `result`."""
        make = self.onnx.helper
        dtype, inputs = self.takes
        kind = make.np_dtype_to_tensor_dtype(dtype)
        x, y = (make.make_tensor_value_info(*value) for value in (("x", kind, ["rows", inputs]),
                                                                  ("y", kind, ["rows", self.gives])))
        nodes = [*self._nodes, make.make_node("Identity", [result], ["y"], "y")]
        graph = make.make_graph(nodes, name, [x], [y], list(self._constants.values()))
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                producer_name="tilewright", producer_version=__version__)
        self.onnx.checker.check_model(model, full_check=True)
        return model
