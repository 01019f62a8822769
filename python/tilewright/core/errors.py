"""Typed errors. Each also is the built-in error that a NumPy user would catch."""
from __future__ import annotations


class TilewrightError(Exception):
    """Base of every error that tilewright raises on purpose."""


class ShapeError(TilewrightError, ValueError):
    """Shapes do not fit together, or an axis does not exist."""


class DTypeError(TilewrightError, TypeError):
    """A dtype that the operation does not compute on, or an object that is no array."""


class ArgumentError(TilewrightError, ValueError):
    """An argument outside its domain: a probability above 1, an unknown activation, a label out of range."""


class AliasError(TilewrightError, ValueError):
    """`out` shares memory with an input, or with itself, where the operation does not allow it."""


class BackendUnavailable(TilewrightError, RuntimeError):
    """A backend, ISA or kernel that was asked for by name cannot run this call here; the message says why."""


class GradientError(TilewrightError, RuntimeError):
    """A backward pass that cannot be right: a saved value changed in place, a graph used twice, no gradient."""


class ReplayError(TilewrightError, RuntimeError):
    """A step that cannot be recorded and replayed; the message names what stands in the way."""


class DataError(TilewrightError, ValueError):
    """A file that cannot be read as what it claims to be; the message names the file and the place."""
