"""C: a checkpoint that is made to do harm is refused, and does none; what is merely not known is let be."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._checkpoints import ZEROS, forge, refuse, rewrite_index, saved, seal
from dowdyboy_conformance._problem import build, layers
from dowdyboy_conformance._resuming import read_index
from dowdyboy_conformance.harnesses.harness import Harness


def _program(path: Path) -> bytes:
    """A pickle that makes a file when it is loaded."""
    return f"cposix\nsystem\n(S'touch {path}'\ntR.".encode()


def _pickle(folder: Path) -> None:
    forge(folder, "model_0.safetensors", _program(folder.parent / "ran"))


def _pickle_for_json(folder: Path) -> None:
    forge(folder, "rng.json", _program(folder.parent / "ran"))


def _outside(folder: Path) -> None:
    (folder.parent / "rng.json").write_bytes((folder / "rng.json").read_bytes())
    files = read_index(folder)["files"]
    rewrite_index(folder, files={**files, "../rng.json": files["rng.json"]})


def _device(folder: Path) -> None:
    (folder / "rng.json").unlink()
    (folder / "rng.json").symlink_to("/dev/zero")


def _pipe(folder: Path) -> None:
    (folder / "rng.json").unlink()
    os.mkfifo(folder / "rng.json")


def _index_is_a_pipe(folder: Path) -> None:
    (folder / "checkpoint.json").unlink()
    os.mkfifo(folder / "checkpoint.json")


def _huge_index(folder: Path) -> None:
    os.truncate(folder / "checkpoint.json", 2**40)


def _huge_file(folder: Path) -> None:
    os.truncate(folder / "model_0.safetensors", 2**40)


def _huge_header(folder: Path) -> None:
    forge(folder, "model_0.safetensors", (2**62).to_bytes(8, "little") + b"{}")


def _huge_array(folder: Path) -> None:
    header = json.dumps({"fc0.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    forge(folder, "model_0.safetensors", len(header).to_bytes(8, "little") + header)


def _deep(folder: Path) -> None:
    forge(folder, "rng.json", b"[" * 10**6 + b"]" * 10**6)


def _deep_index(folder: Path) -> None:
    (folder / "checkpoint.json").write_bytes(b"[" * 10**6 + b"]" * 10**6)


def _missing_array(folder: Path) -> None:
    forge(folder, "scaler.json", b'{"scale": {"$array": "x"}}')


def _not_slots(folder: Path) -> None:
    forge(folder, "optimizer_0.json", b'{"state": 7, "param_groups": [{"params": 3}]}')


def _no_streams(folder: Path) -> None:
    forge(folder, "rng.json", b"null")


def _arrays(*headers: str) -> bytes:
    """A file of arrays with 16 bytes of data, and a header of these entries."""
    header = ("{" + ", ".join(headers) + "}").encode()
    return len(header).to_bytes(8, "little") + header + bytes(16)


def _entry(name: str, start: int, end: int, length: int = 2) -> str:
    return f'"{name}": {{"dtype": "F32", "shape": [{length}], "data_offsets": [{start}, {end}]}}'


def _overlapping(folder: Path) -> None:
    forge(folder, "model_0.safetensors", _arrays(_entry("a", 0, 12, 3), _entry("b", 8, 16)))


def _beyond_the_end(folder: Path) -> None:
    forge(folder, "model_0.safetensors", _arrays(_entry("a", 0, 8), _entry("b", 8, 24, 4)))


def _backwards(folder: Path) -> None:
    forge(folder, "model_0.safetensors", _arrays(_entry("a", 0, 8), _entry("b", 16, 8)))


def _larger_than_its_data(folder: Path) -> None:
    forge(folder, "model_0.safetensors", _arrays(_entry("a", 0, 8, 2**40), _entry("b", 8, 16)))


def _array_twice(folder: Path) -> None:
    forge(folder, "model_0.safetensors", _arrays(_entry("a", 0, 8), _entry("a", 8, 16)))


def _key_twice(folder: Path) -> None:
    forge(folder, "scaler.json", b'{"scale": 1.0, "clean_steps": 0, "scale": 2.0}')


def _key_of_the_index_twice(folder: Path) -> None:
    blank = json.dumps({**read_index(folder), "sha256": ZEROS})
    seal(folder, blank.replace('"epoch": 1,', '"epoch": 7, "epoch": 1,'))


def _no_number(folder: Path) -> None:
    forge(folder, "scaler.json", b'{"scale": 1.0, "clean_steps": 0, "more": NaN}')


def _link_elsewhere(folder: Path) -> None:
    (folder.parent / "secret").write_bytes(bytes((folder / "rng.json").stat().st_size))
    (folder / "rng.json").unlink()
    (folder / "rng.json").symlink_to("../secret")


def _links_in_a_circle(folder: Path) -> None:
    for name, other in (("rng.json", "scaler.json"), ("scaler.json", "rng.json")):
        (folder / name).unlink()
        (folder / name).symlink_to(other)


def _index_links_to_itself(folder: Path) -> None:
    (folder / "checkpoint.json").unlink()
    (folder / "checkpoint.json").symlink_to("checkpoint.json")


def _name_of_no_file(folder: Path) -> None:
    rewrite_index(folder, files={**read_index(folder)["files"], "rng\0.json": {"bytes": 1, "sha256": ZEROS}})


def _name_of_no_text(folder: Path) -> None:
    rewrite_index(folder, files={**read_index(folder)["files"], "\ud800.json": {"bytes": 1, "sha256": ZEROS}})


def _digest_of_no_text(folder: Path) -> None:
    (folder / "checkpoint.json").write_text(json.dumps({**read_index(folder), "sha256": "\ud800" * 64}))


def _streams_of_another_kind(folder: Path) -> None:
    forge(folder, "rng.json", b'[{"python": [], "numpy": "x", "framework": {"cpu": 5}}]')


def _stream_of_the_framework(folder: Path) -> None:
    """All is as it should be but what the framework itself has to read."""
    tree = json.loads((folder / "rng.json").read_text())
    tree[0]["framework"] = [1, 2, 3]
    forge(folder, "rng.json", json.dumps(tree).encode())


def _records_of_another_kind(folder: Path) -> None:
    forge(folder, "records.json", b'{"x": {"dtype": "float32", "shape": [-1], "positions": 3, "values": null}}')


def _group_twice(folder: Path) -> None:
    tree = json.loads((folder / "optimizer_0.json").read_text())
    tree["param_groups"] *= 2
    forge(folder, "optimizer_0.json", json.dumps(tree).encode())


HOSTILE = [
    _pickle, _pickle_for_json, _outside, _device, _pipe, _index_is_a_pipe, _huge_index, _huge_file, _huge_header,
    _huge_array, _deep, _deep_index, _missing_array, _not_slots, _no_streams, _overlapping, _beyond_the_end, _backwards,
    _larger_than_its_data, _array_twice, _key_twice, _key_of_the_index_twice, _no_number, _link_elsewhere,
    _links_in_a_circle, _index_links_to_itself, _name_of_no_file, _name_of_no_text, _digest_of_no_text,
    _streams_of_another_kind, _stream_of_the_framework, _records_of_another_kind, _group_twice,
]  # fmt: skip


@pytest.mark.clause("C-21")
@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_hostile_checkpoint_is_refused(harness: Harness, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    _, folder = saved(harness, tmp_path)
    spoil(folder)
    other = build(harness, tmp_path, optimizer="adam", initial=layers(4, 4, 3, seed=9))
    before = other.parameters()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse(other.trainer, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**19, "in KiB: it has read what is huge"
    assert not (folder.parent / "ran").exists()
    for name, array in before.items():
        np.testing.assert_array_equal(other.parameters()[name], array, err_msg=name)
    other.fit()
    assert len(other.losses) == 3, "nothing of it may be left"


@pytest.mark.clause("C-21", "C-8")
@pytest.mark.parametrize("backend", [None, 5, ["torch"]])
def test_an_index_without_a_backend_gives_no_weights(harness: Harness, tmp_path: Path, backend: Any) -> None:
    run, folder = saved(harness, tmp_path)
    rewrite_index(folder, backend=backend)
    assert f"has no backend of the right kind: {backend!r}" in refuse(run.trainer, folder, weights_only=True)


@pytest.mark.clause("C-21", "C-2")
@pytest.mark.parametrize(
    ("field", "value"),
    [("epoch", "1"), ("epoch", -1), ("batch", True), ("train_step", 1.0), ("val_batch", "x"), ("best", "nan"),
     ("world_size", None), ("name", 5), ("run", []), ("batch", 2**60), ("epoch", 7**400), ("best", 7**400),
     ("best", True), ("best", 1), ("best_type", None), ("metrics_bytes", "0")],
    ids=lambda value: f"{value!r:.20}",
)  # fmt: skip
def test_an_index_with_a_field_of_another_kind_is_refused(
    harness: Harness, tmp_path: Path, field: str, value: Any
) -> None:
    run, folder = saved(harness, tmp_path)
    rewrite_index(folder, **{field: value})
    assert f"has no {field} of the right kind: {value!r:.80}" in refuse(run.trainer, folder)


@pytest.mark.clause("C-22")
@pytest.mark.parametrize("weights_only", [False, True])
def test_what_is_not_known_is_ignored(harness: Harness, tmp_path: Path, weights_only: bool) -> None:
    run, folder = saved(harness, tmp_path)
    expected = run.parameters()
    rewrite_index(folder, note={"of": "a later version"})
    forge(folder, "note.txt", b"anything")
    forge(folder, "note.json", b'{"$later": "a tag that is not known"}')
    forge(folder, "notes_0.safetensors", b"anything")
    forge(folder, "scaler.json", json.dumps({**json.loads((folder / "scaler.json").read_text()), "note": 1}).encode())
    other = build(harness, tmp_path, optimizer="adam", initial=layers(4, 4, 3, seed=9))
    other.trainer.load_checkpoint(folder, weights_only=weights_only)
    for name, array in expected.items():
        np.testing.assert_array_equal(other.parameters()[name], array, err_msg=name)
