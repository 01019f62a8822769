"""Devices and their arrays: what is missing is named, device memory is never touched by the host, kinds are kept."""
from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import conformance
import tilewright as tw
from tilewright.core import arrays, capability, device, dispatch, on_device, registry
from tilewright.core.errors import AliasError, ArgumentError, BackendUnavailable, DTypeError, ShapeError

needs_emulator = pytest.mark.skipif(conformance.no_emulator() is not None, reason=str(conformance.no_emulator()))


# ---- what is missing for a real device

class FakeDriver:
    """libcuda, as far as the probe calls it."""

    def __init__(self, *devices: tuple[int, int], init: int = 0, version: int = 13000):
        self._init, self._version, self._devices = init, version, devices

    def cuInit(self, flags: int) -> int:
        return self._init

    def cuDeviceGetCount(self, count: Any) -> int:
        return self._put(count, len(self._devices))

    def cuDriverGetVersion(self, version: Any) -> int:
        return self._put(version, self._version)

    def cuDeviceGetAttribute(self, value: Any, attribute: int, number: int) -> int:
        return self._put(value, self._devices[number][{75: 0, 76: 1}[attribute]])

    @staticmethod
    def _put(place: Any, value: int) -> int:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_int))[0] = value
        return 0


def test_nothing_is_missing_where_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_wheels", lambda: 13)
    assert device.missing(FakeDriver((9, 0))) == []
    assert device.missing(FakeDriver((7, 5), (3, 5), version=13050)) == []


@pytest.mark.parametrize(("driver", "what", "mend"), [
    (FakeDriver(init=100), "no CUDA device", "nvidia-smi"),
    (FakeDriver(), "no CUDA device", "TILEWRIGHT_CUDA=emulate"),
    (FakeDriver(init=3), "does not start (cuInit gives 3)", "nvidia-smi"),
    (FakeDriver((9, 0), version=12040), "is for CUDA 12, the installed packages for CUDA 13", "numba-cuda[cu12]"),
    (FakeDriver((9, 0), version=11080), "is for CUDA 11, the installed packages for CUDA 13", "update the driver"),
    (FakeDriver((7, 0)), "compute capability 7.0, the kernels need 7.5", "TILEWRIGHT_CUDA=emulate"),
    (FakeDriver((7, 0), (6, 1), (8, 9)), "7.0, the kernels need 7.5", "CUDA_VISIBLE_DEVICES=2"),
])
def test_what_is_missing_is_named_with_what_mends_it(driver: FakeDriver, what: str, mend: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_wheels", lambda: 13)
    found, = device.missing(driver)
    assert what in found and mend in found


def test_no_driver_and_no_numba_cuda_are_both_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: str) -> None:
        raise OSError(name)
    monkeypatch.delenv("TILEWRIGHT_CUDA", raising=False)
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(capability.importlib.util, "find_spec", lambda name: None)
    reason = capability.BACKENDS["cuda"].probe()
    assert reason is not None and "pip install 'tilewright[cuda]'" in reason and "libcuda.so.1" in reason
    monkeypatch.setenv("TILEWRIGHT_CUDA", "emulate")
    reason = capability.BACKENDS["cuda"].probe()
    assert reason is not None and "tilewright[cuda]" in reason and "libcuda" not in reason  # emulation needs no driver


