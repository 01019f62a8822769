"""What arrays on a device do by themselves: NumPy's operators and reductions, changes in place, gradients, models.

On the emulator. Elementwise results have NumPy's bits; sums of integers are exact, whatever the order.
"""
from __future__ import annotations

import copy
import pickle
import re
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import conformance
import tilewright as tw
from tilewright.core import device
from tilewright.core.errors import ArgumentError, BackendUnavailable, DTypeError, ReplayError, ShapeError
from tilewright.core.registry import FLOATS

pytestmark = pytest.mark.skipif(conformance.no_emulator() is not None, reason=str(conformance.no_emulator()))


@pytest.fixture(autouse=True)
def emulated() -> Iterator[Any]:
    with device.using(conformance.emulated_device()) as d:
        yield d


def on_host(x: Any) -> np.ndarray:
    assert isinstance(x, tw.DeviceArray)
    return tw.to_host(x)


# ---- operators and functions

OPERATORS: list[Callable[[Any, Any], Any]] = [
    lambda x, y: x + y, lambda x, y: x.T[:, ::-1] - y.T, lambda x, y: x * y[:1], lambda x, y: y / x[1],
    lambda x, y: x + 2, lambda x, y: 2 + x, lambda x, y: x - 0.1, lambda x, y: 0.1 - x, lambda x, y: x * 3,
    lambda x, y: x / 3, lambda x, y: 3 / y, lambda x, y: -x, lambda x, y: abs(x), lambda x, y: np.sign(x),
    lambda x, y: np.sqrt(y), lambda x, y: x**2, lambda x, y: x * x.dtype.type(0.1), lambda x, y: x[:0] + y[:0],
    lambda x, y: x[2, 3] + y[0, 0]]


@pytest.mark.parametrize("dtype", FLOATS)
def test_operators_have_numpys_bits(dtype: str, rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((5, 18)).astype(dtype), np.abs(rng.standard_normal((5, 18)).astype(dtype)) + 0.5
    x[0, :4] = 0, np.inf, -np.inf, np.nan
    x, y = x[:, ::2], y[:, :9]
    there, other = tw.to_device(x), tw.to_device(y)
    for f in OPERATORS:
        expected, found = f(x, y), on_host(f(there, other))
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["log", "exp"])
def test_functions_are_within_their_bound(name: str, dtype: str) -> None:
    info = np.finfo(dtype)
    small = float(info.smallest_subnormal)
    x = np.concatenate([np.geomspace(small, float(info.max) / 2, 200), np.linspace(0.4, 2.5, 500)])
    if name == "exp":
        x = np.concatenate([np.linspace(np.log(small), 0.999 * np.log(float(info.max)), 500), -x])
    x = np.concatenate([x, [0, -0.0, np.inf, -np.inf, np.nan, -1, 1]]).astype(dtype)
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x.astype(np.longdouble))
        found = on_host(getattr(np, name)(tw.to_device(x)))
        ulp = np.maximum(np.spacing(np.abs(expected).astype(dtype)), info.smallest_subnormal)
    finite = np.isfinite(expected)
    assert np.array_equal(found[~finite], expected[~finite].astype(dtype), equal_nan=True)
    assert (np.abs(found[finite] - expected[finite]) <= 4 * ulp[finite]).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_reductions_over_any_axes(dtype: str, rng: np.random.Generator) -> None:
    """Exact, of integers; along rows, down lines, in pieces of both, over axes with others between them."""
    big, cube = rng.integers(-5, 6, (3, 9001)).astype(dtype), rng.integers(-9, 10, (4, 5, 6)).astype(dtype)
    there, block = tw.to_device(big), tw.to_device(cube)
    for mine, theirs in ((big, there), (big.T, there.T), (big[::-1, ::3], there[::-1, ::3])):
        for axis in (None, 0, 1):
            for name in ("sum", "max"):
                expected = getattr(mine, name)(axis)
                assert np.array_equal(on_host(getattr(theirs, name)(axis)), expected)
    for axes in ((0, 2), (1, 2), (-1,), (0, 1, 2), ()):
        for keepdims in (False, True):
            assert np.array_equal(on_host(np.sum(block, axis=axes, keepdims=keepdims)),
                                  cube.sum(axis=axes, keepdims=keepdims))
    assert on_host(block.mean()).item() == cube.mean()
    big[1, 77] = np.nan
    assert np.array_equal(np.isnan(on_host(tw.to_device(big).max(1))), [False, True, False])
    assert np.array_equal(on_host(block[:0].sum(0)), np.zeros((5, 6))) and block[:, :0].sum(0).shape == (0, 6)
    with pytest.raises(ShapeError, match="no elements"):
        block[:0].max(0)


