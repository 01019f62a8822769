"""What each instruction of PTX means, as C: one table, filled by the modules of this folder."""
from . import conversion, floats, integer, logic, matrix, memory, warp
from .table import TABLE, translate

__all__ = ["TABLE", "conversion", "floats", "integer", "logic", "matrix", "memory", "translate", "warp"]
