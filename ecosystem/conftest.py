"""Has the cases find one another, and the table written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
# Nothing is fetched from anywhere: models are made from configurations, and data by a seed.
os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that names the page to write."""
    parser.addoption("--page", type=Path, help="write the table of what works into this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    """Collects the outcomes where they come together."""
    if config.option.page is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Outcomes(config.option.page))


class _Outcomes:
    """The outcomes of all cases, and the page that they make."""

    def __init__(self, page: Path) -> None:
        self._page = page
        self._seen: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes up what a test found."""
        for name, found in report.user_properties:
            if name == "case":
                assert isinstance(found, dict)
                self._seen[found["name"]] = found

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Writes the page, if every case was run and is as it should be."""
        from ecosystem.harness import CASES
        from ecosystem.page import write_page
        from ecosystem.test_cases import MODULES

        assert MODULES
        missing = [case.name for case in CASES if case.name not in self._seen]
        if exitstatus == 0 and not missing:
            write_page(self._page, CASES, self._seen)
        else:
            print(f"\n{self._page} is left as it is: not every case was run, or one is not as it should be")
