"""Kernels are declared once, compiled without a driver, kept on disk by what they are made of, and launched safely."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conformance

if no_emulator := conformance.no_emulator():
    pytest.skip(no_emulator, allow_module_level=True)

from tilewright import emulate
from tilewright.core import arrays, checking, device, registry
from tilewright.core.errors import BackendUnavailable
from tilewright.kernels.ptx import cache, elementwise, launch, vmath
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, inline, uint32, uint64
from tilewright.kernels.ptx.emulated import spans
from tilewright.kernels.ptx.launch import blocks, kernel, specialise

ARCHITECTURES = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]
DOUBLE = """
import sys
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx.cuda import cuda, float32, inline, uint32, uint64
from tilewright.kernels.ptx.launch import kernel
@inline
def twice(x):
    return x * float32(2)
@kernel("r x, w y, u32 n", threads=64)
def other(x, y, n):
    room = cuda.shared.array(64, float32)
    room[cuda.threadIdx.x] = float32(n)
@kernel("r x, w y, u32 n", threads=64)
def double(x, y, n):
    room = cuda.shared.array(64, float32)
    i = uint32(uint32(cuda.blockIdx.x) * uint32(64) + uint32(cuda.threadIdx.x))
    if i < n:
        ptx.stg_f32(y + uint64(i) * uint64(4), twice(ptx.ldg_f32(x + uint64(i) * uint64(4))))
        room[cuda.threadIdx.x] = float32(i)