def test_sums_of_floats_are_within_their_bound(rng: np.random.Generator) -> None:
    """A number goes through 16 additions of its thread and 8 of shuffles in its piece, and again among the pieces."""
    x = rng.standard_normal((2, 50_000)).astype(np.float32)
    bound = 48 * 2.0**-24 * np.abs(x).sum(1, dtype=np.float64)
    assert (np.abs(on_host(tw.to_device(x).sum(1)) - x.sum(1, dtype=np.float64)) <= bound).all()


DTYPES = ["float32", "float64", "float16", ml_dtypes.bfloat16, "bool", "int8", "uint8", "int32", "int64"]


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_conversions_and_copies_of_every_dtype(source: Any) -> None:
    x = np.array([[0, 1, -2.5, 1 / 3], [100, 65.4, -7, 3]]).astype(source)
    there = tw.to_device(x)
    assert np.array_equal(on_host(there[:, ::2].copy()), x[:, ::2])
    for target in ("float32", "float64", "int32", "int64", "float16", ml_dtypes.bfloat16):
        if np.dtype(target).itemsize == 2 and source in ("float64", "int32", "int64"):  # would be rounded twice
            with pytest.raises(DTypeError, match="astype"):
                there.astype(target)
            continue
        found = on_host(there.T.astype(target))
        assert found.dtype == target and np.array_equal(found, x.T.astype(target))
    there[0] = 1
    there[1, 1:3] = there[0, 2:]
    x[0], x[1, 1:3] = 1, 1
    assert np.array_equal(on_host(there), x)


def test_what_is_uploaded() -> None:
    for x in (np.arange(3, dtype=">f4"), np.frombuffer(b"x" + np.arange(3.0).tobytes(), np.float64, 3, 1), [1, 2], 2.5):
        there = tw.to_device(x)
        assert there.dtype.isnative and np.array_equal(on_host(there), x)
    for wrong in (np.array(["a"]), np.array([object()]), np.ones(2, complex), np.zeros(2, "M8[s]")):
        with pytest.raises(DTypeError, match="takes floats"):
            tw.to_device(wrong)


def test_changes_in_place() -> None:
    x = np.arange(12.0).reshape(3, 4)
    there, alias = tw.to_device(x), x.copy()
    view = there[1:]
    there += 1
    there *= there[:, :1]
    alias += 1
    alias *= alias[:, :1].copy()
    assert np.array_equal(on_host(view), alias[1:])  # the same memory
    there[:, 1:] = there[:, :-1]  # shifted onto itself
    alias[:, 1:] = alias[:, :-1].copy()
    assert np.array_equal(on_host(there), alias)
    square = tw.to_device(alias[:, :3])
    square += square.T
    assert np.array_equal(on_host(square), alias[:, :3] + alias[:, :3].T)
    out = tw.to_device(np.empty((3, 3)))
    assert np.add(square, 1, out=out) is out and np.array_equal(on_host(out), on_host(square) + 1)


def test_views_and_shapes() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    there = tw.to_device(x)
    for f in (lambda a: a.T.reshape(-1), lambda a: a.reshape(4, -1), lambda a: np.moveaxis(a, 0, -1),
              lambda a: np.broadcast_to(a[:, :1], (2, 3, 4)), lambda a: np.expand_dims(a, 0), lambda a: a[..., None],
              lambda a: np.squeeze(a[:1]), lambda a: a[1, ::-1, 1]):
        assert np.array_equal(on_host(f(there)), f(x))
    assert [row.shape for row in there] == [(3, 4)] * 2 and np.shape(there) == (2, 3, 4)
    assert there[1, 2, 3].item() == 23.0
    assert np.allclose(on_host(there[0] @ there[1].T), x[0] @ x[1].T)


class Foreign:
    """An array of another library, and what it says of itself."""

    def __init__(self, x: np.ndarray, **changes: Any):
        self._x = x
        found = {"version": 3, "shape": x.shape, "typestr": x.dtype.str, "strides": x.strides,
                 "data": (x.ctypes.data, False)} | changes
        self.__cuda_array_interface__ = {key: value for key, value in found.items() if value != "absent"}


