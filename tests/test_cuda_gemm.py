"""What the conformance suite does not reach of the CUDA products: tensor cores at their edges, banks, choices."""
from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

import conformance

if no_emulator := conformance.no_emulator():
    pytest.skip(no_emulator, allow_module_level=True)

from tilewright import emulate, ops
from tilewright.core import checking, device, registry, sampling
from tilewright.core.errors import ArgumentError, BackendUnavailable, DTypeError
from tilewright.kernels.gemm.cuda_tensor import tensor
from tilewright.kernels.gemm.cuda_tile import tile
from tilewright.kernels.ptx.emulated import Emulated
from tilewright.kernels.ptx.samples import Recorder


@pytest.fixture(autouse=True)
def emulated() -> Iterator[None]:
    with device.using(conformance.emulated_device()):
        yield


class Recording(Emulated):
    """An emulated device that notes which kernels ran, and traces them."""

    def __init__(self, cc: tuple[int, int] = (9, 0)):
        super().__init__(cc)
        self.names: list[str] = []
        self.reports: list[Any] = []

    def traces(self, kernel: Any) -> bool:
        return True

    def launched(self, kernel: Any, report: emulate.Report) -> None:
        self.names.append(kernel.name)
        self.reports.append(report)


def operand(rng: np.random.Generator, shape: tuple[int, int], dtype: str, transposed: bool) -> np.ndarray:
    x = sampling.normal(rng, shape[::-1] if transposed else shape, dtype, "c")
    return x.T if transposed else x


def judge(a: np.ndarray, b: np.ndarray, **attrs: Any) -> np.ndarray:
    """The public product within the bound of its specification."""
    spec = registry.spec("matmul")
    call = spec.prepare((a, b), attrs)
    expected = spec.oracle(call)
    result = ops.matmul(a, b, backend="cuda", **attrs)
    wrong = checking.mismatch(result, expected[0], spec.bound(call, expected)[0])
    assert not wrong, wrong
    return result


@pytest.mark.parametrize(("dtype", "ta", "tb"), [("bfloat16", False, False), ("bfloat16", True, True),
                                                  ("float16", False, True), ("float16", True, False)])
@pytest.mark.parametrize("shape", [(8, 8, 8), (136, 264, 40), (128, 128, 96), (40, 24, 320)],
                         ids=lambda s: "x".join(map(str, s)))
