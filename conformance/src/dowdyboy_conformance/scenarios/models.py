"""What each of several processes does, where the question is what a model is to its user, and what of it is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dowdyboy_conformance._problem import Run, build, data
from dowdyboy_conformance.harnesses.harness import Harness

from .numbers import branched, state
from .runs import error_of

SAMPLES, BATCHES = 28, 7


class _Own:
    """What a user's model may have besides ``forward``."""

    gain = 0.5

    def loss_of(self: Any, features: Any, classes: Any, loss: Any, both: bool = True) -> Any:
        return loss(self(features, both) * self.gain, classes)

    def loss_by_another(self: Any, *given: Any) -> Any:
        return self.loss_of(*given)

    @property
    def half_gain(self) -> float:
        return self.gain / 2

    def __len__(self) -> int:
        return 2

    def __getitem__(self: Any, number: int) -> Any:
        return (self.fc0, self.fc1)[number]


def _model(harness: Harness) -> Any:
    model = branched(harness)
    model.__class__ = type("OwnModel", (_Own, type(model)), {})
    return model


def _set(run: Run, models: list[Any]) -> None:
    run.model = models[0]
    run.trainer.set_models(models)
    run.trainer.set_optimizer(run.harness.optimizer("sgd", models, 0.1).optimizer)


Use = Callable[[Any, Any, Any, Any, int, int], Any]
"""``use(model, features, classes, loss function, number of the batch, rank)`` gives the loss."""


def _with_attribute(model: Any, x: Any, y: Any, loss: Any, number: int) -> Any:
    model.gain = 1 / (number + 1)
    return model.loss_of(x, y, loss) * model.half_gain


USES: dict[str, tuple[Use, dict[str, Any]]] = {
    "method": (lambda m, x, y, loss, number, rank: m.loss_of(x, y, loss), {}),
    "method of a method": (lambda m, x, y, loss, number, rank: m.loss_by_another(x, y, loss), {}),
    "forward": (lambda m, x, y, loss, number, rank: loss(m.forward(x, True), y), {}),
    "parts": (lambda m, x, y, loss, number, rank: loss(m.fc0(x) + m.fc1(x), y), {}),
    "operators": (lambda m, x, y, loss, number, rank: loss(m[0](x) + m[1](x), y) * (1 / len(m)), {}),
    "twice": (lambda m, x, y, loss, number, rank: loss(m(x, True) + m(x, False) * 0.5, y), {}),
    "mixed": (lambda m, x, y, loss, number, rank: loss(m(x, True), y) + m.loss_of(x, y, loss), {}),
    "attribute": (lambda m, x, y, loss, number, rank: _with_attribute(m, x, y, loss, number), {}),
    "windows": (lambda m, x, y, loss, number, rank: m.loss_of(x, y, loss), {"accumulate_steps": 2}),
    "branches": (
        lambda m, x, y, loss, number, rank: m.loss_of(x, y, loss, rank == 0 and number % 2 == 1) + loss(m(x, False), y),
        {"find_unused_parameters": True},
    ),
}


def uses(harness: Harness, out_dir: Path) -> Any:
    """The models at the end of runs that compute with them in all these ways."""
    found = {}
    for name, (use, settings) in USES.items():
        run = build(harness, out_dir / name, samples=SAMPLES, **settings)
        _set(run, [_model(harness)])

        def step(trainer: Any, bat: Any, bat_idx: int, global_step: int, run: Run = run, use: Use = use) -> Any:
            return use(trainer.get_models()[0], bat[0], bat[1], run.loss, bat_idx, trainer.rank)

        run.trainer.fit(step)
        found[name] = state(harness, run.model)
    return found


def joined_use(harness: Harness, out_dir: Path, processes: int, name: str) -> dict[str, NDArray[Any]]:
    """What ``uses`` is to give: one process that takes the batches of all of them at each step."""
    use, settings = USES[name]
    model = _model(harness)
    run = _joined(harness, out_dir, [model], processes, **settings)
    run.trainer.fit(_joined_step(run, processes, lambda x, y, number, rank: use(model, x, y, run.loss, number, rank)))
    return harness.state(model)


