"""The calls that bench/peers.py times: tilewright's, and what users of NumPy, MKL and PyTorch would write instead.

`prepare(who, suite, case)` gives a call without arguments whose result has been checked. A contestant is named
"tilewright:BACKEND", "numpy", "mkl", "onnxruntime" or "torch"; in the suite `train`, "torch" (eager) and "torch:fused";
in `qlinear`, "torch:ENGINE".
"""
from __future__ import annotations

import ctypes
import glob
import itertools
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np

import tilewright as tw
from tilewright.bench import Expectation
from tilewright.bench.accuracy import poisoned
from tilewright.core import registry

Run = Callable[[], object]
SIZES = ("32x32", "256x1024", "2048x2048")
MAPS = ("relu", "sigmoid", "tanh", "gelu", "gelu tanh", "silu", "softmax", "log_softmax", "layer_norm")
PRODUCTS = (  # MxNxK: squares, few rows, layers of an MLP, odd sizes, tall and flat ones
    *(f"{n}x{n}x{n}" for n in (16, 32, 64, 128, 256, 512, 1024, 2048)), "1x1024x1024", "8x4096x1024", "64x3072x768",
    "128x512x784", "2000x10x512", "511x513x1023", "31x33x29", "4096x64x64", "64x64x4096")
SUITES: dict[str, tuple[str, ...]] = {
    "gemm": PRODUCTS,
    "qgemm": PRODUCTS,  # uint8 by int8, b packed
    "qlinear": PRODUCTS,  # float32 by int8: rows quantized on the way
    "elementwise": tuple(f"{name} {size}" for name in MAPS for size in SIZES),
    "train": (  # sizes of the layers, batch, optimizer, activation
        "64-64-10 32 sgd relu", "64-64-10 32 adam relu", "784-256-128-10 128 sgd relu", "784-512-512-10 128 adam relu",
        "1024-2048-2048-1024 256 adam gelu"),
    "overhead": ("matmul 8x8", "matmul 8x8 default", "relu 8x8"),  # default: no backend named
}
PEERS = {"gemm": ("numpy", "mkl", "torch"), "qgemm": ("onnxruntime", "torch"),
         "qlinear": ("torch:fbgemm", "torch:onednn"), "elementwise": ("numpy", "torch"),
         "train": ("torch", "torch:fused"), "overhead": ("numpy", "torch")}
SAME = 1e-3  # a peer must compute the same function; how exactly is not our business
QUANTIZED = 0.03  # relative, of a result that was quantized on the way: with one scale a matrix PyTorch is 0.018 off
OPTIMIZERS = {"sgd": ("SGD", 0.01), "adam": ("Adam", 1e-3)}  # with their learning rates
STEPS = 3  # of training whose losses are held against the reference's


def prepare(who: str, suite: str, case: str, threads: int) -> Run:
    """The contestant's call for a case, checked; raises with the reason where it cannot run or its result is wrong."""
    library, _, variant = who.partition(":")
    if library == "torch":  # the others read their variable
        import torch as pt

        pt.set_num_threads(threads)
        if suite == "qlinear":
            pt.backends.quantized.engine = variant
    if suite == "train":
        return train(who, case)
    op, inputs, attrs, named = arguments(suite, case)
    expectation = Expectation(registry.spec(op), registry.Case(inputs, attrs))
    out, = poisoned(expectation.fresh())
    if library == "tilewright":
        run = written_out(getattr(tw, op), *inputs, **attrs, out=out, **{"backend": variant} if named else {})
        run()
        wrong = expectation.judge((out,)).wrong
    else:
        run = {"numpy": numpy, "mkl": mkl, "onnxruntime": onnxruntime, "torch": torch}[library](op, inputs, attrs, out)
        result = run()
        wrong = None if same(op, out if result is None else result, expectation.expected[0]) else "another function"
    if wrong:
        raise ValueError(f"wrong result: {wrong}")
    return run


def same(op: str, result: Any, expected: np.ndarray) -> bool:
    """Integers exactly; what has been quantized on the way, by whatever scheme, as near as 8 bits allow."""
    if expected.dtype.kind == "i":
        return np.array_equal(result, expected)
    if op == "quantized_linear":
        return np.linalg.norm(result - expected) <= QUANTIZED * np.linalg.norm(expected)
    return np.allclose(result, expected, SAME, SAME)


