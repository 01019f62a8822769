"""Models as ONNX files: `tw.onnx.export`. Needs the onnx package (`pip install 'tilewright[onnx]'`)."""
from .export import export

__all__ = ["export"]
