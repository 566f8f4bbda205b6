"""The part of the plugin that makes the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ._report import FAILED, NOT_APPLICABLE, PASSED, Outcome, Report, as_text

TOGETHER = "together-"
"""What the groups of checks begin with that share runs of several processes; pytest-xdist adds it to their names."""


_IN_PART = "dowdyboy_conformance_in_part"


class Worker:
    """Tells the main process of pytest-xdist that a worker left checks out.

    Args:
        output: what a worker hands over when it is done.
    """

    def __init__(self, output: dict[str, Any]) -> None:
        self._output = output

    def pytest_deselected(self) -> None:
        """Notes that the run isn't of the whole suite."""
        self._output[_IN_PART] = True


class Reporting:
    """Collects what the checks have shown, writes the reports, and prints the table of topics.

    Args:
        paths: the files to write.
        modules: for each backend, as ``--backend`` calls it, the import name of its distribution.
    """

    def __init__(self, paths: list[Path], modules: dict[str, str]) -> None:
        self._paths = paths
        self._report = Report(modules)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes a worker's word for it, since it is the workers of pytest-xdist that choose among the checks."""
        if getattr(node, "workeroutput", {}).get(_IN_PART):
            self._report.whole = False

    def pytest_deselected(self) -> None:
        """Notes that the run isn't of the whole suite."""
        self._report.whole = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes what came of a check."""
        known = dict(report.user_properties)
        if "clauses" not in known or (report.passed and report.when != "call"):
            return
        status = FAILED if report.failed else NOT_APPLICABLE if report.skipped else PASSED
        reason = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
        self._report.add(
            Outcome(
                report.nodeid.partition(f"@{TOGETHER}")[0].rpartition("/")[2],
                str(known["backend"]),
                int(str(known["processes"])),
                str(known["clauses"]).split(),
                status,
                report.longreprtext if report.failed else reason.removeprefix("not applicable: "),
            )
        )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Writes the files."""
        self._report.whole &= exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        for path in self._paths:
            self._report.write(path)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Prints the clauses that are kept, by topic."""
        terminalreporter.section("clauses kept, by backend and number of processes")
        for line in as_text(self._report):
            terminalreporter.write_line(line)
        for path in self._paths:
            terminalreporter.write_line(f"report: {path}")
