"""Builds the C side: libtilewright.so (kernels, no Python in it) and tilewright._c (cffi and the doors).

What is compiled with which flags is said in csrc/build_c.py. Without a C compiler the package installs without its C
backend, and tilewright.core.native.missing_reason() says so; with one, an error in compiling is an error.
"""

import json
import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

sys.path.insert(0, "csrc")
from build_c import build_library  # noqa: E402


def c_compiler() -> list[str] | None:
    """The command of the first C compiler found: $CC, the one Python was built with, or a usual name."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for command in (sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"):
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words[:1]
    return None


class BuildC(build_ext):
    """build_ext that first builds the plain library and notes beside it what was built."""

    def run(self) -> None:
        package = Path(self.get_ext_fullpath("tilewright._c")).parent
        package.mkdir(parents=True, exist_ok=True)
        cc = c_compiler()
        if cc is None or not shutil.which(cc[0]):
            reason = f"built without a C compiler (looked for {cc[0] if cc else 'cc, gcc, clang'})"
            print(f"tilewright: {reason}; installing without the C backend", file=sys.stderr)
            self.extensions = []
        else:
            reason = None
            os.environ["CC"] = shlex.join(cc)
            build_library(cc, package / "libtilewright.so", Path(self.build_temp) / "library")
            for ext in self.extensions:
                ext.library_dirs.append(str(package))
            (package / "include").mkdir(exist_ok=True)
            shutil.copy("csrc/tilewright.h", package / "include")
        (package / "_build_info.json").write_text(json.dumps({"missing": reason}) + "\n")
        super().run()


class BdistWheel(bdist_wheel):
    """The doors keep to the limited API: one wheel for every CPython from 3.11 on."""

    def finalize_options(self) -> None:
        self.py_limited_api = "cp311"
        super().finalize_options()


DATA = {"tilewright.bench.devices": ["*.toml"], "tilewright.emulate.runtime": ["*.[ch]"]}  # folders without Python

setup(
    package_dir={"": "python"},
    packages=[*find_packages("python", include=["tilewright*"]), *DATA],
    package_data={"tilewright": ["py.typed"], **DATA},
    cffi_modules=["csrc/ffi_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildC, "bdist_wheel": BdistWheel},
)
