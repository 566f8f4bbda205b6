"""Random streams: a block that runs with its own numbers leaves everybody else's as they were."""

from __future__ import annotations

import multiprocessing
import random
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dowdyboy_core.backend.random_streams import RandomStreams


class OneStream:
    """A framework with one generator, whose state is what it was seeded with."""

    def __init__(self) -> None:
        self.state: Any = "at the start"

    def seed(self, seed: int) -> None:
        self.state = seed

    def get_rng_state(self) -> Any:
        return self.state

    def set_rng_state(self, state: Any) -> None:
        self.state = state

    def set_rng_aside(self, seed: int) -> Callable[[], None]:
        kept = self.state
        self.seed(seed)
        return lambda: self.set_rng_state(kept)


def draw() -> tuple[float, ...]:
    """Numbers of both streams; numpy's normal ones come in pairs, of which it keeps the second."""
    return random.random(), float(np.random.randn()), float(np.random.random())


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_block_leaves_the_streams_as_they_were(before: int) -> None:
    framework = OneStream()
    streams = RandomStreams(framework)
    streams.seed(3)
    np.random.randn(before)  # an odd number leaves one of a pair
    state = streams.capture()
    wanted = draw(), draw()
    streams.restore(state)
    with streams.isolated(5):
        draw()
        with streams.isolated(6):
            draw()
    assert framework.state == 3
    assert (draw(), draw()) == wanted


def test_blocks_in_a_row_leave_whatever_is_drawn_between_them() -> None:
    """The second of a pair of normal numbers is kept by numpy without its generator moving on."""
    draws = [np.random.random, np.random.randn, np.random.randn, np.random.randn, np.random.random, np.random.randn]

    def run(block: Callable[[], None]) -> list[float]:
        np.random.seed(4)
        seen = []
        for function in draws:
            for _ in range(3):
                block()
            seen.append(float(function()))
            block()
        return seen

    streams = RandomStreams(OneStream())

    def block() -> None:
        with streams.isolated(5):
            draw()

    assert run(block) == run(lambda: None)


def test_another_generator_of_the_user_is_put_back_too() -> None:
    numpy_random: Any = np.random
    usual, own = numpy_random.get_bit_generator(), np.random.PCG64(3)
    streams = RandomStreams(OneStream())
    with streams.isolated(5):
        pass
    numpy_random.set_bit_generator(own)
    try:
        first = float(np.random.random())
        with streams.isolated(5):
            draw()
        assert numpy_random.get_bit_generator() is own
        assert first != float(np.random.random()) == float(np.random.Generator(np.random.PCG64(3)).random(2)[1])
    finally:
        numpy_random.set_bit_generator(usual)


def test_of_another_generator_a_kept_number_is_left_too() -> None:
    numpy_random: Any = np.random
    usual = numpy_random.get_bit_generator()
    streams = RandomStreams(OneStream())

    def run(block: Callable[[], None]) -> list[float]:
        numpy_random.set_bit_generator(np.random.PCG64(3))
        seen = []
        for _ in range(3):
            block()
            seen.append(float(np.random.randn()))
        return seen

    def block() -> None:
        with streams.isolated(5):
            draw()

    try:
        assert run(block) == run(lambda: None)
    finally:
        numpy_random.set_bit_generator(usual)


def test_a_block_draws_what_its_seed_says() -> None:
    framework = OneStream()
    streams = RandomStreams(framework)
    streams.seed(5)
    wanted = draw(), draw()
    for before in (0, 1):
        np.random.randn(before)
        with streams.isolated(5):
            first = draw()
            with streams.isolated(6):
                assert framework.state == 6
                draw()
            assert framework.state == 5
            assert (first, draw()) == wanted


@pytest.mark.parametrize("found", [True, False])
def test_pythons_stream_is_put_back_with_and_without_its_words(found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = RandomStreams(OneStream())
    if not found:
        monkeypatch.setattr(streams._python, "_words", None)
    for draws in range(700):  # more than there are words
        random.seed(8)
        for _ in range(draws % 3):
            random.gauss(0, 1)  # it keeps the second of a pair, too
        for _ in range(draws):
            random.random()
        state = random.getstate()
        wanted = random.gauss(0, 1), random.random()
        random.setstate(state)
        with streams.isolated(5):
            random.gauss(0, 1)
        assert random.getstate() == state
        assert (random.gauss(0, 1), random.random()) == wanted


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="other Pythons keep them elsewhere")
def test_pythons_words_are_found_on_cpython() -> None:
    for seed in (1, 2):
        random.seed(seed)
        assert RandomStreams(OneStream())._python._words is not None


def test_words_that_are_not_there_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(random.Random):
        """Another kind of generator behind the functions."""

    monkeypatch.setattr(random, "getstate", Own().getstate)
    assert RandomStreams(OneStream())._python._words is None


# Run by the built-in exec, since a process that starts afresh can import no module of the tests.
DRAWING = """
import random
import numpy as np
random.seed(3)
np.random.seed(3)
drawn = [random.random(), np.random.random()]
with streams.isolated(5):
    random.random(), np.random.randn()
drawn += [random.random(), np.random.random()]
"""
COMPARING = "assert drawn == wanted, (drawn, wanted)"


def test_streams_sent_to_another_process_are_the_ones_of_that_process() -> None:
    """The state of each is at another address there."""
    framework: Any = SimpleNamespace(set_rng_aside=partial(partial, int))  # has no stream, and can be sent
    known: dict[str, Any] = {"streams": RandomStreams(framework)}
    exec(DRAWING, known)
    sent = {"streams": known["streams"], "wanted": known["drawn"]}
    process = multiprocessing.get_context("spawn").Process(target=exec, args=(DRAWING + COMPARING, sent))
    process.start()
    process.join()
    assert process.exitcode == 0


def test_a_block_that_fails_puts_the_streams_back_too() -> None:
    streams = RandomStreams(OneStream())
    streams.seed(3)
    numpy_random: Any = np.random  # whose stubs leave out a function
    state, generator = streams.capture(), numpy_random.get_bit_generator()
    with pytest.raises(ValueError), streams.isolated(5):
        draw()
        raise ValueError
    assert streams.capture() == state
    assert numpy_random.get_bit_generator() is generator
