"""Module: PTX made runnable on the CPU, and its launches."""
from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import build, report
from .errors import KINDS, Fault, Index, Place
from .parse import parse
from .report import Accesses, Finding, Report, thread_index
from .syntax import Instruction
from .translate import Kernel, translate_module

Shape = int | Sequence[int]
Memory = Sequence[tuple[np.ndarray, str]]
MAY_READ, MAY_WRITE, HAS_VALUE = 1, 2, 4
MODES = {"r": MAY_READ | HAS_VALUE, "w": MAY_READ | MAY_WRITE, "rw": MAY_READ | MAY_WRITE | HAS_VALUE}
RACES = {"ignore": 0, "report": 1, "raise": 2}
GRID, BLOCK, THREADS, SHARED = (2**31 - 1, 65535, 65535), (1024, 1024, 64), 1024, 227 * 1024  # the devices' limits
MAX_FINDINGS = 256
u32, u64 = ctypes.c_uint32, ctypes.c_uint64


class CFault(ctypes.Structure):
    _fields_ = [("kind", u32), ("why", u32), ("space", u32), ("site", u32), ("thread", u32), ("block", u32 * 3),
                ("other", u32), ("other_site", u32), ("address", u64), ("size", u64), ("count", u64)]


class CRegion(ctypes.Structure):
    _fields_ = [("low", u64), ("high", u64), ("map", ctypes.c_void_p), ("granules", ctypes.c_void_p)]


class CLaunch(ctypes.Structure):
    """The beginning of struct Launch; the rest is the runtime's own, behind it."""
    _fields_ = [("kernel", ctypes.c_void_p), ("params", ctypes.c_void_p), ("globals", ctypes.c_void_p),
                ("regions", ctypes.POINTER(CRegion)), ("n_regions", u64), ("counts", ctypes.c_void_p),
                ("sites", ctypes.c_void_p), ("n_sites", u32), ("trace", u32), ("grid", u32 * 3), ("block", u32 * 3),
                *((name, u32) for name in ("shared_size", "shared_fixed", "shared_unit", "global_unit", "local_size",
                                           "stack_size", "races", "seed")),
                ("limit", u64), ("barriers", u64), ("collectives", u64), ("n_findings", u32), ("failed", u32),
                ("fault", CFault), ("findings", CFault * MAX_FINDINGS)]


class Module:
    """A PTX module: parsed, translated to C, compiled.

    cache   folder for what is compiled, default `emulate` in TILEWRIGHT_CACHE_DIR or the user's cache folder

    Raises Unsupported for PTX that it does not know, before anything runs. Variables of the module keep their contents
    from one launch to the next, as on a device.

    >>> module = Module('''
    ... .version 8.0
    ... .target sm_80
    ... .address_size 64
    ... .visible .entry fill(.param .u64 out, .param .f32 value) {
    ...   .reg .b64 %rd<3>; .reg .b32 %r<2>; .reg .f32 %f<2>;
    ...   ld.param.u64 %rd1, [out];
    ...   ld.param.f32 %f1, [value];
    ...   mov.u32 %r1, %tid.x;
    ...   mul.wide.u32 %rd2, %r1, 4;
    ...   add.s64 %rd1, %rd1, %rd2;
    ...   st.global.f32 [%rd1], %f1;
    ...   ret;
    ... }''')
    >>> out = np.empty(4, np.float32)
    >>> report = module.launch("fill", 1, 4, [np.uint64(out.ctypes.data), np.float32(2.5)], memory=[(out, "w")])
    >>> out
    array([2.5, 2.5, 2.5, 2.5], dtype=float32)
    """

    def __init__(self, ptx: str, cache: str | os.PathLike[str] | None = None) -> None:
        self._cache = build.default_cache() if cache is None else Path(cache)
        self._made = translate_module(parse(ptx))
        self._libraries: dict[bool, tuple[ctypes.CDLL, ctypes.CDLL]] = {}
        self._library(False)
        self._globals = np.frombuffer(bytearray(self._made.globals or bytes(1)), np.uint8)
        base = self._globals.ctypes.data
        for at, target in self._made.relocations:
            self._globals[at:at + 8] = np.frombuffer((base + target).to_bytes(8, "little"), np.uint8)

    def _library(self, trace: bool) -> tuple[ctypes.CDLL, ctypes.CDLL]:
        """The runtime and the module's own library; counting needs one of its own."""
        if trace not in self._libraries:
            self._libraries[trace] = build.module(self._cache, self._made.source, trace)
        return self._libraries[trace]

    @property
    def kernels(self) -> tuple[str, ...]:
        """The names of its kernels."""
        return tuple(self._made.kernels)

    def launch(self, name: str | None, grid: Shape, block: Shape, args: Sequence[Any], memory: Memory = (),
               shared: int = 0, seed: int = 0, trace: bool = False, races: str = "raise",
               limit: int = 1 << 26) -> Report:
        """Runs a kernel on the memory of the host; a Report, or a Fault where the kernel does what it may not.

        name     of the .entry; None where the module has one
        grid, block   an int or up to three
        args     a value for each parameter: NumPy scalars, ctypes values or bytes, of the parameter's size
        memory   pairs of an array and "r", "w" (contents count as never written) or "rw"; all else is out of bounds
        shared   bytes of dynamic shared memory
        seed     0 runs blocks, warps and lanes in order, any other number in an order of its own
        trace    whether to count instructions, bank conflicts and sectors
        races    "raise", "report" (among the findings) or "ignore"
        limit    of backward branches by the threads of a block, beyond which it counts as endless
        """
        kernel = self._kernel(name)
        run = _Run(self, kernel, _three(grid), _three(block), shared, memory)
        return run(args, seed, trace, races, limit)

    def _kernel(self, name: str | None) -> Kernel:
        kernels = self._made.kernels
        if name is None and len(kernels) == 1:
            return next(iter(kernels.values()))
        if name is None or name not in kernels:
            raise Fault("launch", f"no kernel {name!r}; the module has {', '.join(kernels) or 'none'}")
        return kernels[name]


