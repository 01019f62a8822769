"""PTX intrinsics do what their names say: each in a kernel of its own on the emulator, against NumPy."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import conformance

if no_emulator := conformance.no_emulator():
    pytest.skip(no_emulator, allow_module_level=True)

from tilewright.core import device
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import warp
from tilewright.kernels.ptx.cuda import cuda, float32, float64, int32, uint32, uint64
from tilewright.kernels.ptx.launch import Kernel, kernel

LANES = 32
NUMBERS = {"f32": np.float32, "f64": np.float64, "u32": np.uint32, "u64": np.uint64, "u16": np.uint16, "u8": np.uint8,
           "s8": np.int8}


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    with device.using(conformance.emulated_device()):
        yield


def raw(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits at all, NaN's payloads included."""
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), dtype).reshape(shape).copy()


# ---- loads and stores

def names(prefix: str) -> list[str]:
    return [name for name in vars(ptx) if name.startswith(prefix)]


def copying(load: Any, store: Any, size: int, width: int) -> Kernel:
    """Each lane copies `width` numbers of `size` bytes."""
    if width == 1:
        @kernel("r x, w y", threads=LANES)
        def one(x, y):
            at = uint64(uint32(cuda.threadIdx.x) * uint32(size))
            store(y + at, load(x + at))
        return one
    if width == 2:
        @kernel("r x, w y", threads=LANES)
        def two(x, y):
            at = uint64(uint32(cuda.threadIdx.x) * uint32(2 * size))
            a, b = load(x + at)
            store(y + at, a, b)
        return two

    @kernel("r x, w y", threads=LANES)
    def four(x, y):
        at = uint64(uint32(cuda.threadIdx.x) * uint32(4 * size))
        a, b, c, d = load(x + at)
        store(y + at, a, b, c, d)
    return four


def parts(name: str) -> tuple[str, int]:
    kind, _, width = name.rpartition("_")[2].partition("x")
    return kind, int(width or 1)


@pytest.mark.parametrize("name", names("ldg_"))
def test_global_memory(name: str, rng: np.random.Generator) -> None:
    kind, width = parts(name)
    store = {"s8": "u8"}.get(kind, kind) + (f"x{width}" if width > 1 else "")
    x = raw(rng, NUMBERS[kind], (LANES, width))
    y = np.empty_like(x)
    copying(getattr(ptx, name), getattr(ptx, f"stg_{store}"), x.itemsize, width).launch(1, x, y)
    assert x.tobytes() == y.tobytes()


def test_bytes_are_extended_by_their_sign(rng: np.random.Generator) -> None:
    @kernel("r x, w y", threads=LANES)
    def widened(x, y):
        i = uint32(cuda.threadIdx.x)
        ptx.stg_u32x2(y + uint64(i) * uint64(8), uint32(ptx.ldg_s8(x + uint64(i))), ptx.ldg_u8(x + uint64(i)))
    x = np.arange(-16, 16, dtype=np.int8) * 8
    y = np.empty((LANES, 2), np.uint32)
    widened.launch(1, x, y)
    assert np.array_equal(y[:, 0].view(np.int32), x) and np.array_equal(y[:, 1], x.view(np.uint8))


