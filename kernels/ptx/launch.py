"""CUDA kernels: declared once, compiled when needed, launched on whatever device there is.

    @kernel("r x, w y, u32 n", threads=256)
    def double(x, y, n):
        i = uint32(cuda.blockIdx.x * uint32(256) + cuda.threadIdx.x)
        if i < n:
            ptx.stg_f32(y + uint64(i) * uint64(4), ptx.ldg_f32(x + uint64(i) * uint64(4)) * float32(2))

    double.launch(blocks(n, 256), x, y, n)          # x, y: arrays of a call in normal form

The signature says for each argument whether it is memory that is read (r), written (w; what it held before is never
read) or both (rw), which the kernel sees as a uint64 address, or a number: i32 u32 i64 u64 f32 f64. A launch takes an
array, or None, for each piece of memory. The same PTX is what the emulator runs, what the assembler's report measures
and what a device gets.
"""
from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, NamedTuple

import numpy as np

from tilewright.core import device, registry
from tilewright.core.errors import BackendUnavailable
from tilewright.core.on_device import is_on_device

from . import cuda
from .bars import Bars
from .cache import cached, fingerprint

MEMORY = ("r", "w", "rw")
OWN = ("arithmetic", "reductions")  # files here that declare kernels
LENT = 1 << 16  # bytes of an array of the host, such as scales, that goes along with a launch as a copy
NUMBERS = {"i32": np.int32, "u32": np.uint32, "i64": np.int64, "u64": np.uint64, "f32": np.float32, "f64": np.float64}


class Argument(NamedTuple):
    """One argument of a kernel: "r", "w", "rw" or the type of a number."""

    kind: str
    name: str


@dataclass(eq=False)
class Kernel:
    """One kernel.

    name        unique, also the entry's name in PTX: tw_activation_flat_gelu_float32
    threads     of a block, one number or (x, y); blocks_per_sm: how many blocks a multiprocessor should hold at least
    constants   that it was specialised by
    bars        what its machine code is held to beside the general bar
    harmless    guards, barriers and waits that it would be right without, by name ("guard: if i < n"), and why
    """

    name: str
    function: Callable[..., None]
    signature: tuple[Argument, ...]
    threads: int | tuple[int, ...]
    blocks_per_sm: int | None = None
    needs: tuple[int, int] = (7, 5)  # the least compute capability
    constants: tuple = ()
    bars: Bars = Bars()
    harmless: Mapping[str, str] = field(default_factory=dict, repr=False)
    _ptx: dict[tuple[int, int], str] = field(default_factory=dict, repr=False)

    @property
    def block(self) -> tuple[int, int, int]:
        """Threads of a block along x, y, z."""
        return _three(self.threads)

    def ptx(self, cc: tuple[int, int]) -> str:
        """The PTX for a compute capability, from the cache or compiled now; no driver is needed."""
        if cc < self.needs:
            raise BackendUnavailable(f"{self.name} needs compute capability {self.needs[0]}.{self.needs[1]}, "
                                     f"the device has {cc[0]}.{cc[1]}")
        if cc not in self._ptx:
            types = [cuda.ADDRESS if a.kind in MEMORY else cuda.SCALARS[a.kind] for a in self.signature]
            threads = int(np.prod(self.block))
            key = (self.name, cc, threads, self.blocks_per_sm, [a.kind for a in self.signature],
                   cuda.compiler(), fingerprint(self.function))
            self._ptx[cc] = cached(f"{self.name}-sm_{cc[0]}{cc[1]}", key, lambda: cuda.compile_ptx(
                self.function, types, cc, self.name, threads, self.blocks_per_sm))
        return self._ptx[cc]

    def launch(self, grid: int | tuple[int, ...], *args: Any, shared: int = 0,
               reach: Sequence[tuple[np.ndarray, str]] = ()) -> None:
        """Run `grid` blocks (x, y, z) on the device, in the order of its stream; nothing to do where one of them is 0.

        shared: bytes of dynamic shared memory. reach: further memory that the kernel finds through addresses that are
        themselves in memory, with "r", "w" or "rw".
        """
        if len(args) != len(self.signature):
            raise TypeError(f"{self.name} takes {len(self.signature)} arguments, not {len(args)}")
        blocks = _three(grid)
        if 0 in blocks:
            return
        here = device.current()
        values = [value if kind in MEMORY else NUMBERS[kind](value)
                  for (kind, _), value in zip(self.signature, args, strict=True)]
        if not here.emulated:
            for value in values:
                if isinstance(value, np.ndarray) and value.nbytes > LENT and not is_on_device(value):
                    raise BackendUnavailable(f"{self.name}: an array {value.shape} is on the host; use tw.to_device")
        here.launch(self, blocks, values, reach, shared, device.stream_in_force())


