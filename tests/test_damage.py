"""Every byte of every file of a real checkpoint, one at a time, and every cut by a tenth: all of it is noticed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

import pytest

from dowdyboy_conformance._checkpoints import saved
from dowdyboy_conformance._inside import inside
from dowdyboy_conformance.harnesses.harness import Harness

FolderReader, is_whole = inside("_disk.files").FolderReader, inside("_disk.files").is_whole


@pytest.fixture(params=["torch", "paddle"])
def harness(request: pytest.FixtureRequest) -> Harness:
    module = importlib.import_module(f"dowdyboy_conformance.harnesses.{request.param}")
    made: Harness = getattr(module, f"{request.param.capitalize()}Harness")()
    return made


def check(folder: Path, paths: Iterable[Path]) -> None:
    """Damages files in all these ways.

    Raises:
        AssertionError: one was not noticed.
    """
    for path in paths:
        content = path.read_bytes()
        for tenth in range(10):
            path.write_bytes(content[: len(content) * tenth // 10])
            assert not is_whole(folder), f"{path.name}, {tenth} tenths of it"
        path.write_bytes(content)
        with path.open("r+b", buffering=0) as file:
            for place, byte in enumerate(content):
                for damaged in (byte ^ 1 << place % 8, byte):
                    file.seek(place)
                    file.write(bytes([damaged]))
                    assert is_whole(folder) is (damaged == byte), f"{path.name}, byte {place}"


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_byte_counts(harness: Harness, tmp_path: Path) -> None:
    _, folder = saved(harness, tmp_path, schedule="step")
    check(folder, sorted(folder.iterdir()))


@pytest.mark.parametrize("name", ["checkpoint.json", "model_0.safetensors"])
def test_a_byte_that_does_not_count_is_noticed(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _, folder = saved(harness, tmp_path)
    check(folder, [folder / name])
    monkeypatch.setattr(FolderReader, "verify", FolderReader.measure)
    with pytest.raises(AssertionError, match=r"model_0\.safetensors, byte 0"):
        check(folder, [folder / "model_0.safetensors"])