@pytest.mark.parametrize("value", ["yes", "emulate:80", "emulate:sm_", "emulated"])
def test_a_setting_that_means_nothing_raises(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_CUDA", value)
    with pytest.raises(ArgumentError, match="means nothing"):
        device.emulated()


@needs_emulator
def test_the_setting_chooses_the_compute_capability(child_env: dict[str, str]) -> None:
    code = ("import numpy as np, tilewright as tw; tw.relu(np.ones(3), backend='cuda'); tw.show_config(); "
            "print(tw.explain('relu', np.ones(3), backend='cuda'), tw.explain('relu', np.ones(3)))")
    done = subprocess.run([sys.executable, "-c", code], env=child_env | {"TILEWRIGHT_CUDA": "emulate:sm_80"},
                          capture_output=True, text=True, check=True)
    assert "cuda   emulated, sm_80" in done.stdout and "cuda: emulated, " in done.stdout
    assert "not on    cuda: emulated, runs only when asked for by name" in done.stdout


@needs_emulator
def test_every_table_says_emulated_and_prints_no_time_for_it(child_env: dict[str, str]) -> None:
    env = child_env | {"TILEWRIGHT_CUDA": "emulate"}

    def tilewright(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "tilewright", *arguments], env=env, capture_output=True, text=True)
        return done.stdout
    assert "cuda         emulated, sm_90" in tilewright("info")
    assert "CUDA backend emulated, sm_90" in tilewright("doctor")
    found = json.loads(tilewright("compare", "relu", "--size", "small", "--json", "-"))
    mine, = (r for r in found["results"] if r["kernel"] == "cuda")
    assert mine["how"].startswith("emulated") and mine["accuracy"]["wrong"] is None
    assert [mine[name] for name in ("seconds", "spread", "rate", "of_peak", "ratio")] == [None] * 5
    assert "| emulated, exact |" in tilewright("compare", "relu", "--size", "small", "--markdown")
    row, = (line.split() for line in tilewright("compare", "relu", "--size", "small").splitlines() if " cuda " in line)
    assert row[:5] == ["cuda", "emulated", "-", "-", "-"]


# ---- an ndarray out of reach

FAR = 0x7F0000001000  # nothing is mapped there


def far(shape: tuple[int, ...], dtype: Any = np.float32) -> on_device.OnDevice:
    return on_device.at(FAR, shape, dtype)


def test_views_have_shapes_strides_and_addresses() -> None:
    x, here = far((3, 4, 5)), np.empty((3, 4, 5), np.float32)
    start = arrays.address(here)
    for view in (lambda a: a, lambda a: a.T, lambda a: a[1:, ::2], lambda a: a[2, 3], lambda a: a[..., ::-1],
                 lambda a: a[None, :, 0], lambda a: np.moveaxis(a, 0, -1), lambda a: np.broadcast_to(a, (2, 3, 4, 5)),
                 lambda a: a.reshape(12, 5), lambda a: a[:, :2].reshape(3, 10), lambda a: a.reshape(-1),
                 lambda a: np.expand_dims(a, 1), lambda a: a[1].transpose(1, 0)):
        there, expected = view(x), view(here)
        assert on_device.is_on_device(there) and not on_device.is_on_device(expected)
        steps = [[s for s, n in zip(a.strides, a.shape, strict=True) if n > 1] for a in (there, expected)]
        assert there.shape == expected.shape and steps[0] == steps[1]
        assert arrays.address(there) - FAR == arrays.address(expected) - start
    assert on_device.is_on_device(x[1, 2, 3]) and x[1, 2, 3].shape == ()  # never a scalar
    assert arrays.overlaps(x, x[1:]) and not arrays.overlaps(x[0], x[1])


@pytest.mark.parametrize("touch", [
    lambda x: x + 1, lambda x: np.add(1, x), lambda x: x == 0, lambda x: x.astype(np.float64), lambda x: x.copy(),
    lambda x: float(x[0, 0]), lambda x: x.sum(), lambda x: np.sum(x), lambda x: np.concatenate([x, x]), list, repr,
    lambda x: x[[0]], lambda x: x[x == 0], lambda x: x.__setitem__(0, 1), lambda x: x.T.reshape(-1), lambda x: x.max(),
    lambda x: x.tolist(), lambda x: arrays.normal(x, np.dtype(np.float64), "x", []), bool, lambda x: x.fill(0)])
def test_what_would_touch_an_element_raises(touch: Any) -> None:
    with pytest.raises(DTypeError, match="on a CUDA device"):
        touch(far((3, 4)))


def test_reshape_gives_a_view_exactly_where_numpy_does(rng: np.random.Generator) -> None:
    views = 0
    for _ in range(2000):
        shape = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 6], int(rng.integers(1, 4))))
        big = np.empty(tuple(n + int(rng.integers(2)) for n in shape))
        x = big[tuple(slice(n) for n in shape)].transpose(rng.permutation(len(shape)))
        factors = [p for n in shape for p in {1: (), 4: (2, 2), 6: (2, 3)}.get(n, (n,))]
        rng.shuffle(factors)
        wanted: tuple[int, ...] = ()
        while factors:
            count = int(rng.integers(1, len(factors) + 1))
            wanted += (int(np.prod(factors[:count])),) + (1,) * int(rng.integers(2))
            factors = factors[count:]
        y = x.reshape(wanted)
        is_view = np.may_share_memory(y, x)
        there = on_device.at(FAR, x.shape, x.dtype, x.strides)
        if not is_view:
            with pytest.raises(DTypeError):
                there.reshape(wanted)
        else:
            steps = [s for s, n in zip(there.reshape(wanted).strides, wanted, strict=True) if n > 1]
            assert steps == [s for s, n in zip(y.strides, wanted, strict=True) if n > 1]
            views += 1
    assert 200 < views < 2000


