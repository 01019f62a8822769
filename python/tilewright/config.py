"""Make everything ready ahead of time, and show what there is."""
from __future__ import annotations

import copy

import numpy as np

from .core import capability, dispatch, registry


def warmup(backend: str = "numba", dtypes: tuple[str, ...] = ("float32",)) -> int:
    """Run every operation of a backend once, so that Numba compiles now, not at the first call.

    What it compiles stays in its cache on disk. Returns the number of kernels that ran.

    >>> import tilewright as tw
    >>> tw.warmup("numpy") > 30
    True
    """
    rng = np.random.default_rng(0)
    count = 0
    for spec in registry.specs().values():
        for dtype in dtypes:
            case = next(iter(spec.bench(rng, dtype, "small")))
            call = spec.prepare(copy.deepcopy(case.inputs), case.attrs)
            for kernel in registry.variants(spec.name, backend):
                if dispatch.why_not(kernel, call) is None:
                    kernel.run(call, call.kernel_outs([np.empty(shape, d) for shape, d in call.outputs]))
                    count += 1
    return count


def show_config() -> None:
    """Print the version, the instruction set, the threads and the backends, and the reason for each backend missing."""
    from . import __version__
    from .core import native, threads
    print(f"tilewright {__version__}, NumPy {np.__version__}, C kernels for {native.isa()}, "
          f"{threads.get_num_threads()} threads")
    for name, reason in capability.reasons().items():
        print(f"  {name:6s} {reason or 'available'}")
