"""Tries the mutants of modules of the core: ``python mutation/mutmut_run.py _order _rng``; all without names.

What was found stays in .mutation/; report.py reads it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TESTS = ["packages/dowdyboy-core/tests", "conformance/src/dowdyboy_conformance/checks"]
LEFT_OUT = ["-m", "not long and not packaging and not gpu"]
OPTIONS = ["-q", "--tb=no", "--disable-warnings", "-p", "no:cacheprovider"]
OPTIONS += ["-o", "timeout=0", "-o", "faulthandler_timeout=0"]  # every mutant has a limit of its own


def pytest(*arguments: str) -> int:
    """Runs pytest with the plugin, on the sources of this repository."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as temporary:
        sources = [HERE, ROOT / "packages/dowdyboy-core/src", ROOT / "conformance/src"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "MUTATION_TMP": f"{temporary}/tests",
            "TMPDIR": f"{temporary}/tests",
            "OMP_NUM_THREADS": "1",
            "COVERAGE_CORE": "ctrace",  # which tells the lines of each test
        }
        Path(temporary, "tests").mkdir()
        plugins = [] if _has_entry_point() else ["-p", "dowdyboy_conformance.plugin"]
        command = [sys.executable, "-m", "pytest", *OPTIONS, *plugins, "-p", "trying", "--backend", "numpy", *LEFT_OUT]
        # Every fork prints its tests; what is found goes to stderr.
        with (ROOT / ".mutation/pytest.log").open("w") as log:
            return subprocess.run([*command, *arguments], cwd=ROOT, env=environment, stdout=log).returncode


def _has_entry_point() -> bool:
    from importlib.metadata import entry_points

    return any(point.value == "dowdyboy_conformance.plugin" for point in entry_points(group="pytest11"))


def main(arguments: list[str]) -> int:
    """Notes what the tests reach, unless that is known, then tries the mutants."""
    (ROOT / ".mutation").mkdir(exist_ok=True)
    if arguments[:1] == ["reach"]:
        return pytest("--reach", *(arguments[1:] or TESTS))
    names = [argument for argument in arguments if not argument.startswith("-") and "=" not in argument]
    options = [argument for argument in arguments if argument not in names]
    if not names:
        names = sorted(path.stem for path in (ROOT / "packages/dowdyboy-core/src/dowdyboy_core").glob("*.py"))
    if not (ROOT / ".mutation/reached.json").exists():
        pytest("--reach", *TESTS)
    return pytest(*(f"--mutate={name}" for name in names), *options, *TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
