"""A process of the flatness benchmark: very many steps, with a short hand-written loop between any two pieces of them.

Usage: python flat_worker.py FRAMEWORK CASE STEPS CHUNKS MEMORY CLOCK FILE
"""

from __future__ import annotations

import gc
import importlib
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from typing import Any

from measuring import CLOCKS, hand_over, resident_bytes

CASES = ("silent", "records", "records and logs")


class Parts:
    """A model that is next to nothing, and what trains it."""

    def __init__(self, framework: str) -> None:
        native: Any = importlib.import_module(framework)
        self.model = native.nn.Linear(1, 1)
        self.batch = native.ones([1, 1])
        if framework == "torch":
            self.optimizer = native.optim.SGD(self.model.parameters(), 1e-6)
            self.clear = self.optimizer.zero_grad
        else:
            self.optimizer = native.optimizer.SGD(1e-6, parameters=self.model.parameters())
            self.clear = self.optimizer.clear_grad


def hand_written(parts: Parts, steps: int, clock: Callable[[], float]) -> float:
    """Trains by hand; gives the microseconds of a step."""
    began = clock()
    for batch in [parts.batch] * steps:
        parts.clear()
        loss = parts.model(batch).mean()
        loss.backward()
        parts.optimizer.step()
    return (clock() - began) / steps * 1e6


class Watch:
    """Times the pieces of a run, and looks at the memory between them."""

    def __init__(self, control: Parts, chunk: int, memory: str, clock: Callable[[], float]) -> None:
        self._control, self._chunk, self._memory, self._clock = control, chunk, memory, clock
        self._began = 0.0
        self.ours: list[float] = []
        self.hand: list[float] = []
        self.bytes: list[int] = []

    def look(self, first: bool) -> None:
        """Ends a piece and begins the next one."""
        if not first:
            self.ours.append((self._clock() - self._began) / self._chunk * 1e6)
            self.hand.append(hand_written(self._control, max(1, self._chunk // 10), self._clock))
        gc.collect()
        self.bytes.append(tracemalloc.get_traced_memory()[0] if self._memory == "python" else resident_bytes())
        self._began = self._clock()


def run(framework: str, case: str, steps: int, watch: Watch, chunk: int, folder: str) -> dict[str, Any]:
    """Trains ``steps`` steps with a Trainer; gives the microseconds of a step, and the bytes in use, piece by piece."""
    ours: Any = importlib.import_module(f"dowdyboy_{framework}")
    parts = Parts(framework)
    settings = {"log_with": "auto" if "logs" in case else "none", "enable_save_checkpoint": False, "disable_tqdm": True}
    trainer = ours.Trainer(ours.TrainerConfig(epoch=1, out_dir=folder, cpu=True, **settings))
    trainer.set_train_dataloader([parts.batch] * (steps + 1))
    trainer.set_model(parts.model)
    trainer.set_optimizer(parts.optimizer)

    def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        if global_step % chunk == 0:
            watch.look(first=not global_step)
        loss = trainer.get_models()[0](bat).mean()
        if case != "silent":
            trainer.set_records({"loss": loss})
        if "logs" in case:
            trainer.log({"loss": loss}, global_step)
        return loss

    trainer.fit(train_step)
    return {"ours": watch.ours, "hand": watch.hand, "bytes": watch.bytes}


if __name__ == "__main__":
    chosen, what, count, chunks, memory, clock, file = sys.argv[1:]
    size = int(count) // int(chunks)
    watched = Watch(Parts(chosen), size, memory, CLOCKS[clock])
    with tempfile.TemporaryDirectory() as place:
        if memory == "python":
            tracemalloc.start()
        answer = run(chosen, what, int(count), watched, size, place)
    hand_over(answer, file)
