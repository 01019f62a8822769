"""The driver's side on a stand-in for NVIDIA's library: `python fake_driver.py`, with tests/c/fake_libcuda.c, built as
libcuda.so.1, on LD_LIBRARY_PATH. Whatever is launched runs on the emulator. Prints "fine" at the end.
"""
from __future__ import annotations

import ctypes
import gc
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ml_dtypes
import numpy as np
from typer.testing import CliRunner

import tilewright as tw
from tilewright import bench, emulate
from tilewright.bench import Expectation, gpu
from tilewright.cli import app
from tilewright.core import arrays, device, registry
from tilewright.kernels.ptx import intrinsics as ptx
from tilewright.kernels.ptx import launch
from tilewright.kernels.ptx.cuda import cuda, float32, uint32, uint64

TYPES: dict[str, Any] = {"i32": ctypes.c_int32, "u32": ctypes.c_uint32, "i64": ctypes.c_int64, "u64": ctypes.c_uint64,
                         "f32": ctypes.c_float, "f64": ctypes.c_double}


@launch.kernel("r x, r factor, w y, u32 n", threads=32)
def scale(x, factor, y, n):
    room = cuda.shared.array(0, float32)
    i = uint32(uint32(cuda.blockIdx.x) * uint32(32) + uint32(cuda.threadIdx.x))
    if i < n:
        room[cuda.threadIdx.x] = ptx.ldg_f32(factor + uint64(4))
        at = uint64(i) * uint64(4)
        ptx.stg_f32(y + at, ptx.ldg_f32(x + at) * room[cuda.threadIdx.x])


class Config(ctypes.Structure):
    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("shared", ctypes.c_uint),
                ("stream", ctypes.c_void_p)]


class Library:
    """libcuda.so.1, that of fake_libcuda.c."""

    def __init__(self) -> None:
        self.c = ctypes.CDLL("libcuda.so.1")
        self.c.fake_waits.restype, self.c.fake_live.restype = ctypes.c_char_p, ctypes.c_long
        self.kernels = {k.name: k for k in (*launch.declared(), scale)}
        self.launches: list[tuple[str, int, int]] = []  # name, stream, bytes of shared memory
        self.errors: list[BaseException] = []
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.POINTER(Config),
                                          ctypes.POINTER(ctypes.c_void_p))(self._launched)
        self.c.fake_set_launch(self._callback)

    def _launched(self, name: bytes, config: Any, parameters: Any) -> None:
        """Run a kernel on the emulator; it may touch all memory of the device."""
        kernel, c = self.kernels[name.decode()], config[0]
        self.launches.append((kernel.name, c.stream or 0, c.shared))
        values = [TYPES.get(kind, ctypes.c_uint64).from_address(parameters[i])
                  for i, (kind, _) in enumerate(kernel.signature)]
        starts, sizes = (ctypes.c_uint64 * 4096)(), (ctypes.c_uint64 * 4096)()
        count = self.c.fake_blocks(starts, sizes)
        memory = [(np.ctypeslib.as_array((ctypes.c_uint8 * sizes[i]).from_address(starts[i])), "rw")
                  for i in range(count)]
        try:
            emulate.Module(kernel.ptx((9, 0))).launch(kernel.name, tuple(c.grid), tuple(c.block), values, memory=memory,
                                                      shared=c.shared)
        except BaseException as error:  # cannot pass through C
            self.errors.append(error)

    @property
    def waits(self) -> list[str]:
        return self.c.fake_waits().decode().splitlines()


class Foreign:
    """An array of another library on the device, computed on a stream of its own."""

    def __init__(self, x: tw.DeviceArray, stream: int | None = None):
        self.__cuda_array_interface__ = {**x.__cuda_array_interface__, "stream": stream}
        self.x = x


class ByDlpack:
    """An array of another library that knows DLPack alone."""

    def __init__(self, x: tw.DeviceArray):
        self._x = x

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._x.__dlpack_device__()

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        return self._x.__dlpack__(stream=stream, **options)


class TorchStream:
    cuda_stream = 0x55