def test_the_interface_of_others_in_any_version() -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for changes in ({"version": 2, "strides": None}, {"strides": "absent"}, {"mask": None}, {"stream": 1}):
        assert np.array_equal(on_host(tw.relu(Foreign(x, **changes))), x)
    assert np.array_equal(on_host(tw.to_device(x) + Foreign(x)), x + x)
    assert tw.relu(Foreign(x[:0], data=(0, False))).shape == (0, 3)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"mask": Foreign(x)}, DTypeError, "no masks"), ({"data": "absent"}, DTypeError, "not complete"),
        ({"typestr": "|V4"}, DTypeError, "bfloat16 comes in by DLPack"),
        ({"data": (0, False)}, ArgumentError, "address 0"),
        ({"stream": 0}, ArgumentError, "stream 0"), ({"typestr": "what"}, DTypeError, "not complete")]
    for changes, error, text in refused:
        with pytest.raises(error, match=text):
            tw.relu(Foreign(x, **changes))


class ByDlpack:
    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def test_refusals() -> None:
    x = np.ones((3, 4), np.float32)
    there = tw.to_device(x)
    labels, bytes_ = tw.to_device(np.zeros(3, np.int32)), tw.to_device(np.zeros((3, 3), np.uint8))
    model = tw.nn.Linear(4, 2, seed=0).to_device()
    refused: list[tuple[type[Exception], str, Callable[[], Any]]] = [
        (DTypeError, "on the host", lambda: there + x), (DTypeError, "on the host", lambda: x * there),
        (DTypeError, "nothing is converted", lambda: there + there.astype(np.float64)),
        (DTypeError, "nothing is converted", lambda: there * np.float64(2)),
        (ShapeError, "do not broadcast", lambda: there + there[:, :3]), (DTypeError, "int32", lambda: labels + 1),
        (DTypeError, "np.equal", lambda: there == there), (DTypeError, "np.sin", lambda: np.sin(there)),
        (DTypeError, "np.concatenate", lambda: np.concatenate([there])), (DTypeError, "power", lambda: 2**there),
        (DTypeError, "power", lambda: there**1.5), (DTypeError, "to_host", lambda: bool(there)),
        (DTypeError, "item", lambda: float(there)), (ShapeError, "one element", lambda: there.item()),
        (DTypeError, "a list", lambda: there.__setitem__(0, [1, 2, 3, 4])), (ShapeError, "axis", lambda: there.sum(2)),
        (ShapeError, "twice", lambda: there.sum((0, -2))), (ShapeError, "reshape", lambda: there.reshape(0, -1)),
        (ShapeError, "integers", lambda: there.reshape("a")), (DTypeError, "pickle", lambda: pickle.dumps(there)),
        (ArgumentError, "read-only", lambda: np.broadcast_to(there, (2, 3, 4)).__setitem__(0, 1)),
        (DTypeError, "on the host", lambda: tw.adamw_step([there], [x], [there], [there], step=1, lr=0.1)),
        (DTypeError, r"labels.astype\(np.int64\)", lambda: tw.cross_entropy(there, labels)),
        (DTypeError, r"a_zero_point.astype\(np.int32\)", lambda: tw.matmul_integer(bytes_, bytes_, bytes_[0])),
        (DTypeError, r"x_scale.astype\(np.float32\)",
         lambda: tw.dequantize_linear(bytes_, tw.to_device(np.ones(3)), axis=0)),
        (DTypeError, "nothing is gained by packing", lambda: tw.pack(there)),
        (BackendUnavailable, "packed.numpy", lambda: tw.linear(there, tw.pack(x))),
        (ReplayError, "not replayed", lambda: tw.compile(lambda x: model(x))(there)),
        (ReplayError, "not replayed", lambda: tw.compile(lambda: model(there))()),
        (DTypeError, "not in one place", lambda: model(there).backward(np.ones((3, 2), np.float32))),
        (DTypeError, "by __cuda_array_interface__", lambda: tw.relu(ByDlpack())),
        (ArgumentError, "or its handle", lambda: tw.stream("fast").__enter__()),  # type: ignore[attr-defined]
        (BufferError, "exports nothing", lambda: np.from_dlpack(there))]
    for error, text, call in refused:
        with pytest.raises(error, match=text):
            call()
    assert tw.matmul_integer(bytes_, bytes_, bytes_[0].astype(np.int32)).shape == (3, 3)  # as the messages say


# ---- gradients