def test_tensor_cores_at_the_edges(dtype: str, ta: bool, tb: bool, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(m + n + k)
    with device.using(Recording()) as here:
        judge(operand(rng, (m, k), dtype, ta), operand(rng, (k, n), dtype, tb))
    assert "_tensor_" in here.names[0], here.names


def test_what_lies_beyond_an_odd_k_is_not_summed() -> None:
    """Rows of 24 numbers of which 17 belong to the operand; the others are NaN."""
    rng = np.random.default_rng(3)
    a, b = (np.full((rows, 24), np.nan, np.float16) for rows in (16, 24))
    a[:, :17], b[:, :17] = (rng.standard_normal((rows, 17)).astype(np.float16) for rows in (16, 24))
    with device.using(Recording()) as here:
        judge(a[:, :17], b[:, :17].T)
    assert [name.split("_")[2] for name in here.names] == ["pack", "pack", "tensor"], here.names


@pytest.mark.parametrize(("dtype", "kernel"), [("float16", "tensor_k_r_float16_sm75"),
                                                ("bfloat16", "tile_k_k_bfloat16")])
@pytest.mark.parametrize("shape", [(8, 8, 8), (136, 264, 40)], ids=lambda s: "x".join(map(str, s)))
def test_halves_without_cp_async(dtype: str, kernel: str, shape: tuple[int, int, int]) -> None:
    m, n, k = shape
    rng = np.random.default_rng(4)
    with device.using(Recording((7, 5))) as here:
        judge(operand(rng, (m, k), dtype, False), operand(rng, (k, n), dtype, False))
    assert here.names[-1] == f"tw_gemm_{kernel}", here.names


def test_tf32_only_where_it_is_asked_for() -> None:
    """Its operands are rounded to 11 bits, so that the result has other bits than that of float32."""
    rng = np.random.default_rng(7)
    a, b = operand(rng, (136, 40), "float32", False), operand(rng, (40, 24), "float32", False)
    with device.using(Recording()) as here:
        plain, tf32 = judge(a, b), judge(a, b, precision="tf32")
    assert [name.split("_")[2] for name in here.names] == ["tile", "pack", "pack", "tensor"], here.names
    short = [(x.view(np.uint32) + 0x1000 & 0xFFFFE000).view(np.float32).astype(np.float64) for x in (a, b)]
    assert not checking.mismatch(tf32, short[0] @ short[1], 40 * 2.0**-23 * (abs(short[0]) @ abs(short[1])))
    assert (plain != tf32).mean() > 0.9
    with device.using(Recording((7, 5))):
        assert np.array_equal(judge(a, b, precision="tf32"), plain)


def test_gradients_of_a_tf32_product_are_of_tf32() -> None:
    import tilewright as tw
    a, b = (tw.Tensor(x, requires_grad=True) for x in np.ones((2, 8, 8), np.float32))
    with device.using(Recording()) as here, tw.use_backend("cuda"):
        tw.matmul(a, b, precision="tf32").sum().backward()
    assert [name for name in here.names if "_tensor_" in name] == ["tw_gemm_tensor_k_k_tf32"] * 3, here.names
    assert np.array_equal(a.grad, np.full((8, 8), 8.0)) and np.array_equal(b.grad, a.grad)


def test_tf32_is_of_float32() -> None:
    a = np.ones((2, 2))
    with pytest.raises(DTypeError, match="float32"):
        ops.matmul(a, a, precision="tf32")
    with pytest.raises(ArgumentError, match="no precision 'low'; there are: None, tf32"):
        ops.linear(a, a, precision="low")
    assert np.array_equal(ops.matmul(np.float32(a), np.float32(a), precision="tf32"), a @ a)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_any_strides_are_packed(dtype: str) -> None:
    """Negative, stepped, without alignment; planes too, and one plane for all."""
    rng = np.random.default_rng(8)
    many = sampling.normal(rng, (3, 33, 70), dtype)
    a, b = many[:, ::-1, 1::2], sampling.normal(rng, (1, 35, 18), dtype)[:, ::-1, :17]
    with device.using(Recording()) as here:
        judge(a, b)
    assert [name.split("_")[2] for name in here.names][:2] == ["pack", "pack"], here.names


@pytest.mark.parametrize(("ta", "tb"), [(False, True), (True, False)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "tf32"])
def test_loads_from_shared_memory_meet_in_no_bank(dtype: str, ta: bool, tb: bool) -> None:
    rng = np.random.default_rng(5)
    with device.using(Recording()) as here:
        kind, attrs = ("float32", {"precision": "tf32"}) if dtype == "tf32" else (dtype, {})
        judge(operand(rng, (128, 64), kind, ta), operand(rng, (64, 128), kind, tb), **attrs)
    accesses = [x for report in here.reports for x in report.shared]
    loads = [x for x in accesses if "ld.shared" in x.opcode or "ldmatrix" in x.opcode]
    assert loads and all(x.factor == 1.0 for x in loads), [(x.opcode, x.factor) for x in loads]


def test_hot_loops_have_128_bit_loads_alone() -> None:
    for modes in product("kr", repeat=2):
        text = tile(*modes, "float32").ptx((9, 0))
        assert len(re.findall(r"\bfma\.rn\.f32", text)) >= 9 * 64  # eight steps of k, and the one of the rest
        assert "ld.global.nc.v4.f32" in text and "ld.shared.v4.f32" in text and "f64" not in text
    assert tensor("k", "k", "bfloat16").ptx((8, 0)).count("mma.sync.aligned.m16n8k16") == 32
    assert tensor("k", "k", "tf32").ptx((8, 0)).count("mma.sync.aligned.m16n8k8") == 32


def test_a_sum_cut_along_k_has_the_same_bits_in_any_order_of_blocks() -> None:
    rng = np.random.default_rng(6)
    a, b = operand(rng, (20, 1024), "float32", False), operand(rng, (1024, 12), "float32", False)
    found = set()
    for seed in range(3):
        with device.using(Recording()) as here:
            here.seed = seed
            found.add(ops.matmul(a, b, backend="cuda").tobytes())
        assert [name.split("_")[2] for name in here.names] == ["tile", "parts"]
    assert len(found) == 1


def test_a_matrix_packed_on_the_host_is_refused_on_a_device() -> None:
    import tilewright as tw
    a, packed = tw.to_device(np.ones((3, 4), np.float32)), tw.pack(np.ones((4, 5), np.float32))
    with pytest.raises(BackendUnavailable, match="packed on the host"):
        tw.matmul(a, packed)


@pytest.mark.parametrize("shapes", [((1 << 21, 4), (4, 3)), ((70000, 2, 4), (70000, 4, 3))], ids=["rows", "planes"])
@pytest.mark.parametrize("row", list(registry.variants("matmul", "cuda")), ids=lambda row: row.variant or "best")
def test_grids_are_those_of_a_device(row: registry.Kernel, shapes: Any) -> None:
    """Along y and z a grid has at most 65535 blocks; what is larger takes several launches."""
    a, b = (np.broadcast_to(np.float32(1), shape) for shape in shapes)
    call = registry.spec("matmul").prepare((a, b), {})
    (shape, dtype), = call.outputs
    with device.using(Recorder()) as recorder:
        row.run(call, (np.empty(shape, dtype),))
    assert recorder.launches
    for name, blocks, _ in recorder.launches:
        assert max(blocks[1:]) <= 65535, (name, blocks)