def kernel(signature: str, *, threads: int | tuple[int, ...], blocks_per_sm: int | None = None,
           needs: tuple[int, int] = (7, 5), bars: Bars | None = None,
           harmless: Mapping[str, str] | None = None) -> Callable[[Callable[..., None]], Kernel]:
    """Declare a kernel; see the top of this file. It is compiled when it is first needed."""
    arguments = tuple(Argument(*part.split()) for part in signature.split(","))
    for argument in arguments:
        if argument.kind not in MEMORY and argument.kind not in NUMBERS:
            raise ValueError(f"{signature!r}: {argument.kind} is none of {', '.join((*MEMORY, *NUMBERS))}")

    def declare(function: Callable[..., None]) -> Kernel:
        names = list(inspect.signature(function).parameters)
        if names != [a.name for a in arguments]:
            raise ValueError(f"{function.__qualname__} has the parameters {names}, its signature says {signature!r}")
        return Kernel(_name(function.__module__, function.__name__), function, arguments, threads, blocks_per_sm, needs,
                      bars=bars or Bars(), harmless=harmless or {})
    return declare


class Specialised:
    """A function of constants that makes a kernel for each set of them; `examples` stand for all in tests, reports."""

    def __init__(self, make: Callable[..., Kernel], examples: Sequence[tuple]):
        self._make, self.examples = make, tuple(examples)
        self._made: dict[tuple, Kernel] = {}

    def __call__(self, *constants: Any) -> Kernel:
        if constants not in self._made:
            made = self._make(*constants)
            made.name, made.constants = _name(self._make.__module__, self._make.__name__, *constants), constants
            self._made.setdefault(constants, made)
        return self._made[constants]


def specialise(*examples: tuple) -> Callable[[Callable[..., Kernel]], Specialised]:
    """Make a family of kernels from one source: the function's arguments are constants in the kernel that it returns.

        @specialise(("gelu", "float32"), ("gelu", "float64"))
        def apply(name, dtype):
            f = FUNCTIONS[name, dtype]                    # a device function
            @kernel("r x, w y, u32 n", threads=256)
            def apply(x, y, n): ...
            return apply

        apply("gelu", "float32").launch(...)
    """
    return lambda make: Specialised(make, examples)


def declared() -> Iterator[Kernel]:
    """Every kernel of kernels/*/cuda*.py, and of OWN here; specialised ones by their examples."""
    packages = [import_module(f"tilewright.kernels.{family}") for family in registry.families()]
    names = [f"{package.__name__}.{m.name}" for package in packages for m in iter_modules(package.__path__)
             if m.name.startswith("cuda")]
    for name in (*names, *(f"{__package__}.{own}" for own in OWN)):
        for value in vars(import_module(name)).values():
            if isinstance(value, Kernel) and value.function.__module__ == name:
                yield value
            elif isinstance(value, Specialised) and value._make.__module__ == name:
                yield from (value(*constants) for constants in value.examples)


def scratch(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """Memory of the device for one call, not initialised; it is given back when nothing refers to it."""
    whole = shape if isinstance(shape, tuple) else (shape,)
    return device.current().empty(whole, dtype, device.stream_in_force())


def blocks(n: int, each: int) -> int:
    """How many blocks of `each` cover n."""
    return -(-n // each)


def _three(n: int | tuple[int, ...]) -> tuple[int, int, int]:
    sizes = n if isinstance(n, tuple) else (n,)
    return (*(int(v) for v in sizes), *(1,) * (3 - len(sizes)))  # type: ignore[return-value]


def _name(module: str, *parts: Any) -> str:
    family = module.split(".")[-2] if "." in module else module
    return re.sub(r"\W+", "_", "_".join(["tw", family, *map(str, parts)]))