EXPRESSIONS: list[Callable[[Any, Any], Any]] = [
    lambda x, b: x + b, lambda x, b: (x - b) * x, lambda x, b: x / b - 2 * x, lambda x, b: ((x + b) ** 2).mean(1),
    lambda x, b: (x - b).sum(0).max(), lambda x, b: abs(x) * b**3, lambda x, b: (x / 4).exp() * b.log(),
    lambda x, b: b.sqrt() * x[1], lambda x, b: x[1:3, ::2].sum() * b[0], lambda x, b: x.max(1) * b.max(),
    lambda x, b: x.T.reshape(20)[:5] * b, lambda x, b: 2 / b + x.sum(axis=0, keepdims=True) - x.mean(),
    lambda x, b: b**0.5 + b**-1, lambda x, b: tw.nn.mse_loss(x * b, x),
    lambda x, b: -x.astype(np.float32).sum().astype(np.float64) + b[1:]]


def test_gradients_are_those_of_the_host(rng: np.random.Generator) -> None:
    x, b = rng.standard_normal((4, 5)), np.abs(rng.standard_normal(5)) + 1
    for i, f in enumerate(EXPRESSIONS):
        here = [tw.Tensor(v.copy(), requires_grad=True) for v in (x, b)]
        there = [tw.Tensor(tw.to_device(v), requires_grad=True) for v in (x, b)]
        for y, leaves in ((f(*here), here), (f(*there), there)):
            (y if y.size == 1 else (y * y).sum()).backward()
            assert leaves
        for mine, other in zip(here, there, strict=True):
            if mine.grad is None:
                assert other.grad is None
            else:
                bound = 1e-5 if i == len(EXPRESSIONS) - 1 else 1e-12  # the last one goes through float32
                np.testing.assert_allclose(on_host(other.grad), mine.grad, rtol=bound)


def test_a_gradient_shares_no_memory_with_what_was_given() -> None:
    leaf = tw.Tensor(tw.to_device(np.ones((2, 3))), requires_grad=True)
    given = tw.to_device(np.ones((3, 2)))
    leaf.T.backward(given)
    tw.optim.clip_grad_norm([leaf], 1e-3)
    assert np.array_equal(on_host(given), np.ones((3, 2))) and on_host(leaf.grad).max() < 1e-3
    leaf.sum().backward()  # added to a broadcast
    assert np.isclose(on_host(leaf.grad), 1 + 1e-3 / 6**0.5).all()


def test_tensors_change_in_place() -> None:
    t = tw.Tensor(tw.to_device(np.ones((2, 2), np.float32)))
    t += 1
    t *= t
    t[0] = 7
    t.add_(tw.Tensor(tw.to_device(np.ones(2, np.float32))))
    assert np.array_equal(t.numpy(), [[8, 8], [5, 5]])
    assert t.zero_().sum().item() == 0


# ---- models

class Model(tw.nn.Module):
    def __init__(self) -> None:
        self.embedding, self.norm = tw.nn.Embedding(11, 8, seed=0), tw.nn.LayerNorm(8)
        self.first, self.last = tw.nn.Linear(8, 12, seed=1), tw.nn.Linear(12, 5, seed=2)
        self.dropout = tw.nn.Dropout(0.3, seed=4)

    def forward(self, x: Any) -> Any:
        h = self.norm(self.embedding(x))
        return self.last(self.dropout(tw.gelu(self.first(h))) * 1.5)


def steps(model: Any, optimizer: Any, schedule: Any, x: Any, labels: Any, count: int = 3) -> list[float]:
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        loss = tw.nn.cross_entropy(model(x), labels) / 2
        loss.backward()
        losses += [loss.item(), tw.optim.clip_grad_norm(model.parameters(), 0.5)]
        optimizer.step()
        schedule.step()
    return losses


def test_a_model_moves_there_and_back(tmp_path: Path, rng: np.random.Generator) -> None:
    """With its optimizer, in the middle of training; the losses are those of a model that stays."""
    x, labels = rng.integers(0, 11, 7), rng.integers(0, 5, 7)
    there = tw.to_device(x), tw.to_device(labels)
    runs = []
    for moves in (False, True):
        model = Model()
        optimizer = tw.optim.AdamW(model.parameters(), lr=0.05)
        schedule = tw.optim.CosineWithWarmup(optimizer, 1, 20)
        losses = steps(model, optimizer, schedule, x, labels)
        if moves:
            model.to_device()
            with pytest.raises(DTypeError, match="optimizer's state was not"):
                steps(model, optimizer, schedule, *there)
            model.dropout.calls -= 1  # of the step that failed
            optimizer.to_device()
        losses += steps(model, optimizer, schedule, *(there if moves else (x, labels)))
        if moves:
            path = tmp_path / "model.safetensors"
            model.save(path)
            again, on_the_host = Model().to_device(), Model()
            again.load(path)
            on_the_host.load(path)
            for p, q, r in zip(model.parameters(), again.parameters(), on_the_host.parameters(), strict=True):
                assert np.array_equal(p.numpy(), q.numpy()) and np.array_equal(p.numpy(), r.data)
            twin = copy.deepcopy(model)
            assert not np.shares_memory(twin.last.weight.data, model.last.weight.data)
            assert np.array_equal(twin.last.weight.numpy(), model.last.weight.numpy())
            model.to_host()
            optimizer.to_host()
            assert pickle.loads(pickle.dumps(model)).last.weight.shape == (5, 12)
        losses += steps(model, optimizer, schedule, x, labels)
        runs.append(losses)
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-4)


