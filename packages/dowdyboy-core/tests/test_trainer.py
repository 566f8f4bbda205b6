"""The loop: what it tells the backend and the user, where a stopped run goes on, and several processes in step."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import SetupError, Trainer, TrainerConfig
from dowdyboy_core.backend import together as _together

TRAIN, VAL, TEST = [0.0, 1.0, 2.0, 3.0], [10.0, 11.0, 12.0, 13.0], [20.0, 21.0, 22.0]


@pytest.fixture(autouse=True)
def as_in_a_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has signals handled as in a script in a terminal, and forgets afterwards that a run has failed."""
    monkeypatch.setattr(_together, "_apart", False)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class Run:
    """A trainer for the plain model, and what its hooks saw.

    Args:
        crashing: the helpers of conftest.py.
        out_dir: where it writes.
        meeting: where it meets the other processes.
        rank: which of them it is.
        settings: of the configuration.

    Attributes:
        seen: for each batch the phase, the epoch, the batch, and both numbers.
        asked: what the backend was asked for, of what is only the framework's business.
        on_batch: called with each batch.
    """

    def __init__(
        self, crashing: Any, out_dir: Path, meeting: Meeting | None = None, rank: int = 0, **settings: Any
    ) -> None:
        self.backend = crashing.PlainBackend()
        self.asked: list[tuple[Any, ...]] = []
        for name in ("set_training", "forward_context", "align_untrained", "unsynchronised"):
            setattr(self.backend, name, self.noting(name, getattr(self.backend, name)))
        if meeting is not None:
            self.backend.rank, self.backend.world_size = rank, meeting.world_size
            self.backend.gather = lambda value: meeting.gather(rank, value)
        self.trainer = Trainer(
            TrainerConfig(**{"out_dir": out_dir, "epoch": 1, "log_with": "none", **settings}), self.backend
        )
        self.model = crashing.Model()
        self.optimizer = crashing.Optimizer(self.model, 0.25)
        self.trainer.set_model(self.model)
        self.trainer.set_optimizer(self.optimizer)
        self.trainer.set_train_dataloader(TRAIN)
        self.trainer.set_val_dataloader(VAL)
        self.trainer.set_test_dataloader(TEST)
        self.seen: list[tuple[Any, ...]] = []
        self.on_batch: Callable[[float], Any] = lambda bat: None

    def noting(self, name: str, function: Any) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            self.asked.append((name, *given))
            return function(*given)

        return noted

    def step(self, trainer: Any, bat: float, bat_idx: int, global_step: int) -> Any:
        self.seen.append((trainer.epoch, bat, bat_idx, global_step))
        trainer.set_records({"seen": bat})
        self.on_batch(bat)
        return [self.model.w, 1.0]

    def fit(self, on_epoch_end: Any = None) -> None:
        self.trainer.fit(self.step, self.step, on_epoch_end)


def stop(*_: Any) -> None:
    """Sends the signal that schedulers send."""
    signal.raise_signal(signal.SIGTERM)


def stopping_at(batch: float) -> Callable[[float], None]:
    return lambda bat: stop() if bat == batch else None


def shown(captured: str) -> list[str]:
    """The lines of the progress display without the times."""
    return [re.sub(r" \[[^]]*\]", "", line) for line in captured.splitlines()]


def logged(out_dir: Path) -> list[str]:
    """The lines of the run's log without their times."""
    return [line.split("] ", 1)[1] for line in (out_dir / "default_run.log").read_text().splitlines()]


def test_what_the_backend_is_asked_for_in_an_epoch(crashing: Any, tmp_path: Path) -> None:
    run = Run(crashing, tmp_path, accumulate_steps=3)
    run.fit()
    one = [run.model]
    train = ("forward_context", True)
    assert run.asked == [
        ("set_training", run.model, True),
        *[("unsynchronised", one), train, ("unsynchronised", one), train, train, train],
        ("align_untrained", one),
        ("set_training", run.model, False),
        *[("forward_context", False)] * 4,
    ]
    run.asked.clear()
    run.trainer.test(run.step)
    assert run.asked == [("set_training", run.model, False), *[("forward_context", False)] * 3]