def _three(shape: int | Sequence[int]) -> Index:
    values = [int(x) for x in np.atleast_1d(np.asarray(shape))]
    if not 1 <= len(values) <= 3 or min(values) < 1:
        raise Fault("launch", f"a grid or block of {shape}: expected one to three positive numbers")
    x, y, z = (*values, 1, 1)[:3]
    return x, y, z


def _bounds(array: np.ndarray) -> tuple[int, int]:
    """The first byte of an array's elements, and the one past the last."""
    low = high = array.__array_interface__["data"][0]
    for n, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    return low, high + array.itemsize


class _Run:
    """One launch: its memory, its parameters, and what came of it."""

    def __init__(self, module: Module, kernel: Kernel, grid: Index, block: Index, shared: int, memory: Memory) -> None:
        self.module, self.made, self.kernel = module, module._made, kernel
        self.grid, self.block, self.dynamic = grid, block, shared
        self.memory = [(np.asarray(array), mode) for array, mode in memory]
        self._check_shape()

    def _check_shape(self) -> None:
        threads = self.block[0] * self.block[1] * self.block[2]
        for what, shape, limits in (("grid", self.grid, GRID), ("block", self.block, BLOCK)):
            if any(n > limit for n, limit in zip(shape, limits, strict=True)):
                raise Fault("launch", f"a {what} of {shape}; at most {limits}")
        if threads > THREADS:
            raise Fault("launch", f"a block of {threads} threads; at most {THREADS}")
        bound = self.kernel.limits.get("maxntid") or self.kernel.limits.get("reqntid")
        if bound is not None:
            total = int(np.prod(bound))
            if threads > total or ("reqntid" in self.kernel.limits and threads != total):
                raise Fault("launch", f"a block of {threads} threads for a kernel compiled for {total}")
        if self.dynamic < 0 or self.kernel.shared + self.dynamic > SHARED:
            raise Fault("launch", f"{self.kernel.shared} + {self.dynamic} bytes of shared memory; at most {SHARED}")

    def _params(self, args: Sequence[Any]) -> np.ndarray:
        parameters = self.kernel.parameters
        if len(args) != len(parameters):
            raise Fault("launch", f"{len(args)} arguments for {len(parameters)} parameters of {self.kernel.name}")
        image = np.zeros(max(1, self.kernel.params_size), np.uint8)
        for i, (value, p) in enumerate(zip(args, parameters, strict=True)):
            raw = value if isinstance(value, bytes) else _as_bytes(value, p.type)
            if len(raw) != p.size:
                raise Fault("launch", f"argument {i} has {len(raw)} bytes, its parameter .{p.type} has {p.size}")
            image[p.offset:p.offset + p.size] = np.frombuffer(raw, np.uint8)
        return image

    def _regions(self, params: np.ndarray) -> tuple[list[CRegion], list[np.ndarray]]:
        """Disjoint stretches of the host's memory, each with a map of what every byte allows."""
        known: list[tuple[np.ndarray, int, np.ndarray | None]] = [(params, MODES["r"], None)]
        if self.made.globals:
            known.append((self.module._globals, 0, np.frombuffer(self.made.globals_map, np.uint8)))
        for array, mode in self.memory:
            if mode not in MODES:
                raise Fault("launch", f"memory as {mode!r}; expected {', '.join(map(repr, MODES))}")
            if "w" in mode and not array.flags.writeable:
                raise Fault("launch", f"memory as {mode!r} of an array that is read-only")
            if array.size:
                known.append((array, MODES[mode], None))
        spans = [(*_bounds(array), array, bits, own) for array, bits, own in known]
        spans.sort(key=lambda span: span[0])
        regions: list[CRegion] = []
        maps: list[np.ndarray] = []
        first = 0
        while first < len(spans):
            low, high, last = spans[first][0], spans[first][1], first + 1
            while last < len(spans) and spans[last][0] < high:
                high = max(high, spans[last][1])
                last += 1
            allowed = np.zeros(high - low, np.uint8)
            for _, _, array, bits, own in spans[first:last]:
                if own is not None:
                    allowed |= own
                    continue
                lowest = array.__array_interface__["data"][0] - low
                touched = np.lib.stride_tricks.as_strided(allowed[lowest:], (*array.shape, array.itemsize),
                                                          (*array.strides, 1))
                touched |= np.uint8(bits)
            maps.append(allowed)
            regions.append(CRegion(low, high, allowed.ctypes.data, None))
            first = last
        return regions, maps

    def __call__(self, args: Sequence[Any], seed: int, trace: bool, races: str, limit: int) -> Report:
        if races not in RACES:
            raise Fault("launch", f"races={races!r}; expected {', '.join(map(repr, RACES))}")
        made, kernel = self.made, self.kernel
        params = self._params(args)
        regions, maps = self._regions(params)
        runtime, library = self.module._library(trace)
        counts = np.zeros(len(made.blocks) + 1, np.uint64)
        sites = np.zeros((len(made.sites) + 1, 3, 2), np.uint64)
        room = ctypes.create_string_buffer(runtime.emu_launch_size())
        launch = CLaunch.from_buffer(room)
        launch.kernel = ctypes.cast(getattr(library, kernel.symbol), ctypes.c_void_p).value
        launch.params, launch.globals = params.ctypes.data, self.module._globals.ctypes.data
        launch.regions, launch.n_regions = (CRegion * len(regions))(*regions), len(regions)
        launch.counts, launch.sites, launch.n_sites = counts.ctypes.data, sites.ctypes.data, len(made.sites)
        launch.grid, launch.block, launch.trace = (u32 * 3)(*self.grid), (u32 * 3)(*self.block), int(trace)
        launch.shared_fixed, launch.shared_size = kernel.shared, kernel.shared + self.dynamic
        launch.shared_unit, launch.global_unit = made.units
        launch.local_size, launch.stack_size = kernel.local, kernel.stack
        launch.races, launch.seed, launch.limit = RACES[races], seed & 0xffffffff, limit
        runtime.emu_launch(ctypes.byref(launch))
        del maps
        if launch.failed:
            raise self._fault(launch.fault)
        findings = tuple(self._finding(launch.findings[i]) for i in range(launch.n_findings))
        return Report(kernel.name, self.grid, self.block, seed, launch.barriers, launch.collectives, findings,
                      self._instructions(counts), self._accesses(sites, 0), self._accesses(sites, 1))

    # -- in Python's terms --

    def _place(self, site: int) -> tuple[Instruction, Place | None]:
        instruction = self.made.sites[site]
        return instruction, self.made.program.place(instruction.source)

    def _other(self, fault: CFault) -> str:
        """The other thread of a race."""
        instruction, source = self._place(fault.other_site)
        text = f"thread {thread_index(fault.other, self.block)}"
        if fault.count >= 2 and KINDS[fault.kind] == "race" and fault.space == 2:
            text += " of another block"
        text += f" at PTX line {instruction.line}"
        return text if source is None else f"{text} ({source[0]}:{source[1]})"

    def _where(self, fault: CFault) -> str:
        """What lies nearest to a global address."""
        if report.SPACES[fault.space] != "global":
            return ""
        nearest = ""
        least = None
        for i, (array, mode) in enumerate(self.memory):
            if not array.size:
                continue
            low, high = _bounds(array)
            what = f"memory[{i}], {array.dtype} {array.shape} as {mode!r}"
            if low <= fault.address < high:
                return f", byte {fault.address - low} of {what}"
            distance = low - fault.address if fault.address < low else fault.address - high
            if least is None or distance < least:
                least = distance
                nearest = f", {distance} bytes {'before' if fault.address < low else 'past the end of'} {what}"
        return nearest

    def _message(self, fault: CFault) -> str:
        kind = KINDS[fault.kind]
        fixed = {"stack": "the calls of functions go too deep", "trap": "the kernel executed trap",
                 "memory": "the host has not enough memory for this launch",
                 "endless": f"the threads of a block jumped backward {fault.address} times; launch(limit=) allows more"}
        if kind in fixed:
            return fixed[kind]
        return report.in_words(fault.why, fault.space, fault.address, fault.size, self._other(fault),
                               self._where(fault)) or "the result is not defined"

    def _fault(self, fault: CFault) -> Fault:
        kind = KINDS[fault.kind]
        if kind == "memory" or not self.made.sites:
            return Fault(kind, self._message(fault))
        instruction, source = self._place(fault.site)
        x, y, z = fault.block
        return Fault(kind, f"{self._message(fault)} ({instruction.opcode})", instruction.line, source, (x, y, z),
                     thread_index(fault.thread, self.block))

    def _finding(self, fault: CFault) -> Finding:
        (instruction, source), (other, other_source) = self._place(fault.site), self._place(fault.other_site)
        x, y, z = fault.block
        return Finding(KINDS[fault.kind], self._message(fault), fault.size, instruction.line, source, other.line,
                       other_source, (x, y, z),
                       (thread_index(fault.thread, self.block), thread_index(fault.other, self.block)))

    def _instructions(self, counts: np.ndarray) -> dict[str, int]:
        total: Counter[str] = Counter()
        for block, count in zip(self.made.blocks, counts.tolist(), strict=False):
            for opcode in block:
                total[opcode] += count
        return {opcode: n for opcode, n in total.most_common() if n}

    def _accesses(self, sites: np.ndarray, space: int) -> tuple[Accesses, ...]:
        found = []
        for site, instruction in enumerate(self.made.sites):
            requests, moved, ideal = (int(n) for n in sites[site, :, space])
            if requests:
                found.append(Accesses(("shared", "global")[space], instruction.opcode, instruction.line,
                                      self.made.program.place(instruction.source), requests, moved / requests,
                                      ideal / requests))
        return tuple(found)


def _as_bytes(value: Any, type_: str) -> bytes:
    """The bytes of a scalar; a plain int or float takes the parameter's type."""
    if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic):
        kind = {"f": "f", "s": "i"}.get(type_[0], "u")
        size = {"pred": 8}.get(type_, int(type_.lstrip("bufs")))
        if isinstance(value, float) != (kind == "f"):
            raise Fault("launch", f"the argument {value!r} for a parameter of type .{type_}")
        try:
            return np.array(value, f"{kind}{size // 8}").tobytes()
        except OverflowError as error:
            raise Fault("launch", f"the argument {value!r} does not fit a parameter of type .{type_}") from error
    if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0:
        return np.asarray(value).tobytes()
    if isinstance(value, (ctypes._SimpleCData, ctypes.Structure, ctypes.Array)):
        return bytes(value)
    raise Fault("launch", f"an argument of type {type(value).__name__}; expected a NumPy or ctypes scalar, or bytes")
