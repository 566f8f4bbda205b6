"""Text logs: on the screen and in a file, whatever others do to logging, and above a progress bar."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dowdyboy_core import ConfigError
from dowdyboy_core import log as log_module
from dowdyboy_core.log import log, logging_conf, warn


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    log_module._default.close()


class Rank:
    """Stands for a trainer."""

    def __init__(self, main: bool) -> None:
        self.main = main

    def is_local_main_process(self) -> bool:
        return self.main


def test_lines_are_printed_and_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        logging_conf(tmp_path / "logs" / "run.log")
        log("one %s")
        warn("two")
    assert capsys.readouterr().out.splitlines() == ["one %s", "two"] * 2
    lines = (tmp_path / "logs" / "run.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["[INFO] one %s", "[WARNING] two"] * 2


def test_the_file_can_be_begun_anew(tmp_path: Path) -> None:
    logging_conf(tmp_path / "run.log", format="%(message)s")
    log("old")
    logging_conf(tmp_path / "run.log", format="%(message)s", filemode="w")
    log("new")
    assert (tmp_path / "run.log").read_text() == "new\n"


def test_without_a_file_nothing_is_complained_of(capfd: pytest.CaptureFixture[str]) -> None:
    warn("only printed")
    assert capfd.readouterr() == ("only printed\n", "")


def test_the_level_holds_for_the_file(tmp_path: Path) -> None:
    logging_conf(tmp_path / "run.log", level=logging.WARNING, format="%(message)s")
    log("quiet")
    warn("loud")
    assert (tmp_path / "run.log").read_text() == "loud\n"


def test_the_root_logger_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.CRITICAL - 1)  # what someone else may have done
    try:
        logging_conf(tmp_path / "run.log", format="%(message)s")
        warn("mine")
    finally:
        logging.disable(logging.NOTSET)
    assert caplog.records == []  # pytest listens at the root


def test_a_configured_root_does_not_silence_the_file(tmp_path: Path) -> None:
    code = (
        "import logging; logging.basicConfig(level=logging.ERROR, filename='root.log')\n"
        "from dowdyboy_core.log import logging_conf, log\n"
        "logging_conf('mine.log', format='%(message)s'); log('here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "here\n"
    assert (tmp_path / "mine.log").read_text() == "here\n"
    assert (tmp_path / "root.log").read_text() == ""


def test_only_the_main_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logging_conf(tmp_path / "other.log", acc=Rank(False))
    log("nothing", Rank(False))
    warn("something", Rank(True))
    assert capsys.readouterr().out == "something\n"
    assert not (tmp_path / "other.log").exists()


@pytest.mark.parametrize(
    ("path", "mode", "says"), [("", "x", "filemode='x' is not one of 'a', 'w'"), ("file/a", "a", "can't")]
)
def test_what_can_not_be_is_refused(tmp_path: Path, path: str, mode: str, says: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=says):
        logging_conf(tmp_path / path, filemode=mode)


def test_folders_are_made_and_the_format_may_name_the_logger(tmp_path: Path) -> None:
    run_log = log_module.RunLog()
    run_log.open(tmp_path / "a" / "b" / "run.log", logging.INFO, "%(name)s: %(message)s", "a")
    run_log.write({"%s": 1})
    run_log.close()
    assert (tmp_path / "a" / "b" / "run.log").read_text() == "dowdyboy: {'%s': 1}\n"


@pytest.mark.parametrize("main", [True, False])
def test_who_is_the_main_process_may_be_a_method_or_a_value(main: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for acc in (Rank(main), SimpleNamespace(is_local_main_process=main)):
        log("one", acc)
        warn("two", acc)
    assert capsys.readouterr().out.splitlines() == (["one", "two"] * 2 if main else [])


def test_a_line_is_out_at_once_where_nobody_has_imported_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    out = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(out, encoding="utf-8", newline="\n")):
        log("one")
        assert out.getvalue() == b"one\n"


def test_a_line_is_out_at_once_above_the_bars_of_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bars:
        """Stands for ``tqdm.tqdm``, which clears its bars, writes the line and draws them again."""

        @staticmethod
        def write(text: str, file: Any = None) -> None:
            assert file is sys.stdout
            file.write(f"above: {text}\n")

    monkeypatch.setitem(sys.modules, "tqdm", SimpleNamespace(tqdm=Bars))
    out = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(out, encoding="utf-8", newline="\n")):
        log("one")
        assert out.getvalue() == b"above: one\n"
