"""The machine code of every declared CUDA kernel, by the assembler's own figures, on three architectures."""
from __future__ import annotations

import shutil
from functools import cache
from typing import Any

import pytest

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")

from typer.testing import CliRunner  # noqa: E402

from tilewright.cli import app  # noqa: E402
from tilewright.cli.cuda_report import capability  # noqa: E402
from tilewright.core.errors import ArgumentError, BackendUnavailable  # noqa: E402
from tilewright.kernels.ptx import assembler, bars, launch, samples, sass  # noqa: E402

KERNELS = list(launch.declared())
TRACED = [k for k in KERNELS if k.bars.conflicts is not None or k.bars.sectors is not None]
needs_assembler = pytest.mark.skipif(assembler.missing() is not None, reason=str(assembler.missing()))
needs_compiler = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")

SASS = """
.text.tw_x:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 BRA `(.L_x_2) ;
.L_x_0:
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
.L_x_1:
        /*0030*/                   LDS.128 R8, [R1] ;
        /*0040*/                   LDS.64 R8, [R1] ;
        /*0050*/                   FFMA R1, R2, R3, R4 ;
        /*0060*/                   FFMA R1, R2.reuse, R3, R4 ;
        /*0070*/                   NOP ;
        /*0080*/              @!UP0 BRA.U !UP0, `(.L_x_1) ;
        /*0090*/               @P0 BRA `(.L_x_0) ;
        /*00a0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
.L_x_2:
        /*00b0*/                   STG.E.U16 desc[UR4][R2.64], R9 ;
        /*00c0*/                   STL.64 [R1], R2 ;
        /*00d0*/                   DFMA R2, R4, R6, R8 ;
        /*00e0*/                   F2F.F64.F32 R2, R4 ;
        /*00f0*/                   HMMA.16816.F32.BF16 R4, R8, R12, R4 ;
.L_x_3:
        /*0100*/                   BRA `(.L_x_3);
"""


def test_machine_code_is_counted() -> None:
    code = sass.read(SASS)
    assert code.hot is not None
    assert code.hot.opcodes == ("LDS.128", "LDS.64", "FFMA", "FFMA", "BRA.U")
    assert code.hot.ffma == 2 / 5 and code.hot.products == 2 * 32
    assert code.hot.loads == {("LDS", 128): 1, ("LDS", 64): 1}
    assert code.accesses == {("LDG", 128): 1, ("LDS", 128): 1, ("LDS", 64): 1, ("STG", 16): 1}
    assert [code.count(what) for what in (sass.LOCAL, sass.DOUBLE, sass.BARRIER, sass.MATRIX)] == [1, 2, 1, 1]


def test_the_hot_loop_is_the_dense_one() -> None:
    """Not the epilogue, which has more multiply-adds, thinly, nor the short one; but before all that of matrices."""
    def loop(label: int, *opcodes: str) -> str:
        body = "".join(f"        /*0010*/                   {opcode} R1, R2 ;\n" for opcode in opcodes)
        return f".L_x_{label}:\n{body}        /*0020*/               @P0 BRA `(.L_x_{label}) ;\n"
    main, thin = ["FFMA"] * 64 + ["LDS.128"] * 8, (["FFMA"] + ["STG.E"] * 4) * 128
    code = sass.read(loop(1, *main) + loop(2, *thin) + loop(3, *["FFMA"] * 15))
    assert code.hot is not None and code.hot.ffma == 64 / 73
    code = sass.read(loop(1, *main) + loop(4, "HMMA.16816.F32", "LDSM.16.M88.4"))
    assert code.hot is not None and code.hot.matrix == 1 and len(code.hot.opcodes) == 3
    assert code.hot.products == 16 * 8 * 16
    code = sass.read(loop(1, "IMMA.16832.S8.S8", "HMMA.1688.F32.TF32", "IDP.4A.S8.S8", "DFMA", "FFMA2", "IADD3"))
    assert code.hot is not None and code.hot.products == 16 * 8 * 32 + 16 * 8 * 8 + (4 + 1 + 2) * 32