def arguments(suite: str, case: str) -> tuple[str, tuple[Any, ...], dict[str, Any], bool]:
    """A case as a call of the table: operation, inputs, attributes, and whether the backend is named."""
    rng = np.random.default_rng(len(case))
    words = case.split() if suite in ("elementwise", "overhead") else ["matmul", case]
    op, shape = words[0], tuple(map(int, words[-1 if suite == "elementwise" else 1].split("x")))
    if suite == "qgemm":
        m, n, k = shape
        a, b = rng.integers(0, 256, (m, k), np.uint8), rng.integers(-128, 128, (k, n), np.int8)
        return "matmul_integer", (a, tw.pack(b), np.uint8(128), None), {}, True
    if suite == "qlinear":
        m, n, k = shape
        x, w, bias = (rng.standard_normal(size, np.float32) for size in ((m, k), (n, k), n))
        return "quantized_linear", (x, tw.quantize_weight(w), bias, None), {}, True
    if op == "matmul":
        m, n, k = shape if len(shape) == 3 else (*shape, shape[0])
        inputs = (rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32))
        return op, inputs, {}, words[-1] != "default"
    x = 3 * rng.standard_normal(shape, np.float32)
    rows = tuple(rng.standard_normal((2, shape[-1]), np.float32)) if op == "layer_norm" else ()
    return op, (x, *rows), {"approximate": "tanh"} if "tanh" in words[1:] else {}, True


def written_out(f: Callable[..., object], *args: Any, **keywords: Any) -> Run:
    """`lambda: f(a0, a1, out=out)` as a user would write it: to unpack arguments would cost each call 100 ns more."""
    names = {f"a{i}": x for i, x in enumerate(args)}
    text = ", ".join([*names, *(f"{name}={name}" for name in keywords)])
    return eval(f"lambda: f({text})", {"f": f, **names, **keywords})


# ---- the peers: (operation, inputs, attributes, out) -> call


def numpy(op: str, inputs: tuple, attrs: dict, out: np.ndarray) -> Run:
    """NumPy where it has such a function."""
    known: dict[str, tuple] = {"matmul": (np.matmul,), "relu": (np.maximum, 0), "tanh": (np.tanh,)}
    if op not in known:
        raise NotImplementedError(f"NumPy has no {op}")
    f, *more = known[op]
    return written_out(f, *inputs, *more, out=out)