def test_quantized_models_compute_there(rng: np.random.Generator) -> None:
    """The same bits for integers; training with rounding says that it is the host's."""
    x, model = rng.standard_normal((5, 16)).astype(np.float32), tw.nn.MLP([16, 8, 3], seed=0)
    for options in ({"method": "dynamic"}, {"method": "static", "calibration": [x]}):
        with tw.use_backend("numpy"):
            small = tw.quant.quantize(model, **options)  # type: ignore[arg-type]
            expected = small(tw.Tensor(x)).numpy()
        state = small.state_dict()
        small.to_device()
        np.testing.assert_allclose(small(tw.Tensor(tw.to_device(x))).numpy(), expected, rtol=1e-6, atol=1e-6)
        small.load_state_dict(state)
        assert all(np.array_equal(value, state[name]) for name, value in small.state_dict().items())
        assert small(tw.to_device(x)).shape == (5, 3) and small.to_host()(x).shape == (5, 3)
    with pytest.raises(DTypeError, match="runs on the host"):
        tw.quant.prepare_qat(model).to_device()(tw.to_device(x))


def test_threads_with_streams_of_their_own(rng: np.random.Generator) -> None:
    x = rng.standard_normal((4, 300)).astype(np.float32)
    there, found = tw.to_device(x), {}

    def work(i: int) -> None:
        with tw.stream(i + 1):
            found[i] = (there[i] * 2).sum().item(), tw.to_host(tw.relu(there[i]))
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(4):
        assert found[i][0] == (there[i] * 2).sum().item() and np.array_equal(found[i][1], np.maximum(x[i], 0))


# ---- the page

class Torch:
    """As much of PyTorch as docs/CUDA.md shows."""

    class Tensor(Foreign):
        """One on the device."""

        def __init__(self, x: Any):
            super().__init__(x)
            self.shape = x.shape

    class cuda:
        @staticmethod
        def current_stream() -> Any:
            return types.SimpleNamespace(cuda_stream=5)

    @classmethod
    def ones(cls, *shape: int, device: str) -> Any:
        assert device == "cuda"
        return cls.Tensor(np.ones(shape, np.float32))

    @classmethod
    def from_dlpack(cls, x: Any) -> Any:
        return cls.Tensor(x._view.view(np.ndarray))


def test_the_page_on_cuda_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python as it stands, but for the two blocks with dots in them."""
    page = Path(__file__).resolve().parents[1] / "docs" / "CUDA.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    shown = [block for block in blocks if "(…)" not in block and ", …" not in block]
    assert len(shown) == 2 and len(blocks) == 4
    monkeypatch.setitem(sys.modules, "torch", Torch)  # type: ignore[arg-type]
    monkeypatch.setattr(Torch.Tensor, "__module__", "torch")
    model = tw.nn.Linear(3, 2, seed=0)
    names: dict[str, Any] = {"np": np, "tw": tw, "torch": Torch, "model": model}
    names["optimizer"] = tw.optim.Adam(model.parameters())
    exec(compile(shown[0], str(page), "exec"), names)
    assert isinstance(names["y"], Torch.Tensor) and isinstance(names["z"], np.ndarray)
    assert isinstance(model.weight.data, tw.DeviceArray)
    assert isinstance(names["optimizer"].state["exp_avg"][0], tw.DeviceArray)
    x, source = np.arange(300, dtype=np.float32), tmp_path / "page.py"
    source.write_text(shown[1])  # the compiler reads it
    names = {"__name__": "page", "x": x, "y": np.full_like(x, np.nan), "n": 300}
    exec(compile(shown[1], str(source), "exec"), names)
    assert np.array_equal(names["y"], 2 * x)
