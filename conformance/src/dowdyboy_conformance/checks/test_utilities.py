"""U: the utilities beside the trainer, as a distribution gives them."""

from __future__ import annotations

import argparse
import importlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance.harnesses.harness import Harness


def module(harness: Harness, name: str) -> Any:
    return importlib.import_module(f"{harness.module}.{name}")


@pytest.mark.clause("U-1")
def test_typed_options_win_over_the_file_and_that_over_defaults(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({"lr": 0.5, "batch-size": 8}))
    (tmp_path / "options.yaml").write_text("lr: 1e-3\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--name", default="none")
    parse = module(harness, "args").parse_args
    args = parse(parser, ["--config", str(tmp_path / "options.json"), "--batch-size", "16"])
    assert (args.lr, args.batch_size, args.name) == (0.5, 16, "none")
    assert parse(parser, ["--config", str(tmp_path / "options.yaml")]).lr == 0.001


@pytest.mark.clause("U-2")
def test_output_sizes_of_convolutions(harness: Harness) -> None:
    assist = module(harness, "assist")
    assert assist.get_conv_out_size(224, 7, 2, 3) == 112
    assert assist.get_conv_out_size((32, 28), (3, 5), 1, (1, 2)) == (32, 28)
    assert assist.get_dilated_conv_out_size(32, 3, 1, 2, 2) == 32
    assert assist.get_trans_conv_out_size(16, 4, 2, 1) == 32
    assert assist.get_trans_conv_out_size((4, 5), 2, 2) == (8, 10)


@pytest.mark.clause("U-3")
def test_set_seed_seeds_all_streams(harness: Harness) -> None:
    found = []
    for _ in range(2):
        module(harness, "rand").set_seed(11)
        found.append((random.random(), float(np.random.rand()), harness.draw()))
    assert found[0] == found[1]


@pytest.mark.clause("U-3")
def test_the_wheel(harness: Harness) -> None:
    rand = module(harness, "rand")
    assert rand.wheel_ratio([1, 0, 3]) == [0.25, 0.25, 1.0]
    drawn = {rand.wheel_rand_index([0, 2, 0, 1, 0], random.Random(seed)) for seed in range(50)}
    assert drawn == {1, 3}


@pytest.mark.clause("U-4")
def test_the_log_goes_to_a_file_too(harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = module(harness, "log")
    log.logging_conf(tmp_path / "a.log")
    log.log("hello")
    log.warn("careful")
    log.logging_conf(tmp_path / "b.log")
    assert capsys.readouterr().out.splitlines() == ["hello", "careful"]
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert [line.rpartition(" [")[2] for line in lines] == ["INFO] hello", "WARNING] careful"]


@pytest.mark.clause("U-5")
def test_a_split_loses_no_file(harness: Harness, tmp_path: Path) -> None:
    split = module(harness, "dataset_util").split_val_dataset_image_folder
    moved = []
    for name in ("one", "two"):
        for number in range(20):
            path = tmp_path / name / "train" / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
        pairs = split(tmp_path / name / "train", tmp_path / name / "val", 0.25, seed=3)
        moved.append([target.relative_to(tmp_path / name).as_posix() for _, target in pairs])
    assert moved[0] == moved[1] and len(moved[0]) == 5
    left = {path.stem: path.read_text() for path in (tmp_path / "one").rglob("*.png")}
    assert left == {str(number): str(number) for number in range(20)}
    assert all((tmp_path / "one" / name).is_file() for name in moved[0])


@pytest.mark.clause("U-6")
def test_numbers_in_files_mean_what_they_look_like(
    harness: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, path = module(harness, "args"), tmp_path / "options.yaml"
    path.write_text("a: 1e-3\nb: 0o17\nc: 1_000\nd: 007\ne: '010'\n")
    found = args.parse_yaml_args(argparse.Namespace(), path)
    assert vars(found) == {"a": 0.001, "b": 15, "c": 1000, "d": 7, "e": "010"}
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=float, default=1)
    for written, read_as, write in (("010", "8", "0o10"), ("12:30", "750", "'12:30'"), ("1e400", "float", "smaller")):
        path.write_text(f"steps: {written}\n")
        error = importlib.import_module(harness.module).ConfigError
        with pytest.raises(error, match=rf"{written} .*{read_as}.*{write}"):
            args.parse_yaml_args(argparse.Namespace(steps=1), path)
        with pytest.raises(SystemExit):
            args.parse_args(parser, ["--config", str(path)])
        printed = " ".join(capsys.readouterr().err.split())
        assert written in printed and read_as in printed and write in printed
