"""Train models whose parameters, inputs and gradients live on a device: `python device_training.py`; prints "fine".

The device is that of fenced_device.py, so that any access of the host to an array ends the process. Operations that
have no CUDA kernel run NumPy's there.
"""
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

import tilewright as tw
from fenced_device import Fenced
from tilewright.core import device, registry
from tilewright.core.errors import DTypeError
from tilewright.core.on_device import OnDevice

here = Fenced()
real_kernels = registry.kernels


def of_host(x: Any) -> Any:
    if isinstance(x, tuple):
        return tuple(map(of_host, x))
    return x.view(np.ndarray) if isinstance(x, OnDevice) else x


def stand_in(row: registry.Kernel) -> registry.Kernel:
    """NumPy's kernel on the device's memory."""
    def run(call: registry.Call, outs: Any) -> Any:
        with here.reachable():
            return row.run(dataclasses.replace(call, inputs=of_host(call.inputs)), of_host(tuple(outs)))
    return dataclasses.replace(row, backend="cuda", run=run)


def kernels(family: str, backend: str) -> dict[tuple[str, str], registry.Kernel]:
    found = real_kernels(family, backend)
    if backend == "cuda":
        found = {key: stand_in(row) for key, row in real_kernels(family, "numpy").items() if not key[1]} | found
    return found


class Residual(tw.nn.Module):
    """x + f(x): a value that is used twice."""

    def __init__(self, size: int):
        self.norm, self.inner = tw.nn.LayerNorm(size), tw.nn.Linear(size, size, seed=3)

    def forward(self, x: Any) -> Any:
        return x + self.inner(self.norm(x))


def model() -> tw.nn.Module:
    return tw.nn.Sequential(tw.nn.Linear(12, 16, seed=0), tw.nn.GELU(), Residual(16), tw.nn.Dropout(0.25, seed=5),
                            tw.nn.Linear(16, 16, seed=1), tw.nn.ReLU(), tw.nn.Linear(16, 5, seed=2))


def train(net: tw.nn.Module, optimizer: Any, x: Any, labels: Any, steps: int = 10) -> list[float]:
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        for part in (slice(0, 20), slice(20, 32)):  # the second adds to the gradients of the first
            loss = tw.nn.cross_entropy(net(tw.Tensor(x[part])), labels[part])
            loss.backward()
            losses.append(loss.item())
        tw.optim.clip_grad_norm(net.parameters(), 1.0)
        optimizer.step()
    return losses


def main() -> None:
    registry.kernels = kernels  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((32, 12)).astype(np.float32), rng.integers(0, 5, 32)
    makers = (lambda p: tw.optim.AdamW(p, lr=1e-2), lambda p: tw.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True))
    for make in makers:
        with tw.use_backend("numpy"):
            mine = model()
            optimizer = make(mine.parameters())
            expected = train(mine, optimizer, x, labels)
        theirs = model().to_device()
        other = make(theirs.parameters())
        found = train(theirs, other, tw.to_device(x), tw.to_device(labels))
        np.testing.assert_allclose(found, expected, rtol=2e-4)
        assert expected[-1] < 0.8 * expected[0]
        for p in theirs.parameters():
            assert isinstance(p.data, tw.DeviceArray) and isinstance(p.grad, tw.DeviceArray)
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(value, mine.state_dict()[name], rtol=1e-2, atol=1e-3)

        again = model().to_device()  # state goes over, and training goes on with the same bits
        third = make(again.parameters())
        again.load_state_dict(theirs.state_dict())
        third.load_state_dict(other.state_dict())
        assert train(theirs, other, tw.to_device(x), tw.to_device(labels), 2) == \
            train(again, third, tw.to_device(x), tw.to_device(labels), 2)

    t = tw.Tensor(tw.to_device(x), requires_grad=True)
    y = tw.relu(t)
    y.backward(tw.to_device(np.ones_like(x)))
    assert np.array_equal(tw.to_host(t.grad), (x > 0).astype(np.float32))
    assert np.array_equal(y.numpy(), np.maximum(x, 0))
    z = tw.relu(t)  # arithmetic of tensors, and views
    (tw.nn.mse_loss(z[1:] * 2 + 1, z[:-1]).exp() / t.max(0)).sum().backward()
    for wrong in (lambda: t + x, lambda: t**1.5, lambda: t[[0]], lambda: tw.Tensor(t, dtype=np.float64)):
        try:
            wrong()
            raise AssertionError("arithmetic of the host was done on a device")
        except DTypeError as error:
            assert "device" in str(error)
    print("fine")


if __name__ == "__main__":
    with device.using(here):
        main()
