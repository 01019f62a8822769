"""What a call would take at least on a named CUDA device: arithmetic on published peaks, not a measurement.

The roofline: the longer of the operations at the device's rate and of the least traffic at its memory's. Where the
kernels can be compiled, their machine code says how much of the rate they can reach: an instruction that issues beside
the multiply-adds takes a slot from them.
"""
from __future__ import annotations

import importlib.util
import math
import tomllib
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ..core import capability, device, device_arrays, dispatch, registry, sampling
from ..core.errors import ArgumentError
from ..core.registry import Call, Case, Spec
from .accuracy import poisoned
from .comparison import SIZES
from .timing import interleaved

PRODUCT = 0.5  # multiply-adds an instruction and thread, from which on a hot loop counts as that of a product
WARP, SCHEDULERS = 32, 4  # threads that issue together; schedulers of a multiprocessor, an instruction a clock each


@dataclass(frozen=True)
class Device:
    """Published peaks: operations and bytes a second; `link` is one way between host and device."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    lanes: int  # multiply-adds of float32 a multiprocessor and clock
    clock: float
    memory: float
    link: float
    sources: tuple[str, ...]
    peak: dict[str, float]
    tensor: dict[str, float]

    def rate(self, dtype: str, sums: str = "", precision: str | None = None) -> tuple[float, str]:
        """Operations a second, and of which units: tensor cores for products of halves and, summed as int32, integers.

        What is neither is computed in float32, such as conversions of integers.
        """
        name = "int8" if sums == "int32" else precision or dtype
        if name in ("float16", "bfloat16", "tf32") or sums == "int32":
            return self.tensor[name], f"{name} tensor"
        name = "float64" if name == "float64" else "float32"
        return self.peak[name], name

    @property
    def issue(self) -> float:
        """Instructions of warps a second."""
        return self.multiprocessors * SCHEDULERS * self.clock


@dataclass(frozen=True)
class Launch:
    """One launch of the call, and its kernel's machine code."""

    kernel: str
    warps: int
    registers: int
    instructions: int  # of the whole kernel, as text
    hot: int  # of the hot loop; 0: there is none
    ffma: float  # part of the hot loop
    matrix: int  # matrix instructions in it
    products: int  # that a warp makes and adds in a turn of it


@dataclass(frozen=True)
class Issued:
    """Instructions of warps that a call issues: all of them, "counted" on the emulator, or those "of hot loops"."""

    instructions: float
    how: str


@dataclass(frozen=True)
class Prediction:
    """Seconds, all predicted but `cpu`, which was measured here on `cpu_kernel`; None: not known."""

    op: str
    device: Device
    flops: float
    nbytes: float
    compute: float
    units: str
    memory: float
    transfer: float
    issue: float | None
    issued: str  # which instructions that is of
    launches: tuple[Launch, ...]
    unknown: str  # why there are no launches
    cpu: float | None
    cpu_kernel: str

    @property
    def roofline(self) -> float:
        """With all arrays on the device, no launch counted."""
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        """What it is that takes longest."""
        return f"{self.units} arithmetic" if self.compute > self.memory else "memory"


def devices() -> list[str]:
    """The names of the devices that are known."""
    return sorted(f.name.removesuffix(".toml") for f in resources.files(__package__).joinpath("devices").iterdir()
                  if f.name.endswith(".toml"))


def device_named(name: str) -> Device:
    """A device by its name, or from a TOML file of the same form as those in bench/devices."""
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text()
        except OSError as error:
            raise ArgumentError(f"{name}: {error.strerror}") from None
    else:
        registry.check_names("device", (name,), devices())
        text = resources.files(__package__).joinpath("devices", f"{name}.toml").read_text()
    try:
        found: dict[str, Any] = tomllib.loads(text)
        major, minor = found.pop("compute_capability").split(".")
        made = Device(compute_capability=(int(major), int(minor)), sources=tuple(found.pop("sources")), **found)
        numbers = [made.multiprocessors, made.lanes, made.clock, made.memory, made.link, *made.peak.values(),
                   *made.tensor.values()]
        if not all(x > 0 for x in numbers) or "int8" not in made.tensor or not {"float32", "float64"} <= set(made.peak):
            raise ValueError("a number that is not positive, or no peak of float32, float64 or int8")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArgumentError(f"{name} does not describe a device: {error}; bench/devices/a100.toml does") from None
    return made


