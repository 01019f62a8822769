"""The door to the C library: loads tilewright._c where it was built, and says why not where it was not.

`door` is the module of C functions that take ndarrays (csrc/python/), or None. `lib` and `ffi` are cffi's view of the
public header csrc/tilewright.h, or None.
"""
from __future__ import annotations

import importlib
import json
import os
import types
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import tuning

_PACKAGE = Path(__file__).resolve().parent.parent

lib: Any = None
ffi: Any = None
door: Any = None
tuned: tuning.Numbers | None = None
"""The numbers that `tilewright tune` has measured here, as far as they differ from the library's own; None: no file."""
_missing: str | None = None
_tuning_complaint: str | None = None


def _load() -> str | None:
    """Set lib, ffi and door; None, or the reason why they stay None."""
    global lib, ffi, door
    try:
        extension = importlib.import_module("tilewright._c")
    except ImportError as error:
        return _why_not_built(error)
    lib, ffi = extension.lib, extension.ffi
    complaint = lib.tw_isa_error()
    if complaint != ffi.NULL:
        return ffi.string(complaint).decode()
    functions = types.ModuleType("tilewright.core.native.door", "C functions over ndarrays; see csrc/python/door.h.")
    if lib.tw_fill_door(id(functions)) != 0:
        return "the C extension could not read NumPy's C interface"
    door = functions
    _load_tuning()
    return None


def _load_tuning() -> None:
    """Use the numbers of the file that `tilewright tune` wrote, or say once why not."""
    global tuned, _tuning_complaint
    try:
        tuned = tuning.read(isa(), gemm_tuning())
        if tuned:
            set_gemm_tuning(tuned)
    except ValueError as error:
        tuned, _tuning_complaint = None, f"{tuning.path(isa())} is ignored: {error}"
        warnings.warn(f"{_tuning_complaint} (tilewright tune measures anew)", RuntimeWarning, stacklevel=2)


def _why_not_built(error: ImportError) -> str:
    info = _PACKAGE / "_build_info.json"
    if not info.exists():
        return "the C extension is not built: pip install . or python setup.py build_ext --inplace"
    return json.loads(info.read_text())["missing"] or f"the C extension does not load: {error}"


def missing_reason() -> str | None:
    """None where the C backend can run, else why it cannot."""
    return _missing


def isa() -> str:
    """The instruction set that C kernels use in this process; TILEWRIGHT_ISA asks for a lower one at start-up.

    >>> isa() in ("avx512", "avx2", "baseline", "neon", "none")
    True
    """
    return "none" if lib is None else ffi.string(lib.tw_isa()).decode()


def isas() -> list[str]:
    """The instruction sets that this build and this machine both have, most capable first."""
    names: list[str] = []
    while lib is not None and (name := lib.tw_isa_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def int8_isa() -> str:
    """The instruction set that products of 8-bit integers use; TILEWRIGHT_ISA takes these names, too.

    >>> int8_isa() == "none" or int8_isa() in int8_isas()
    True
    """
    return "none" if lib is None else ffi.string(lib.tw_int8_isa()).decode()


def int8_isas() -> list[str]:
    """Those that this build and this machine both have, most capable first: each is one of `isas`, or one with more.

    >>> [isa for isa in int8_isas() if "_" not in isa] == isas()
    True
    """
    names: list[str] = []
    while lib is not None and (name := lib.tw_int8_isa_name(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def gemm_tuning() -> tuning.Numbers:
    """The numbers by which products choose their way, as tilewright.h explains them."""
    now = ffi.new("tw_gemm_tuning *")
    lib.tw_get_gemm_tuning(now)
    return {name: getattr(now, name) for name, _ in ffi.typeof(now).item.fields}


def set_gemm_tuning(changed: Mapping[str, float] | None) -> None:
    """Change some of the numbers in force; None: the library's own again. ValueError where C refuses them."""
    try:
        new = ffi.NULL if changed is None else ffi.new("tw_gemm_tuning *", gemm_tuning() | dict(changed))
    except OverflowError:
        new = ffi.new("tw_gemm_tuning *")  # nothing but zeros, which C refuses too
    if lib.tw_set_gemm_tuning(new) != lib.TW_OK:
        raise ValueError(f"numbers out of all proportion: {changed}")


def tuning_complaint() -> str | None:
    """Why the file of `tilewright tune` is not in use; None where it is, or where there is none."""
    return _tuning_complaint


def knows_bfloat16() -> None:
    """Tell the doors which type number ml_dtypes gave bfloat16; called once such an array has been seen."""
    if door is not None:
        import ml_dtypes
        import numpy as np

        door.set_bfloat16(np.dtype(ml_dtypes.bfloat16).num)


def get_num_threads() -> int:
    """How many threads a C call made by this thread may use."""
    return 1 if lib is None else lib.tw_get_num_threads()


def set_num_threads(threads: int) -> None:
    """Set that number for all threads of the process."""
    if lib is not None:
        lib.tw_set_num_threads(threads)


def set_local_threads(threads: int) -> int:
    """Set it for the calling thread alone, 0 for the process's; returns what that was, 0 if it followed the process."""
    return 0 if lib is None else lib.tw_set_local_threads(threads)


def get_include() -> str:
    """The folder that holds tilewright.h.

    >>> get_include().endswith("include")
    True
    """
    return str(_PACKAGE / "include")


def get_library() -> str:
    """The path of libtilewright.so, which C programs link and which needs no Python.

    >>> get_library().endswith("libtilewright.so")
    True
    """
    return str(_PACKAGE / "libtilewright.so")


def _register_with_threadpoolctl() -> None:
    """Let threadpoolctl, where it is installed, see and set the number of threads, as it does for every BLAS."""
    try:
        import threadpoolctl
    except ImportError:
        return

    class Controller(threadpoolctl.LibController):  # type: ignore[misc]
        user_api = "blas"
        internal_api = "tilewright"
        filename_prefixes = ("libtilewright",)
        check_symbols = ("tw_get_num_threads", "tw_set_num_threads")

        def get_num_threads(self) -> int:
            return self.dynlib.tw_get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            self.dynlib.tw_set_num_threads(num_threads)

        def get_version(self) -> None:
            return None

    threadpoolctl.register(Controller)


_missing = _load()
if door is not None:
    _register_with_threadpoolctl()
if _missing is not None and os.environ.get("TILEWRIGHT_ISA") and lib is not None:
    warnings.warn(f"the C backend is off: {_missing}", RuntimeWarning, stacklevel=2)
