"""Make everything ready ahead of time, and show what there is."""
from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Sequence

import numpy as np

from . import ops
from .core import capability, device, dispatch, registry


def warmup(backend: str = "numba", dtypes: Sequence[str] = ("float32",), *,
           progress: Callable[[int, int, str], object] | None = None) -> int:
    """Run every kernel of a backend, and its door, on sample calls, so that Numba compiles now, not at the first call.

    Of "cuda" all kernels are compiled for the device in use, and none is run. What it compiles stays in a cache on
    disk. `dtypes` are those of floats; operations on integers are compiled for all of theirs. `progress(done, total,
    what)` is told before each kernel. Returns the number of kernels that are ready. Raises ArgumentError for a name
    that does not exist, BackendUnavailable for a backend that cannot run here.

    >>> import tilewright as tw
    >>> tw.warmup("numpy") > 30
    True
    """
    registry.check_names("backend", (backend,), capability.BACKENDS)
    registry.check_names("dtype", dtypes, registry.FLOATS + registry.HALVES)
    dispatch.require(backend)
    if backend == "cuda":
        return _compile_cuda(progress)
    rng = np.random.default_rng(0)
    work = [(spec, dtype, kernel) for spec in registry.specs().values()
            for dtype in (dtypes if "float32" in spec.dtypes else spec.dtypes)
            for kernel in registry.variants(spec.name, backend) if dtype in kernel.dtypes]
    for done, (spec, dtype, kernel) in enumerate(work):
        if progress:
            progress(done, len(work), f"{spec.name} {dtype}")
        for case in (*spec.bench(rng, dtype, "small"), *spec.cases(rng, dtype)):  # cases: every path of the kernel
            call = spec.prepare(copy.deepcopy(case.inputs), case.attrs)
            if dispatch.why_not(kernel, call) is None:
                kernel.run(call, call.kernel_outs([np.empty(shape, d) for shape, d in call.outputs]))
                if not kernel.variant:  # once more as a public call, which may take a door
                    getattr(ops, spec.name)(*copy.deepcopy(case.inputs), **case.attrs, backend=backend)
    return len(work)


def _compile_cuda(progress: Callable[[int, int, str], object] | None) -> int:
    kernels = [k for k in importlib.import_module("tilewright.kernels.ptx.launch").declared()
               if k.needs <= device.current().cc]
    for done, kernel in enumerate(kernels):
        if progress:
            progress(done, len(kernels), kernel.name)
        kernel.ptx(device.current().cc)
    return len(kernels)


def show_config() -> None:
    """Print the version, the instruction set, the threads and the backends, and the reason for each backend missing."""
    from . import __version__
    from .core import native, threads
    print(f"tilewright {__version__}, NumPy {np.__version__}, C kernels for {native.isa()}, "
          f"{threads.get_num_threads()} threads")
    for name, reason in capability.reasons().items():
        print(f"  {name:6s} {reason or capability.manner(name)}")
