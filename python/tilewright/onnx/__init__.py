"""Models as ONNX files: `tw.onnx.export`. Needs the onnx package (`pip install 'tilewright[onnx]'`)."""
from . import quantized  # noqa: F401  whose layers join the table of layers.py
from .export import export

__all__ = ["export"]