def case_of(spec: Spec, shape: list[str], dtype: str) -> Case:
    """A sample call: "small", "medium" or "large" of the benchmarks, or the shape of each input, as 128x784:int64."""
    rng = np.random.default_rng(0)
    if shape[0] in SIZES:
        return next(iter(spec.bench(rng, dtype, shape[0])))
    inputs = []
    for text in shape:
        dims, _, kind = text.partition(":")
        try:
            sizes = tuple(map(int, dims.split("x")))
        except ValueError:
            raise ArgumentError(f"{text} is no shape; 128x784 is one, 128:int64, {', '.join(SIZES)}") from None
        kind = kind or dtype
        integer = "int" in kind
        inputs.append(np.zeros(sizes, kind) if integer else sampling.to_dtype(rng.standard_normal(sizes), kind))
    return Case((*inputs, *(None,) * (len(spec.inputs) - len(inputs))), {}, " ".join(shape))


def predict(op: str, shape: list[str], on: str, dtype: str = "float32") -> Prediction:
    """The least time of a call on a device, and the CPU's measured one.

    >>> p = predict("relu", ["1024x1024"], "a100")
    >>> p.bound, round(p.memory * p.device.memory) == 2 * 4 * 1024 ** 2
    ('memory', True)
    """
    spec, there = registry.spec(op), device_named(on)
    registry.check_names("dtype", (dtype,), spec.dtypes)
    case = case_of(spec, shape, dtype)
    call = spec.prepare(case.inputs, case.attrs)
    flops, nbytes = float(spec.flops(call)), float(spec.nbytes(call))
    sums = spec.sums(call) if spec.sums else ""
    rate, units = there.rate(dtype, sums, case.attrs.get("precision"))
    cpu, kernel = _cpu(spec, call)
    launches, unknown, issued = _launches(spec, call, there)
    back = sum(math.prod(shape) * dtype.itemsize for shape, dtype in call.outputs)
    return Prediction(op, there, flops, nbytes, flops / rate, units, nbytes / there.memory,
                      (device_arrays.nbytes(call.inputs) + back) / there.link,
                      None if issued is None else issued.instructions / there.issue, issued.how if issued else "",
                      launches, unknown, cpu, kernel)


def _launches(spec: Spec, call: Call, there: Device) -> tuple[tuple[Launch, ...], str, Issued | None]:
    """What the call would launch there, why that is not known, and the instructions of warps that it would issue.

    The host's part of it runs here. Kernels run, on the emulator, only where the call is small enough. Of a large
    product the hot loops are counted alone, with as many turns as make all of its multiply-adds.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        return (), "numba-cuda is not installed: pip install 'tilewright[cuda]'", None
    from ..kernels.ptx import assembler, samples

    cc = there.compute_capability
    if (gone := assembler.missing()) is not None:
        return (), gone, None
    row = registry.kernels(spec.family, "cuda").get((spec.name, ""))
    with device.using(samples.Recorder(cc)) as recorder:
        reason = "no kernel of this operation" if row is None else dispatch.why_not(row, call)
        if row is None or reason is not None:
            return (), reason or "", None
        outs = call.kernel_outs(poisoned(call))
        dispatch.run(row, call, outs)
    found = []
    for name, blocks, _ in recorder.launches:
        kernel = recorder.kernels[name]
        made = assembler.assemble(name, kernel.ptx(cc), cc)
        hot, warps = made.code.hot, -(-math.prod(kernel.block) // WARP)
        found.append(Launch(name, math.prod(blocks) * warps, made.registers, len(made.code.opcodes),
                            len(hot.opcodes) if hot else 0, hot.ffma if hot else 0.0, hot.matrix if hot else 0,
                            hot.products if hot else 0))
    flops = float(spec.flops(call))
    if flops + float(spec.nbytes(call)) <= samples.MOST_WORK:
        with device.using(samples.Tracer(cc=cc)) as tracer:
            dispatch.run(row, call, outs)
        counted = sum(sum(r.instructions.values()) for r in tracer.reports) / WARP
        return tuple(found), "", Issued(counted, "counted")
    loops = [one.hot / one.products for one in found if one.matrix or one.products > PRODUCT * WARP * one.hot]
    return tuple(found), "", Issued(flops / 2 * sum(loops) / len(loops), "of hot loops") if loops else None


def _cpu(spec: Spec, call: Call) -> tuple[float | None, str]:
    """Seconds a call here, and on which backend; operations that change their inputs go on with their own."""
    for name in (n for n, reason in capability.reasons().items() if n != "cuda" and reason is None):
        kernel = registry.kernels(spec.family, name).get((spec.name, ""))
        if kernel is not None and dispatch.why_not(kernel, call) is None:
            run = partial(dispatch.run, kernel, call, call.kernel_outs(poisoned(call)))
            run()
            times, = interleaved([run])
            return median(times), name
    return None, ""
