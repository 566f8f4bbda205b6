"""Checkpoints of hand-written loops, with a framework of plain Python: names, what is kept, what is refused."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_core import CheckpointError, ConfigError, UnsupportedError
from dowdyboy_core._disk.files import FolderReader, read_index
from dowdyboy_core._disk.folders import REPLACED, UNFINISHED
from dowdyboy_core._utilities import keep as _keep
from dowdyboy_core._version import __version__
from dowdyboy_core.backend.arrays import Array


class Parameter:
    def __init__(self, *values: float) -> None:
        self.values = list(values)
        self.shape = (len(values),)


class Model:
    def __init__(self, **parameters: float) -> None:
        self.parameters = {name: Parameter(value) for name, value in parameters.items()}

    def values(self) -> dict[str, list[float]]:
        return {name: item.values for name, item in self.parameters.items()}


class Wrapper:
    def __init__(self, model: Model) -> None:
        self.model = model


class Optimizer:
    def __init__(self, *models: Model, kind: str = "momentum") -> None:
        self.kind = kind
        self.held = [item for model in models for item in model.parameters.values()]
        self.slots: dict[int, float] = {}


class Plain:
    """As much of a backend as is asked here."""

    name = "plain"
    version = "1"

    def is_model(self, value: Any) -> bool:
        return isinstance(value, (Model, Wrapper))

    def is_optimizer(self, value: Any) -> bool:
        return isinstance(value, Optimizer)

    def unsaved_state(self, optimizer: Optimizer) -> str | None:
        return "its fast weights lie elsewhere" if optimizer.kind == "around" else None

    def unwrap_model(self, model: Any) -> Any:
        return model.model if isinstance(model, Wrapper) else model

    def named_parameters(self, model: Model) -> list[tuple[str, Parameter]]:
        return list(model.parameters.items())

    def optimizer_parameters(self, optimizer: Optimizer) -> list[Parameter]:
        return optimizer.held

    def model_state(self, model: Model) -> dict[str, Array]:
        return {
            name: Array("F32", item.shape, struct.pack(f"<{len(item.values)}f", *item.values))
            for name, item in model.parameters.items()
        }

    def layout_when_loaded(self, model: Model, state: Any) -> None:
        return None

    def model_layout(self, model: Model) -> dict[str, Array]:
        return self.model_state(model)

    def load_model_state(self, model: Model, state: dict[str, Array]) -> None:
        for name, array in state.items():
            model.parameters[name].values = list(struct.unpack(f"<{array.shape[0]}f", bytes(array.data)))

    def optimizer_state(self, optimizer: Optimizer, names: dict[int, str]) -> Any:
        known = [names[id(item)] for item in optimizer.held]
        slots = {names[key]: value for key, value in optimizer.slots.items()}
        return {"kind": optimizer.kind, "slots": slots, "param_groups": [{"params": known}]}

    def load_optimizer_state(self, optimizer: Optimizer, names: dict[int, str], state: Any) -> None:
        if state["kind"] != optimizer.kind:
            raise CheckpointError("It is of another kind.")
        numbers = {name: key for key, name in names.items()}
        optimizer.slots = {numbers[name]: value for name, value in state["slots"].items()}


PLAIN: Any = Plain()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def save(step: Any, folder: Any, models: Any = None, optimizers: Any = None, keep: Any = 10) -> Path:
    return _keep.save_numbered(PLAIN, step, folder, [Model(w=step)] if models is None else models, optimizers, keep)


def save_as(label: Any, step: Any, folder: Any) -> Path:
    return _keep.save_labelled(PLAIN, step, folder, [Model(w=step)], None, label)


def load(folder: Any, models: Any, optimizers: Any = None) -> None:
    _keep.load(PLAIN, folder, models, optimizers)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- what is written


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    model = Model(w=1.0, b=2.0)
    optimizer = Optimizer(model)
    optimizer.slots[id(model.parameters["b"])] = 0.5

    folder = save(7, tmp_path / "new" / "chk", [model], [optimizer])
    assert folder == tmp_path / "new" / "chk" / "chk_step_7"
    assert names(folder) == {"checkpoint.json", "model_0.safetensors", "optimizer_0.json"}
    FolderReader(folder).verify()
    assert read_index(folder)["step"] == 7
    assert read_index(folder)["backend"] == "plain"

    other = Model(w=0.0, b=0.0)
    stepped = Optimizer(other)
    load(folder, [other], [stepped])
    assert other.values() == {"w": [1.0], "b": [2.0]}
    assert stepped.slots == {id(other.parameters["b"]): 0.5}


def test_the_index_says_by_what_it_was_written_and_in_which_order(tmp_path: Path) -> None:
    for order, step in enumerate((9, 3, 9), start=1):
        index = read_index(save(step, tmp_path))
        assert index.pop("files").keys() == {"model_0.safetensors"}
        del index["sha256"]
        assert index == {
            "format": "dowdyboy-checkpoint",
            "format_version": 3,
            "dowdyboy": __version__,
            "backend": "plain",
            "backend_version": "1",
            "step": step,
            "order": order,
            "tied": {},
            "packed": {},
        }


def test_optimizers_are_saved_with_a_label_too(tmp_path: Path) -> None:
    model = Model(w=1.0)
    folder = _keep.save_labelled(PLAIN, 1, tmp_path, [model], [Optimizer(model)], "best")
    assert names(folder) == {"checkpoint.json", "model_0.safetensors", "optimizer_0.json"}


def test_an_optimizer_with_state_elsewhere_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = Model(a=1)
    with pytest.raises(UnsupportedError, match=r"optimizer_list\[0\], a Optimizer, can't be saved: its fast weights"):
        _keep.save_numbered(PLAIN, 1, tmp_path, [model], [Optimizer(model, kind="around")], 1)
    assert not list(tmp_path.iterdir())


def test_models_and_optimizers_come_back_in_numeric_order(tmp_path: Path) -> None:
    models = [Model(w=float(number)) for number in range(12)]
    optimizers = [Optimizer(model) for model in models]
    for number, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
        optimizer.slots[id(model.parameters["w"])] = number / 2
    folder = save(1, str(tmp_path), models, optimizers)

    others = [Model(w=-1.0) for _ in range(12)]
    stepped = [Optimizer(model) for model in others]
    load(str(folder), others, stepped)
    assert [model.values()["w"] for model in others] == [[float(number)] for number in range(12)]
    assert [list(optimizer.slots.values()) for optimizer in stepped] == [[number / 2] for number in range(12)]


def test_a_wrapper_leaves_no_trace(tmp_path: Path) -> None:
    wrapped = Wrapper(Model(w=3.0))
    folder = save(1, tmp_path, [wrapped], [Optimizer(wrapped.model)])
    assert set(FolderReader(folder).weights("model_0")) == {"w"}

    bare = Model(w=0.0)
    load(folder, [bare], [Optimizer(bare)])
    assert bare.values() == {"w": [3.0]}


# ---- what is kept


def test_the_first_saved_goes_whatever_its_step(tmp_path: Path) -> None:
    for step in (100, 5, 7, 6):
        save(step, tmp_path, keep=3)
    assert names(tmp_path) == {"chk_step_5", "chk_step_7", "chk_step_6"}


def test_ten_are_kept_and_more_than_ten_are_in_numeric_order(tmp_path: Path) -> None:
    for step in range(13):
        save(step, tmp_path)
    assert names(tmp_path) == {f"chk_step_{step}" for step in range(3, 13)}


@pytest.mark.parametrize("clock", [lambda step: 0, lambda step: 10**9 - step], ids=["equal", "backwards"])
def test_the_clock_does_not_matter(tmp_path: Path, clock: Callable[[int], int]) -> None:
    for step in range(1, 5):
        folder = save(step, tmp_path, keep=3)
        for path in (folder, *folder.iterdir()):
            os.utime(path, (clock(step), clock(step)))
    assert names(tmp_path) == {"chk_step_2", "chk_step_3", "chk_step_4"}


def test_saved_again_it_is_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 1):
        save(step, tmp_path, [Model(w=step + 0.5)], keep=3)
    save(4, tmp_path, keep=3)
    assert names(tmp_path) == {"chk_step_3", "chk_step_1", "chk_step_4"}


def test_fewer_than_before_can_be_kept(tmp_path: Path) -> None:
    for step in range(5):
        save(step, tmp_path)
    save(5, tmp_path, keep=1)
    assert names(tmp_path) == {"chk_step_5"}


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    theirs = {"chk_step_0", "chk_step_007", "chk_step_3x", "chk_step_", "mychk_step_3", "epoch_1", "chk_best_step_2"}
    for name in theirs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_0.pth").write_text("old")
    (tmp_path / "chk_step_9").write_text("a file")
    elsewhere = save(1, tmp_path / "elsewhere")
    (tmp_path / "chk_step_8").symlink_to(elsewhere)
    for step in (11, 12):
        save(step, tmp_path, keep=1)
    save_as("best", 13, tmp_path)
    kept = {"chk_step_9", "chk_step_8", "elsewhere", "chk_step_12", "chk_best_step_13"}
    assert names(tmp_path) == theirs | kept
    assert elsewhere.is_dir()


def test_one_is_kept_of_each_label(tmp_path: Path) -> None:
    for label in ("best", "best_cw", "best.cw", "b", "unique"):
        for step in (9, 10, 1):
            save_as(label, step, tmp_path)
    save(10, tmp_path)
    save_as("best", 2, tmp_path)
    assert names(tmp_path) == {
        "chk_best_step_2",
        "chk_best_cw_step_1",
        "chk_best.cw_step_1",
        "chk_b_step_1",
        "chk_unique_step_1",
        "chk_step_10",
    }


def test_a_label_can_be_saved_again_at_its_step(tmp_path: Path) -> None:
    save_as("best", 3, tmp_path)
    assert save_as("best", 3, tmp_path) == tmp_path / "chk_best_step_3"
    assert names(tmp_path) == {"chk_best_step_3"}


# ---- when it goes wrong


SAVES = [lambda step, folder: save(step, folder, keep=1), lambda step, folder: save_as("best", step, folder)]


@pytest.mark.parametrize("saves", SAVES, ids=["numbered", "labelled"])
def test_the_old_one_goes_only_after_the_new_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: Callable[[int, Path], Path]
) -> None:
    old = saves(1, tmp_path)
    write_folder = _keep.write_folder

    def full_disk(folder: Path, *rest: Any) -> None:
        assert old.is_dir()
        raise OSError(28, "No space left on device")

    def looking(folder: Path, *rest: Any) -> None:
        write_folder(folder, *rest)
        assert old.is_dir()

    monkeypatch.setattr(_keep, "write_folder", full_disk)
    with pytest.raises(CheckpointError, match=r"step_2' can't be written: .*No space left.* Older"):
        saves(2, tmp_path)
    assert names(tmp_path) == {old.name}
    FolderReader(old).verify()

    monkeypatch.setattr(_keep, "write_folder", looking)
    new = saves(2, tmp_path)
    assert names(tmp_path) == {new.name}


def test_an_old_one_that_cannot_go_is_told_and_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(1, tmp_path, keep=1)

    def stuck(path: Path, **_: Any) -> None:
        if "chk_step_1" in path.name:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", stuck)
    with pytest.warns(RuntimeWarning, match=r"chk_step_1' can't be removed: .*Permission denied") as caught:
        folder = save(2, tmp_path, keep=1)
    FolderReader(folder).verify()
    here = test_an_old_one_that_cannot_go_is_told_and_nothing_more.__code__.co_firstlineno
    assert caught[0].filename == __file__ and caught[0].lineno > here, "who called the framework's function is told"


def test_killed_while_removing_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(1, tmp_path, keep=1)

    def killed(path: Path, **_: Any) -> None:
        if "chk_step_1" in path.name:
            (path / "model_0.safetensors").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(2, tmp_path, keep=1)
    assert names(tmp_path) == {"chk_step_2", f"{UNFINISHED}chk_step_1"}
    save(3, tmp_path, keep=2)
    assert names(tmp_path) == {"chk_step_2", "chk_step_3"}


def test_killed_while_replacing_the_old_one_is_found(tmp_path: Path) -> None:
    save(1, tmp_path)
    second = save(2, tmp_path, [Model(w=2.0)])
    second.rename(tmp_path / f"{REPLACED}chk_step_2")

    model = Model(w=0.0)
    load(second, [model])
    assert model.values() == {"w": [2.0]}
    assert names(tmp_path) == {"chk_step_1", f"{REPLACED}chk_step_2"}, "loading changed the folder"

    save(3, tmp_path, keep=2)  # it counts again, as the second
    assert names(tmp_path) == {"chk_step_2", "chk_step_3"}


def test_of_two_of_one_name_the_whole_one_stays(tmp_path: Path) -> None:
    first = save(1, tmp_path, [Model(w=5.0)])
    shutil.copytree(first, tmp_path / f"{REPLACED}chk_step_1")
    (first / "model_0.safetensors").unlink()
    save(2, tmp_path)
    model = Model(w=0.0)
    load(first, [model])
    assert model.values() == {"w": [5.0]}
    assert names(tmp_path) == {"chk_step_1", "chk_step_2"}


def test_one_that_is_past_reading_hides_none_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2, 3):
        save(step, tmp_path)
    (tmp_path / "chk_step_1" / "checkpoint.json").write_text("{}")
    monkeypatch.setattr(Path, "iterdir", lambda self: (self / name for name in sorted(os.listdir(self))))  # noqa: PTH208
    save(4, tmp_path, keep=1)
    assert names(tmp_path) == {"chk_step_1", "chk_step_4"}


# ---- what is refused when saving


@pytest.mark.parametrize("label", ["", "step", "step_1", "a_step_1", "a_step", "_a", ".", "a/b", "a b", "a\n", 3])
def test_labels_that_are_refused(tmp_path: Path, label: Any) -> None:
    with pytest.raises(ConfigError, match=r"^label=.* is no label\. Give letters"):
        save_as(label, 1, tmp_path)
    assert not names(tmp_path)


@pytest.mark.parametrize("label", ["best", "best_cw", "v1.5", "top-1", "7", "steps", "最好"])
def test_labels_that_are_accepted(tmp_path: Path, label: str) -> None:
    assert names(save_as(label, 1, tmp_path).parent) == {f"chk_{label}_step_1"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step": -1}, r"^step=-1 is not an int of at least 0\.$"),
        ({"step": True}, r"^step=True is not an int of at least 0\.$"),
        ({"step": 1.0}, r"^step=1\.0 is not an int of at least 0\.$"),
        ({"keep": 0}, r"^max_keep_num=0 is not an int of at least 1\.$"),
        ({"keep": None}, r"^max_keep_num=None is not an int of at least 1\.$"),
        ({"folder": 3}, r"^dir_path=3 is no path\. Give the path of a folder\.$"),
        ({"folder": ""}, r"^dir_path='' is no path\. Give the path of a folder\.$"),
        ({"models": Model(w=1)}, r"^model_list got a Model, which is no list\. Give a list of models\.$"),
        ({"models": []}, r"^model_list=\[\] is empty\. Give at least one model\.$"),
        (
            {"models": [Model(w=1), "m"]},
            r"^model_list\[1\] is a str, which is no model of plain\. Give models only\.$",
        ),
        ({"optimizers": Optimizer()}, r"^optimizer_list got a Optimizer, which is no list\. Give a list of optimizers"),
        ({"optimizers": [None]}, r"^optimizer_list\[0\] is a NoneType, which is no optimizer of plain\."),
        (
            {"optimizers": [Optimizer(Model(a=1, b=1))]},
            r"^optimizer_list\[0\] holds 2 of 2 parameters that belong to none of model_list \(shapes \(1,\), \(1,\)\)",
        ),
        (
            {"optimizers": [Optimizer(Model(a=1, b=1, c=1, d=1, e=1, f=1))]},
            r"holds 6 of 6 parameters that belong to none of model_list \(shapes (\(1,\), ){4}\(1,\)\)\.",
        ),
    ],
)
def test_arguments_that_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    arguments = {"step": 1, "folder": tmp_path / "chk", **changed}
    with pytest.raises(ConfigError, match=message):
        save(**arguments)
    assert not names(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"dir_path='.*file' is a file\. Give the path of a folder\."):
        save(1, tmp_path / "file")


# ---- what is refused when loading


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    first, second = Model(w=1.0, b=2.0), Model(w=3.0)
    return save(1, tmp_path, [first, second], [Optimizer(first), Optimizer(second)])


@pytest.mark.parametrize(
    ("models", "optimizers", "message"),
    [
        (1, 2, r"holds 2 models and model_list has 1\. Give as many, in the same order"),
        (3, 2, r"holds 2 models and model_list has 3\."),
        (2, 1, r"holds 2 optimizers and optimizer_list has 1\."),
        (2, 3, r"holds 2 optimizers and optimizer_list has 3\."),
        (2, 0, r"holds 2 optimizers and optimizer_list has 0\."),
    ],
)
def test_more_or_fewer_than_were_saved(saved: Path, models: int, optimizers: int, message: str) -> None:
    given = [Model(w=0.0, b=0.0), Model(w=0.0), Model(w=0.0)][:models]
    with pytest.raises(CheckpointError, match=f"^{re.escape(repr(str(saved)))} {message}"):
        load(saved, given, [Optimizer(given[0])] * optimizers)
    assert given[0].values() == {"w": [0.0], "b": [0.0]}


def test_optimizers_can_be_left_out(saved: Path) -> None:
    models = [Model(w=0.0, b=0.0), Model(w=0.0)]
    load(saved, models)
    assert models[1].values() == {"w": [3.0]}


def test_every_difference_is_listed_and_nothing_loaded(saved: Path) -> None:
    first, second = Model(w=0.0, c=0.0), Model(w=0.0)
    second.parameters["w"] = Parameter(0.0, 0.0)
    optimizers = [Optimizer(second), Optimizer(second)]
    with pytest.raises(CheckpointError) as caught:
        load(saved, [first, second], optimizers)
    assert str(caught.value).splitlines() == [
        f"{str(saved)!r} doesn't fit model_list and optimizer_list; nothing was loaded. Differences:",
        "  model_0: missing: c",
        "  model_0: not in the model: b",
        "  model_1: shape of w: stored (1,), wanted (2,)",
        "  optimizer_0: missing: 1/w",
        "  optimizer_0: not in the optimizer: 0/b",
        "  optimizer_0: not in the optimizer: 0/w",
    ]
    assert first.values() == {"w": [0.0], "c": [0.0]}


def test_a_parameter_of_no_model_is_a_difference(saved: Path) -> None:
    models = [Model(w=0.0, b=0.0), Model(w=0.0)]
    with pytest.raises(CheckpointError) as caught:
        load(saved, models, [Optimizer(models[0]), Optimizer(Model(w=0.0))])
    assert str(caught.value).splitlines()[1:] == [
        "  optimizer_1: missing: of no model",
        "  optimizer_1: not in the optimizer: 1/w",
    ]


def test_a_path_that_is_none_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigError, match=r"^resume_dir=3 is no path\. Give the path of a folder\.$"):
        load(3, [Model(w=0.0)])


def test_models_change_only_after_the_optimizers_were_accepted(saved: Path) -> None:
    models = [Model(w=0.0, b=0.0), Model(w=0.0)]
    with pytest.raises(CheckpointError, match=r"chk_step_1', optimizer_1: It is of another kind\."):
        load(saved, models, [Optimizer(models[0]), Optimizer(models[1], kind="none")])
    assert models[0].values() == {"w": [0.0], "b": [0.0]}


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"chk_step_1' is no folder"):
        load(tmp_path / "chk_step_1", [Model(w=0.0)])


@pytest.mark.parametrize("name", ["model_1.safetensors", "optimizer_1.json"])
def test_a_damaged_file_is_noticed_before_anything_is_loaded(saved: Path, name: str) -> None:
    content = bytearray((saved / name).read_bytes())
    content[-2] ^= 1
    (saved / name).write_bytes(content)
    models = [Model(w=0.0, b=0.0), Model(w=0.0)]
    optimizers = [Optimizer(models[0]), Optimizer(models[1])]
    with pytest.raises(CheckpointError, match=rf"{name}' doesn't match its digest"):
        load(saved, models, optimizers)
    assert models[0].values() == {"w": [0.0], "b": [0.0]}
