"""Lines are added whole, kept while the disk refuses them, and nothing ends because it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dowdyboy_core import log as log_module
from dowdyboy_core._disk.lines import LineFile

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full, on which nothing fits")


def test_what_the_disk_refuses_is_kept_and_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    parent = tmp_path / "folder"
    file = LineFile(parent / "file", said.append)
    lines = []
    for times in (1, 2):
        parent.write_text("in the way")
        for number in range(3):
            lines.append(f"{times} {number}")
            file.add(lines[-1])
            file.flush()
        assert len(said) == times and "Its lines are kept until it can be." in said[-1]
        parent.unlink()
        file.flush()
        assert file.path.read_text().splitlines() == lines, "in the order in which they came"
        parent.rename(tmp_path / f"kept {times}")
        lines.clear()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"half", b"one\n", b"one\nhalf", b"\n", b"\nhalf", b"one\n\nhalf",
        *(b"one\n" + b"x" * length for length in (4094, 4095, 4096, 4097, 10_000)),
    ],
    ids=lambda content: repr(content[:9]) + str(len(content)),
)  # fmt: skip
@pytest.mark.parametrize("mends", [True, False])
def test_half_a_line_is_dropped(tmp_path: Path, content: bytes, mends: bool) -> None:
    (tmp_path / "file").write_bytes(content)
    file = LineFile(tmp_path / "file", pytest.fail, mends=mends)
    for line in ("two", "three"):
        file.add(line)
        file.flush()
    kept = content[: content.rfind(b"\n") + 1] if mends else content
    assert (tmp_path / "file").read_bytes() == kept + b"two\nthree\n"


def test_without_being_told_to_it_mends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"half")
    file = LineFile(tmp_path / "file", pytest.fail)
    file.add("two")
    file.flush()
    assert (tmp_path / "file").read_bytes() == b"halftwo\n"


def test_folders_are_made_as_deep_as_it_takes(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "a" / "b" / "file", pytest.fail)
    file.add("one")
    file.flush()
    assert file.path.read_bytes() == b"one\n"


@pytest.mark.parametrize("room", [0, 1, 49])
def test_lines_that_fit_in_part_are_not_there_at_all(tmp_path: Path, room: int) -> None:
    resource = pytest.importorskip("resource")  # which limits how large a file may get: a disk with a little room
    said: list[str] = []
    before = b"x" * 99 + b"\n"
    (tmp_path / "file").write_bytes(before)
    file = LineFile(tmp_path / "file", said.append)
    file.add("y" * 49)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
    try:
        file.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "file").read_bytes() == before
    assert len(said) == 1 and "File too large" in said[0]
    file.flush()
    assert (tmp_path / "file").read_bytes() == before + b"y" * 49 + b"\n"


def test_what_is_no_text_is_written_nevertheless(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "file", pytest.fail)
    file.add('"\udc80"')
    file.flush()
    assert (tmp_path / "file").read_bytes() == b'"\\udc80"\n'


@needs_full
def test_a_full_disk_is_the_cause_that_is_told() -> None:
    said: list[str] = []
    file = LineFile(Path("/dev/full"), said.append)
    file.add("line")
    file.flush()
    assert len(said) == 1 and "No space left on device" in said[0]


def test_the_log_goes_on_where_the_file_can_not_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_log = log_module.RunLog()
    run_log.open(tmp_path / "folder" / "run.log", 20, "%(message)s", "a")
    run_log.write("one")
    (tmp_path / "folder").rename(tmp_path / "away")
    (tmp_path / "folder").write_text("in the way")
    run_log.write("two")
    run_log.write("three")
    out, err = capfd.readouterr()
    assert [line for line in out.splitlines() if "can't be written" not in line] == ["one", "two", "three"]
    assert out.count("can't be written") == 1 and err == ""
    (tmp_path / "folder").unlink()
    run_log.close()
    assert (tmp_path / "folder" / "run.log").read_text() == "two\nthree\n"


CODE = """
import sys
from dowdyboy_core._run.progress import show_progress
from dowdyboy_core.log import log
if sys.argv[1] == "with tqdm":
    import tqdm
for number in range(3000):
    log("x" * 50)
with show_progress("title", 1, str) as progress:
    progress.advance()
with open(sys.argv[2], "w") as file:
    file.write("done")
"""


@needs_full
@pytest.mark.parametrize("tqdm", ["with tqdm", "without"])
def test_a_program_goes_on_whose_output_goes_to_a_full_disk(tmp_path: Path, tqdm: str) -> None:
    with Path("/dev/full").open("w") as full:
        subprocess.run(
            [sys.executable, "-c", CODE, tqdm, str(tmp_path / "done")], stdout=full, stderr=full, check=False
        )
    assert (tmp_path / "done").read_text() == "done"


def test_a_program_ends_whose_reader_has_gone() -> None:
    code = "from dowdyboy_core.log import log\nfor number in range(100000):\n    log('x' * 50)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"BrokenPipeError" in process.stderr.read()
