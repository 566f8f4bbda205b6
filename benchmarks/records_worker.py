"""A process of the records benchmark.

Usage: python records_worker.py time FRAMEWORK CASES ROUNDS CLOCK FILE
       python records_worker.py weigh FRAMEWORK COUNT FILE

CASES is a list of [kind, count] in JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from measuring import CLOCKS, hand_over, resident_bytes, turns

WIDTH = 16
Clock = Callable[[], float]


def values(framework: Any, kind: str, count: int) -> list[Any]:
    """What is recorded: all equal, so that only the keeping is timed."""
    if kind in ("float", "three floats"):
        return [0.5] * count
    if kind == "int":
        return [7] * count
    ones = framework.ones([WIDTH])
    return [ones.mean() if kind == "tensor" else ones] * count


def in_a_hook(framework_name: str, hook: Callable[[Any], None], then: Callable[[Any], None]) -> None:
    """Has a Trainer call ``hook`` as its only train_step, and ``then`` at the end of the epoch."""
    ours: Any = importlib.import_module(f"dowdyboy_{framework_name}")
    framework: Any = importlib.import_module(framework_name)
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {"auto_optimize": False, "enable_save_checkpoint": False, "disable_tqdm": True}
        trainer = ours.Trainer(ours.TrainerConfig(epoch=1, out_dir=folder, cpu=True, log_with="none", **settings))
        trainer.set_train_dataloader([0])
        trainer.set_model(framework.nn.Linear(1, 1))
        trainer.fit(lambda trainer, bat, bat_idx, global_step: hook(trainer), None, lambda trainer, ep: then(trainer))


def time_records(name: str, cases: list[tuple[str, int]], rounds: int, clock: Clock) -> list[dict[str, list[float]]]:
    """For each case and round the microseconds of a record and of an append, and the milliseconds of reading all."""
    framework = importlib.import_module(name)
    found: list[dict[str, list[float]]] = [{"ours": [], "append": [], "get_records": []} for _ in cases]
    for number in range(rounds + 1):
        for place in turns(range(len(cases)), number):
            kind, count = cases[place]
            given = values(framework, kind, count)
            gc.collect()
            ours, read = time_ours(name, kind, given, clock)
            times = {"ours": ours, "append": time_append(kind, given, clock), "get_records": read}
            if number:  # the first one warms up
                for what, value in times.items():
                    found[place][what].append(value)
    return found


def time_ours(name: str, kind: str, given: list[Any], clock: Clock) -> tuple[float, float]:
    """Microseconds of a call of set_records, and milliseconds of get_records in the end."""
    times: list[float] = []

    def hook(trainer: Any) -> None:
        began = clock()
        if kind == "three floats":
            for value in given:
                trainer.set_records({"loss": value, "accuracy": value, "rate": value})
        else:
            for value in given:
                trainer.set_records({"loss": value})
        times.append((clock() - began) / len(given) * 1e6)

    def then(trainer: Any) -> None:
        began = clock()
        trainer.get_records()
        times.append((clock() - began) * 1e3)

    in_a_hook(name, hook, then)
    ours, read = times
    return ours, read


def time_append(kind: str, given: list[Any], clock: Clock) -> float:
    """Microseconds of what one writes by hand."""
    lists: list[list[Any]] = [[], [], []]
    kept, second, third = lists
    began = clock()
    if kind in ("tensor", "vector"):
        for value in given:
            kept.append(value.detach().clone())
    elif kind == "three floats":
        for value in given:
            kept.append(value)
            second.append(value)
            third.append(value)
    else:
        for value in given:
            kept.append(value)
    return (clock() - began) / len(given) * 1e6


def weigh_floats(name: str, count: int) -> dict[str, int]:
    """Bytes of ``count`` recorded floats, and how many more are in use for a moment while they are read."""
    found: dict[str, int] = {}

    def hook(trainer: Any) -> None:
        trainer.set_records({"loss": 0.5})
        trainer.get_records()
        gc.collect()
        before = resident_bytes()
        for number in range(count - 1):
            trainer.set_records({"loss": number / 3})
        found["held"] = resident_bytes() - before

    def then(trainer: Any) -> None:
        before = resident_bytes()
        read = trainer.get_records()["loss"]
        assert len(read) == count, f"{len(read)} records of {count}"
        found["peak"] = max(resident_bytes(peak=True) - before, 0)

    in_a_hook(name, hook, then)
    return found


if __name__ == "__main__":
    what, *arguments, file = sys.argv[1:]
    if what == "time":
        chosen, cases, rounds, clock = arguments
        hand_over(time_records(chosen, json.loads(cases), int(rounds), CLOCKS[clock]), file)
    else:
        hand_over(weigh_floats(arguments[0], int(arguments[1])), file)
