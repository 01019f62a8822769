"""`tilewright info`: the machine, the instruction set, the versions, the backends and why some are missing."""
from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def info(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what this installation found: processor, caches, instruction sets, threads, versions, backends."""
    from ..bench import machine

    facts = machine()
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    for name, value in lines(facts):
        typer.echo(f"{name:12} {value}")


def lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as (name, value), in reading order."""
    caches = ", ".join(f"{name} {_bytes(size)}" for name, size in facts["caches"].items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    isas = ", ".join(facts["int8_isas"])
    rows = [
        ("tilewright", facts["tilewright"]),
        ("processor", f"{facts['cpu']} ({facts['architecture']})"),
        ("caches", caches or "unknown"),
        ("memory", _bytes(facts["memory_bytes"]) if facts["memory_bytes"] else "unknown"),
        ("system", facts["system"]),
        ("isa", facts["isa"] + (f", integer products by {facts['int8_isa']} (this build and machine have {isas}; "
                                "TILEWRIGHT_ISA chooses)" if isas else "")),
        ("tuning", _tuning(facts["tuned"])),
        ("threads", f"{facts['threads']} of {facts['cpus']} CPUs"),
        ("python", facts["python"]),
        ("versions", versions),
        ("blas", facts["blas"]),
    ]
    backends = facts["backends"].items()
    return rows + [(name, f"not here: {reason}" if reason else facts["manners"][name]) for name, reason in backends]


def _tuning(tuned: dict[str, float] | None) -> str:
    if not tuned:
        return "the library's own numbers" + (", the best ones measured here" if tuned is not None else "")
    return "measured here: " + ", ".join(f"{name} {value:.10g}" for name, value in tuned.items())


def _bytes(n: int) -> str:
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}"
    return f"{n} B"
