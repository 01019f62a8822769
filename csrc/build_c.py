"""The one place that knows how the C library is compiled: files, flags, instruction sets.

setup.py calls build_library(); by hand, or to cross-compile the plain library (no Python, no NumPy needed):

    python csrc/build_c.py --cc aarch64-linux-gnu-gcc --out build/aarch64/libtilewright.so
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent

# -ffp-contract=off: a multiply and an add become one FMA only where the source says so, hence the same rounding in
# every instance of a template. -fno-math-errno, -fno-trapping-math: sqrt and selects may vectorise; no result changes.
CFLAGS = [
    "-std=gnu11", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-wrapv", "-fno-semantic-interposition",
    "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra", "-Wno-psabi",
]  # fmt: skip
LDFLAGS = ["-shared", "-pthread", "-Wl,-z,nodelete", "-Wl,-soname,libtilewright.so", "-lm"]

# machine -> ISA -> flags of *.isa.c; the names are the rows of TW_ISAS in csrc/isa/isa.h
ISAS = {
    "x86_64": {
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c",
                   "-mprefer-vector-width=512"],
        "avx2": ["-mavx2", "-mfma", "-mf16c"],
        "baseline": [],
    },
    "aarch64": {"neon": []},
}

# the same of *.int.isa.c, whose rows are those of TW_INT_ISAS; a row that the compiler is too old for is left out
INT_ISAS = {
    "x86_64": {
        "avx512_amx": [*ISAS["x86_64"]["avx512"], "-mavx512vnni", "-mamx-tile", "-mamx-int8"],
        "avx512_vnni": [*ISAS["x86_64"]["avx512"], "-mavx512vnni"],
        "avx512": ISAS["x86_64"]["avx512"],
        "avx2_vnni": [*ISAS["x86_64"]["avx2"], "-mavxvnni"],
        "avx2": ISAS["x86_64"]["avx2"],
        "baseline": [],
    },
    "aarch64": {"neon_i8mm": ["-march=armv8.2-a+i8mm"], "neon_dotprod": ["-march=armv8.2-a+dotprod"], "neon": []},
}


def target(cc: list[str]) -> str:
    """The machine a compiler compiles for: x86_64, aarch64, ..."""
    triple = subprocess.run([*cc, "-dumpmachine"], check=True, capture_output=True, text=True).stdout
    return triple.split("-")[0].strip()


def takes(cc: list[str], flags: list[str]) -> bool:
    """Whether a compiler knows some flags."""
    command = [*cc, *flags, "-x", "c", "-fsyntax-only", os.devnull]
    return not flags or subprocess.run(command, capture_output=True).returncode == 0


def inputs() -> list[Path]:
    """Every file that an object may depend on."""
    return sorted(p for p in HERE.rglob("*") if p.suffix in (".c", ".h", ".py"))


def build_library(cc: list[str], out: Path, objects: Path, extra: tuple[str, ...] = ()) -> Path:
    """Compile csrc into the shared library `out`, objects into the folder `objects`; only what is out of date."""
    isas = ISAS.get(target(cc), {"baseline": []})
    int_isas = {isa: flags for isa, flags in INT_ISAS.get(target(cc), isas).items() if isa in isas or takes(cc, flags)}
    newest_header = max(p.stat().st_mtime for p in inputs() if p.suffix != ".c")
    jobs, linked = [], []
    for source in sorted(HERE.rglob("*.c")):
        name = source.relative_to(HERE)
        if name.parts[0] == "python":
            continue
        suffix = "".join(source.suffixes)
        variants = int_isas if suffix == ".int.isa.c" else isas if suffix == ".isa.c" else {"": []}
        for isa, flags in variants.items():
            obj = objects / name.with_suffix(f".{isa}.o" if isa else ".o")
            linked.append(str(obj))
            if not obj.exists() or obj.stat().st_mtime < max(newest_header, source.stat().st_mtime):
                obj.parent.mkdir(parents=True, exist_ok=True)
                define = [f"-DTW_ISA={isa}"] if isa else []
                jobs.append([*cc, *CFLAGS, *flags, *define, *extra, "-c", str(source), "-o", str(obj)])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, jobs))
    if jobs or not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        run([*cc, *linked, *LDFLAGS, *extra, "-o", str(out)])
    return out


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.stderr:
        print(done.stderr, file=sys.stderr, end="")
    if done.returncode:
        raise RuntimeError(f"compiling failed: {' '.join(command)}\n{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", default=os.environ.get("CC", "cc"), help="the compiler, with options if need be")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("extra", nargs="*", help="more compiler flags, after --")
    args = parser.parse_args()
    build_library(args.cc.split(), args.out, args.out.parent / "objects", tuple(args.extra))


if __name__ == "__main__":
    main()