def made(**changes: Any) -> assembler.Assembled:
    """An assembled kernel whose code is SASS."""
    values = dict(name="tw_x", ptx="", cc=(9, 0), registers=100, stack=0, spills=0, shared=0) | changes
    found = assembler.Assembled(**values)
    vars(found)["code"] = sass.read(SASS)
    return found


@pytest.mark.parametrize(("bar", "changes", "words"), [
    (bars.Bars(), {"spills": 8}, "8 bytes of spills"),
    (bars.Bars(), {"stack": 8}, "8 bytes of stack"),
    (bars.Bars(), {"ptx": ".local .b8"}, "1 local-memory"),
    (bars.Bars(), {"ptx": "fma.rn.f64"}, "2 double-precision"),
    (bars.Bars(registers=99), {}, "100 registers"),
    (bars.Bars(ffma=0.5), {}, "40.0% FFMA"),
    (bars.Bars(per_matrix=4), {}, "0 matrix instructions"),
    (bars.Bars(loads=128), {}, "1 LDS of 64 bits"),
    (bars.Bars(widest=128), {}, "widest global store has 16 bits")])
def test_a_missed_bar_is_said(bar: bars.Bars, changes: dict, words: str) -> None:
    kernel = launch.kernel("u32 n", threads=32, bars=bar)(lambda n: None)
    assert any(words in what for what in bars.missed(kernel, made(**changes)))


def test_bars_that_are_reached_are_silent() -> None:
    bar = bars.Bars(registers=100, ffma=0.4, loads=64, double=True)
    kernel = launch.kernel("u32 n", threads=32, bars=bar)(lambda n: None)
    assert bars.missed(kernel, made(ptx="fma.rn.f64")) == []


def test_there_are_kernels() -> None:
    assert KERNELS and len({k.name for k in KERNELS}) == len(KERNELS)


@needs_assembler
@pytest.mark.parametrize("cc", bars.CCS, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: k.name)
def test_assembled(kernel: launch.Kernel, cc: tuple[int, int]) -> None:
    if cc < kernel.needs:
        pytest.skip(f"{kernel.name} needs sm_{kernel.needs[0]}{kernel.needs[1]}")
    assert bars.missed(kernel, assembler.assemble(kernel.name, kernel.ptx(cc), cc)) == []


@cache
def calls() -> list[samples.Sample]:
    return list(samples.calls())


def traced() -> list[list[launch.Kernel]]:
    """Kernels with bars for the trace, by source: conflicts and sectors follow the layout alone."""
    groups: dict[tuple, list[launch.Kernel]] = {}
    for k in TRACED:
        groups.setdefault((k.function.__module__, k.function.__qualname__, k.bars), []).append(k)
    return list(groups.values())


@needs_compiler
@pytest.mark.parametrize("group", traced(), ids=lambda group: group[0].name)
def test_traced(group: list[launch.Kernel]) -> None:
    launched = {name for sample in calls() for name, _, _ in sample.launches}
    kernel = next(k for k in group if k.name in launched)
    report = samples.trace(kernel.name, calls())
    assert report is not None and report.instructions
    assert list(bars.missed_in_trace(kernel, report)) == []


@needs_assembler
def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["cuda-report", "--kernel", "flat_relu_float32", "--cc", "9.0"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "activation_flat_relu_float32" in result.output and "STG" in result.output
    one = next(k for k in KERNELS if k.name == "tw_activation_flat_relu_float32")
    monkeypatch.setattr(one, "bars", bars.Bars(registers=1))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "MISSED" in result.output


def test_without_an_assembler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembler, "tool", lambda name: None)
    result = CliRunner().invoke(app, ["cuda-report"])
    assert isinstance(result.exception, BackendUnavailable)
    assert "pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm" in str(result.exception)


def test_compute_capabilities() -> None:
    assert [capability(text) for text in ("9.0", "sm_120", "86")] == [(9, 0), (12, 0), (8, 6)]
    with pytest.raises(ArgumentError, match="hopper"):
        capability("hopper")
