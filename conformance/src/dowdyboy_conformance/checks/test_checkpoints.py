"""C: what a checkpoint holds, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dowdyboy_conformance._checkpoints import refuse, saved
from dowdyboy_conformance._problem import Run, build, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError

INDEX_KEYS = {
    "run",
    "format",
    "format_version",
    "dowdyboy",
    "backend",
    "backend_version",
    "python",
    "world_size",
    "name",
    "seed",
    "precision",
    "metrics_bytes",
    "steps_per_epoch",
    "passes",
    "epoch",
    "batch",
    "train_step",
    "val_step",
    "val_batch",
    "best",
    "best_type",
    *("best_rec", "accumulate_steps", "batches", "batch_size", "val_batches", "val_batch_size"),
    *("best_epoch", "to_beat", "tied", "packed", "on_epoch_begin"),
    "since_better",
    "schedule_by",
    "files",
    "sha256",
}


@pytest.mark.clause("C-1", "C-2")
def test_the_index_says_where_the_run_stands(harness: Harness, tmp_path: Path) -> None:
    _, folder = saved(harness, tmp_path, save_best=True, seed=3, name="mine")
    assert {path.name for path in folder.parent.iterdir()} == {"epoch_1", "last_epoch_1", "best_epoch_1"}
    index = read_index(folder)
    assert set(index) == INDEX_KEYS
    said = {
        "format": "dowdyboy-checkpoint",
        "format_version": 3,
        "backend": harness.name,
        "world_size": 1,
        "name": "mine",
        "seed": 3,
        "precision": "no",
    }
    assert {key: index[key] for key in said} == said
    assert [index[key] for key in ("epoch", "batch", "train_step", "val_step")] == [1, 0, 3, 3]
    assert isinstance(index["best"], float)


@pytest.mark.clause("C-3", "C-4")
def test_every_file_is_listed_with_its_digest(harness: Harness, tmp_path: Path) -> None:
    _, folder = saved(harness, tmp_path, schedule="step")
    files = read_index(folder)["files"]
    assert {path.name for path in folder.iterdir()} == {*files, "checkpoint.json"}
    for name, said in files.items():
        content = (folder / name).read_bytes()
        assert said == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}, name
        assert name.endswith((".json", ".safetensors")), name
        if name.endswith(".json"):
            json.loads(content)
    stems = {name.rpartition(".")[0] for name in files}
    assert stems == {
        "model_0", "optimizer_0", "lr_scheduler_0", "scaler", "rng", "records", "frozen", "script", "exchange"
    }  # fmt: skip


@pytest.mark.clause("C-4")
def test_weights_are_plain_safetensors(harness: Harness, tmp_path: Path) -> None:
    run, folder = saved(harness, tmp_path)
    found = load_file(folder / "model_0.safetensors")
    expected = run.parameters()
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(harness.common(found[name]), array, err_msg=name)


@pytest.mark.clause("C-4", "C-6", "C-8")
@pytest.mark.parametrize("weights_only", [False, True])
def test_buffers_and_components_are_saved_too(harness: Harness, tmp_path: Path, weights_only: bool) -> None:
    found = []
    for number in range(2):
        run = build(harness, tmp_path, enable_save_checkpoint=True, batch_norm=True)
        component = harness.model(layers(4, 4, seed=number), batch_norm=True)
        harness.freeze(component)
        run.trainer.set_component(component)
        if number == 0:
            run.trainer.fit(
                lambda trainer, bat, *_, run=run, component=component: run.loss(run.model(component(bat[0])), bat[1])
            )
            folder = tmp_path / "checkpoint" / "last_epoch_1"
            assert "component_0.safetensors" in read_index(folder)["files"]
        else:
            run.trainer.load_checkpoint(folder, weights_only=weights_only)
        found.append([harness.state(item) for item in (run.model, component)])
    fresh = harness.state(harness.model(layers(4, 4), batch_norm=True))
    for first, second in zip(*found, strict=True):
        assert first.keys() == second.keys()
        for name, array in first.items():
            np.testing.assert_array_equal(array, second[name], err_msg=name)
    moved = [name for name, array in found[0][1].items() if name.startswith("norm0") and (array != fresh[name]).any()]
    assert moved, "the running statistics must have moved"


@pytest.mark.clause("C-5")
def test_optimizer_state_goes_by_the_paths_of_parameters(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, enable_save_checkpoint=True, optimizer="adam")
    second = harness.model(layers(4, 3))
    run.trainer.set_models([second, run.model])
    run.trainer.fit(lambda trainer, bat, *_: run.loss(run.model(bat[0]), bat[1]))
    folder = tmp_path / "checkpoint" / "epoch_1"
    tree = json.loads((folder / "optimizer_0.json").read_text())
    assert set(tree["state"]) == {"1/fc0.weight", "1/fc0.bias", "1/fc1.weight", "1/fc1.bias"}


@pytest.mark.clause("C-6")
def test_everything_comes_back(harness: Harness, tmp_path: Path) -> None:
    run, folder = saved(harness, tmp_path, schedule="step", lr=0.5)
    other = build(
        harness, tmp_path, optimizer="adam", schedule="step", lr=0.5, initial=layers(4, 4, 3, seed=9), epoch=2
    )
    other.trainer.load_checkpoint(folder)
    assert (other.trainer.epoch, other.trainer.global_step) == (1, 3)
    assert harness.learning_rate(other.optimizer) == 0.25
    for name, array in run.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], array, err_msg=name)
    seen: list[tuple[int, int, int]] = []

    def step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
        seen.append((trainer.epoch, bat_idx, global_step))
        return other.train_step(trainer, bat, bat_idx, global_step)

    other.trainer.fit(step)
    assert seen == [(2, 0, 3), (2, 1, 4), (2, 2, 5)]


@pytest.mark.clause("C-8")
def test_weights_only_takes_the_weights_alone(harness: Harness, tmp_path: Path) -> None:
    run, folder = saved(harness, tmp_path, schedule="step", lr=0.5)
    other = build(harness, tmp_path, optimizer="sgd", lr=0.125, initial=layers(4, 4, 3, seed=9))
    other.trainer.load_checkpoint(folder, weights_only=True)
    assert (other.trainer.epoch, other.trainer.global_step) == (0, 0)
    assert harness.learning_rate(other.optimizer) == 0.125
    for name, array in run.parameters().items():
        np.testing.assert_array_equal(other.parameters()[name], array, err_msg=name)
    other.fit()
    assert len(other.losses) == 3


@pytest.mark.clause("C-9", "X-2")
@pytest.mark.parametrize("weights_only", [False, True])
def test_weights_that_do_not_fit_are_listed(harness: Harness, tmp_path: Path, weights_only: bool) -> None:
    run, folder = saved(harness, tmp_path, initial=layers(4, 4, 3))
    other = build(harness, tmp_path, initial=layers(4, 5, 3, 2))
    before = other.parameters()
    text = refuse(other.trainer, folder, weights_only=weights_only)
    shapes = [
        {name: tuple(item.shape) for name, item in harness.native_parameters(each.model)} for each in (run, other)
    ]
    lines = [
        "missing: fc2.bias",
        "missing: fc2.weight",
        *[
            f"shape of {name}: stored {shapes[0][name]}, wanted {shapes[1][name]}"
            for name in ("fc0.bias", "fc0.weight", "fc1.weight")
        ],
    ]
    listed = "\n  ".join(f"model_0: {line}" for line in lines)
    assert text == f"{str(folder)!r} doesn't fit the models; nothing was loaded. Differences:\n  {listed}"
    for name, array in before.items():
        np.testing.assert_array_equal(other.parameters()[name], array, err_msg=name)


@pytest.mark.clause("C-9", "X-2")
def test_a_smaller_model_is_refused_too(harness: Harness, tmp_path: Path) -> None:
    _, folder = saved(harness, tmp_path, initial=layers(4, 4, 3))
    text = refuse(build(harness, tmp_path, initial=layers(4, 4)).trainer, folder)
    assert text.endswith("\n  model_0: not in the model: fc1.bias\n  model_0: not in the model: fc1.weight")


MISFITS: dict[str, tuple[Callable[[Harness, Run], None], str]] = {
    "models": (
        lambda harness, run: run.trainer.set_models([run.model, harness.model(layers(4, 3))]),
        "holds 1 models and the trainer has 2. Give set_models as many models, in the same order, as when it was "
        "saved.",
    ),
    "optimizers": (
        lambda harness, run: run.trainer.set_optimizers(
            [run.optimizer, harness.optimizer("adam", [run.model], 0.1).optimizer]
        ),
        "holds 1 optimizers and the trainer has 2. Give as many as when it was saved, or load the weights alone with "
        "weights_only=True.",
    ),
    "scheduler": (
        lambda harness, run: run.trainer.set_optimizer(*harness.optimizer("adam", [run.model], 0.1, schedule="step")),
        "has none lr_scheduler for optimizer 0 and the trainer has one. Give the same as when it was saved, or load "
        "the weights alone with weights_only=True.",
    ),
}


@pytest.mark.clause("C-9", "X-2")
@pytest.mark.parametrize("what", MISFITS)
def test_another_setup_is_refused(harness: Harness, tmp_path: Path, what: str) -> None:
    _, folder = saved(harness, tmp_path)
    other = build(harness, tmp_path, optimizer="adam", initial=layers(4, 4, 3, seed=9))
    change, text = MISFITS[what]
    change(harness, other)
    assert refuse(other.trainer, folder) == f"{str(folder)!r} {text}"
    if what != "models":
        other.trainer.load_checkpoint(folder, weights_only=True)


@pytest.mark.clause("C-9")
@pytest.mark.parametrize("what", ["models", "optimizers", "scheduler"])
def test_what_is_refused_changes_no_weight(harness: Harness, tmp_path: Path, what: str) -> None:
    _, folder = saved(harness, tmp_path)
    other = build(harness, tmp_path, optimizer="adam", initial=layers(4, 4, 3, seed=9))
    MISFITS[what][0](harness, other)
    before = other.parameters()
    refuse(other.trainer, folder)
    for name, array in before.items():
        np.testing.assert_array_equal(other.parameters()[name], array, err_msg=name)


@pytest.mark.clause("C-9")
def test_an_optimizer_of_other_parameters_is_refused(harness: Harness, tmp_path: Path) -> None:
    run = build(harness, tmp_path, enable_save_checkpoint=True, optimizer="adam")
    second = harness.model(layers(4, 3))
    run.trainer.set_models([run.model, second])
    run.fit()
    run.trainer.set_optimizer(harness.optimizer("adam", [second], 0.1).optimizer)
    text = refuse(run.trainer, tmp_path / "checkpoint" / "epoch_1")
    first, *lines = text.split("\n  ")
    assert first == "The optimizer's parameters are not those that were saved. Differences:"
    names = ["fc0.bias", "fc0.weight", "fc1.bias", "fc1.weight"]
    assert lines == [
        *[f"group 0: missing: 1/{name}" for name in names[:2]],
        *[f"group 0: not in the optimizer: 0/{name}" for name in names],
    ]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Any] = {"missing": Path.unlink, "short": cut_short, "changed": flip_a_bit}


@pytest.mark.clause("C-10")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model_0.safetensors", "optimizer_0.safetensors", "optimizer_0.json", "rng.json"])
def test_a_damaged_file_is_refused(harness: Harness, tmp_path: Path, damage: str, name: str) -> None:
    _, folder = saved(harness, tmp_path)
    DAMAGES[damage](folder / name)
    other = build(harness, tmp_path, optimizer="adam", initial=layers(4, 4, 3, seed=9))
    before = other.parameters()
    text = refuse(other.trainer, folder)
    assert repr(str(folder / name)) in text and text.endswith("Use another checkpoint.")
    for parameter, array in before.items():
        np.testing.assert_array_equal(other.parameters()[parameter], array)


INDEXES: dict[str, tuple[str, str]] = {
    "empty": ("", "can't be read: "),
    "no json": ("{", "can't be read: "),
    "another json": ('{"format": "other", "files": {}}', "is no index of a dowdyboy-checkpoint."),
    "no files": ('{"format": "dowdyboy-checkpoint", "format_version": 1}', "is no index of a dowdyboy-checkpoint."),
    "later version": (
        '{"format": "dowdyboy-checkpoint", "format_version": 99, "dowdyboy": "9.0", "files": {}}',
        "has format version 99; this dowdyboy reads 1, 2 and 3. Read it with the version that wrote it: '9.0'.",
    ),
}


@pytest.mark.clause("C-10")
@pytest.mark.parametrize("kind", INDEXES)
def test_a_damaged_index_is_refused(harness: Harness, tmp_path: Path, kind: str) -> None:
    run, folder = saved(harness, tmp_path)
    content, text = INDEXES[kind]
    (folder / "checkpoint.json").write_text(content)
    assert text in refuse(run.trainer, folder)
    shutil.rmtree(folder)
    folder.mkdir()
    assert "holds no checkpoint.json" in refuse(run.trainer, folder)


@pytest.mark.clause("C-17", "C-10")
def test_every_changed_byte_and_every_cut_is_noticed(harness: Harness, tmp_path: Path) -> None:
    run, folder = saved(harness, tmp_path, schedule="step")
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        places = range(0, len(content), 1 + len(content) // 1000)  # every byte, of all but the largest files
        damaged = [
            content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :] for place in places
        ]
        damaged += [content[: len(content) * tenth // 10] for tenth in range(10)]
        for number, other in enumerate(damaged):
            path.write_bytes(other)
            try:
                run.trainer.load_checkpoint(folder)
            except CheckpointError:
                continue
            pytest.fail(f"{path.name}, damage {number} of {len(damaged)}: not noticed")
        path.write_bytes(content)
    run.trainer.load_checkpoint(folder)


@pytest.mark.clause("C-17")
def test_the_digest_of_the_index_is_as_the_specification_says(harness: Harness, tmp_path: Path) -> None:
    _, folder = saved(harness, tmp_path)
    content = (folder / "checkpoint.json").read_text()
    said = read_index(folder)["sha256"]
    assert content.count(said) == 1
    assert said == hashlib.sha256(content.replace(said, "0" * 64).encode()).hexdigest()
