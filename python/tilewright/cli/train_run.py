"""A training run: everything it consists of, one epoch after the other, stopped and resumed to the bit."""
from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .. import data, nn, optim
from ..autograd import Tensor, compile, no_grad
from ..core import device, dispatch
from ..core.dispatch import use_backend
from ..core.errors import ArgumentError, DataError, TilewrightError
from .train_data import TrainData

FORMAT = "tilewright train 1"
RATES = {"sgd": 0.05, "adam": 2e-3, "adamw": 2e-3}  # where --lr is not given
SCHEDULES = ("none", "step", "exponential", "cosine")


@dataclass(frozen=True, slots=True)
class Options:
    """What decides the outcome of a run. Stored in its checkpoint."""

    data: str
    target: str = "-1"
    layers: str = "256,128"
    activation: str = "gelu"
    norm: str = "layer"
    dropout: float = 0.2
    optimizer: str = "adam"
    lr: float | None = None
    schedule: str = "cosine"
    epochs: int = 25
    batch: int = 32
    seed: int = 0
    backend: str = "auto"

    def hidden(self) -> list[int]:
        """The sizes of the hidden layers."""
        try:
            sizes = [int(n) for n in self.layers.split(",")] if self.layers.strip() else []
        except ValueError:
            sizes = [0]
        if any(n < 1 for n in sizes):
            raise ArgumentError(f"--layers are sizes separated by commas, such as 256,128, not {self.layers!r}")
        return sizes


@dataclass(frozen=True, slots=True)
class Epoch:
    """The figures of one epoch: mean loss and accuracy while it ran, and accuracy on the test rows after it."""

    number: int
    loss: float
    accuracy: float
    test_accuracy: float


