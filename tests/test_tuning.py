"""`tilewright tune`: products are right under any numbers; only a sound file for this machine and version is used."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import conformance
from tilewright.bench import tune
from tilewright.cli import app, doctor
from tilewright.cli.info import lines
from tilewright.core import native, registry, tuning
from tilewright.core.errors import BackendUnavailable, DataError

pytestmark = pytest.mark.skipif(native.lib is None, reason="the C backend is not here")

EXTREMES = {
    "tiny blocks": {"direct_bytes": 0, "stream_rows": 0, "stream_bytes": 1024, "stream_depth": 1, "column_bytes": 64,
                    "block_bytes": 4096, "parallel_ns": 0.0},
    "nothing is packed": {"direct_bytes": 1 << 28, "column_bytes": 1 << 20, "block_bytes": 1 << 28},
    "everything streams": {"direct_bytes": 0, "stream_rows": 64, "stream_bytes": 1024, "stream_depth": 7},
}


@pytest.fixture(autouse=True)
def own_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Starts from the library's own numbers and an empty cache folder; puts back what was in force."""
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    before = native.gemm_tuning()
    native.set_gemm_tuning(None)
    yield
    native.set_gemm_tuning(before)


@pytest.fixture
def file() -> Path:
    """A good file, which changes one number."""
    return tuning.write(native.isa(), native.gemm_tuning(), {"direct_bytes": 4096})


# ---- the numbers


@pytest.mark.parametrize("op", sorted(name for name, spec in registry.specs().items() if spec.family == "gemm"))
def test_products_are_right_under_extreme_numbers(op: str, rng: np.random.Generator) -> None:
    spec, kernel = registry.spec(op), registry.kernels("gemm", "c")[op, ""]
    samples = [conformance.sample(spec, case) for dtype in registry.FLOATS for case in spec.cases(rng, dtype)]
    assert samples
    for name, numbers in EXTREMES.items():
        native.set_gemm_tuning(None)
        native.set_gemm_tuning(numbers)
        for sample in samples:
            if kernel.supports(sample.call) is None:  # with guards around the result, on 1, 2 and 3 threads
                assert conformance.Check(kernel, sample, "c").complaints == [], f"{name}: {sample.case.label}"


def test_numbers_are_read_and_changed_by_name() -> None:
    own = native.gemm_tuning()
    native.set_gemm_tuning({"direct_bytes": 4096})
    assert native.gemm_tuning() == own | {"direct_bytes": 4096}
    for wrong in ({"block_bytes": -1}, {"block_bytes": 10**40}, {"vector_ns": float("nan")}):
        with pytest.raises(ValueError, match="proportion"):
            native.set_gemm_tuning(wrong)
    assert native.gemm_tuning() == own | {"direct_bytes": 4096}
    native.set_gemm_tuning(None)
    assert native.gemm_tuning() == own


# ---- the file


def test_a_file_is_read_back(file: Path) -> None:
    assert tuning.read(native.isa(), native.gemm_tuning()) == {"direct_bytes": 4096}
    assert [p.name for p in file.parent.iterdir()] == [file.name]  # no draft is left behind


def test_no_file_is_no_complaint() -> None:
    assert tuning.read(native.isa(), native.gemm_tuning()) is None


def test_a_folder_that_cannot_be_written_to_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(file))
    assert tuning.read(native.isa(), native.gemm_tuning()) is None
    with pytest.raises(DataError, match="cannot be written"):
        tuning.write(native.isa(), native.gemm_tuning(), {})