def main() -> None:
    library = Library()
    assert tw.backends()[-1] == "cuda" and not device.emulated()
    here = device.current()
    assert (here.name, here.cc, here.stream_number(None)) == ("Fake 0", (9, 0), 1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((37, 50)).astype(np.float32)

    there = tw.to_device(x)
    for view, mine in ((there, x), (there.T[3:, ::-2], x.T[3:, ::-2]), (there[:0], x[:0]), (there[3, 4], x[3, 4])):
        assert np.array_equal(tw.to_host(view), mine)
        y = tw.to_host(tw.gelu(view))
        assert y.shape == mine.shape and np.allclose(y, tw.gelu(mine, backend="numpy"), rtol=1e-6, atol=1e-7)
    assert tw.explain("gelu", there).kernel.backend == "cuda" and tw.explain("gelu", x).kernel.backend != "cuda"

    with tw.use_backend("cuda", transfer=True):
        assert np.array_equal(tw.relu(x.T), np.maximum(x.T, 0))
    try:
        tw.relu(x, backend="cuda")
        raise AssertionError("an array of the host was taken")
    except tw.errors.BackendUnavailable:
        pass

    # streams, and waiting for those of others
    library.launches.clear()
    with tw.stream(TorchStream()):
        out = tw.relu(Foreign(there, 0x99))
        assert out.__cuda_array_interface__["stream"] == 0x55
    with tw.stream(0x77):
        tw.relu(there)
    tw.relu(there)
    assert [stream for _, stream, _ in library.launches] == [0x55, 0x77, 1]
    assert library.waits == ["0x55 waits for 0x99"]
    assert np.array_equal(tw.to_host(out), np.maximum(x, 0))

    # DLPack: ours to others on their stream, and back without a copy
    assert there.__dlpack_device__() == (2, 0)
    with tw.stream(0x66):
        view = here.view(ByDlpack(there[:, ::2]), 0x66)
    assert arrays.address(view) == there.__cuda_array_interface__["data"][0]
    assert (view.shape, view.strides, view.dtype) == ((37, 25), (200, 8), np.float32)
    assert np.array_equal(here.download(view), x[:, ::2])
    halves, flags = np.arange(6).astype(ml_dtypes.bfloat16), np.array([True, False])
    for mine in (halves, flags, x[0, 0], x[:0]):
        view = here.view(ByDlpack(tw.to_device(mine)))
        assert (view.dtype, view.shape) == (mine.dtype, mine.shape) and np.array_equal(here.download(view), mine)
    read_only = np.broadcast_to(there, (2, *there.shape))
    assert not here.view(ByDlpack(read_only)).flags.writeable
    for copied in (there.__dlpack__(copy=True), read_only.__dlpack__(copy=True, dl_device=(2, 0))):
        assert "dltensor" in repr(copied)
    for refused, where in ((there[::-1], None), (read_only, None), (there, (1, 0))):
        try:
            refused.__dlpack__(dl_device=where)
            raise AssertionError("exported as what it is not")
        except BufferError:
            pass

    # __cuda_array_interface__ of before version 3; arithmetic; memory that is none of the device
    old = Foreign(there)
    old.__cuda_array_interface__ = {**old.__cuda_array_interface__, "version": 2}
    assert np.array_equal(tw.to_host(there + old), x + x)
    assert tw.to_device(np.ones(4000, np.float32)).sum().item() == 4000
    old.__cuda_array_interface__["data"] = (x.ctypes.data, False)
    try:
        tw.relu(old)
        raise AssertionError("memory of the host was taken")
    except tw.errors.DTypeError:
        pass

    # a parameter on the host goes along as a copy; much shared memory is asked for
    result = here.empty((100,), np.float32)
    scale.launch(4, there.reshape(-1)[:100]._view, np.float32([9, 3, 9])[:2], result, 100, shared=64 << 10)
    assert not library.errors, library.errors
    assert np.array_equal(here.download(result), x.reshape(-1)[:100] * np.float32(3))
    assert library.launches[-1][2] == 64 << 10

    # times: what is queued is timed by events, which are 2 ms apart here, and results are checked
    gpu.FLUSH, gpu.ROUNDS, gpu.IN_A_ROW = 1 << 12, 2, 4
    spec = registry.spec("gelu")
    case = registry.Case((x,), {})
    kernel, = (k for k in registry.variants("gelu", "cuda") if not k.variant)
    launched = len(library.launches)
    times = gpu.measure(kernel, Expectation(spec, case))
    assert (times.kernel, times.cold) == (2e-3 / 4, 2e-3)
    assert min(times.launch, times.to_device, times.to_host, times.end_to_end) > 0
    assert len(library.launches) >= launched + 2 * (4 + 1 + 1 + 1)
    found = bench.compare(["relu"], size="small")
    assert not found.wrong and all((r.device is not None) == (r.kernel == "cuda") for r in found.results)
    assert bench.from_json(bench.to_json(found)).results == found.results
    checked = gpu.check(["relu"], most=2)
    assert checked and all(c.ran == 2 and not c.wrong and c.same_bits == 2 for c in checked)

    # gpu-check: both tables, and a kernel that is wrong ends it before anything is timed
    with TemporaryDirectory() as folder:
        names = [f"{folder}/check.json", f"{folder}/check.md"]
        options = ["gpu-check", "relu", "--size", "small", "--most", "2", "--json", names[0], "--markdown", names[1]]
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 0, (done.output, done.exception)
        content, text = json.loads(Path(names[0]).read_text()), Path(names[1]).read_text()
        assert content["device"] == "Fake 0" and content["comparison"]["results"]
        assert {c["dtype"] for c in content["checked"]} == {"float32", "float64"}
        assert "| relu cuda | float32 | 2 | 0 | 0% | 2/2 |" in text and "| relu 32x32, cuda |" in text
        run = here.download
        here.download = lambda x, stream=None: run(x, stream) + 1
        done = CliRunner().invoke(app, options)
        del here.download
        assert done.exit_code == 1 and "WRONG  relu float32" in done.output, done.output
        assert "Not timed" in Path(names[1]).read_text()

    # memory is given back
    del there, out, result, view, y, old, read_only, copied, refused
    gc.collect()
    assert library.c.fake_live() == 0, library.c.fake_live()
    print("fine")


if __name__ == "__main__":
    main()