"""


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    with device.using(conformance.emulated_device()):
        yield


@kernel("r x, w y, u32 n, f32 factor", threads=64)
def scale(x, y, n, factor):
    i = uint32(uint32(cuda.blockIdx.x) * uint32(64) + uint32(cuda.threadIdx.x))
    if i < n:
        at = uint64(i) * uint64(4)
        ptx.stg_f32(y + at, ptx.ldg_f32(x + at) * factor)


# ---- declarations

def test_signatures_are_checked_when_a_kernel_is_declared() -> None:
    def f(x, n):
        pass
    for signature, text in (("r x", "parameters"), ("r x, f16 n", "f16 is none of"), ("r n, u32 x", "parameters")):
        with pytest.raises(ValueError, match=text):
            kernel(signature, threads=32)(f)
    with pytest.raises(TypeError, match="takes 4 arguments, not 3"):
        scale.launch(1, None, None, 3)


def test_every_kernel_of_the_tree_is_enumerated() -> None:
    found = list(launch.declared())
    names = [k.name for k in found]
    assert len(set(names)) == len(names) and all(name.startswith("tw_") for name in names)
    families = {name.split("_")[1] for name in names}
    assert families == {"ptx", *(f for f in registry.families() if registry.kernels(f, "cuda"))}
    for k in found:
        x, y, z = k.block
        assert 0 < x * y * z <= 1024 and k.needs >= (7, 5) and callable(k.function)


def test_specialisations_are_made_once() -> None:
    made = []

    @specialise(("a", 1), ("b", 2))
    def family(name, n):
        made.append(name)

        @kernel("w y", threads=1)
        def family(y):
            ptx.stg_u32(y, uint32(n))
        return family
    assert family("a", 1) is family("a", 1) and made == ["a"]
    assert family("a", 1).name.endswith("_family_a_1") and family("b", 2).name.endswith("_family_b_2")
    y = np.zeros(1, np.uint32)
    family("b", 2).launch(1, y)
    assert y[0] == 2


# ---- compiling

@pytest.mark.parametrize("cc", ARCHITECTURES, ids=lambda cc: f"sm_{cc[0]}{cc[1]}")
def test_ptx_for_every_architecture_without_a_driver(cc: tuple[int, int]) -> None:
    text = scale.ptx(cc)
    assert f".target sm_{cc[0]}{cc[1]}" in text and f".visible .entry {scale.name}(" in text
    assert ".maxntid 64" in text and "NumbaEnv" not in text and "f64" not in text


def test_a_kernel_says_what_it_needs() -> None:
    newer = kernel("r x, w y, u32 n, f32 factor", threads=64, needs=(8, 0))(scale.function)
    assert newer.ptx((8, 0))
    with pytest.raises(BackendUnavailable, match="needs compute capability 8.0, the device has 7.5"):
        newer.ptx((7, 5))


def run(code: str, tmp_path: Path, child_env: dict[str, str], cache: str = "cache") -> str:
    """What a program prints that is in a file of its own, always the same one."""
    program = tmp_path / "program.py"
    if not program.exists() or program.read_text() != code:
        program.write_text(code)
    env = child_env | {"TILEWRIGHT_CACHE_DIR": str(tmp_path / cache)}
    return subprocess.run([sys.executable, str(program)], env=env, capture_output=True, text=True, check=True).stdout


def test_ptx_does_not_depend_on_what_was_compiled_before(tmp_path: Path, child_env: dict[str, str]) -> None:
    first = DOUBLE + "if len(sys.argv) > 5: pass\nprint(double.ptx((9, 0)))"
    later = DOUBLE + "other.ptx((9, 0)); print(double.ptx((9, 0)))"
    assert run(first, tmp_path, child_env, "one") == run(later, tmp_path, child_env, "two")


def test_processes_that_compile_at_once_see_whole_files(tmp_path: Path, child_env: dict[str, str]) -> None:
    code = DOUBLE + "print(double.ptx((9, 0)))"
    run(code, tmp_path, child_env, "before")
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: run(code, tmp_path, child_env), range(4)))
    file, = (tmp_path / "cache" / "ptx").iterdir()
    assert set(texts) == {file.read_text() + "\n"} and file.suffix == ".ptx"


def test_what_is_on_disk_is_used_and_what_cannot_be_written_is_made(tmp_path: Path, child_env: dict[str, str]) -> None:
    code = DOUBLE + "print(double.ptx((9, 0)))"
    text = run(code, tmp_path, child_env)
    file, = (tmp_path / "cache" / "ptx").iterdir()
    file.write_text("from the cache")
    assert run(code, tmp_path, child_env) == "from the cache\n"
    (tmp_path / "file").write_text("")
    assert run(code, tmp_path, child_env, "file/below") == text  # no folder can be made there


def factor(number: Any, helper: Any = None) -> Any:
    def body(x, y, n):
        ptx.stg_f32(y, float32(number))
    return body


def test_fingerprints_tell_kernels_apart() -> None:
    @inline
    def plus(x):
        return x + float32(1)

    @inline
    def minus(x):
        return x - float32(1)

    def with_function(f: Any) -> Any:
        def body(x, y, n):
            ptx.stg_f32(y, f(ptx.ldg_f32(x)))
        return body
    many = [factor(1), factor(1.0), factor(np.float32(1)), factor(2), factor((1, 2)), factor((1, (2,))),
            with_function(plus), with_function(minus), with_function(vmath.functions(np.float32).exp),
            with_function(vmath.functions(np.float64).exp), with_function(ptx.f32_bits), with_function(ptx.bits_f32),
            with_function(ptx.dp4a_us), with_function(ptx.dp4a_su)]
    prints = list(map(cache.fingerprint, many))
    assert len(set(prints)) == len(prints)
    assert cache.fingerprint(factor(2)) == prints[3] and cache.fingerprint(with_function(plus)) == prints[6]


@pytest.mark.parametrize("thing", [[1, 2], {"a": 1}, object(), np.ones(3), {1, 2}], ids=lambda x: type(x).__name__)
def test_a_kernel_refers_to_nothing_that_can_change(thing: Any) -> None:
    with pytest.raises(TypeError, match="neither a constant nor a device function"):
        cache.fingerprint(factor(thing))


# ---- launching

def test_a_launch_on_arrays(rng: np.random.Generator) -> None:
    x = rng.standard_normal(1000).astype(np.float32)
    y = np.full(1000, np.nan, np.float32)
    scale.launch(blocks(1000, 64), x, y, 1000, 3.0)
    assert np.array_equal(y, x * np.float32(3))
    scale.launch(0, x, y, 0, 3.0)  # no blocks, nothing to do
    scale.launch(1, x[:0], y[:0], 0, 3.0)
    scale.launch(1, None, None, 0, 3.0)


@pytest.mark.parametrize(("n", "x", "y", "kind"), [
    (101, 100, 101, "bounds"), (101, 101, 100, "bounds"), (65, 64, 64, "bounds")])
def test_memory_beyond_the_arrays_is_out_of_reach(n: int, x: int, y: int, kind: str) -> None:
    block = np.zeros(4096, np.float32)  # what lies beyond is there, and must not be touched
    with pytest.raises(emulate.Fault) as fault:
        scale.launch(blocks(n, 64), block[:x], block[2048:2048 + y], n, 2.0)
    assert kind in str(fault.value) and "test_cuda_launch.py" in str(fault.value)


def test_memory_that_is_read_is_not_written_and_what_is_written_not_read() -> None:
    @kernel("r x, w y", threads=1)
    def wrong(x, y):
        ptx.stg_f32(x, float32(1))

    @kernel("r x, w y", threads=1)
    def early(x, y):
        ptx.stg_f32(y, ptx.ldg_f32(y) + float32(1))

    @kernel("r x, rw y", threads=1)
    def fine(x, y):
        ptx.stg_f32(y, ptx.ldg_f32(y) + float32(1))
    x, y = np.zeros(1, np.float32), np.zeros(1, np.float32)
    for bad in (wrong, early):
        with pytest.raises(emulate.Fault):
            bad.launch(1, x, y)
    fine.launch(1, x, y)
    assert y[0] == 1


def test_memory_found_through_addresses_in_memory(rng: np.random.Generator) -> None:
    @kernel("r table", threads=32)
    def each(table):
        at = ptx.ldg_u64(table + uint64(uint32(cuda.blockIdx.x)) * uint64(8))
        at += uint64(uint32(cuda.threadIdx.x)) * uint64(4)
        ptx.stg_f32(at, ptx.ldg_f32(at) + float32(1))
    many = [rng.standard_normal(32).astype(np.float32) for _ in range(5)]
    before = [x.copy() for x in many]
    table = np.array([arrays.address(x) for x in many], np.uint64)
    each.launch(5, table, reach=[(x, "rw") for x in many])
    assert all(np.array_equal(x, b + np.float32(1)) for x, b in zip(many, before, strict=True))
    with pytest.raises(emulate.Fault):
        each.launch(5, table, reach=[(x, "rw") for x in many[:4]])


def test_spans_of_memory() -> None:
    x = np.zeros(100, np.float32)
    start = arrays.address(x)

    def found(*memory: Any) -> list[tuple[int, int, str]]:
        return [((low := arrays.address(m)) - start, low - start + m.nbytes, mode) for m, mode in spans(memory)]
    assert found((x[10:20], "r")) == [(40, 80, "r")]
    assert found((x[20:10:-1], "w")) == [(44, 84, "w")]
    assert found((x[::3], "r"), (x[1::3], "w")) == [(0, 400, "rw")]
    assert found((x[50:], "r"), (x[:50], "w")) == [(0, 200, "w"), (200, 400, "r")]
    assert found((x[:60], "r"), (x[10:20], "r"), (x[50:], "r")) == [(0, 400, "r")]
    assert found((np.broadcast_to(x[:1], (9,)), "r")) == [(0, 4, "r")]


# ---- elementwise geometry

def visited(arrays_: tuple[np.ndarray, ...]) -> list[tuple[int, ...]]:
    """The addresses of the elements of each array that a strided kernel would take together."""
    together = []
    for g in elementwise.strided(*arrays_):
        for i in range(g.elements):
            places = np.unravel_index(i, g.sizes)
            steps = np.reshape(g.steps, (len(arrays_), elementwise.AXES))
            together.append(tuple(arrays.address(x) + int(np.dot(places, s))
                                  for x, s in zip(g.arrays, steps, strict=True)))
    return together


def test_every_element_is_taken_once_and_with_its_own(rng: np.random.Generator,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (1 << 31, 7):
        monkeypatch.setattr(elementwise, "MOST", most)
        for _ in range(60):
            ndim = int(rng.integers(0, 6))
            shape = tuple(int(n) for n in rng.integers(1, 4, ndim))
            pair = []
            for _ in range(2):
                big = np.empty(tuple(n + int(rng.integers(2)) for n in shape), np.float32)
                order = rng.permutation(ndim)
                x = big[tuple(slice(n) for n in shape)].transpose(order).transpose(np.argsort(order))
                pair.append(x[tuple(slice(None, None, int(rng.choice([1, -1]))) for _ in shape)])
            x, y = pair
            expected = {tuple(arrays.address(v[(*at, ...)]) for v in (x, y)) for at in np.ndindex(shape)}
            found = visited((x, y))
            assert len(found) == len(expected) and set(found) == expected
            for vectors in elementwise.flat(x, y):
                assert all(v.ndim == 1 and v.flags.c_contiguous and arrays.address(v) % 16 == 0 for v in vectors)


def test_which_layouts_are_vectors() -> None:
    x = np.empty((8, 8), np.float32)
    assert elementwise.flat(x, x) and elementwise.flat(x.T, x.T) and elementwise.flat(x[2:6], x[4:])
    assert not elementwise.flat(x, x.T) and not elementwise.flat(x[:, ::2]) and not elementwise.flat(x.reshape(-1)[1:])
    assert not elementwise.flat(np.broadcast_to(x[0], (8, 8)), x)


# ---- mathematics

EXACT: dict[str, Any] = {
    "exp": np.exp, "expm1": np.expm1, "tanh": np.tanh, "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "log1p_unit": np.log1p}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(EXACT))
def test_functions_of_numbers_are_within_4_ulp(name: str, dtype: str, rng: np.random.Generator) -> None:
    real = np.dtype(dtype).type
    f, size = getattr(vmath.functions(real), name), np.dtype(dtype).itemsize
    number = "f32" if real is np.float32 else "f64"
    load, store = getattr(ptx, f"ldg_{number}"), getattr(ptx, f"stg_{number}")

    @kernel("r x, w y, u32 n", threads=256)
    def apply(x, y, n):
        i = uint32(uint32(cuda.blockIdx.x) * uint32(256) + uint32(cuda.threadIdx.x))
        if i < n:
            store(y + uint64(i) * uint64(size), f(load(x + uint64(i) * uint64(size))))
    wide = {"float32": 105, "float64": 746}[dtype]
    x = rng.uniform(0, 1, 40000) if name == "log1p_unit" else np.concatenate([
        rng.uniform(-wide, wide, 20000), rng.standard_normal(10000), rng.standard_normal(10000) * 1e-3,
        [0.0, -0.0, np.inf, -np.inf, np.nan]])
    x = x.astype(dtype)
    y = np.empty_like(x)
    apply.launch(blocks(x.size, 256), x, y, x.size)
    with np.errstate(all="ignore"):
        exact = EXACT[name](x.astype(np.longdouble if dtype == "float64" else np.float64)).astype(np.float64)
    assert checking.mismatch(y, exact, 4 * checking.ulp(exact, dtype)) is None


def test_no_cuda_is_loaded_before_it_is_needed(child_env: dict[str, str]) -> None:
    code = ("import sys, numpy as np, tilewright as tw; tw.backends(); tw.gelu(np.ones(3)); "
            "print([m for m in sys.modules if m.split('.')[0] in ('numba_cuda', 'cuda') or m.startswith('numba')])")
    for setting in ({}, {"TILEWRIGHT_CUDA": "emulate"}):
        done = subprocess.run([sys.executable, "-c", code], env=child_env | setting, capture_output=True, text=True,
                              check=True)
        assert done.stdout.strip() == "[]", done.stdout