# ---- device arrays, on the emulator

@pytest.fixture
def emulated() -> Iterator[Any]:
    if reason := conformance.no_emulator():
        pytest.skip(reason)
    with device.using(conformance.emulated_device()) as d:
        yield d


class Foreign:
    """An array of another library: it says where it is."""

    def __init__(self, x: np.ndarray, read_only: bool = False):
        self._x = x
        self.__cuda_array_interface__ = {
            "version": 3, "shape": x.shape, "typestr": x.dtype.str, "strides": x.strides,
            "data": (x.ctypes.data, read_only), "stream": None}


def test_there_and_back(emulated: Any, rng: np.random.Generator) -> None:
    for x in (rng.standard_normal((5, 7)), rng.standard_normal((4, 6), np.float32)[::-1, ::2], np.float32(3),
              np.empty((0, 3)), rng.integers(0, 9, (3, 4))):
        there = tw.to_device(x)
        back = tw.to_host(there)
        assert (there.shape, there.dtype, there.size, there.ndim) == (np.shape(x), x.dtype, np.size(x), np.ndim(x))
        assert back.tobytes() == np.ascontiguousarray(x).tobytes() and not np.may_share_memory(back, np.asarray(x))
    assert tw.to_host(x) is x


def test_calls_on_device_arrays_stay_there(emulated: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((37, 50)).astype(np.float32)
    there = tw.to_device(x)
    for mine, view in ((x, there), (x.T[3:, ::-2], there.T[3:, ::-2]), (x[1], there[1])):
        y = tw.gelu(view)
        assert isinstance(y, tw.DeviceArray) and y.shape == mine.shape
        assert np.array_equal(tw.to_host(y), tw.gelu(mine, backend="cuda"))
    out = tw.to_device(np.zeros_like(x))
    assert tw.relu(there, out=out) is out and np.array_equal(tw.to_host(out), np.maximum(x, 0))
    tw.relu(there, out=there)
    assert np.array_equal(tw.to_host(there), np.maximum(x, 0))


def test_arrays_of_other_libraries_come_in_without_a_copy(emulated: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 4))
    y = tw.relu(Foreign(x[:, ::2]))
    assert np.array_equal(tw.to_host(y), np.maximum(x[:, ::2], 0))
    out = np.full((9, 4), np.nan)
    given = Foreign(out)
    assert tw.relu(Foreign(x), out=given) is given and np.array_equal(out, np.maximum(x, 0))
    with pytest.raises(ArgumentError, match="read-only"):
        tw.relu(Foreign(x), out=Foreign(out, read_only=True))