@pytest.mark.parametrize("name", names("lds_"))
def test_shared_memory(name: str, rng: np.random.Generator) -> None:
    """A lane's numbers go into shared memory and come out in the lane opposite."""
    kind, width = parts(name)
    load, store = getattr(ptx, name), getattr(ptx, f"sts_{name.removeprefix('lds_')}")
    read, write = getattr(ptx, f"ldg_{kind}"), getattr(ptx, f"stg_{kind}")
    size = np.dtype(NUMBERS[kind]).itemsize
    step = size * width

    @kernel("r x, w y", threads=LANES)
    def through(x, y):
        room = cuda.shared.array(1024, uint32, alignment=16)
        lane = uint32(cuda.threadIdx.x)
        mine = uint32(ptx.smem_addr(room) + lane * uint32(step))
        theirs = uint32(ptx.smem_addr(room) + uint32(uint32(31) - lane) * uint32(step))
        at = uint64(lane * uint32(step))
        if width == 1:
            store(mine, read(x + at))
        elif width == 2:
            store(mine, read(x + at), read(x + at + uint64(size)))
        else:
            store(mine, read(x + at), read(x + at + uint64(size)), read(x + at + uint64(2 * size)),
                  read(x + at + uint64(3 * size)))
        cuda.syncthreads()
        if width == 1:
            write(y + at, load(theirs))
        else:
            found = load(theirs)
            write(y + at, found[0])
            write(y + at + uint64(size), found[1])
            if width == 4:
                write(y + at + uint64(2 * size), found[2])
                write(y + at + uint64(3 * size), found[3])
    x = raw(rng, NUMBERS[kind], (LANES, width))
    y = np.empty_like(x)
    through.launch(1, x, y)
    assert y.tobytes() == x[::-1].tobytes()


