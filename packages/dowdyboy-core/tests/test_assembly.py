"""What a run is put together from: what is taken, as what, and what is refused in which words."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dowdyboy_core import ConfigError, SetupError, TrainerConfig
from dowdyboy_core._run.assembly import Assembly, check_hook
from dowdyboy_core.backend.random_streams import RandomStreams


class Thing:
    def __repr__(self) -> str:
        raise AssertionError("it may have many lines")


def assembly(backend: Any, **settings: Any) -> Assembly:
    return Assembly(TrainerConfig(**settings), backend, RandomStreams(backend))


def refused(do: Callable[[], object], error: type[Exception] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        do()
    return str(caught.value)


@pytest.fixture
def parts(crashing: Any) -> Assembly:
    return assembly(crashing.PlainBackend())


# ---- loaders


@pytest.mark.parametrize(
    ("role", "rank", "count", "batches"),
    [
        ("train", 0, 2, ["a", "c"]),
        ("train", 1, 2, ["b", "a"]),  # filled up, since all processes train equally often
        ("val", 0, 2, ["a", "c"]),
        ("val", 1, 1, ["b"]),
        ("test", 1, 1, ["b"]),
    ],
)
def test_the_batches_are_dealt_out(crashing: Any, role: str, rank: int, count: int, batches: list[str]) -> None:
    parts = assembly(crashing.OneOfSeveral(2, rank))
    parts.set_loader(role, ["a", "b", "c"])
    assert parts.loaders[role].count() == count
    assert list(parts.loaders[role].epoch(1)) == batches


class Drawing:
    """Batches that are drawn at random while they are run through."""

    def __iter__(self) -> Iterator[float]:
        for _ in range(4):
            yield random.random()


def test_what_a_loader_draws_depends_on_the_place_alone_and_disturbs_nothing(parts: Assembly) -> None:
    parts.set_loader("train", Drawing())
    assert parts.loaders["train"].count() is None
    random.seed(1)
    expected = random.Random(1)
    first = []
    for batch in parts.loaders["train"].epoch(1):
        first.append(batch)
        assert random.random() == expected.random()
    assert len(set(first)) == 4
    assert list(parts.loaders["train"].epoch(1)) == first
    assert list(parts.loaders["train"].epoch(2)) != first


def test_a_backend_gets_the_loader_and_the_way_to_set_the_streams_aside(crashing: Any) -> None:
    asked: list[Any] = []
    backend = crashing.PlainBackend()
    streams = RandomStreams(backend)
    backend.split_loader = lambda loader, isolate: asked.append((loader, isolate))
    Assembly(TrainerConfig(), backend, streams).set_loader("train", [1])
    assert asked[-1] == ([1], streams.isolated)


def test_loaders_that_are_none(parts: Assembly) -> None:
    assert refused(lambda: parts.set_loader("val", iter([1]))) == (
        "set_val_dataloader got an object of type list_iterator, which can be run through only once. Give a "
        "DataLoader, or an object whose __iter__ starts afresh each epoch."
    )
    for loader, shown in ((3, "3 of type int"), ("ab", "'ab' of type str"), (b"ab", "an object of type bytes")):
        assert refused(lambda loader=loader: parts.set_loader("test", loader)) == (  # type: ignore[misc]
            f"set_test_dataloader got {shown}, which yields no batches. Give a DataLoader or another iterable."
        )


# ---- models and components


def prepared(backend: Any) -> list[Any]:
    """What a backend is asked to prepare, and how."""
    found: list[Any] = []

    def prepare(model: Any, **how: Any) -> Any:
        found.append((model, how))
        return model

    backend.prepare_model = prepare
    return found


@pytest.mark.parametrize(("sync_bn", "unused"), [(True, False), (False, True)])
def test_models_are_prepared_as_the_configuration_says_and_components_plainly(
    crashing: Any, sync_bn: bool, unused: bool
) -> None:
    backend = crashing.PlainBackend()
    found = prepared(backend)
    parts = assembly(backend, sync_bn=sync_bn, find_unused_parameters=unused)
    model, module = crashing.Model(), crashing.Component()
    parts.set_models([model])
    parts.set_components(["no module", module])
    assert found == [
        (model, {"sync_bn": sync_bn, "find_unused_parameters": unused}),
        (module, {"sync_bn": False, "find_unused_parameters": False}),
    ]
    assert parts.components == ["no module", module]
    assert parts.modules_of_components() == {1: module}


def test_processes_that_wrap_no_models_are_named(crashing: Any) -> None:
    parts = assembly(crashing.OneOfSeveral(2, 0, lambda place: "fit"))
    assert refused(lambda: parts.set_models([crashing.Model()]), SetupError) == (
        "process 0 has come to set_models, and process 1 to fit. Let every process of a job call set_models, fit and "
        "test alike, and none end before the others."
    )


def test_models_and_components_that_are_none(crashing: Any, parts: Assembly) -> None:
    assert refused(lambda: parts.set_models([crashing.Model(), Thing()])) == (
        "set_models got an object of type Thing, which is no model of plain. Give instances of its module class."
    )
    assert refused(lambda: parts.set_models({"a": 1})) == (
        "set_models got {'a': 1} of type dict, which is no list. Give a list."
    )
    assert refused(lambda: parts.set_components("abc")) == (
        "set_components got 'abc' of type str, which is no list. Give a list."
    )
    assert refused(lambda: parts.set_components([crashing.Component(), crashing.Model()])) == (
        "set_components got an object of type Model with the parameters ['w']. A component has nothing to train: give "
        "it to set_models, or freeze it."
    )


@pytest.mark.parametrize(("length", "shown"), [(78, "'" + 78 * "x" + "'"), (79, "'" + 79 * "x" + "…")])
def test_a_long_value_is_cut(parts: Assembly, length: int, shown: str) -> None:
    text = refused(lambda: parts.set_models(length * "x"))
    assert text == f"set_models got {shown} of type str, which is no list. Give a list."


# ---- optimizers and schedulers


def test_optimizers_and_schedulers_that_are_none(crashing: Any) -> None:
    backend = crashing.PlainBackend()
    parts = assembly(backend)
    first, second = (crashing.Optimizer(crashing.Model(), 0.1) for _ in range(2))
    halving = crashing.Halving(first)
    for given, schedulers, problem in (
        ([first, "adam"], None, "set_optimizers got 'adam' of type str, which is no optimizer of plain."),
        (7, None, "set_optimizers got 7 of type int, which is no list. Give a list."),
        ([first], 7, "set_optimizers got 7 of type int, which is no list. Give a list."),
        (
            [first],
            [None, halving],
            "set_optimizers got 2 schedulers for 1 optimizers. Give one for each, or None.",
        ),
    ):
        assert refused(lambda args=(given, schedulers): parts.set_optimizers(*args)) == problem  # type: ignore[misc]
    backend.scheduler_drives = lambda scheduler, optimizer: scheduler.optimizer is optimizer
    assert refused(lambda: parts.set_optimizers([first, second], [halving, halving])) == (
        "Scheduler 1, an object of type Halving, doesn't set the learning rate of optimizer 1, an object of type "
        "Optimizer. Give each optimizer the scheduler that was made for it."
    )
    assert parts.optimizers == []
    parts.set_optimizers([first, second], [halving])
    assert (parts.optimizers, parts.schedulers) == ([first, second], [halving, None])


# ---- ready or not


def test_what_is_missing_is_named(crashing: Any, parts: Assembly) -> None:
    assert refused(lambda: parts.check_ready("train"), SetupError) == (
        "There is no train loader. Call set_train_dataloader first."
    )
    parts.set_loader("train", [1])
    parts.set_loader("test", [1])
    assert parts.models == []
    for role in ("train", "test"):
        assert refused(lambda role=role: parts.check_ready(role), SetupError) == (  # type: ignore[misc]
            "There is no model. Call set_model or set_models first."
        )
    parts.set_models([crashing.Model()])
    parts.check_ready("test")
    assert refused(lambda: parts.check_ready("train"), SetupError) == (
        "There is no optimizer. Call set_optimizer or set_optimizers first, or set auto_optimize=False."
    )


def test_parameters_of_no_model_are_counted_and_some_described(crashing: Any) -> None:
    backend, model = crashing.PlainBackend(), crashing.Model()
    known, strange = crashing.Optimizer(model, 0.1), crashing.Optimizer(model, 0.1)
    strangers = [crashing.Parameter(0.0) for _ in range(6)]
    for size, stranger in enumerate(strangers):
        stranger.shape = (size, 2)
    backend.optimizer_parameters = lambda optimizer: [model.w] if optimizer is known else [model.w, *strangers]
    parts = assembly(backend)
    parts.set_loader("train", [1])
    parts.set_models([model])
    parts.set_optimizers([known, strange], None)
    assert refused(lambda: parts.check_ready("train"), SetupError) == (
        "Optimizer 1 holds 6 of 7 parameters that belong to none of the models (shapes (0, 2), (1, 2), (2, 2), (3, 2), "
        "(4, 2)). Make the optimizer from the parameters of the models given to set_models."
    )


def test_all_modules_change_their_mode(crashing: Any) -> None:
    backend = crashing.PlainBackend()
    told: list[Any] = []
    backend.set_training = lambda module, training: told.append((module, training))
    parts = assembly(backend)
    model, module = crashing.Model(), crashing.Component()
    parts.set_models([model])
    parts.set_components([module, "no module"])
    parts.set_training(True)
    parts.set_training(False)
    assert told == [(model, True), (module, True), (model, False), (module, False)]


def test_hooks_that_can_not_be_called() -> None:
    check_hook("train_step", lambda trainer, bat, bat_idx, global_step: None, "trainer, bat, bat_idx, global_step")
    check_hook("on_test_end", print, "trainer")
    assert refused(lambda: check_hook("on_test_end", 3, "trainer")) == (
        "on_test_end=3 of type int can't be called. Give a function on_test_end(trainer)."
    )

    assert refused(lambda: check_hook("on_epoch_end", lambda trainer: None, "trainer, ep")) == (
        "on_epoch_end(trainer) can't be called with (trainer, ep): too many positional arguments. "
        "Define it as def on_epoch_end(trainer, ep)."
    )
