"""cffi's description of tilewright._c: the public header as it stands, and the doors of csrc/python."""

import re
from pathlib import Path

import numpy
from cffi import FFI

HERE = Path(__file__).parent


def prototypes(header: Path) -> str:
    """A header's text without its preprocessor lines and what they keep for C++."""
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", header.read_text(), flags=re.DOTALL)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


ffibuilder = FFI()
ffibuilder.cdef(prototypes(HERE / "tilewright.h"))
ffibuilder.cdef(prototypes(HERE / "python" / "init.h"))
ffibuilder.set_source(
    "tilewright._c",
    '#include "tilewright.h"\n#include "python/init.h"',
    sources=sorted(f"csrc/python/{p.name}" for p in HERE.glob("python/*.c")),
    include_dirs=["csrc", numpy.get_include()],
    depends=sorted(f"csrc/{p.relative_to(HERE)}" for p in HERE.rglob("*.[ch]")),
    libraries=["tilewright"],
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden", "-fno-wrapv", "-Wall"],
    extra_link_args=["-Wl,-rpath,$ORIGIN"],
    py_limited_api=True,
)