def mkl(op: str, inputs: tuple, attrs: dict, out: np.ndarray) -> Run:
    """MKL's cblas_sgemm: row-major, nothing transposed."""
    found = sorted(glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so*")))
    if not found:
        raise ImportError("MKL is not installed (pip install mkl)")
    (m, k), n = inputs[0].shape, inputs[1].shape[1]
    sgemm = ctypes.CDLL(found[0]).cblas_sgemm
    sgemm.restype = None
    a, b, c = (x.ctypes.data_as(ctypes.c_void_p) for x in (*inputs, out))  # they keep the arrays
    return written_out(sgemm, 101, 111, 111, m, n, k, ctypes.c_float(1), a, k, b, n, ctypes.c_float(0), c, n)


def torch(op: str, inputs: tuple, attrs: dict, out: np.ndarray) -> Run:
    """PyTorch's function that writes into `out` where there is one."""
    import torch as pt
    nn, shape = pt._C._nn, inputs[0].shape[-1:]
    with_out: dict[str, tuple] = {
        "matmul": (pt.mm,), "relu": (pt.clamp_min, 0), "sigmoid": (pt.sigmoid,), "tanh": (pt.tanh,), "gelu": (nn.gelu,),
        "silu": (nn.silu,), "softmax": (pt.softmax, -1)}
    if op == "quantized_linear":
        return torch_quantized(*inputs[:3])
    if op == "matmul_integer":  # it knows int8 alone: a - 128
        signed = (inputs[0] ^ np.uint8(128)).view(np.int8), inputs[1].numpy().copy()
        return written_out(pt._int_mm, *map(pt.from_numpy, signed), out=pt.from_numpy(out))
    tensors = [pt.from_numpy(x) for x in inputs]
    if op in with_out:
        f, *more = with_out[op]
        return written_out(f, *tensors, *more, out=pt.from_numpy(out), **attrs)
    if op == "log_softmax":
        return written_out(pt.log_softmax, *tensors, -1)
    return written_out(pt.nn.functional.layer_norm, tensors[0], shape, *tensors[1:])


def onnxruntime(op: str, inputs: tuple, attrs: dict, out: np.ndarray) -> Run:
    """onnxruntime's MatMulInteger, b a constant of the model: it is packed when the model is loaded."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    a, b, zero, _ = inputs
    node = helper.make_node("MatMulInteger", ["a", "b", "zero"], ["y"])
    graph = helper.make_graph([node], op, [helper.make_tensor_value_info("a", TensorProto.UINT8, a.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.INT32, out.shape)],
                              [numpy_helper.from_array(x, name) for name, x in (("b", b.numpy()), ("zero", zero))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = tw.get_num_threads()  # it reads no variable
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run, feeds = session.run, {"a": a}
    return lambda: run(None, feeds)[0]


def torch_quantized(x: np.ndarray, w: Any, bias: np.ndarray) -> Run:
    """PyTorch's linear layer with weights of int8 that quantizes its input, on the engine in force."""
    import torch as pt

    pt.set_grad_enabled(False)
    layer = pt.nn.Linear(*w.shape[::-1])
    layer.weight.data, layer.bias.data = pt.from_numpy(w.dequantize()), pt.from_numpy(bias)
    with warnings.catch_warnings():  # of a successor in another package
        warnings.simplefilter("ignore")
        model = pt.ao.quantization.quantize_dynamic(pt.nn.Sequential(layer), {pt.nn.Linear})
    return written_out(model, pt.from_numpy(x))


# ---- a step of training: forward, loss, backward, update


def train(who: str, case: str) -> Run:
    """A step of training, whose first losses are those of the reference."""
    step, reference = trainer(who, case), trainer("tilewright:numpy", case)
    losses, expected = ([run().item() for _ in range(STEPS)] for run in (step, reference))
    if not np.allclose(losses, expected, SAME):
        raise ValueError(f"wrong losses: {losses} instead of {expected}")
    return step


def trainer(who: str, case: str) -> Callable[[], Any]:
    """Steps on a batch whose labels change: a loss that sinks towards zero would time denormals."""
    layers, batch, optimizer, activation = case.split()
    sizes = [int(n) for n in layers.split("-")]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((int(batch), sizes[0]), np.float32)
    labels = list(rng.integers(0, sizes[-1], (64, int(batch))))
    library, _, variant = who.partition(":")
    model: Any = tw.nn.MLP(sizes, activation, seed=0)
    make, options = vars(tw.optim), {}
    tensor, entropy = tw.Tensor, tw.nn.cross_entropy
    if library == "torch":
        import torch as pt

        model = torch_twin(model)
        make, options = vars(pt.optim), {"fused": variant == "fused"}
        tensor, entropy = pt.from_numpy, pt.nn.CrossEntropyLoss()
        labels = [pt.from_numpy(y) for y in labels]
    kind, rate = OPTIMIZERS[optimizer]
    update, turn = make[kind](model.parameters(), rate, **options), itertools.cycle(labels)

    def step() -> Any:
        with tw.use_backend(variant) if library == "tilewright" else nullcontext():
            update.zero_grad()
            loss = entropy(model(tensor(x)), next(turn))
            loss.backward()
            update.step()
        return loss

    return step


def torch_twin(model: tw.nn.MLP) -> Any:
    """The same layers with the same weights in PyTorch."""
    import torch as pt

    twin = pt.nn.Sequential(*(
        pt.nn.Linear(*layer.weight.shape[::-1]) if isinstance(layer, tw.nn.Linear)
        else getattr(pt.nn, type(layer).__name__)() for layer in model.layers))
    for theirs, ours in zip(twin.parameters(), model.parameters(), strict=True):
        theirs.data.copy_(pt.from_numpy(ours.numpy()))
    return twin
