"""Facts about the machine and the software that measurements depend on; no host names, no paths."""
from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from ..core import capability, native, threads
from ..core.tuning import cpu_name

PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "cffi", "ml_dtypes", "threadpoolctl", "numba-cuda")


def machine() -> dict[str, Any]:
    """Everything that a result should be read with, as JSON would hold it."""
    from .. import __version__

    return {
        "cpu": cpu_name(), "architecture": platform.machine(), "system": f"{platform.system()} {platform.release()}",
        "cpus": cpus(), "caches": caches(), "memory_bytes": memory(),
        "isa": native.isa(), "isas": native.isas(), "int8_isa": native.int8_isa(), "int8_isas": native.int8_isas(),
        "tuned": native.tuned, "threads": threads.get_num_threads(),
        "tilewright": __version__, "python": platform.python_version(), "versions": versions(), "blas": blas(),
        "backends": capability.reasons(), "manners": {name: capability.manner(name) for name in capability.BACKENDS},
    }


def cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_quota() -> float | None:
    """CPUs that the container's quota allows; None where there is no quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def caches() -> dict[str, int]:
    """Bytes of each data cache that the first CPU sees: {"L1d": 32768, ...}; empty where the system does not say."""
    found = {}
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            name = f"L{level}{'d' if kind == 'Data' else ''}"
            found[name] = int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)
    return found


def memory() -> int | None:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def versions() -> dict[str, str | None]:
    """Installed versions of what results depend on; None where a package is missing."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def blas() -> str:
    """NumPy's BLAS and its version."""
    import numpy as np

    try:
        info: Any = np.show_config(mode="dicts")  # type: ignore[func-returns-value,unused-ignore]
        found = info["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"
    except (KeyError, TypeError):
        return "unknown"
