"""PTX on disk, by what it was made of: a kernel takes from a tenth of a second to several to compile.

The key covers the bytecode of the kernel and of every device function it reaches, the constants they close over, the
versions of the compiler and the compute capability. Files are written beside their place and renamed into it, so that
processes that meet here see a whole file or none.
"""
from __future__ import annotations

import dis
import hashlib
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.core.tuning import folder

from .cuda import intrinsic_function, is_type, plain_function


def cached(stem: str, key: Any, make: Callable[[], str], kind: str = "ptx") -> str:
    """The text of a key, made once; where the cache cannot be written it is made anew in each process."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
    path = folder() / "ptx" / f"{stem}-{digest}.{kind}"
    try:
        return path.read_text()
    except OSError:
        pass
    text = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        pass
    return text


def fingerprint(function: Callable[..., Any]) -> str:
    """A digest of a function's code, and of all that it refers to that ends up in the compiled kernel."""
    digest = hashlib.sha256(sys.version.encode())
    _add(digest, function, set())
    return digest.hexdigest()


def _add(digest: Any, x: Any, seen: set[int]) -> None:
    """Enter a constant, a device function or a module into a digest; anything else has no place in a kernel."""
    if isinstance(x, (int, float, complex, str, bytes, bool, type(None), np.generic, np.dtype)) or is_type(x):
        digest.update(f"{type(x).__name__} {x!r};".encode())
    elif isinstance(x, (tuple, frozenset)):
        digest.update(f"({len(x)}".encode())
        for item in x if isinstance(x, tuple) else sorted(x, key=repr):
            _add(digest, item, seen)
    elif isinstance(x, types.CodeType):
        _add_code(digest, x, seen)
    elif (function := x if isinstance(x, types.FunctionType) else plain_function(x)) is not None:
        if id(function) in seen:
            return
        seen.add(id(function))
        closure = {name: cell.cell_contents
                   for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)}
        _add_code(digest, function.__code__, seen)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                digest.update(name.encode())
                _add(digest, function.__globals__[name], seen)
        for name, value in closure.items():
            digest.update(name.encode())
            _add(digest, value, seen)
    elif isinstance(x, types.ModuleType):
        _add_module(digest, x, seen)
    elif (definition := intrinsic_function(x)) is not None:
        digest.update(definition.__qualname__.encode())
        _add_module(digest, sys.modules[definition.__module__], seen)
    elif isinstance(x, (type, types.BuiltinFunctionType)):
        digest.update(f"{x.__module__}.{x.__qualname__};".encode())
    else:
        raise TypeError(f"a kernel refers to {x!r}, which is neither a constant nor a device function")


def _add_code(digest: Any, code: types.CodeType, seen: set[int]) -> None:
    digest.update(f"{code.co_filename}:{code.co_firstlineno};".encode() + code.co_linetable)  # lines are in the PTX
    digest.update(code.co_code)
    _add(digest, tuple(code.co_names), seen)
    _add(digest, code.co_consts, seen)


def _add_module(digest: Any, module: types.ModuleType, seen: set[int]) -> None:
    """Ours by their source and that of their own modules; others by name: their versions are in the key."""
    digest.update(module.__name__.encode())
    if not module.__name__.startswith("tilewright.kernels.") or id(module) in seen:
        return
    seen.add(id(module))
    digest.update(Path(str(module.__file__)).read_bytes())
    for value in vars(module).values():
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name in sys.modules:
            _add_module(digest, sys.modules[name], seen)


def _names(code: types.CodeType) -> set[str]:
    """The globals that code refers to, that of nested functions included."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found