def test_a_result_is_of_the_kind_of_its_inputs(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        """A module with from_dlpack, as PyTorch and CuPy are."""
        @staticmethod
        def from_dlpack(x: Any) -> Any:
            return "theirs", x
    monkeypatch.setitem(sys.modules, "elsewhere", Library)  # type: ignore[arg-type]
    monkeypatch.setattr(Foreign, "__module__", "elsewhere.tensors")
    kind, result = tw.relu(Foreign(np.ones(3)))
    assert kind == "theirs" and np.array_equal(tw.to_host(result), np.ones(3))


def test_refusals(emulated: Any) -> None:
    x = np.ones((3, 8), np.float32)
    there = tw.to_device(x)
    refused: list[tuple[type[Exception], str, Any]] = [
        (DTypeError, "on the host", lambda: tw.relu_backward(there, x)),
        (DTypeError, "on the host", lambda: tw.relu(there, out=x)),
        (DTypeError, "float32 and has to be float64", lambda: tw.relu_backward(there, tw.to_device(x.astype(float)))),
        (BackendUnavailable, "on a CUDA device", lambda: tw.relu(there, backend="numpy")),
        (ShapeError, "the result has", lambda: tw.relu(there, out=there[0])),
        (AliasError, "overlaps", lambda: tw.relu(there.reshape(-1)[1:], out=there.reshape(-1)[:-1])),
        (DTypeError, "to_host", lambda: np.asarray(there)), (DTypeError, "as it is", lambda: tw.pack(there)),
        (DTypeError, "already", lambda: tw.to_device(there)), (DTypeError, "not list", lambda: tw.to_host([1])),
        (ArgumentError, "runs on the host", lambda: tw.use_backend("c", transfer=True))]
    for error, text, call in refused:
        with pytest.raises(error, match=text):
            call()


def test_memory_lives_as_long_as_a_view_of_it(emulated: Any) -> None:
    view = tw.to_device(np.arange(1000.0))[10:20]
    junk = [tw.to_device(np.full(1000, np.nan)) for _ in range(50)]
    assert np.array_equal(tw.to_host(view), np.arange(10.0, 20.0)) and len(junk) == 50


# ---- a device that counts as real: its memory cannot be touched, NumPy arrays are not its own

@needs_emulator
@pytest.mark.parametrize("family", registry.families())
def test_no_operation_touches_device_memory(family: str, child_env: dict[str, str]) -> None:
    program = Path(__file__).with_name("fenced_device.py")
    done = subprocess.run([sys.executable, "-W", "error", str(program), family], env=child_env, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {(f["op"], f["dtype"]) for f in found} == {
        (op, dtype) for op, spec in registry.specs().items() if spec.family == family for dtype in spec.dtypes}
    for f in found:
        assert not f["complaints"], f
        assert f["prepared"], f
        if (f["op"], "") in registry.kernels(family, "cuda"):
            assert f["ran"], f


@needs_emulator
def test_host_arrays_need_leave(child_env: dict[str, str]) -> None:
    code = """
import numpy as np, tilewright as tw
from fenced_device import Fenced
from tilewright.core import device
from tilewright.core.errors import BackendUnavailable
x = np.linspace(-3, 3, 700, dtype=np.float32).reshape(7, 100)
with device.using(Fenced()):
    try:
        tw.gelu(x, backend="cuda")
    except BackendUnavailable as error:
        assert "tw.to_device" in str(error) and "transfer=True" in str(error), error
    else:
        raise SystemExit("not refused")
    assert tw.explain("gelu", x).kernel.backend != "cuda"
    with tw.use_backend("cuda", transfer=True):
        y, out = tw.gelu(x), np.full((100, 14), np.nan, np.float32)
        assert tw.gelu(x.T, out=out[:, ::2]).shape == (100, 7)
        assert "2800 bytes to the device, 2800 back" in str(tw.explain("gelu", x))
    assert isinstance(y, np.ndarray) and np.allclose(y, tw.gelu(x, backend="numpy"), rtol=1e-6)
    assert np.array_equal(out[:, ::2], y.T) and np.isnan(out[:, 1::2]).all()
    assert tw.explain("gelu", x).kernel.backend != "cuda"
    from tilewright.kernels.activation.cuda import flat
    there = tw.to_device(np.zeros(1 << 15, np.float32))
    try:  # more than a few parameters of the host do not go along with a launch
        flat("relu", "float32").launch(1, np.zeros(1 << 15, np.float32), there._view, 0.0, 9)
    except BackendUnavailable as error:
        assert "is on the host" in str(error), error
    else:
        raise SystemExit("copied without being asked")
    print("fine")
"""
    path = str(Path(__file__).parent)
    env = child_env | {"PYTHONPATH": f"{child_env['PYTHONPATH']}:{path}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr[-2000:]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a library that stands for NVIDIA's, built here."""
    cc = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if cc is None or sys.platform != "linux":
        pytest.skip("no C compiler for the stand-in, or not Linux")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).parent / "c" / "fake_libcuda.c"
    subprocess.run([cc, "-std=c11", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", str(source), "-ldl", "-o",
                    str(folder / "libcuda.so.1")], check=True)
    return str(folder)


@needs_emulator
def test_the_way_through_the_driver(stand_in: str, child_env: dict[str, str]) -> None:
    """See fake_driver.py."""
    done = subprocess.run([sys.executable, "-W", "error", str(Path(__file__).with_name("fake_driver.py"))],
                          env=child_env | {"LD_LIBRARY_PATH": stand_in}, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr[-3000:]


SAYS = """
from typer.testing import CliRunner
from tilewright import bench
from tilewright.cli import app, doctor
print([line for line in CliRunner().invoke(app, ["info"]).output.splitlines() if line.startswith("cuda ")])
print([f.what for f in doctor.cuda()])
found = bench.compare(["relu"], size="small")
print([s.reason for s in found.skipped if s.backend == "cuda"], bench.report.device_rows(found)[1])
"""


@needs_emulator
@pytest.mark.parametrize(("state", "says"), [
    (None, "no NVIDIA driver (libcuda.so.1 was not found): install the one for your GPU (on Ubuntu: sudo "
           "ubuntu-drivers install; in a container: docker run --gpus all), or export TILEWRIGHT_CUDA=emulate runs"),
    ({"FAKE_CUDA_VERSION": "12080"}, "the NVIDIA driver is for CUDA 12, the installed packages for CUDA 13: update the "
                                     "driver, or pip install 'numba-cuda[cu12]'"),
    ({"FAKE_CUDA_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "-1"},
     "no CUDA device, with CUDA_VISIBLE_DEVICES=-1: unset CUDA_VISIBLE_DEVICES, or export TILEWRIGHT_CUDA=emulate"),
    ({"FAKE_CUDA_MAJOR": "7"}, "the device has compute capability 7.0, the kernels need 7.5: export "
                               "TILEWRIGHT_CUDA=emulate runs the kernels on the CPU")],
    ids=["no driver", "old driver", "no device", "old device"])
def test_commands_say_what_is_missing(state: dict[str, str] | None, says: str, stand_in: str,
                                      child_env: dict[str, str]) -> None:
    """info, doctor and compare, through the library or without one."""
    env = child_env | ({} if state is None else {"LD_LIBRARY_PATH": stand_in, **state})
    done = subprocess.run([sys.executable, "-c", SAYS], env=env, capture_output=True, text=True)
    assert done.stdout.count(says) == 3 and "'no device'" in done.stdout, (done.stdout, done.stderr[-2000:])


@needs_emulator
def test_models_train_on_a_device(child_env: dict[str, str]) -> None:
    """Parameters, inputs and gradients live there; the losses are those of the host."""
    program = Path(__file__).with_name("device_training.py")
    env = child_env | {"PYTHONPATH": f"{child_env['PYTHONPATH']}:{program.parent}"}
    done = subprocess.run([sys.executable, "-W", "error", str(program)], env=env, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr[-3000:]


def test_models_train_emulated_on_numpy_arrays(emulated: Any, rng: np.random.Generator) -> None:
    """Under backend="cuda" alone, NumPy's arrays standing for those of a device."""
    ops = ("linear", "linear_backward_weights", "matmul", "gelu", "cross_entropy", "adamw_step")
    missing = [op for op in ops if (op, "") not in registry.kernels(registry.spec(op).family, "cuda")]
    if missing:
        pytest.skip(f"no CUDA kernel of {', '.join(missing)}")
    x, labels = rng.standard_normal((32, 12)).astype(np.float32), rng.integers(0, 5, 32)
    losses = {}
    for backend in ("numpy", "cuda"):
        model = tw.nn.MLP([12, 16, 5], activation="gelu", seed=0)
        optimizer = tw.optim.AdamW(model.parameters(), lr=1e-2)
        losses[backend] = []
        with tw.use_backend(backend):
            for _ in range(10):
                optimizer.zero_grad()
                loss = tw.nn.cross_entropy(model(tw.Tensor(x)), labels)
                loss.backward()
                optimizer.step()
                losses[backend].append(loss.item())
    np.testing.assert_allclose(losses["cuda"], losses["numpy"], rtol=1e-4)
    assert losses["numpy"][-1] < losses["numpy"][0]


def test_without_a_device_there_is_nothing_to_copy_to(monkeypatch: pytest.MonkeyPatch) -> None:
    if capability.reasons()["cuda"] is None:
        pytest.skip("there is a device")
    for call in (lambda: tw.to_device(np.ones(3)), lambda: tw.to_host(Foreign(np.ones(3))),
                 lambda: tw.relu(Foreign(np.ones(3)))):
        with pytest.raises(BackendUnavailable, match="cannot run here"):
            call()
    assert dispatch.active() != "cuda"
