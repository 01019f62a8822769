"""The fast door of the Numba backend: public calls on plain arrays, at the cost of one call of a compiled function.

`door` has the methods of the C door (`core/native.py`), with the same arguments. Each does the whole job, or returns
NotImplemented, having written nothing, for whatever wants the long way: then `dispatch.call` decides. A family adds its
methods by one table in `numba_cpu.py`,

    DOORS = {"relu": mapped(relu_range, "xyii", ns=0.07), ...}

`mapped` serves every operation whose one result has the shape of its first operand. Families of other shapes bring a
door function of their own. All are built alike, from three parts:

    method     Python     makes the result where there is none, and turns the code below into an answer
    door       compiled   looks at the array objects (objects.py), refuses, or lays out a context and runs the task
    task       compiled   task(context, lo, hi): makes arrays of the context's addresses and calls the kernel on a range

A door serves all kernels of one shape of call: which one is in its `Room`, with what else it needs, as addresses.
Ranges go to the pool of the C library. Where that is not built, work that would use several threads takes the long way.
"""
from __future__ import annotations

from .host import KERNEL, inner  # before Numba itself: host.py says where its cache is

# isort: split
import ctypes
import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import types

from tilewright.core import native, registry

from . import objects
from .objects import (
    C_ORDER,
    DATA,
    DOUBLE,
    F_ORDER,
    FLOAT,
    OBJECT,
    ask,
    block,
    call,
    dense,
    elements,
    extent,
    ndim,
    number,
    plain,
    real,
    same_shape,
    size_of,
    word,
    writeable,
)
from .ranges import compiled

Method = Callable[..., Any]

# What a door answers. LACKS + 1: ... the kernel for float64, the second dtype of its room.
DONE, REFUSED, LACKS = 0, 1, 2

# What stands in a room, 8 bytes each: two objects' addresses, C functions, the task; kernels for two dtypes
NDARRAY, NONE, SAVE, RESTORE, RANGES, PARALLEL, WORKSPACE, THREADS, TASK, KIND, NS, KERNELS = range(0, 96, 8)

RELEASE_NS = 10_000.0  # the GIL is let go for work longer than this: taking it back may take as long
ALONE_NS = 80_000.0  # without the C library's pool longer work takes the long way, whose threads cost 50 us to wake


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _pool(name: str) -> int:
    return 0 if native.lib is None else int(native.ffi.cast("intptr_t", native.ffi.addressof(native.lib, name)))


def kernel_address(kernel: Any, letters: str, dtype: Any) -> int:
    """Where the machine code of a kernel begins, as compiled code calls it."""
    function: Any = compiled(kernel, letters, np.dtype(dtype))
    result = function.overloads[function.nopython_signatures[0].args]
    return result.library.get_pointer_to_function(result.fndesc.llvm_cfunc_wrapper_name)


@cache
def entry(function: Any, letters: str) -> Method:
    """A door compiled for its arguments after the room: o an object, f a float, i an integer."""
    kinds = {"o": OBJECT, "f": types.float64, "i": types.intp}
    signature = types.intp(OBJECT, *(kinds[letter] for letter in letters))
    compiled_door: Any = numba.njit(signature, **KERNEL | {"nogil": False})(function)  # it reads fields under the GIL
    return compiled_door.overloads[signature.args].entry_point


@cache
def task(function: Any) -> int:
    """The address of task(context, lo, hi) or task(context, number), compiled for C to call."""
    words = (types.intp,) * function.__code__.co_argcount
    compiled_task: Any = numba.cfunc(types.void(*words), cache=KERNEL["cache"])(function)
    return compiled_task.address