class Run:
    """Model, optimizer, schedule and batches, as the options say."""

    def __init__(self, options: Options, rows: TrainData):
        if options.optimizer not in RATES:
            raise ArgumentError(f"--optimizer is one of {', '.join(RATES)}, not {options.optimizer!r}")
        if options.schedule not in SCHEDULES:
            raise ArgumentError(f"--schedule is one of {', '.join(SCHEDULES)}, not {options.schedule!r}")
        if options.epochs < 1:
            raise ArgumentError(f"--epochs is at least 1, not {options.epochs}")
        self.options, self.rows = options, rows
        sizes = [rows.x_train.shape[1], *options.hidden(), len(rows.classes)]
        self.model = nn.MLP(sizes, options.activation, dropout=options.dropout, seed=options.seed,
                            norm=None if options.norm == "none" else options.norm)
        rate = RATES[options.optimizer] if options.lr is None else options.lr
        parameters = self.model.parameters()
        self.optimizer: optim.Optimizer = (
            optim.SGD(parameters, rate, momentum=0.9) if options.optimizer == "sgd"
            else optim.Adam(parameters, rate) if options.optimizer == "adam" else optim.AdamW(parameters, rate))
        self.batches = data.Batches(rows.x_train, rows.y_train, batch_size=options.batch, seed=options.seed)
        self.schedule = self._schedule(options.epochs * len(self.batches))
        self.history: list[Epoch] = []
        self.tally = np.zeros(3)  # of the epoch that runs: sum of losses, rows that were right, rows
        self.step_seconds: list[float] = []
        self._update = compile(self._update)  # type: ignore[method-assign]
        self.interrupted = False
        self.emulated = False  # whether the steps ran on an emulated device, whose time says nothing

    def _schedule(self, total: int) -> optim.Schedule | None:
        """Per batch. step: a tenth after each third; exponential: to a hundredth; cosine: after 5% of warm-up, to 0."""
        if self.options.schedule == "step":
            return optim.StepLR(self.optimizer, max(1, -(-total // 3)))
        if self.options.schedule == "exponential":
            return optim.ExponentialLR(self.optimizer, 0.01 ** (1 / total))
        return optim.CosineWithWarmup(self.optimizer, total // 20, total) if self.options.schedule == "cosine" else None

    # ---- training

    def train(self, after_step: Callable[[Run], None], after_epoch: Callable[[Run], None]) -> None:
        """Train until all epochs are done, or until `interrupted` is set, which is looked at after every step."""
        with self._backend():
            self.emulated = (dispatch.active() or "").startswith("cuda") and device.emulated()
            while self.batches.epoch < self.options.epochs and not self.interrupted:
                for x, y in self.batches:
                    self._step(x, y)
                    after_step(self)
                    if self.interrupted and self.batches.position < len(self.batches):
                        return
                loss, right, count = self.tally
                self.history.append(Epoch(self.batches.epoch, loss / count, right / count, self.accuracy()))
                self.tally = np.zeros(3)
                after_epoch(self)

    def _backend(self) -> AbstractContextManager:
        """auto leaves it to TILEWRIGHT_BACKEND, else to the order of the backends."""
        return nullcontext() if self.options.backend == "auto" else use_backend(self.options.backend)

    def _step(self, x: np.ndarray, y: np.ndarray) -> None:
        start = time.perf_counter()
        logits, loss = self._update(x, y)
        self.step_seconds.append(time.perf_counter() - start)
        if not math.isfinite(loss.item()):
            raise ArgumentError(f"the loss became {loss.item()} in epoch {self.batches.epoch + 1}, "
                                f"step {self.batches.position}; try an --lr below {self.optimizer.lr:.3g}")
        self.tally += np.array([loss.item() * len(y), np.count_nonzero(logits.data.argmax(1) == y), len(y)])

    def _update(self, x: np.ndarray, y: np.ndarray) -> tuple[Tensor, Tensor]:
        """One step; compiled for the run."""
        self.optimizer.zero_grad()
        logits = self.model(Tensor(x))
        loss = nn.cross_entropy(logits, y)
        loss.backward()
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        return logits, loss

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The class of each row."""
        self.model.eval()
        with self._backend(), no_grad():
            parts = [self.model(Tensor(x[i:i + 1024])).data.argmax(1) for i in range(0, len(x), 1024)]
        self.model.train()
        return np.concatenate(parts)

    def accuracy(self) -> float:
        """The part of the test rows that the model gets right."""
        return float(np.mean(self.predict(self.rows.x_test) == self.rows.y_test))

    # ---- stop and resume

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that an exact continuation needs."""
        state = {f"{part}/{name}": a for part, owner in self._parts().items() for name, a in owner.state_dict().items()}
        history = [(e.loss, e.accuracy, e.test_accuracy) for e in self.history]
        state["history"] = np.array(history, np.float64).reshape(-1, 3)
        state["tally"] = self.tally
        metadata = {"format": FORMAT, "rows": self.rows.checksum(), "options": json.dumps(asdict(self.options))}
        data.write_safetensors(path, state, metadata)

    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "batches": self.batches}
        return {name: part for name, part in parts.items() if part is not None}

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take over the state of a checkpoint made with the same options; raises, naming the file, if it cannot."""
        state, metadata = data.read_safetensors(path)
        if metadata.get("rows") != self.rows.checksum():
            raise DataError(f"{path}: was made with other data, another --seed or another --target")
        try:
            for part, owner in self._parts().items():
                owner.load_state_dict({name[len(part) + 1:]: a for name, a in state.items()
                                       if name.startswith(part + "/")})
            self.tally = state["tally"].astype(np.float64).reshape(3)
            self.history = [Epoch(i, *map(float, row)) for i, row in enumerate(state["history"].reshape(-1, 3), 1)]
        except (TilewrightError, KeyError, ValueError) as error:
            raise DataError(f"{path}: does not fit this run: {error}") from None


def stored_options(path: str | os.PathLike[str]) -> Options:
    """The options with which a checkpoint was made."""
    _, metadata = data.read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise DataError(f"{path}: is no checkpoint of `tilewright train`")
    try:
        found = json.loads(metadata["options"])
        if set(found) != {f.name for f in fields(Options)}:
            raise ValueError("unknown or missing options")
        kinds: dict[str, Any] = {"data": str, "lr": (float, int, type(None)), "dropout": (float, int)}
        for f in fields(Options):
            if not isinstance(found[f.name], kinds.get(f.name, type(f.default))):
                raise ValueError(f"{f.name} is {found[f.name]!r}")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: its options are not understood: {error}") from None
    return Options(**found)


@contextmanager
def stopping_on_ctrl_c(run: Run) -> Iterator[None]:
    """The first Ctrl-C lets the step that runs end and stops the run; a second one ends the program as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        run.interrupted = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