def _joined(harness: Harness, out_dir: Path, models: list[Any], processes: int, **settings: Any) -> Run:
    run = build(harness, out_dir, **settings)
    _set(run, models)
    run.trainer.set_train_dataloader(list(range(-(-BATCHES // processes))))
    return run


def _joined_step(run: Run, processes: int, compute: Callable[[Any, Any, int, int], Any]) -> Any:
    features, classes = data(SAMPLES)

    def step(trainer: Any, number: int, bat_idx: int, global_step: int) -> Any:
        total: Any = 0.0
        for rank in range(processes):
            at = (number * processes + rank) % BATCHES * 4
            x, y = (run.harness.tensor(array[at : at + 4]) for array in (features, classes))
            total = total + compute(x, y, number, rank)
        return total / processes

    return step


def disguise(harness: Harness, out_dir: Path) -> Any:
    """What is seen of a model through what the trainer gives for it, each beside what is right."""
    run = build(harness, out_dir)
    raw = _model(harness)
    _set(run, [raw])
    [model] = run.trainer.get_models()
    model.gain = 0.25
    model.extra = [1]
    seen = {
        "kind": [isinstance(model, _Own), isinstance(model, type(raw))],
        "attributes": [raw.gain == 0.25, model.half_gain == 0.125, raw.extra is model.extra, hasattr(model, "missing")],
        "parts": [model.fc0 is raw.fc0, model[1] is raw.fc1, len(model)],
        "names": [*harness.state(model)] == [*harness.state(raw)],
        "the same": run.trainer.get_models()[0] is model,
        "modes": [],
    }
    del model.extra
    seen["deleted"] = hasattr(raw, "extra")
    run.trainer.fit(lambda *given: _noting(seen["modes"], harness, model, raw, run, *given))
    return seen


def _noting(modes: Any, harness: Harness, model: Any, raw: Any, run: Run, trainer: Any, bat: Any, *_: int) -> Any:
    modes.append([harness.is_training(model), harness.is_training(raw), trainer.get_models()[0] is model])
    return model.loss_of(*bat, run.loss)


def thawing(harness: Harness, out_dir: Path) -> Any:
    """A part and a whole model that are frozen at first, then not, and then another part; all with what was kept."""
    run = build(harness, out_dir, samples=SAMPLES, epoch=3)
    models = _frozen_at_first(harness, run)
    kept = run.trainer.get_models()

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        return _both(kept, run, *bat)

    states: list[Any] = []
    run.trainer.fit(step, None, lambda trainer, ep: _change_trained(harness, models, states, ep))
    return states


def joined_thawing(harness: Harness, out_dir: Path, processes: int) -> list[Any]:
    """What ``thawing`` is to give."""
    run = build(harness, out_dir, epoch=3)
    models = _frozen_at_first(harness, run)
    run.trainer.set_train_dataloader(list(range(-(-BATCHES // processes))))
    states: list[Any] = []
    step = _joined_step(run, processes, lambda x, y, number, rank: _both(models, run, x, y))
    run.trainer.fit(step, None, lambda trainer, ep: _change_trained(harness, models, states, ep))
    return states


def _frozen_at_first(harness: Harness, run: Run) -> list[Any]:
    models = [_model(harness), _model(harness)]
    harness.freeze(models[0].fc1)
    harness.freeze(models[1])
    _set(run, models)
    return models


def _both(models: list[Any], run: Run, features: Any, classes: Any) -> Any:
    return run.loss(models[0](features, True) + models[1](features, True), classes)


def _change_trained(harness: Harness, models: list[Any], states: list[Any], ep: int) -> None:
    states.append([state(harness, model) for model in models])
    if ep == 1:
        harness.unfreeze(models[0].fc1)
        harness.unfreeze(models[1])
    if ep == 2:
        harness.freeze(models[0].fc0)


def adversarial(harness: Harness, out_dir: Path) -> Any:
    """Two models that are frozen in turn, within each step, and left so at its end."""
    run = build(harness, out_dir, samples=SAMPLES, epoch=2, auto_optimize=False)
    return [
        state(harness, model) for model in _take_turns(run, lambda bat, *_: _both(run.trainer.get_models(), run, *bat))
    ]


def joined_adversarial(harness: Harness, out_dir: Path, processes: int) -> list[dict[str, NDArray[Any]]]:
    """What ``adversarial`` is to give."""
    run = build(harness, out_dir, epoch=2, auto_optimize=False)
    run.trainer.set_train_dataloader(list(range(-(-BATCHES // processes))))
    joined = _joined_step(run, processes, lambda x, y, number, rank: _both(run.trainer.get_models(), run, x, y))
    return [harness.state(model) for model in _take_turns(run, lambda *given: joined(run.trainer, *given))]


def _take_turns(run: Run, compute: Callable[..., Any]) -> list[Any]:
    harness = run.harness
    models = [_model(harness), _model(harness)]
    _set(run, models)
    optimizers = [harness.optimizer("sgd", [model], 0.1).optimizer for model in models]
    run.trainer.set_optimizers(optimizers)

    def step(trainer: Any, *given: Any) -> None:
        for number, optimizer in enumerate(optimizers):
            harness.unfreeze(models[number])
            harness.freeze(models[1 - number])
            trainer.zero_grad(optimizer)
            trainer.backward(compute(*given))
            trainer.step(optimizer)

    run.trainer.fit(step)
    return models


CHANGES: dict[str, Callable[[Harness, list[Any]], None]] = {
    "freeze": lambda harness, models: harness.freeze(models[0].fc0),
    "unfreeze": lambda harness, models: harness.unfreeze(models[1].fc1),
    "unfreeze a model": lambda harness, models: harness.unfreeze(models[2]),
}
"""What may not be done within an epoch: to two trained layers, to one that is frozen, to a model that is frozen."""


def refusals(harness: Harness, out_dir: Path) -> Any:
    """The errors where parameters are frozen or not within an epoch, and where the processes don't do it alike."""
    found = {}
    for name in (*CHANGES, "apart"):
        run = build(harness, out_dir / name, samples=SAMPLES, epoch=2)
        models = [_model(harness) for _ in range(3)]
        harness.freeze(models[1].fc1)
        harness.freeze(models[2])
        _set(run, models)
        before = [state(harness, model) for model in models]

        def step(trainer: Any, bat: Any, *_: int, run: Run = run, name: str = name, models: Any = models) -> Any:
            if name in CHANGES:
                CHANGES[name](harness, models)
            first, second, third = trainer.get_models()
            return run.loss(first(bat[0], True) + second(bat[0], True) + third(bat[0], True), bat[1])

        def end(trainer: Any, ep: int, name: str = name, models: Any = models) -> None:
            if name == "apart" and trainer.rank == 0:
                harness.freeze(models[0].fc0)

        error = error_of(lambda run=run, step=step, end=end: run.trainer.fit(step, None, end))
        moved = [state(harness, model) for model in models] != before
        found[name] = {"error": error, "moved": moved}
    return found


def drifting(harness: Harness, out_dir: Path) -> Any:
    """The errors where each process trains by itself, with the user's own model, and nothing or little is saved."""
    found = {}
    seldom = {"enable_save_checkpoint": True, "save_interval": 5, "save_last": False}
    kinds: dict[str, dict[str, Any]] = {"nothing": {"enable_save_checkpoint": False}, "seldom": seldom}
    for name, settings in kinds.items():
        run = build(harness, out_dir / name, samples=SAMPLES, epoch=3, **settings)
        epochs: list[int] = []

        def step(trainer: Any, bat: Any, *_: int, run: Run = run, epochs: list[int] = epochs) -> Any:
            epochs.append(trainer.epoch)
            return run.loss(trainer.get_raw_models()[0](bat[0]), bat[1])

        error = error_of(lambda run=run, step=step: run.trainer.fit(step))
        found[name] = {"error": error, "epochs": epochs[-1]}
    return found
