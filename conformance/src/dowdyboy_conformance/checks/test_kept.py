"""C: how many checkpoints are kept, and those that a hook asks for."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from dowdyboy_conformance._checkpoints import saved
from dowdyboy_conformance._problem import build
from dowdyboy_conformance._resuming import Place, assert_equal, go, outcome, read_index, start
from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_core import CheckpointError, ConfigError, SetupError


def names(out_dir: Path) -> list[str]:
    """The folders of the checkpoints."""
    return sorted(path.name for path in (out_dir / "checkpoint").iterdir())


@pytest.mark.clause("C-27")
def test_the_newest_epochs_are_kept(harness: Harness, tmp_path: Path) -> None:
    changed: dict[str, Any] = {"enable_save_checkpoint": True, "save_last": False, "max_keep_num": 2}
    build(harness, tmp_path, epoch=11, save_interval=3, **changed).fit()
    assert names(tmp_path) == ["epoch_6", "epoch_9"]
    for path in (tmp_path / "checkpoint" / "epoch_9").glob("model_0.*"):
        path.write_bytes(b"cut")
    build(harness, tmp_path, epoch=12, save_interval=2, resume="auto", **changed).fit()
    assert names(tmp_path) == ["epoch_10", "epoch_12", "epoch_9"], "a damaged one is no reason to remove a whole one"


@pytest.mark.clause("C-27", "C-12")
def test_what_a_killed_run_kept_too_many_of_goes(harness: Harness, tmp_path: Path) -> None:
    changed: dict[str, Any] = {"enable_save_checkpoint": True, "save_last": False, "epoch": 4}
    build(harness, tmp_path, **changed).fit()
    assert len(names(tmp_path)) == 4
    build(harness, tmp_path, max_keep_num=1, resume="auto", **changed).fit()
    assert names(tmp_path) == ["epoch_4"]


@pytest.mark.clause("C-27")
def test_a_hook_has_the_run_saved_and_resumed(harness: Harness, tmp_path: Path) -> None:
    def fit(run: Any, asks: bool) -> None:
        step, end = run.train_step, run.trainer.save_checkpoint

        def train_step(trainer: Any, bat: Any, bat_idx: int, global_step: int) -> Any:
            if asks and global_step == 3:
                trainer.save_checkpoint("in.train-1")
            return step(trainer, bat, bat_idx, global_step)

        run.train_step = train_step
        if asks:
            run.trainer.set_save_best_calc_func(lambda trainer: end("best_cw") or 1.0)
        else:
            run.trainer.set_save_best_calc_func(lambda trainer: 1.0)
        go(run)

    changed: dict[str, Any] = {"epoch": 2, "accumulate_steps": 2, "ema_decay": 0.5}
    fit(start(harness, tmp_path / "plain", **changed), asks=False)
    fit(start(harness, tmp_path / "asks", **changed), asks=True)
    asked = {"chk_in.train-1_step_5", "chk_best_cw_step_3", "chk_best_cw_step_6"}
    assert asked == set(names(tmp_path / "asks")) - set(names(tmp_path / "plain"))
    places = [read_index(tmp_path / "asks" / "checkpoint" / name) for name in sorted(asked)]
    assert [(index["epoch"], index["batch"]) for index in places] == [(1, 0), (2, 0), (1, 2)]
    expected = outcome(tmp_path / "plain", 2)
    for name in ("chk_in.train-1_step_5", "chk_best_cw_step_3"):
        source = tmp_path / "asks" / "checkpoint" / name
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_bytes((tmp_path / "asks" / "metrics.jsonl").read_bytes())
        (tmp_path / name / "checkpoint").mkdir()
        source.rename(tmp_path / name / "checkpoint" / name)
        fit(start(harness, tmp_path / name, resume=tmp_path / name / "checkpoint" / name, **changed), asks=False)
        found = outcome(tmp_path / name, 2)
        assert found["metrics"] == expected["metrics"]
        last = {key: value for key, value in expected.items() if key.startswith("last_epoch_2/")}
        assert_equal({key: found[key] for key in last}, last)


@pytest.mark.clause("C-27", "C-11")
def test_what_was_asked_for_stays_and_is_passed_over(harness: Harness, tmp_path: Path) -> None:
    def asks(trainer: Any, ep: int) -> None:
        trainer.save_checkpoint("mine")
        trainer.save_checkpoint("mine")

    run = build(harness, tmp_path, epoch=2, enable_save_checkpoint=True, save_interval=9, save_last=False)
    run.fit(on_epoch_end=asks)
    assert names(tmp_path) == ["chk_mine_step_3", "chk_mine_step_6"]
    run = build(harness, tmp_path, epoch=2, enable_save_checkpoint=True, save_interval=9, resume="auto")
    run.fit()
    assert len(run.losses) == 6, "it must begin anew"
    assert names(tmp_path) == ["chk_mine_step_3", "chk_mine_step_6", "last_epoch_2"]


@pytest.mark.clause("C-27", "C-18")
def test_what_is_asked_for_in_validation_is_saved_where_a_signal_stops_the_run(
    harness: Harness, tmp_path: Path
) -> None:
    run = start(harness, tmp_path)
    step = run.val_step

    def val_step(trainer: Any, *given: Any) -> Any:
        trainer.save_checkpoint("seen")
        return step(trainer, *given)

    run.val_step = val_step  # type: ignore[assignment, method-assign]
    usual = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with pytest.raises(SystemExit):
        go(run, signal_at=Place("val", 1, 1))
    signal.signal(signal.SIGTERM, usual)
    assert names(tmp_path) == ["chk_seen_step_3", "last_epoch_1"]
    files = [{p.name: p.read_bytes() for p in (tmp_path / "checkpoint" / name).iterdir()} for name in names(tmp_path)]
    assert files[0] == files[1]


@pytest.mark.clause("C-27")
def test_outside_of_fit_it_is_saved_at_once(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = saved(harness, tmp_path / "run")
    for bad in ("", "a/b", "step", "my_step_2", ".x", "-x", 3, None):
        with pytest.raises(ConfigError, match="is no label"):
            run.trainer.save_checkpoint(bad)  # type: ignore[arg-type]
    run.trainer.save_checkpoint("done")
    folder = tmp_path / "run" / "checkpoint" / "chk_done_step_3"
    whole = folder.with_name("last_epoch_1")
    assert (folder / "model_0.safetensors").read_bytes() == (whole / "model_0.safetensors").read_bytes()
    assert (folder / "optimizer_0.json").read_bytes() == (whole / "optimizer_0.json").read_bytes()
    other = build(harness, tmp_path / "other", optimizer="adam", epoch=2, enable_save_checkpoint=True)
    other.trainer.load_checkpoint(folder)
    other.trainer.save_checkpoint("again")
    again = tmp_path / "other" / "checkpoint" / "chk_again_step_3"
    assert (again / "rng.json").read_bytes() == (folder / "rng.json").read_bytes()
    other.fit()
    assert len(other.losses) == 3
    with pytest.raises(SetupError, match="needs the models to save"):
        harness.make_trainer(other.trainer.config).save_checkpoint("none")
    with pytest.raises(CheckpointError, match="chk_full_step_6"):
        again.with_name(".unfinished-chk_full_step_6").write_text("")
        again.parent.rename(again.parent.with_name("moved"))
        again.parent.write_text("")
        other.trainer.save_checkpoint("full")
    quiet = build(harness, tmp_path / "quiet")
    capsys.readouterr()
    quiet.fit(on_epoch_end=lambda trainer, ep: trainer.save_checkpoint("x"))
    quiet.trainer.save_checkpoint("x")
    assert not (tmp_path / "quiet" / "checkpoint").exists()
    assert capsys.readouterr().out.count("save_checkpoint('x') saves nothing") == 1


@pytest.mark.clause("C-27", "W-19")
@pytest.mark.parametrize("processes", [2, 3])
def test_one_process_or_all_may_ask(together: Together, processes: int) -> None:
    for seen in together(processes, "asking"):
        assert seen == ["chk_all_step_1", "chk_end_step_2", "chk_one_step_2", "chk_out_step_4", "last_epoch_2"]


class Fault(Exception):
    """What a hook fails with."""


@pytest.mark.clause("H-7", "C-7")
@pytest.mark.parametrize("place", [Place("val", 2, 1), Place("end", 2), Place("best", 2)], ids=["val", "end", "best"])
def test_what_was_trained_is_saved_where_a_later_hook_fails(harness: Harness, tmp_path: Path, place: Place) -> None:
    def fit(run: Any, fails: bool) -> None:
        def hook(name: str, inner: Any = None) -> Any:
            def call(trainer: Any, *given: Any) -> Any:
                found = inner(trainer, *given) if inner else 0.5
                if fails and (name, trainer.epoch) == place[:2] and (name != "val" or given[1] == place.batch):
                    raise Fault
                return found

            return call

        run.val_step, fit_with = hook("val", run.val_step), run.trainer.fit
        run.trainer.set_save_best_calc_func(hook("best"))
        run.trainer.fit = lambda step, val, end: fit_with(step, val, hook("end", end))
        go(run)

    changed: dict[str, Any] = {"ema_decay": 0.5, "batch_norm": True}
    fit(start(harness, tmp_path / "plain", **changed), fails=False)
    with pytest.raises(Fault):
        fit(start(harness, tmp_path / "failed", **changed), fails=True)
    index = read_index(tmp_path / "failed" / "checkpoint" / "last_epoch_2")
    assert (index["epoch"], index["batch"], index["val_batch"]) == ((1, 3, 0) if place.phase == "val" else (2, 0, None))
    assert ("epoch_2" in names(tmp_path / "failed")) == (place.phase != "val")
    resumed = start(harness, tmp_path / "failed", resume="auto", **changed)
    fit(resumed, fails=False)
    assert len(resumed.losses) == 3, "the third epoch alone"
    found, expected = outcome(tmp_path / "failed"), outcome(tmp_path / "plain")
    if place.phase == "best":  # that epoch had no value, and its end was never told
        found, expected = ({key: item[key] for key in item if "model" in key} for item in (found, expected))
        found, expected = ({key: item[key] for key in item if key[:5] != "epoch"} for item in (found, expected))
    assert_equal(found, expected)


@pytest.mark.clause("H-7")
def test_where_nothing_is_saved_a_failing_hook_saves_nothing(harness: Harness, tmp_path: Path) -> None:
    def fail(*given: Any) -> None:
        raise Fault

    for name, saves in (("none", False), ("all", True)):
        run = build(harness, tmp_path / name, enable_save_checkpoint=saves)
        with pytest.raises(Fault):
            run.trainer.fit(run.train_step, fail)
        assert (tmp_path / name / "checkpoint").exists() == saves
    run = build(harness, tmp_path / "stream", enable_save_checkpoint=True)
    run.trainer.set_val_dataloader([])
    with pytest.raises(SetupError, match="The val data has no batch"):
        run.fit()
    assert names(tmp_path / "stream") == ["last_epoch_1"]