def harmed(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


HARM = {
    "corrupt": (lambda f: f.write_bytes(b"\x00\xff{"), "damaged"),
    "truncated": (lambda f: f.write_text(f.read_text()[:-20]), "damaged"),
    "empty": (lambda f: f.write_text(""), "damaged"),
    "deep": (lambda f: f.write_text("[" * 100_000), "damaged"),
    "other JSON": (lambda f: f.write_text("[1, 2]"), "damaged"),
    "no numbers": (lambda f: harmed(f, gemm=None), "damaged"),
    "unknown number": (lambda f: harmed(f, gemm={"lanes": 4}), "damaged: lanes"),
    "text": (lambda f: harmed(f, gemm={"direct_bytes": "many"}), "damaged: direct_bytes"),
    "half a byte": (lambda f: harmed(f, gemm={"direct_bytes": 0.5}), "damaged: direct_bytes"),
    "foreign CPU": (lambda f: harmed(f, cpu="Z80"), "made for cpu 'Z80'"),
    "other caches": (lambda f: harmed(f, caches=[1, 2]), "made for caches"),
    "other ISA": (lambda f: harmed(f, isa="mmx"), "made for isa 'mmx'"),
    "other version": (lambda f: harmed(f, tilewright="0.0.1"), "made for tilewright '0.0.1'"),
    "other format": (lambda f: harmed(f, format=99), "made for format 99"),
    "unreadable": (lambda f: (f.unlink(), f.mkdir()), "cannot be read"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_file_that_is_not_for_here_says_why(harm: str, file: Path) -> None:
    do, words = HARM[harm]
    do(file)
    with pytest.raises(ValueError, match=words):
        tuning.read(native.isa(), native.gemm_tuning())


REPORT = """
import json, numpy as np, tilewright as tw
from tilewright.core import native
a = np.ones((64, 64), np.float32)
assert (tw.matmul(a, a, backend="c") == 64).all()
print(json.dumps([native.tuned, native.gemm_tuning()["direct_bytes"]]))
"""


def in_a_new_process(env: dict[str, str]) -> tuple[list, str]:
    """What a process that starts now uses, and what it says on standard error."""
    env = env | {"TILEWRIGHT_CACHE_DIR": os.environ["TILEWRIGHT_CACHE_DIR"], "TILEWRIGHT_ISA": native.isa()}
    done = subprocess.run([sys.executable, "-c", REPORT], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_new_process_uses_the_file(file: Path, child_env: dict[str, str]) -> None:
    assert in_a_new_process(child_env) == ([{"direct_bytes": 4096}, 4096], "")


@pytest.mark.parametrize("numbers", [{"direct_bytes": -1}, {"direct_bytes": "many"}])  # C refuses the first
def test_a_new_process_ignores_a_bad_file(numbers: dict, file: Path, child_env: dict[str, str]) -> None:
    harmed(file, gemm=numbers)
    used, said = in_a_new_process(child_env)
    assert used == [None, native.gemm_tuning()["direct_bytes"]]
    assert said.count("RuntimeWarning") == 1 and f"{file} is ignored" in said


# ---- the command


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times by which 4096 is twice as good a direct_bytes as any other, and all other numbers do not matter."""
    def under(settings: list, run: object, rounds: int) -> list[list[float]]:
        return [[1.0 if setting.args[0].get("direct_bytes") == 4096 else 2.0] for setting in settings]

    monkeypatch.setattr(tune.timing, "under", under)
    own = native.gemm_tuning()["direct_bytes"]
    monkeypatch.setattr(tune, "KNOBS", (tune.Knob("direct_bytes", (2, 4096 / own), ((2, 2, 2),)),
                                        tune.Knob("stream_rows", (2,), ((1, 2, 2),))))
    monkeypatch.setattr(tune.tune, "__defaults__", (tune.KNOBS, None))


def run(*args: str) -> str:
    result = CliRunner().invoke(app, ["tune", *args])
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_better_is_kept_until_it_is_reset(planted: None) -> None:
    file = tuning.path(native.isa())
    assert "not written" in run("--dry-run") and not file.exists()
    output = run()
    assert output.count("taken") == 2 and str(file) in output  # the number, and all together
    assert tuning.read(native.isa(), native.gemm_tuning()) == {"direct_bytes": 4096}
    assert "gone" in run("--reset") and not file.exists()
    assert "there is no" in run("--reset")


def test_noise_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value in force, timed twice, differs as much as the other value does."""
    monkeypatch.setattr(tune.timing, "under", lambda settings, run, n: [[1.0], [0.9], *([0.9] for _ in settings[2:])])
    found = tune.tune([tune.Knob("direct_bytes", (2,), ((2, 2, 2),))])
    assert found.changed == {} and found.together is None and not found.trials[0].better


def test_real_rounds_leave_the_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "ROUNDS", 2)
    monkeypatch.setattr(tune.timing, "TURN", 0.0)
    native.set_gemm_tuning({"stream_rows": 3})
    before, told = native.gemm_tuning(), []
    factors = (0.5, 2, 2.0**40)  # the last is refused
    found = tune.tune([tune.Knob("direct_bytes", factors, ((2, 3, 4),))], lambda *step: told.append(step))
    assert native.gemm_tuning() == before
    assert [t.value / t.before for t in found.trials] == [0.5, 2]
    assert told == [(0, 2, "direct_bytes"), (1, 2, "all together")]


def test_every_knob_is_a_number_of_the_library() -> None:
    assert {knob.name for knob in tune.KNOBS} <= set(native.gemm_tuning())


def test_without_the_library_there_is_nothing_to_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(BackendUnavailable, match="nothing to tune"):
        patch.setattr(native, "lib", None)
        tune.tune()


def test_info_and_doctor_show_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    from tilewright.bench import machine

    for tuned, words in ((None, "library's own"), ({}, "best ones"), ({"stream_rows": 6}, "stream_rows 6")):
        monkeypatch.setattr(native, "tuned", tuned)
        assert words in dict(lines(machine()))["tuning"]
    assert [f.level for f in doctor.tuned_numbers()] == ["ok"]
    monkeypatch.setattr(native, "_tuning_complaint", "FILE is ignored: it is damaged")
    (finding,) = doctor.tuned_numbers()
    assert finding.level == "note" and "tilewright tune" in finding.mend