@pytest.mark.parametrize("size", [4, 8, 16])
def test_asynchronous_copies(size: int, rng: np.random.Generator) -> None:
    """Whole in the first half of shared memory; in the second only the first bytes, zeros behind them."""
    whole, first = getattr(ptx, f"cp_async_{size}"), getattr(ptx, f"cp_async_{size}_first")

    @kernel("r x, w y, u32 count", threads=LANES, needs=(8, 0))
    def copied(x, y, count):
        room = cuda.shared.array(1024, uint32, alignment=16)
        lane = uint32(cuda.threadIdx.x)
        place = uint32(ptx.smem_addr(room) + lane * uint32(size))
        whole(place, x + uint64(lane * uint32(size)))
        first(uint32(place + uint32(32 * size)), x + uint64(lane * uint32(size)), count)
        ptx.cp_async_commit()
        ptx.cp_async_wait_0()
        cuda.syncthreads()
        i = lane
        while i < uint32(2 * 32 * size // 4):
            ptx.stg_u32(y + uint64(i) * uint64(4), room[i])
            i += uint32(LANES)
    x = raw(rng, np.uint8, (LANES, size))
    for count in (0, size // 4 * 3, size):
        y = np.empty((2, LANES, size), np.uint8)
        copied.launch(1, x, y, count)
        expected = x.copy()
        expected[:, count:] = 0
        assert np.array_equal(y[0], x) and np.array_equal(y[1], expected)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_atomic_addition_gives_what_was_there(dtype: type) -> None:
    wide = dtype is np.uint64
    add, store, size, three = ((ptx.atom_add_u64, ptx.stg_u64, 8, np.uint64(3)) if wide else
                               (ptx.atom_add_u32, ptx.stg_u32, 4, np.uint32(3)))

    @kernel("rw counter, w seen", threads=LANES)
    def ticket(counter, seen):
        store(seen + uint64(uint32(cuda.threadIdx.x)) * uint64(size), add(counter, three))
    first = 2**32 - 5 if wide else 5
    counter, seen = np.array([first], dtype), np.empty(4 * LANES, dtype)
    ticket.launch(1, counter, seen)
    assert counter[0] == first + 3 * LANES and sorted(seen[:LANES]) == list(range(first, first + 3 * LANES, 3))


# ---- tensor cores

def placed(matrix: np.ndarray, registers: int, per: int, rows_first: bool) -> np.ndarray:
    """The registers of each lane, (32, registers) of uint32, for a (rows_first) or b of mma; `per` elements each."""
    lanes = np.empty((LANES, registers, per), matrix.dtype)
    half = 4 * per
    for lane in range(LANES):
        group, of_four = lane >> 2, lane & 3
        for r in range(registers):
            for e in range(per):
                along = of_four * per + e + half * (r >> 1 if rows_first else r)
                lanes[lane, r, e] = matrix[group + 8 * (r & 1), along] if rows_first else matrix[along, group]
    return np.ascontiguousarray(lanes).view(np.uint32).reshape(LANES, registers)


def gathered(lanes: np.ndarray, rows: int) -> np.ndarray:
    """The matrix (rows, 8) that lanes hold as c or d."""
    matrix = np.empty((rows, 8), lanes.dtype)
    for lane in range(LANES):
        for r in range(lanes.shape[1]):
            matrix[(lane >> 2) + 8 * (r >> 1), (lane & 3) * 2 + (r & 1)] = lanes[lane, r]
    return matrix


def spread(matrix: np.ndarray) -> np.ndarray:
    """The opposite of `gathered`."""
    count = matrix.shape[0] // 4
    index = gathered(np.arange(LANES * count).reshape(LANES, count), matrix.shape[0])
    lanes = np.empty(LANES * count, matrix.dtype)
    lanes[index] = matrix
    return lanes.reshape(LANES, count)


def multiplying(mma: Any, a: int, b: int, c: int, integer: bool) -> Kernel:
    """d = a b + c for a warp; a, b, c: registers of each."""
    load_c = ptx.ldg_u32 if integer else ptx.ldg_f32
    store = ptx.stg_u32 if integer else ptx.stg_f32
    of_c, of_d = (int32, uint32) if integer else (float32, float32)

    @kernel("r a_, r b_, r c_, w d_", threads=LANES)
    def multiply(a_, b_, c_, d_):
        lane = uint64(uint32(cuda.threadIdx.x))
        pa, pb, pc, pd = a_ + lane * uint64(4 * a), b_ + lane * uint64(4 * b), c_ + lane * uint64(4 * c), \
            d_ + lane * uint64(4 * c)
        c0, c1 = of_c(load_c(pc)), of_c(load_c(pc + uint64(4)))
        if a == 4:
            c2, c3 = of_c(load_c(pc + uint64(8))), of_c(load_c(pc + uint64(12)))
            d = mma(ptx.ldg_u32(pa), ptx.ldg_u32(pa + uint64(4)), ptx.ldg_u32(pa + uint64(8)),
                    ptx.ldg_u32(pa + uint64(12)), ptx.ldg_u32(pb), ptx.ldg_u32(pb + uint64(4)), c0, c1, c2, c3)
            store(pd + uint64(8), of_d(d[2]))
            store(pd + uint64(12), of_d(d[3]))
        elif a == 2:
            c2, c3 = of_c(load_c(pc + uint64(8))), of_c(load_c(pc + uint64(12)))
            d = mma(ptx.ldg_u32(pa), ptx.ldg_u32(pa + uint64(4)), ptx.ldg_u32(pb), c0, c1, c2, c3)
            store(pd + uint64(8), of_d(d[2]))
            store(pd + uint64(12), of_d(d[3]))
        else:
            d = mma(ptx.ldg_u32(pa), ptx.ldg_u32(pb), c0, c1)
        store(pd, of_d(d[0]))
        store(pd + uint64(4), of_d(d[1]))
    return multiply


def small_integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Exact in every type, and so are their sums: any difference is one of places."""
    return rng.integers(-8, 9, shape).astype(dtype)


@pytest.mark.parametrize(("name", "kind", "k", "a", "b"), [
    ("mma_bf16", "bfloat16", 16, 4, 2), ("mma_f16", "float16", 16, 4, 2), ("mma_f16_k8", "float16", 8, 2, 1),
    ("mma_tf32", "float32", 8, 4, 2)])
def test_products_of_floats(name: str, kind: str, k: int, a: int, b: int, rng: np.random.Generator) -> None:
    from ml_dtypes import bfloat16
    dtype = np.dtype(bfloat16) if kind == "bfloat16" else np.dtype(kind)
    x, y = small_integers(rng, (16, k), dtype), small_integers(rng, (k, 8), dtype)
    c = small_integers(rng, (16, 8), np.float32)
    per = 4 // dtype.itemsize
    d = np.empty((LANES, 4), np.float32)
    multiplying(getattr(ptx, name), a, b, 4, False).launch(1, placed(x, a, per, True), placed(y, b, per, False),
                                                           spread(c), d)
    assert np.array_equal(gathered(d, 16), x.astype(np.float64) @ y.astype(np.float64) + c)


@pytest.mark.parametrize("suffix", ["", "_k16"])
@pytest.mark.parametrize("kinds", ["s8", "u8", "u8s8", "s8u8"])
def test_products_of_integers(kinds: str, suffix: str, rng: np.random.Generator) -> None:
    types = [np.int8 if kind == "s8" else np.uint8 for kind in (kinds[:2], kinds[-2:])]
    k, a, b, rows = (32, 4, 2, 16) if suffix == "" else (16, 1, 1, 8)
    x, y = raw(rng, types[0], (rows, k)), raw(rng, types[1], (k, 8))
    c = raw(rng, np.int32, (rows, 8))
    d = np.empty((LANES, rows // 4), np.uint32)
    multiplying(getattr(ptx, f"mma_{kinds}{suffix}"), a, b, rows // 4, True).launch(
        1, placed(x, a, 4, True), placed(y, b, 4, False), spread(c).view(np.uint32), d)
    expected = (x.astype(np.int64) @ y.astype(np.int64) + c).astype(np.uint32)  # wraps
    assert np.array_equal(gathered(d, rows), expected)


@pytest.mark.parametrize("trans", ["", "_trans"])
@pytest.mark.parametrize("count", [2, 4])
def test_matrices_from_shared_memory(count: int, trans: str, rng: np.random.Generator) -> None:
    load = getattr(ptx, f"ldmatrix_x{count}{trans}")

    @kernel("r x, w y", threads=LANES)
    def loaded(x, y):
        room = cuda.shared.array(128, uint32, alignment=16)
        lane = uint32(cuda.threadIdx.x)
        i = lane
        while i < uint32(128):
            room[i] = ptx.ldg_u32(x + uint64(i) * uint64(4))
            i += uint32(LANES)
        cuda.syncthreads()
        row = uint32(lane & uint32(8 * count - 1))
        found = load(uint32(ptx.smem_addr(room) + row * uint32(16)))
        at = y + uint64(lane) * uint64(4 * count)
        ptx.stg_u32(at, found[0])
        ptx.stg_u32(at + uint64(4), found[1])
        if count == 4:
            ptx.stg_u32(at + uint64(8), found[2])
            ptx.stg_u32(at + uint64(12), found[3])
    x = raw(rng, np.uint16, (4, 8, 8))  # matrices, rows, columns
    y = np.empty((LANES, count, 2), np.uint16)
    loaded.launch(1, x, y)
    for lane in range(LANES):
        for m in range(count):
            for e in range(2):
                row, column = lane >> 2, 2 * (lane & 3) + e
                assert y[lane, m, e] == (x[m, column, row] if trans else x[m, row, column])


@pytest.mark.parametrize("signs", ["ss", "uu", "us", "su"])
def test_dot_products_of_four_bytes(signs: str, rng: np.random.Generator) -> None:
    dp4a = getattr(ptx, f"dp4a_{signs}")
    kind = uint32 if signs == "uu" else int32

    @kernel("r a, r b, r c, w d", threads=LANES)
    def dot(a, b, c, d):
        at = uint64(uint32(cuda.threadIdx.x)) * uint64(4)
        ptx.stg_u32(d + at, uint32(dp4a(ptx.ldg_u32(a + at), ptx.ldg_u32(b + at), kind(ptx.ldg_u32(c + at)))))
    a, b = (raw(rng, np.int8 if s == "s" else np.uint8, (LANES, 4)) for s in signs)
    c, d = raw(rng, np.uint32, (LANES,)), np.empty(LANES, np.uint32)
    dot.launch(1, a.view(np.uint32), b.view(np.uint32), c, d)
    assert np.array_equal(d, ((a.astype(np.int64) * b).sum(1) + c.astype(np.int64)).astype(np.uint32))


def test_bytes_change_places(rng: np.random.Generator) -> None:
    @kernel("r x, w y", threads=LANES)
    def permuted(x, y):
        at = uint64(uint32(cuda.threadIdx.x))
        a, b = ptx.ldg_u32x2(x + at * uint64(8))
        ptx.stg_u32(y + at * uint64(4), ptx.byte_perm(a, b, uint32(0x7205)))
    x, y = raw(rng, np.uint8, (LANES, 8)), np.empty((LANES, 4), np.uint8)
    permuted.launch(1, x.view(np.uint32), y.view(np.uint32))
    assert np.array_equal(y, x[:, [5, 0, 2, 7]])


# ---- numbers

def test_conversions(rng: np.random.Generator) -> None:
    from ml_dtypes import bfloat16

    @kernel("r x, w y", threads=LANES)
    def converted(x, y):
        i = uint32(uint32(cuda.blockIdx.x) * uint32(LANES) + uint32(cuda.threadIdx.x))
        bits = ptx.ldg_u32(x + uint64(i) * uint64(4))
        v = ptx.bits_f32(bits)
        at = y + uint64(i) * uint64(32)
        ptx.stg_u32(at, ptx.f32_f16(v))
        ptx.stg_u32(at + uint64(4), ptx.f32_bf16(v))
        ptx.stg_f32(at + uint64(8), ptx.f16_f32(bits))
        ptx.stg_f32(at + uint64(12), ptx.bf16_f32(bits))
        ptx.stg_u32(at + uint64(16), ptx.f16x2_of(v, float32(1)))
        ptx.stg_u32(at + uint64(20), ptx.bf16x2_of(v, float32(1)))
        ptx.stg_f32(at + uint64(24), ptx.rint_f32(v))
        ptx.stg_u32(at + uint64(28), ptx.f32_bits(v))
    ties = (np.arange(0, 2048, dtype=np.uint32) << 12) + np.uint32(0x3F000000)  # halfway between bfloat16, among others
    edges = np.float32([0.5, 1.5, -2.5, 65504, 65519.9, 65520, 1e-8, np.inf, -0.0, 3.4e38])
    x = np.concatenate([raw(rng, np.uint32, (4096,)), ties, edges.view(np.uint32)])
    x = np.resize(x, -(-len(x) // LANES) * LANES)
    y = np.empty((len(x), 8), np.uint32)
    converted.launch(len(x) // LANES, x, y)
    v = x.view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        f16, bf16 = v.astype(np.float16), v.astype(bfloat16)
        low16 = (x & 0xFFFF).astype(np.uint16)
        number = ~np.isnan(v)
        assert np.array_equal(y[number, 0], f16.view(np.uint16)[number]) and np.isnan(
            y[~number, 0].astype(np.uint16).view(np.float16)).all()
        assert np.array_equal(y[number, 1], bf16.view(np.uint16)[number]) and np.isnan(
            y[~number, 1].astype(np.uint16).view(bfloat16).astype(np.float32)).all()
        assert np.array_equal(y[:, 2].view(np.float32), low16.view(np.float16).astype(np.float32), equal_nan=True)
        assert np.array_equal(y[:, 3].view(np.float32), low16.view(bfloat16).astype(np.float32), equal_nan=True)
        assert np.array_equal(y[number, 4], 0x3C000000 | f16.view(np.uint16)[number].astype(np.uint32))
        assert np.array_equal(y[number, 5], 0x3F800000 | bf16.view(np.uint16)[number].astype(np.uint32))
        assert np.array_equal(y[:, 6].view(np.float32), np.rint(v), equal_nan=True) and np.array_equal(y[:, 7], x)


def test_tf32_keeps_ten_bits(rng: np.random.Generator) -> None:
    @kernel("r x, w y", threads=LANES)
    def rounded(x, y):
        at = uint64(uint32(cuda.threadIdx.x)) * uint64(4)
        ptx.stg_u32(y + at, ptx.tf32(ptx.ldg_f32(x + at)))
    x, y = rng.standard_normal(LANES).astype(np.float32), np.empty(LANES, np.float32)
    rounded.launch(1, x, y.view(np.uint32))
    bits = x.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x1000) & 0xFFFFE000).astype(np.uint32).view(np.float32)  # ties away from zero
    assert np.array_equal((y.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32), expected)


def test_products_and_sums_round_by_themselves(rng: np.random.Generator) -> None:
    """Written plainly the compiler fuses them; written with _rn it does not."""
    @kernel("r x, w y", threads=LANES)
    def both(x, y):
        at = uint64(uint32(cuda.threadIdx.x)) * uint64(8)
        a, b = ptx.ldg_f32x2(x + at)
        ptx.stg_f32x2(y + at, a * b + float32(-1), ptx.add_rn(ptx.mul_rn(a, b), float32(-1)))
    x = (1 + rng.uniform(0, 1e-3, (LANES, 2))).astype(np.float32)
    x[:, 1] = 1 / x[:, 0]
    y = np.empty_like(x)
    both.launch(1, x, y)
    exact = x[:, 0].astype(np.float64) * x[:, 1]
    assert np.array_equal(y[:, 0], (exact - 1).astype(np.float32))
    assert np.array_equal(y[:, 1], x[:, 0] * x[:, 1] - np.float32(1)) and not np.array_equal(y[:, 0], y[:, 1])


@pytest.mark.parametrize(("real", "numba_type"), [(np.float32, float32), (np.float64, float64)])
def test_sums_and_maxima_of_warps_and_blocks(real: Any, numba_type: Any, rng: np.random.Generator) -> None:
    threads, size = 96, np.dtype(real).itemsize
    load, store = (ptx.ldg_f32, ptx.stg_f32) if real is np.float32 else (ptx.ldg_f64, ptx.stg_f64)

    @kernel("r x, w y", threads=threads)
    def reduced(x, y):
        part, other = cuda.shared.array(32, numba_type), cuda.shared.array(32, numba_type)
        t = uint32(cuda.threadIdx.x)
        v = load(x + uint64(t) * uint64(size))
        at = y + uint64(t) * uint64(4 * size)
        store(at, warp.warp_sum(v))
        store(at + uint64(size), warp.warp_max(v))
        store(at + uint64(2 * size), warp.block_sum(v, part, numba_type(0)))
        store(at + uint64(3 * size), warp.block_max(v, other, numba_type(-1e30)))
    for wrong in (None, np.nan):
        x, y = rng.standard_normal(threads).astype(real), np.empty((threads, 4), real)
        if wrong is not None:
            x[40] = wrong
        reduced.launch(1, x, y)
        for w in range(3):
            mine = x[32 * w:32 * w + 32]
            assert (y[32 * w:32 * w + 32] == y[32 * w]).all() or np.isnan(y[32 * w]).any()  # the same bits in all lanes
            np.testing.assert_allclose(y[32 * w, 0], mine.astype(np.longdouble).sum(), rtol=1e-5, atol=1e-5)
            assert y[32 * w, 1] == mine.max() or np.isnan(mine).any() and np.isnan(y[32 * w, 1])
        np.testing.assert_allclose(y[0, 2], x.astype(np.longdouble).sum(), rtol=1e-5, atol=1e-5)
        assert y[0, 3] == x.max() or np.isnan(x).any() and np.isnan(y[0, 3])
