"""The public calls: one function an operation, the same on every backend.

Every function takes `backend=None`: a name ("c", "numba", "numpy"), a step of a ladder ("c:naive"), or None for the
backend of `use_backend`, else the best that can run the call here. Functions that return one array take `out=None`,
those that return several a tuple of as many arrays, None in the places of those to be made. Arrays may have any strides
and may be empty; float32 and float64 are computed as they are, mixtures are promoted as NumPy does. Raised before
anything is written: ShapeError, DTypeError, ArgumentError, AliasError, BackendUnavailable (all of `tilewright.errors`).

The body of each is the same: the door to C where the arguments are plain, else the long way through the table.
"""
from .activations import *  # noqa: F403
from .layers import *  # noqa: F403
from .optimizers import *  # noqa: F403
from .products import *  # noqa: F403
from .quantized import *  # noqa: F403

__all__ = [name for name, value in list(globals().items()) if not name.startswith("_") and callable(value)
           and getattr(value, "__module__", "").startswith(f"{__name__}.")]