def test_what_the_user_is_shown(crashing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(crashing, tmp_path, epoch=2)
    run.fit()
    run.trainer.test(run.step)
    run.trainer.set_val_dataloader([])
    with pytest.raises(SetupError, match="The val data has no batch in epoch 1"):
        run.fit()
    out, err = capsys.readouterr()
    train, val = "Epoch {}/2 train 4/4", "Epoch {}/2 val {}"
    first = [train.format(1), val.format(1, "4/4"), train.format(2), val.format(2, "4/4"), "test 3/3"]
    assert shown(err) == [*first, train.format(1), val.format(1, "0/0")]
    begun = ["======= epoch 1/2 begin =======", "======= epoch 2/2 begin ======="]
    assert [line for line in out.splitlines() if line.endswith("begin =======")] == [*begun, begun[0]]
    assert [line for line in logged(tmp_path) if line.endswith("begin =======")] == [*begun, begun[0]]


def test_a_run_that_was_stopped_in_validation_goes_on_there(
    crashing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = Run(crashing, tmp_path, epoch=2, resume="auto")
    stopped.on_batch = stopping_at(VAL[1])
    with pytest.raises(SystemExit) as caught:
        stopped.fit()
    assert caught.value.code == 128 + signal.SIGTERM
    assert logged(tmp_path)[-1] == "stopped by signal 15 in epoch 1, saved; resume='auto' goes on from here"
    index = json.loads((tmp_path / "checkpoint/last_epoch_1/checkpoint.json").read_text())
    assert [index[name] for name in ("epoch", "batch", "val_batch", "train_step", "val_step")] == [0, 4, 2, 4, 2]
    capsys.readouterr()
    resumed = Run(crashing, tmp_path, epoch=2, resume="auto")
    ends: list[Any] = []
    resumed.fit(lambda trainer, ep: ends.append(trainer.get_records()["seen"].tolist()))
    assert resumed.seen == [
        *[(1, VAL[number], number, number) for number in (2, 3)],
        *[(2, TRAIN[number], number, 4 + number) for number in range(4)],
        *[(2, VAL[number], number, 4 + number) for number in range(4)],
    ]
    assert ends == [TRAIN + VAL] * 2
    assert shown(capsys.readouterr().err) == ["Epoch 1/2 val 4/4", "Epoch 2/2 train 4/4", "Epoch 2/2 val 4/4"]


def test_a_run_that_was_stopped_in_training_goes_on_there(
    crashing: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped = Run(crashing, tmp_path, resume="auto")
    stopped.on_batch = stopping_at(TRAIN[0])
    with pytest.raises(SystemExit):
        stopped.fit()
    assert logged(tmp_path)[-1] == "stopped by signal 15 in epoch 1, saved; resume='auto' goes on from here"
    capsys.readouterr()
    resumed = Run(crashing, tmp_path, resume="auto")
    resumed.fit()
    assert [batch for _, batch, _, _ in resumed.seen] == [*TRAIN[1:], *VAL]
    assert shown(capsys.readouterr().err) == ["Epoch 1/1 train 4/4", "Epoch 1/1 val 4/4"]


def test_the_last_checkpoint_is_refreshed_within_an_epoch_under_its_number(crashing: Any, tmp_path: Path) -> None:
    run = Run(crashing, tmp_path, save_steps=3)
    there: list[list[str]] = []

    def look(bat: float) -> None:
        run.trainer.wait_for_checkpoint()
        there.append([path.name for path in (tmp_path / "checkpoint").glob("*_epoch_*")])

    run.on_batch = look
    run.fit()
    assert there == [*[[]] * 3, *[["last_epoch_1"]] * 5]


def test_a_signal_at_the_very_end_is_told_once_all_is_done(crashing: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        Run(crashing, tmp_path).fit(stop)
    assert caught.value.code == 128 + signal.SIGTERM
    again = Run(crashing, tmp_path, resume="auto")
    again.fit()
    assert again.seen == []
    assert logged(tmp_path)[-1] == "nothing is left to train: 1 of 1 epochs are done"


def test_a_run_with_epochs_left_does_not_say_that_nothing_is(crashing: Any, tmp_path: Path) -> None:
    Run(crashing, tmp_path).fit()
    Run(crashing, tmp_path, epoch=2, resume="auto").fit()
    assert not [line for line in logged(tmp_path) if "nothing is left" in line]


def test_a_hook_may_call_sys_exit(crashing: Any, tmp_path: Path) -> None:
    run = Run(crashing, tmp_path)
    run.on_batch = lambda bat: sys.exit(3)
    phases: list[Callable[[], None]] = [run.fit, lambda: run.trainer.test(run.step)]
    for phase in phases:
        with pytest.raises(SystemExit) as caught:
            phase()
        assert caught.value.code == 3


class Meeting:
    """Where processes meet that are threads, of which one at a time runs, so that they may share what is global."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.turn = threading.Lock()
        self.all_here = threading.Barrier(world_size)
        self.given: list[Any] = [None] * world_size

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.given[rank] = value
        self.turn.release()
        try:
            self.all_here.wait(30)
            found = list(self.given)
            self.all_here.wait(30)
        finally:
            self.turn.acquire()
        return found

    def run(self, job: Callable[[int], Any]) -> list[Any]:
        """Runs ``job(rank)`` in every process, the first in this thread; gives the results, or the errors."""

        def one(rank: int) -> Any:
            with self.turn:
                try:
                    return job(rank)
                except BaseException as error:
                    if not isinstance(error, SystemExit | SetupError):
                        self.all_here.abort()
                    return error

        with ThreadPoolExecutor(self.world_size - 1) as pool:
            others = [pool.submit(one, rank) for rank in range(1, self.world_size)]
            return [one(0), *(other.result() for other in others)]


def test_processes_see_the_records_in_the_order_that_one_would_have(crashing: Any, tmp_path: Path) -> None:
    meeting = Meeting(2)

    def job(rank: int) -> Any:
        run = Run(crashing, tmp_path, meeting, rank, enable_save_checkpoint=False)
        run.trainer.set_train_dataloader(TRAIN[:3])
        run.trainer.set_val_dataloader([*VAL, 14.0])
        found: list[Any] = []

        def note(trainer: Any, ep: int = 0) -> None:
            found.append(trainer.get_records()["seen"].tolist())

        run.fit(note)
        run.trainer.test(run.step, note)
        return found, [batch for _, batch, _, _ in run.seen]

    together = [[0.0, 1.0, 2.0, 0.0, *VAL, 14.0], TEST]
    assert meeting.run(job) == [
        (together, [0.0, 2.0, 10.0, 12.0, 14.0, 20.0, 22.0]),
        (together, [1.0, 0.0, 11.0, 13.0, 21.0]),
    ]


def test_processes_stay_in_step_with_a_loop_by_hand(crashing: Any, tmp_path: Path) -> None:
    meeting = Meeting(2)

    def job(rank: int) -> Any:
        run = Run(crashing, tmp_path, meeting, rank, enable_save_checkpoint=False, auto_optimize=False)

        def step(trainer: Any, bat: float, bat_idx: int, global_step: int) -> None:
            if bat_idx % 2:
                trainer.zero_grad(run.optimizer)
                trainer.backward([run.model.w, 1.0])
                trainer.step(run.optimizer)

        run.trainer.fit(step)
        return run.model.w.value

    first, second = meeting.run(job)
    assert first == second != 1.0


@pytest.mark.parametrize(
    ("batch", "seen"),
    [(TRAIN[0], [[0.0], [1.0]]), (VAL[2], [[0.0, 2.0, 10.0, 12.0], [1.0, 3.0, 11.0, 13.0]])],
    ids=["train", "val"],
)
def test_a_signal_to_one_process_stops_all_after_the_same_batch(
    crashing: Any, tmp_path: Path, batch: float, seen: list[list[float]]
) -> None:
    meeting = Meeting(2)

    def job(rank: int) -> Any:
        run = Run(crashing, tmp_path, meeting, rank, enable_save_checkpoint=False)
        run.on_batch = stopping_at(batch)
        with pytest.raises(SystemExit) as caught:
            run.fit()
        return caught.value.code, [bat for _, bat, _, _ in run.seen]

    assert meeting.run(job) == [(143, seen[0]), (143, seen[1])]
    assert logged(tmp_path)[-1] == "stopped by signal 15 in epoch 1, and this point is NOT saved"


def test_processes_that_call_different_things_are_told_where_each_is(crashing: Any, tmp_path: Path) -> None:
    meeting = Meeting(2)

    def job(rank: int) -> None:
        run = Run(crashing, tmp_path, meeting, rank)
        if rank == 0:
            run.fit()
        else:
            run.trainer.test(run.step)

    first, second = meeting.run(job)
    assert str(first).startswith("process 0 has come to fit, and process 1 to test. Let every process")
    assert str(second).startswith("process 1 has come to test, and process 0 to fit. Let every process")
