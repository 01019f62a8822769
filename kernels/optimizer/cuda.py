"""Optimizer steps in CUDA: one fused launch over all parameters, in place, through a table of their addresses.

A row of the table, of 64-bit words, is a parameter, or a part of one; a block finds its own by the first word:

    flat      first block, elements, address of each array                vectors without gaps, 128-bit accesses
    strided   first block, elements, rows, columns, and of each array     elementwise.Strided: an element a thread
              address, plane step, row step, column step

The arrays are the parameter, its gradient, and up to two of state; `update` changes element k of what a thread holds of
them. The numbers of the formulas lie in memory too: clipping computes its own on the device. Squares are summed in
float64, as on the CPU: gradients whose squares would overflow float32 still have a norm.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tilewright.core import arrays as host
from tilewright.core import device, device_arrays
from tilewright.core.registry import FLOATS, Call, Kernel
from tilewright.kernels.ptx import elementwise, launch, maps, rows
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.bars import Bars
from tilewright.kernels.ptx.cuda import cuda, float64, inline, int64, uint32, uint64
from tilewright.kernels.ptx.launch import blocks, kernel, specialise
from tilewright.kernels.ptx.warp import block_sum

THREADS = 256
STEPS = 4  # accesses of a thread
WORD = 8  # bytes
FIXED = {"flat": 2, "strided": 4}  # words of a row of the table before those of its arrays
EACH = {"flat": 1, "strided": 4}  # words of an array
FUNCTIONS = {"sgd": (2, 2), "momentum": (3, 3), "nesterov": (3, 3), "adam": (4, 9), "scale": (1, 1)}  # arrays, numbers
LAYOUTS = [(dtype, layout) for dtype in FLOATS for layout in FIXED]


def function(name: str) -> Any:
    """update(p, g, a, b, k, c): element k of a parameter, its gradient and its state, with the numbers c."""
    @inline
    def sgd(p, g, a, b, k, c):
        p[k] = cuda.fma(cuda.fma(p[k], c[1], g[k]), -c[0], p[k])

    @inline
    def momentum(p, g, a, b, k, c):
        a[k] = cuda.fma(a[k], c[2], cuda.fma(p[k], c[1], g[k]))
        p[k] = cuda.fma(a[k], -c[0], p[k])

    @inline
    def nesterov(p, g, a, b, k, c):
        grad = cuda.fma(p[k], c[1], g[k])
        a[k] = cuda.fma(a[k], c[2], grad)
        p[k] = cuda.fma(cuda.fma(a[k], c[2], grad), -c[0], p[k])

    @inline
    def adam(p, g, a, b, k, c):
        grad = cuda.fma(p[k], c[7], g[k])
        a[k] = cuda.fma(a[k], c[2], grad * c[3])
        b[k] = cuda.fma(b[k], c[4], grad * grad * c[5])
        p[k] = p[k] * c[8] - a[k] * c[0] / cuda.fma(math.sqrt(b[k]), c[1], c[6])

    @inline
    def scale(p, g, a, b, k, c):
        p[k] *= c[0]
    return {f.py_func.__name__: f for f in (sgd, momentum, nesterov, adam, scale)}[name]


@inline
def word(row, i):
    return ptx.ldg_nc_u64(row + uint64(i) * uint64(WORD))


@inline
def own_row(table, count, width, block):
    """The address of the last row whose first block is not beyond this one"""
    low, high = uint32(0), count
    while uint32(high - low) > uint32(1):
        middle = uint32(uint32(low + high) >> uint32(1))
        if word(table + uint64(middle) * uint64(width), 0) <= uint64(block):
            low = middle
        else:
            high = middle
    return table + uint64(low) * uint64(width)


def access(real: Any, layout: str, arrays: int) -> tuple:
    """locate, read and write, as device functions, and the lanes of an access.

    locate(row, block, step) -> (first element of this thread's access, how many of its elements there are)
    read(v, row, which, i, count): `count` elements, at least one, of array `which` from i on into v; write from v
    """
    lanes, size = rows.lanes_of(real, "vector") if layout == "flat" else 1, np.dtype(real).itemsize
    load, store, offset = maps.LOAD[real], maps.STORE[real], maps.offset
    get, put = (rows.get_f32, rows.put_f32) if real is np.float32 else (rows.get_f64, rows.put_f64)

    @inline
    def locate(row, block, step):
        before = uint32(uint32(block - uint32(word(row, 0))) * uint32(THREADS * STEPS))
        i = uint32(uint32(before + uint32(uint32(step) * uint32(THREADS)) + uint32(cuda.threadIdx.x)) * uint32(lanes))
        n = uint32(word(row, 1))
        return i, uint32(min(uint32(n - i), uint32(lanes)) if i < n else uint32(0))

    if layout == "flat":
        @inline
        def read(v, row, which, i, count):
            at = word(row, 2 + which) + uint64(i) * uint64(size)
            if count == uint32(lanes):
                get(v, 0, at)
            else:
                v[0] = load(at)
                for k in range(1, lanes):
                    v[k] = load(at + uint64(k * size)) if uint32(k) < count else real(0)

        @inline
        def write(v, row, which, i, count):
            at = word(row, 2 + which) + uint64(i) * uint64(size)
            if count == uint32(lanes):
                put(v, 0, at)
            else:
                store(at, v[0])
                for k in range(1, lanes):
                    if uint32(k) < count:
                        store(at + uint64(k * size), v[k])
    else:
        @inline
        def place(row, which, i):
            a = 4 + 4 * which
            return word(row, a) + offset(i, uint32(word(row, 2)), uint32(word(row, 3)), int64(word(row, a + 1)),
                                         int64(word(row, a + 2)), int64(word(row, a + 3)))

        @inline
        def read(v, row, which, i, count):
            v[0] = load(place(row, which, i))

        @inline
        def write(v, row, which, i, count):
            store(place(row, which, i), v[0])
    return locate, read, write, lanes, WORD * (FIXED[layout] + EACH[layout] * arrays)


def harmless(layout: str, lanes: int, turns: int, *accesses: str) -> dict[str, str]:
    """What these accesses would be right without; turns: of the loop over them, as often as the compiler writes it."""
    found = {"guard: row = own_row(table, count, width, block)":
             "a table of one row is searched too: that row has the first block"}
    each = lanes + 1  # guards of an access: all at once or not, and one for each element but the first
    return found | {f"guard {each * j + 2}: {line}": "whole vectors are accessed element by element too"
                    for line in accesses for j in range(turns) if layout == "flat"}


@specialise(*((name, *rest) for name in FUNCTIONS for rest in LAYOUTS))
def step(name: str, dtype: str, layout: str) -> launch.Kernel:
    """Update every element of every parameter; nothing to do where clipping's factor is 1."""
    real = rows.REAL[dtype]
    (arrays, numbers), update = FUNCTIONS[name], function(name)
    locate, read, write, lanes, width = access(real, layout, arrays)
    load, number_type, size, one = maps.LOAD[real], rows.NUMBA[real], np.dtype(real).itemsize, real(1)
    used = list(enumerate("pgab"))[:arrays]
    right = harmless(layout, lanes, STEPS if arrays < 4 and arrays * lanes <= 8 else 1,
                     *(f"read({x}, row, {i}, i, many)" for i, x in used),
                     *(f"write({x}, row, {i}, i, many)" for i, x in used if x != "g"))
    if arrays == 1:
        right["guard: if arrays > 1 or c[0] != one:"] = "gradients are multiplied by 1 too"

    @kernel("r table, r constants, u32 count", threads=THREADS, harmless=right)
    def step(table, constants, count):
        block = uint32(cuda.blockIdx.x)
        row = own_row(table, count, width, block)
        c = cuda.local.array(numbers, number_type)
        p, g = cuda.local.array(lanes, number_type), cuda.local.array(lanes, number_type)
        a, b = cuda.local.array(lanes, number_type), cuda.local.array(lanes, number_type)
        for k in range(numbers):
            c[k] = load(constants + uint64(k * size))
        if arrays > 1 or c[0] != one:
            for j in range(STEPS):
                i, many = locate(row, block, j)
                if many > uint32(0):
                    read(p, row, 0, i, many)
                    if arrays > 1:
                        read(g, row, 1, i, many)
                    if arrays > 2:
                        read(a, row, 2, i, many)
                    if arrays > 3:
                        read(b, row, 3, i, many)
                    for k in range(lanes):
                        update(p, g, a, b, k, c)
                    write(p, row, 0, i, many)
                    if arrays > 2:
                        write(a, row, 2, i, many)
                    if arrays > 3:
                        write(b, row, 3, i, many)
    return step


@specialise(*LAYOUTS)
def squares(dtype: str, layout: str) -> launch.Kernel:
    """parts[block] = the sum of the squares of a block's elements, in float64"""
    real = rows.REAL[dtype]
    locate, read, _, lanes, width = access(real, layout, 1)
    number_type = rows.NUMBA[real]

    @kernel("r table, w parts, u32 count", threads=THREADS, bars=Bars(double=True),
            harmless=harmless(layout, lanes, STEPS, "read(v, row, 0, i, many)"))
    def squares(table, parts, count):
        block = uint32(cuda.blockIdx.x)
        row = own_row(table, count, width, block)
        v, part = cuda.local.array(lanes, number_type), cuda.shared.array(32, float64)
        total = float64(0)
        for j in range(STEPS):
            i, many = locate(row, block, j)
            if many > uint32(0):
                read(v, row, 0, i, many)
                for k in range(lanes):
                    total = cuda.fma(float64(v[k]), float64(v[k]), total)
        total = block_sum(total, part, float64(0))
        if cuda.threadIdx.x == 0:
            ptx.stg_f64(parts + uint64(block) * uint64(WORD), total)
    return squares


@specialise(*((dtype,) for dtype in FLOATS))
def norm(dtype: str) -> launch.Kernel:
    """One block: the root of the sum of parts, and what gradients are multiplied with."""
    real = rows.REAL[dtype]
    store, number_type = maps.STORE[real], rows.NUMBA[real]

    @kernel("r parts, w norm, w factor, f64 max_norm, u32 count", threads=THREADS)
    def norm(parts, norm, factor, max_norm, count):
        part, total, i = cuda.shared.array(32, float64), float64(0), uint32(cuda.threadIdx.x)
        while i < count:
            total += ptx.ldg_f64(parts + uint64(i) * uint64(WORD))
            i = uint32(i + uint32(THREADS))
        total = math.sqrt(block_sum(total, part, float64(0)))
        if cuda.threadIdx.x == 0:
            wanted = max_norm / (total + float64(1e-6))
            ptx.stg_f64(norm, total)
            store(factor, number_type(float64(1) if wanted > float64(1) else wanted))
    return norm


# ---- host side

class Table:
    """Rows for one launch, and what they lead to."""

    def __init__(self, layout: str, arrays: int):
        self.layout, self.width = layout, FIXED[layout] + EACH[layout] * arrays
        self.rows: list[tuple[int, ...]] = []
        self.blocks, self.reach = 0, []  # type: ignore[var-annotated]

    def full(self) -> bool:
        """Whether one row more would be too large to go along with a launch."""
        return (len(self.rows) + 1) * self.width * WORD > launch.LENT

    def add(self, arrays: Sequence[np.ndarray], modes: Sequence[str], words: tuple[int, ...]) -> None:
        """A row; words: all but the first block."""
        self.rows.append((self.blocks, *words))
        lanes = elementwise.ALIGNMENT // arrays[0].itemsize if self.layout == "flat" else 1
        self.blocks += blocks(words[0], THREADS * STEPS * lanes)
        self.reach += zip(arrays, modes, strict=True)

    def words(self) -> np.ndarray:
        """As the kernel reads it."""
        return np.array(self.rows, np.int64)


def tables(groups: Iterable[Sequence[np.ndarray]], modes: Sequence[str]) -> list[Table]:
    """Groups of arrays, each of one shape, in as few tables as there are layouts, unless those become too large."""
    done: list[Table] = []
    current: dict[str, Table] = {}

    def add(layout: str, arrays: Sequence[np.ndarray], words: tuple[int, ...]) -> None:
        if layout not in current or current[layout].full():
            current[layout] = Table(layout, len(modes))
            done.append(current[layout])
        current[layout].add(arrays, modes, words)

    for group in groups:
        if not group[0].size:
            continue
        if vectors := elementwise.flat(*group):
            for part in vectors:
                add("flat", part, (part[0].size, *map(host.address, part)))
            continue
        for g in elementwise.strided(*group):
            own = [(host.address(x), *g.steps[3 * i:3 * i + 3]) for i, x in enumerate(g.arrays)]
            add("strided", g.arrays, (g.elements, *g.sizes[1:], *(w for words in own for w in words)))
    return done


def _update(name: str, lists: Sequence[Sequence[np.ndarray]], numbers: Any) -> None:
    if not lists[0]:
        return
    dtype = host.name_of(lists[0][0].dtype)
    for table in tables(zip(*lists, strict=True), ("rw", "r", "rw", "rw")[:len(lists)]):
        step(name, dtype, table.layout).launch(table.blocks, table.words(), numbers, len(table.rows), reach=table.reach)


def _sgd(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, lists = call.attrs, [x for x in call.inputs if x is not None]
    name = "sgd" if len(lists) == 2 else "nesterov" if a["nesterov"] else "momentum"
    _update(name, lists, _numbers(call, a["lr"], a["weight_decay"], *([a["momentum"]] * (len(lists) == 3))))


def _adam(call: Call, outs: Sequence[np.ndarray]) -> None:
    a, decoupled = call.attrs, call.op == "adamw_step"
    _update("adam", call.inputs, _numbers(
        call, a["lr"] / (1 - a["beta1"] ** a["step"]), 1 / math.sqrt(1 - a["beta2"] ** a["step"]),
        a["beta1"], 1 - a["beta1"], a["beta2"], 1 - a["beta2"], a["eps"],
        0.0 if decoupled else a["weight_decay"], 1 - a["lr"] * a["weight_decay"] if decoupled else 1.0))


def _numbers(call: Call, *numbers: float) -> np.ndarray:
    return np.array(numbers, call.inputs[0][0].dtype if call.inputs[0] else np.float64)


def _clip(call: Call, outs: Sequence[np.ndarray]) -> float:
    grads, = call.inputs
    found = tables(((g,) for g in grads), ("r",))
    if not found:
        return 0.0
    dtype, count = host.name_of(grads[0].dtype), sum(table.blocks for table in found)
    parts, at = launch.scratch(count, np.float64), 0
    for table in found:
        squares(dtype, table.layout).launch(table.blocks, table.words(), parts[at:], len(table.rows), reach=table.reach)
        at += table.blocks
    total, factor = launch.scratch(1, np.float64), launch.scratch(1, grads[0].dtype)
    norm(dtype).launch(1, parts, total, factor, call.attrs["max_norm"], count)
    _update("scale", (grads,), factor)
    return float(device.current().download(total, device_arrays.stream_in_force())[0])


def _describe(call: Call) -> str:
    lists = [x for x in call.inputs if x is not None]
    groups = [group for group in zip(*lists, strict=True) if group[0].size]
    odd = sum(not elementwise.flat(*group) for group in groups)
    return f"{len(groups)} parameters in one launch" + (f", {odd} with strides in another" if odd else "")


KERNELS = [Kernel(op, "cuda", run, describe=_describe) for op, run in (
    ("sgd_step", _sgd), ("adam_step", _adam), ("adamw_step", _adam), ("clip_grad_norm", _clip))]