class Room:
    """What a door needs to know, as words that it reads by their place."""

    def __init__(self, task: int, kernels: tuple[tuple[Any, str], ...], kind: int = 0, ns: float = 0.0,
                 dtypes: tuple[Any, Any] = (np.float32, np.float64)):
        self._kernels, self._dtypes = kernels, dtypes
        python = map(_address, (ctypes.pythonapi.PyEval_SaveThread, ctypes.pythonapi.PyEval_RestoreThread))
        pool = map(_pool, ("tw_parallel_ranges", "tw_parallel", "tw_workspace", "tw_get_num_threads"))
        words = (id(np.ndarray), id(None), *python, *pool, task, kind, 0, *(0, 0) * len(kernels))
        self.words = np.array(words, np.int64)
        self.words.view(np.float64)[NS // 8] = ns

    def fill(self, code: int) -> None:
        """Compile what a door said it lacks."""
        second = code - LACKS
        for i, (kernel, letters) in enumerate(self._kernels):
            self.words[KERNELS // 8 + 2 * i + second] = kernel_address(kernel, letters, self._dtypes[second])


@inner
def look(room, place):
    """A word of the room."""
    return word(word(room, DATA), place)


@inner
def itemsize_of(x):
    """4 or 8 for an array of float32 or float64, else 0."""
    n = number(x)
    return 4 if n == FLOAT else 8 if n == DOUBLE else 0


@inner
def kernel_place(i, size):
    """Where the i-th kernel stands in the room."""
    return KERNELS + 16 * i + 8 * (size == 8)


@inner
def lacks(size):
    return LACKS + (size == 8)


@inner
def clear(x, x_bytes, out, out_bytes):
    """Whether two dense arrays of so many bytes are apart."""
    return word(x, DATA) + x_bytes <= word(out, DATA) or word(out, DATA) + out_bytes <= word(x, DATA)


@inner
def leave(room, ns):
    """Let go of the GIL for long work; what `come_back` wants."""
    return ask(look(room, SAVE), 0) if ns > RELEASE_NS else 0


@inner
def come_back(room, state):
    if state != 0:
        ask(look(room, RESTORE), state)


@inner
def run_ranges(room, n, grain, ns, context):
    """The room's task over range(n), on as many threads as `ns` nanoseconds of work are worth; DONE or REFUSED."""
    pool = look(room, RANGES)
    if pool == 0 and ns > ALONE_NS:
        return REFUSED
    state = leave(room, ns)
    if pool != 0:
        call(pool, n, grain, ns, look(room, TASK), context)
    else:
        call(look(room, TASK), context, 0, n)
    come_back(room, state)
    return DONE


# ---- results of the shape of the first operand

# n elements of full operands, or rows of them; the scalar p goes before the result
MAP, MAP2, MAP_P, MAP2_P, ROWS, ROWS2, ROWS_WEIGHT, ROWS_WEIGHT_BIAS = range(8)
KINDS = {"xyii": MAP, "xxyii": MAP2, "xfyii": MAP_P, "xxfyii": MAP2_P, "xyiii": ROWS, "xxyiii": ROWS2,
         "xxfyiii": ROWS_WEIGHT, "xxxfyiii": ROWS_WEIGHT_BIAS}
LINE = 16  # elements: ranges end where cache lines do


def map_task(context, lo, hi):
    """context: kernel, kind, item size, elements, columns, p, addresses of out, x, y, z"""
    kernel, kind, size, n, columns, p = (word(context, 0), word(context, 8), word(context, 16), word(context, 24),
                                         word(context, 32), real(context, 40))
    out, x, y = (elements(word(context, 48), n, size), elements(word(context, 56), n, size),
                 elements(word(context, 64), n if kind < ROWS_WEIGHT else columns, size))
    z = elements(word(context, 72), columns, size)
    if kind == MAP:
        call(kernel, x, out, lo, hi)
    elif kind == MAP2:
        call(kernel, x, y, out, lo, hi)
    elif kind == ROWS:
        call(kernel, x, out, columns, lo, hi)
    elif kind == ROWS2:
        call(kernel, x, y, out, columns, lo, hi)
    elif size == 4:
        single = types.float32(p)
        if kind == MAP_P:
            call(kernel, x, single, out, lo, hi)
        elif kind == MAP2_P:
            call(kernel, x, y, single, out, lo, hi)
        elif kind == ROWS_WEIGHT:
            call(kernel, x, y, single, out, columns, lo, hi)
        else:
            call(kernel, x, y, z, single, out, columns, lo, hi)
    elif kind == MAP_P:
        call(kernel, x, p, out, lo, hi)
    elif kind == MAP2_P:
        call(kernel, x, y, p, out, lo, hi)
    elif kind == ROWS_WEIGHT:
        call(kernel, x, y, p, out, columns, lo, hi)
    else:
        call(kernel, x, y, z, p, out, columns, lo, hi)


@inner
def fits(x, like, columns, full, order, ndarray):
    """Whether x is what `like`, the first operand, asks of another: its shape, or one number a column."""
    if not plain(x, ndarray) or number(x) != number(like):
        return False
    if full:
        return same_shape(x, like) and dense(x, order)
    return ndim(x) == 1 and extent(x, 0) == columns and dense(x, C_ORDER)


def map_door(room, x, y, z, p, out):
    kind, ndarray = look(room, KIND), look(room, NDARRAY)
    if not plain(x, ndarray):
        return REFUSED
    size = itemsize_of(x)
    order = C_ORDER if kind >= ROWS or dense(x, C_ORDER) else F_ORDER
    if size == 0 or not dense(x, order) or kind >= ROWS and ndim(x) == 0:
        return REFUSED
    n, columns = size_of(x), extent(x, ndim(x) - 1) if kind >= ROWS else 1
    full = kind < ROWS_WEIGHT
    nbytes = n * size
    if not fits(out, x, columns, True, order, ndarray) or not writeable(out) \
            or not fits(y, x, columns, full, order, ndarray) or not fits(z, x, columns, full, order, ndarray):
        return REFUSED
    if kind >= ROWS_WEIGHT and not p >= 0:
        return REFUSED
    more_bytes = nbytes if full else columns * size
    for other, other_bytes in ((x, nbytes), (y, more_bytes), (z, more_bytes)):
        in_place = kind < ROWS and word(other, DATA) == word(out, DATA)
        if not in_place and not clear(other, other_bytes, out, nbytes):
            return REFUSED
    kernel = look(room, kernel_place(0, size))
    if kernel == 0:
        return lacks(size)
    if n == 0:
        return DONE
    context = block(kernel, kind, size, n, columns, p, word(out, DATA), word(x, DATA), word(y, DATA), word(z, DATA))
    grain = LINE if kind < ROWS else 1
    return run_ranges(room, n // columns, grain, n * (size // 4) * real(word(room, DATA), NS), context)


def mapped(kernel: Any, letters: str, ns: float) -> Callable[[], Method]:
    """The door of a kernel whose letters (ranges.py) are in KINDS; ns: about what one float32 takes."""
    def build() -> Method:
        enter, room = entry(map_door, "ooofo"), Room(task(map_task), ((kernel, letters),), KINDS[letters], ns)
        words, fill, ndarray, empty = room.words, room.fill, np.ndarray, np.empty

        def run(x: Any, y: Any, z: Any, p: Any, out: Any) -> Any:
            if not isinstance(p, (float, int)):
                return NotImplemented
            if out is None:
                if type(x) is not ndarray:
                    return NotImplemented
                result = run(x, y, z, p, empty(x.shape, x.dtype))
                return result[()] if result is not NotImplemented and x.ndim == 0 else result
            while code := enter(words, x, y, z, p, out):
                if code == REFUSED:
                    return NotImplemented
                fill(code)
            return out

        methods: dict[int, Method] = {
            MAP: lambda x, out: run(x, x, x, 0.0, out), MAP2: lambda x, y, out: run(x, y, y, 0.0, out),
            MAP_P: lambda x, p, out: run(x, x, x, p, out), MAP2_P: lambda x, y, p, out: run(x, y, y, p, out),
            ROWS: lambda x, out: run(x, x, x, 0.0, out), ROWS2: lambda x, y, out: run(x, y, y, 0.0, out),
            ROWS_WEIGHT: lambda x, w, p, out: run(x, w, w, p, out),
            ROWS_WEIGHT_BIAS: lambda x, w, b, p, out: run(x, w, b, p, out)}
        return methods[KINDS[letters]]
    return build


# ---- the object that dispatch hands out

class Door:
    """The methods of all families, each built at its first use."""

    def __init__(self) -> None:
        self._builders: dict[str, Callable[[], Method]] = {}
        for family in registry.families():
            if registry.kernels(family, "numba"):
                module = importlib.import_module(f"tilewright.kernels.{family}.numba_cpu")
                self._builders |= getattr(module, "DOORS", {})

    def __dir__(self) -> list[str]:
        return list(self._builders)

    def __getattr__(self, name: str) -> Method:
        build = self._builders.get(name)
        method: Any = (lambda *arguments: NotImplemented) if build is None else build()
        method.__name__ = method.__qualname__ = name
        setattr(self, name, method)
        return method


@cache
def door() -> Door | None:
    """The one door of this process; None where arrays are not laid out as it needs them."""
    return Door() if objects.as_told() else None
