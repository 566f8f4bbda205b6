"""Tries the mutants of modules of the core: ``python mutation/mutmut_run.py _run.saver rand``; all without names.

What was found stays in .mutation/; report.py reads it.
"""

from __future__ import annotations

import argparse
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="of dowdyboy_core; all without any")
    parser.add_argument("--again", action="store_true", help="only the mutants that weren't killed before, or are new")
    parser.add_argument("--seconds", help="how long the tests of one mutant may take, rather than 4")
    parser.add_argument("--only", metavar="TEXT", help="only the mutants whose key has this text")
    parser.add_argument("--pause-while", metavar="FILE", help="start nothing while this file exists")
    given = parser.parse_args(arguments)
    package = ROOT / "packages/dowdyboy-core/src/dowdyboy_core"
    files = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py") if path.stem != "__init__"]
    known = sorted(".".join(path.parts) for path in files)
    for name in given.modules:
        if name not in known:
            parser.error(f"{name!r} is no module of dowdyboy_core: {', '.join(known)}")
    options = [f"--mutate={name}" for name in given.modules or known]
    options += ["--again"] if given.again else []
    for option in ("seconds", "only", "pause_while"):
        if getattr(given, option) is not None:
            options.append(f"--{option.replace('_', '-')}={getattr(given, option)}")
    if not (ROOT / ".mutation/reached.json").exists():
        pytest("--reach", *TESTS)
    return pytest(*options, *TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
