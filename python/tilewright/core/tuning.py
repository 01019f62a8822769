"""The file in which `tilewright tune` keeps what it measured: a few numbers of the library, for this machine alone.

    {"format": 1, "tilewright": "0.1.0", "isa": "avx512", "cpu": "...", "caches": [49152, 1048576],
     "gemm": {"direct_bytes": 131072}}                        only what differs from the library's own numbers

One file for each instruction set, in TILEWRIGHT_CACHE_DIR or the user's cache folder. All but "gemm" is the key: a file
for another machine or another version says so, and is not used.
"""
from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import DataError

FORMAT = 1  # of the file
Numbers = dict[str, float]  # of tw_gemm_tuning, by their names there


def path(isa: str) -> Path:
    """Where the numbers for an instruction set are kept.

    >>> path("avx2").name
    'gemm-avx2.json'
    """
    return folder() / f"gemm-{isa}.json"


def folder() -> Path:
    """Where everything is kept that can be made again: TILEWRIGHT_CACHE_DIR, else in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("TILEWRIGHT_CACHE_DIR") or os.path.join(cache, "tilewright"))


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo") as lines:  # not all of it: a line for each of 200 CPUs takes the kernel a while
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def key(isa: str, own: Mapping[str, float]) -> dict[str, Any]:
    """What a file must say for its numbers to be good here; `own` are the library's."""
    from .. import __version__

    return {"format": FORMAT, "tilewright": __version__, "isa": isa, "cpu": cpu_name(),
            "caches": [own["l1_bytes"], own["l2_bytes"]]}


def read(isa: str, own: Mapping[str, float]) -> Numbers | None:
    """The numbers kept for this machine, None where there are none; ValueError says why a file cannot be used."""
    file = path(isa)
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("gemm"), dict):
        raise ValueError("it is damaged")
    for name, here in key(isa, own).items():
        if found.get(name) != here:
            raise ValueError(f"it was made for {name} {found.get(name)!r}, and here that is {here!r}")
    for name, value in found["gemm"].items():
        if name not in own or type(value) is not type(own[name]):
            raise ValueError(f"it is damaged: {name} cannot be {value!r}")
    return found["gemm"]


def write(isa: str, own: Mapping[str, float], changed: Numbers) -> Path:
    """Keep numbers for this machine; another process sees the old file or the new one, never half of it.

    Raises DataError where the folder cannot be written to.
    """
    file = path(isa)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(key(isa, own) | {"gemm": changed}, indent=1) + "\n")
        draft.replace(file)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise DataError(f"{file} cannot be written: {error.strerror}") from None
    return file
