"""Windows of accumulation, and the loss scale of fp16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dowdyboy_core import SetupError
from dowdyboy_core._run.stepping import LossScaler, Stepper, windows


@pytest.mark.parametrize(
    ("count", "size", "closing"),
    [
        (0, 3, []),
        (3, 1, [1, 1, 1]),
        (7, 3, [0, 0, 3, 0, 0, 3, 1]),
        (6, 3, [0, 0, 3, 0, 0, 3]),
        (1, 4, [1]),
        (4, 3, [0, 0, 3, 1]),
    ],
)
def test_windows_close_when_full_and_at_the_end(count: int, size: int, closing: list[int]) -> None:
    assert list(windows(iter(range(count)), size)) == list(zip(range(count), closing, strict=True))


def test_a_batch_may_be_nothing() -> None:
    assert list(windows([None, None, None], 2)) == [(None, 0), (None, 2), (None, 1)]


def test_without_accumulation_no_batch_is_read_ahead() -> None:
    read = []

    def batches() -> Iterator[int]:
        for number in range(3):
            read.append(number)
            yield number

    assert [len(read) for _ in windows(batches(), 1)] == [1, 2, 3]


class Gradients:
    """A backend in which a gradient is one number."""

    def __init__(self) -> None:
        self.gradient: dict[str, float] = {}
        self.log: list[Any] = []

    def loss_problem(self, loss: Any) -> str | None:
        return "is no number" if isinstance(loss, str) else None

    def backward(self, loss: dict[str, float], factor: float) -> None:
        for name, value in loss.items():
            self.gradient[name] = self.gradient.get(name, 0.0) + value * factor

    def scale_gradients(self, optimizer: str, factor: float, *, check: bool) -> bool:
        self.gradient[optimizer] *= factor
        return abs(self.gradient[optimizer]) < 1e30 if check else True

    def has_sparse_gradients(self, optimizer: str) -> bool:
        return False

    def clip_gradients(self, optimizer: str, max_norm: float) -> None:
        self.gradient[optimizer] = max(-max_norm, min(max_norm, self.gradient[optimizer]))

    def step(self, optimizer: str) -> None:
        self.log.append((optimizer, self.gradient.pop(optimizer)))


def stepper(window: int = 1, clip: float | None = None, scaled: bool = False) -> tuple[Stepper, Gradients]:
    backend = Gradients()
    made = Stepper(backend, window, clip, LossScaler(enabled=False))  # type: ignore[arg-type]
    made.scaler = LossScaler(scaled)
    return made, backend


def test_a_window_is_the_mean_of_its_batches_also_if_it_is_short() -> None:
    made, backend = stepper(window=4)
    for value in (1.0, 2.0, 3.0, 6.0):
        made.backward({"a": value})
    made.step("a", 4)
    for value in (1.0, 3.0):
        made.backward({"a": value})
    made.step("a", 2)
    assert backend.log == [("a", 3.0), ("a", 2.0)]


def test_a_stepper_scales_only_if_it_is_told_to() -> None:
    made = Stepper(Gradients(), 1, None, LossScaler(enabled=False))  # type: ignore[arg-type]
    assert made.scaler.state() == {"scale": 1.0, "clean_steps": 0}


def test_before_the_first_step_no_training_step_counts() -> None:
    scaler = LossScaler(True)
    scaler.update()
    assert scaler.state() == {"scale": LossScaler.INITIAL, "clean_steps": 0}


def test_clipping_comes_after_unscaling() -> None:
    made, backend = stepper(clip=0.5, scaled=True)
    made.backward({"a": 0.25})
    made.step("a")
    assert backend.log == [("a", 0.25)]


def test_an_optimizer_is_unscaled_once_and_clipped_afterwards() -> None:
    made, backend = stepper(clip=0.5, scaled=True)
    names = ["a", "b"]
    made.backward({"a": 0.25, "b": 3.0})
    made.unscale(names[0])
    made.unscale(names[0])
    assert backend.gradient == {"a": 0.25, "b": 3.0 * LossScaler.INITIAL}
    assert [made.step(name) for name in names] == [True, True]
    assert backend.log == [("a", 0.25), ("b", 0.5)]


def test_each_optimizer_skips_for_its_own_overflow_and_the_scale_falls_once() -> None:
    made, backend = stepper(scaled=True)
    made.backward({"a": 1e36, "b": float("inf"), "c": 2.0})
    assert [made.step(name) for name in "abc"] == [False, False, True]
    made.scaler.update()
    assert backend.log == [("c", 2.0)]
    assert made.scaler.scale == LossScaler.INITIAL / 2


def test_the_scale_grows_after_many_clean_steps_and_is_kept() -> None:
    scaler = LossScaler(True)
    for _ in range(LossScaler.GROWTH_INTERVAL - 1):
        scaler.note(True)
        scaler.update()
        scaler.update()  # a training step without an optimizer step counts for nothing
    assert scaler.scale == LossScaler.INITIAL
    resumed = LossScaler(True)
    resumed.load_state(scaler.state())
    resumed.note(True)
    resumed.update()
    assert resumed.scale == LossScaler.INITIAL * 2


def test_the_count_of_clean_steps_begins_anew_when_the_scale_moves() -> None:
    scaler = LossScaler(True)
    moves = [(LossScaler.GROWTH_INTERVAL - 1, 1.0), (1, 2.0), (LossScaler.GROWTH_INTERVAL - 1, 2.0)]
    for steps, factor in moves:
        for _ in range(steps):
            scaler.note(True)
            scaler.update()
        assert scaler.scale == LossScaler.INITIAL * factor
    scaler.note(False)
    scaler.update()
    assert scaler.state() == {"scale": LossScaler.INITIAL, "clean_steps": 0}


def test_without_loss_scaling_the_scale_stays_1() -> None:
    scaler = LossScaler(False)
    scaler.load_state({"scale": 8.0, "clean_steps": 3})
    scaler.note(False)
    scaler.update()
    assert scaler.state() == {"scale": 1.0, "clean_steps": 0}


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_no_scale_is_refused_and_leaves_the_scale(scale: float, enabled: bool) -> None:
    scaler = LossScaler(enabled)
    before = scaler.state()
    with pytest.raises(ValueError, match="is no loss scale"):
        scaler.load_state({"scale": scale, "clean_steps": 1})
    assert scaler.state() == before


def test_a_scale_below_1_can_be_taken_up() -> None:
    scaler = LossScaler(True)
    scaler.load_state({"scale": 0.5, "clean_steps": 7})
    assert scaler.state() == {"scale": 0.5, "clean_steps": 7}


def test_an_overflow_is_noticed_also_where_the_scale_has_fallen_to_1() -> None:
    made, backend = stepper(scaled=True)
    made.scaler.load_state({"scale": 1.0, "clean_steps": 0})
    made.backward({"a": float("inf")})
    assert not made.step("a")
    made.scaler.update()
    assert backend.log == [] and made.scaler.scale == 0.5


def test_a_loss_that_can_not_be_differentiated_says_what_to_return() -> None:
    with pytest.raises(SetupError, match=r"backward got a loss that is no number\. Return the loss"):
        stepper()[0].backward("x")
