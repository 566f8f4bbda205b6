"""The reference itself: its gradients, its messages between processes, and that it needs no framework."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance.reference import CheckpointError, SetupError, _distributed, _sockets, _state
from dowdyboy_conformance.reference.framework import layers
from dowdyboy_conformance.reference.framework.data import DataLoader
from dowdyboy_conformance.reference.framework.optim import SGD, Adam
from dowdyboy_conformance.reference.framework.tensor import Parameter, Tensor, is_recording, no_gradients
from dowdyboy_core.backend import Array

GENERATOR = np.random.Generator(np.random.PCG64(3))


def batch_norm(training: bool) -> layers.BatchNorm:
    layer = layers.BatchNorm(3)
    layer.running_mean.data, layer.running_var.data = np.array([0.5, 0.0, -1.0]), np.array([1.0, 2.0, 0.5])
    layer.train(training)
    return layer


FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "sum": lambda x: x.sum(),
    "add": lambda x: (x + x[:, [1, 0, 2]] + 3).sum() * 2,
    "used twice": lambda x: layers.Tanh()(x).sum() + (x * 0.5).sum(),
    "rows": lambda x: layers.Tanh()(x[1:3]).sum() / 4,
    "one of many": lambda x: layers.Tanh()(x[0, 1]),
    "cross entropy": lambda x: layers.CrossEntropyLoss()(x, Tensor(np.array([0, 2, 1, 1]))),
    "squared error": lambda x: layers.MSELoss()(x, Tensor(np.ones((4, 3)))),
    "norm": lambda x: layers.MSELoss()(layers.Tanh()(batch_norm(True)(x)), Tensor(np.ones((4, 3)))),
    "norm in evaluation": lambda x: layers.MSELoss()(batch_norm(False)(x), Tensor(np.ones((4, 3)))),
}


def check_gradient(parameter: Parameter, loss: Callable[[], Any]) -> None:
    """Compares a gradient with differences, in float64."""
    parameter.grad = None
    loss().backward(2.0)
    differences = np.zeros_like(parameter.data)
    for place in np.ndindex(parameter.shape):
        values = []
        for step in (1e-6, -1e-6):
            parameter.data[place] += step
            values.append(loss().item())
            parameter.data[place] -= step
        differences[place] = (values[0] - values[1]) / 2e-6
    assert np.abs(differences).max() > 1e-3
    np.testing.assert_allclose(parameter.grad, 2 * differences, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_those_of_differences(name: str) -> None:
    x = Parameter(GENERATOR.standard_normal((4, 3)))
    check_gradient(x, lambda: FUNCTIONS[name](x))


@pytest.mark.parametrize("kind", ["linear", "norm", "norm in evaluation"])
def test_gradients_of_parameters_are_those_of_differences(kind: str) -> None:
    layer: Any = layers.Linear(3, 2) if kind == "linear" else batch_norm(kind == "norm")
    for parameter in layer.parameters().values():
        parameter.data = GENERATOR.standard_normal(parameter.shape)
    x = Tensor(GENERATOR.standard_normal((4, 3)))
    for parameter in layer.parameters().values():
        check_gradient(parameter, lambda: layers.Tanh()(layer(x)).sum())


def test_dropout_keeps_the_mean_and_sends_gradients_through_what_it_keeps() -> None:
    x = Parameter(np.ones((100, 100), np.float32))
    result = layers.Dropout(0.25)(x)
    assert set(np.unique(result.data)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert result.data.mean() == pytest.approx(1, abs=0.03)
    result.sum().backward()
    np.testing.assert_array_equal(x.grad, result.data)


def test_without_recording_nothing_is_tracked() -> None:
    x = Parameter(np.ones(3))
    with pytest.raises(ArithmeticError), no_gradients():
        assert not (x * 2).tracked
        raise ArithmeticError
    assert is_recording() and (x * 2).tracked
    assert not x.detach().tracked


def test_tensors_of_other_shapes_are_not_added() -> None:
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(1,\)"):
        Tensor(np.ones(3)) + Tensor(np.ones(1))


def test_a_worker_that_is_gone_is_told() -> None:
    loader = DataLoader([1], batch_sampler=[[0]], num_workers=1, collate_fn=lambda samples: os._exit(3))
    with pytest.raises(RuntimeError, match=r"A worker of the loader has ended\."):
        next(iter(loader))


def test_an_error_in_a_worker_is_raised_here() -> None:
    loader = DataLoader([1], batch_sampler=[[7]], num_workers=1)
    with pytest.raises(IndexError):
        next(iter(loader))


@pytest.mark.parametrize("seconds", [0, 0.2], ids=["has read ahead", "is reading"])
def test_workers_end_without_a_word_where_a_loader_is_left_early(
    capfd: pytest.CaptureFixture[str], seconds: float
) -> None:
    def collate(samples: list[Any]) -> list[Any]:
        time.sleep(seconds * samples[0])
        return samples

    reading: Any = iter(DataLoader(range(8), 1, num_workers=2, collate_fn=collate))
    next(reading)
    if not seconds:
        assert all(pipe.poll(30) for pipe in reading._pipes)  # what nobody is going to read
    reading.close()
    for worker in reading.workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert capfd.readouterr().err == ""


def test_slots_of_another_rule_are_refused() -> None:
    parameter = Parameter(np.ones(2, np.float32))
    parameter.grad = np.ones(2, np.float32)
    momentum, adam = SGD([parameter], 0.1), Adam([parameter], 0.1)
    momentum.step()
    state = _state.optimizer_state(momentum, {id(parameter): "0/w"})
    with pytest.raises(
        CheckpointError, match=r"\['steps', 'velocity'\] of 0/w and now has \['mean', 'square', 'steps'\]"
    ):
        _state.load_optimizer_state(adam, {id(parameter): "0/w"}, state)
    assert adam.slots == {}


# ---- several processes, as threads of this one


def in_group(processes: int, action: Callable[[int, _sockets.Group], Any]) -> list[Any]:
    """What each process of a group gives or raises."""
    master = ("127.0.0.1", _distributed.free_port())
    results: list[Any] = [None] * processes

    def run(rank: int) -> None:
        group = None
        try:
            group = _sockets.Group(rank, processes, master)
            results[rank] = action(rank, group)
        except Exception as error:
            results[rank] = error
        finally:
            if group is not None:
                group.close()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_all_get_what_all_have_sent() -> None:
    def value(rank: int) -> Any:
        array = Array("F32", (2,), np.full(2, rank, np.float32).view(np.uint8))
        return {"rank": (rank, None, "é", True), 7: [float("inf"), 2**70], "array": array, "large": "x" * rank * 2**20}

    for seen in in_group(3, lambda rank, group: group.exchange("values", value(rank))):
        assert len(seen) == 3
        for rank, got in enumerate(seen):
            array = got.pop("array")
            assert (array.dtype, array.shape) == ("F32", (2,))
            np.testing.assert_array_equal(np.frombuffer(array.data, np.float32), [rank, rank])
            assert got == {name: item for name, item in value(rank).items() if name != "array"}


def test_a_process_that_is_gone_is_an_error_in_the_others() -> None:
    def action(rank: int, group: _sockets.Group) -> Any:
        return None if rank == 2 else group.exchange("values", 1)

    first, second, _ = in_group(3, action)
    assert isinstance(first, SetupError) and isinstance(second, SetupError)
    assert str(first) == "Process 2 has ended while process 0 was waiting for it. Its own error says why."
    assert str(second).startswith("Process 0, or another one that it waited for, has ended while process 1 was waiting")


def test_a_worker_does_not_hide_that_its_process_is_gone() -> None:
    workers: list[Any] = []

    def action(rank: int, group: _sockets.Group) -> float:
        began = time.monotonic()
        if rank:
            workers.append(multiprocessing.get_context("fork").Process(target=time.sleep, args=(6,), daemon=True))
            workers[0].start()
            group.close()
        else:
            with pytest.raises(SetupError, match="Process 1 has ended"):
                group.exchange("values", 1)
        return time.monotonic() - began

    results = in_group(2, action)
    workers[0].kill()
    workers[0].join()
    assert max(results) < 4, "it was noticed when the worker ended, too"


def test_processes_in_different_places_are_told() -> None:
    results = in_group(2, lambda rank, group: group.exchange("sums" if rank else "gradients", 1))
    assert [type(item) for item in results] == [SetupError] * 2
    assert str(results[0]).startswith("Process 0 has come to an exchange of gradients, and process 1 to one of sums.")


def test_what_does_not_belong_to_a_job_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    master = ("127.0.0.1", _distributed.free_port())
    stranger = threading.Thread(target=lambda: _sockets.Group(3, 5, master).close())
    stranger.start()
    with pytest.raises(SetupError, match=r"Process 3 of 5 has come to a job of 2 that has met the processes \[0\]"):
        _sockets.Group(0, 2, master)
    stranger.join()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_job_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(_sockets, "JOINING", 0.1)
    with pytest.raises(SetupError, match=rf"Process {rank} of 2 has not met the others at 127\.0\.0\.1:\d+ in 0\.1 s"):
        _sockets.Group(rank, 2, ("127.0.0.1", _distributed.free_port()))


@pytest.mark.parametrize("master", ["here", "here:", ":5", "here:x"])
def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, master: str) -> None:
    monkeypatch.setenv("DOWDYBOY_MASTER", master)
    with pytest.raises(SetupError, match=f"DOWDYBOY_MASTER='{master}' is no address"):
        _distributed.join(0, 2)


# ---- without a framework


ALONE = "(test_records and not test_records_of_samples) or test_an_error_in_one_process_ends_all"
"""Checks of one process and of several, without those that have the processes run everything."""


def test_the_reference_needs_no_framework(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    for name in ("torch", "paddle"):
        (hidden / name).mkdir(parents=True)
        (hidden / name / "__init__.py").write_text("raise ImportError('hidden from this test')")
    paths = [str(hidden), *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def checks(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "--pyargs", "dowdyboy_conformance.checks", "-q", *options]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    refused = checks("--backend", "torch")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR and "hidden from this test" in refused.stderr
    done = checks("--backend", "numpy", "-k", ALONE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout
