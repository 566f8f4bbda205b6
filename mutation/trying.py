"""A pytest plugin with two uses: to note which lines each test reaches, and to try each mutant in a fork.

pytest collects once. For each mutant the process forks, the fork takes the mutant in and runs the tests that reach its
line, the quickest first, until one fails. Nothing is imported or collected again.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from mutants import PACKAGE, Mutant, live_functions, module_of, mutants_of, put_in_place

STATE = Path(__file__).parents[1] / ".mutation"
REACHED, RESULTS = STATE / "reached.json", STATE / "results.json"
POLL = 0.01
OWN = "packages/"
DEAR = {"together", "reference"}
"""What several tests share that starts processes: every fork would have to do it anew."""
MEMORY = 2**33
KILLED, SURVIVED, TIMEOUT, UNTESTED, TEXT, IMPOSSIBLE = "killed", "survived", "timeout", "no test", "text", "impossible"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that mutmut_run.py passes on."""
    group = parser.getgroup("mutation")
    group.addoption("--reach", action="store_true", help="note the lines that each test reaches")
    group.addoption("--mutate", action="append", default=[], metavar="MODULE", help="try the mutants of this module")
    group.addoption("--seconds", type=float, default=4.0, help="how long the tests of one mutant may take together")
    group.addoption("--only", default="", help="only the mutants whose key has this text")
    group.addoption("--again", action="store_true", help="only the mutants that weren't killed before, or are new")
    group.addoption("--pause-while", type=Path, help="start nothing while this file exists")


def pytest_configure(config: pytest.Config) -> None:
    """Becomes the one of the two plugins that was asked for."""
    STATE.mkdir(exist_ok=True)
    if config.option.reach:
        config.pluginmanager.register(Reach())
    elif config.option.mutate:
        config.pluginmanager.register(Try(config))


def read(path: Path) -> dict[str, Any]:
    """What an earlier run noted."""
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return noted


def write(path: Path, value: object) -> None:
    """Notes something for a later run, whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(value), encoding="utf-8")
    beside.replace(path)


class Reach:
    """Notes the seconds of each test and the lines of the core that it reaches."""

    def __init__(self) -> None:
        from coverage import Coverage

        self.coverage = Coverage(data_file=None, include=[f"{PACKAGE}/*"], config_file=False)
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_sessionstart(self) -> None:
        """Begins to measure, before the tests' files are imported."""
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Measures one test."""
        self.coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = round(time.perf_counter() - began, 4)
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Leaves out what fails or is skipped: it kills nothing."""
        if not report.passed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Adds to what earlier runs noted."""
        self.coverage.stop()
        noted = read(REACHED)
        data = self.coverage.get_data()
        for name in self.seconds:
            noted.pop(name, None)
        reached: dict[str, dict[str, list[int]]] = {}
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                for context in contexts:
                    if context:
                        reached.setdefault(context, {}).setdefault(module_of(Path(file)), []).append(line)
        for name, seconds in self.seconds.items():
            if name not in self.failed and name in reached:
                noted[name] = {"seconds": seconds, "lines": reached[name]}
        write(REACHED, noted)


class Try:
    """Tries mutants instead of running the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.out = os.dup(2)
        self.noted = read(REACHED)
        self.results = read(RESULTS)
        self.recent: dict[str, list[str]] = {}
        self.running: Callable[[str], None] | None = None
        self.trusted: set[str] = set()
        self.reaching: dict[int, list[str]] = {}

    def say(self, text: str) -> None:
        """Writes to the terminal, past the capture."""
        os.write(self.out, (text + "\n").encode())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In a fork: the first failure is enough."""
        if report.failed and self.running is not None:
            self.running(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Tries all mutants of all modules that were asked for."""
        items = {item.nodeid: item for item in session.items if not DEAR & set(getattr(item, "fixturenames", ()))}
        for item in session.items:
            calm(item)
        functions = live_functions()
        gc.collect()
        gc.freeze()
        for module in self.config.option.mutate:
            self._module(module, items, functions)
        return True

    def _passes_without(self, name: str, items: dict[str, pytest.Item]) -> bool:
        """Whether a test that killed a mutant passes by itself without one; if not, it is left out from now on."""
        if name not in self.trusted:
            status, _ = self._fork(lambda: None, [items[name]], 60)
            if status != SURVIVED:
                self.say(f"fails without a mutant, left out: {name}")
                del items[name]
                return False
            self.trusted.add(name)
        return True

    def _module(self, module: str, items: dict[str, pytest.Item], functions: Any) -> None:
        mutants = mutants_of(module)
        keys = {mutant.key for mutant in mutants}
        assert len(keys) == len(mutants)
        for key in [key for key, result in self.results.items() if result["module"] == module and key not in keys]:
            del self.results[key]
        counts: dict[str, int] = {}
        self.reaching = {}
        for name, noted in self.noted.items():
            for line in noted["lines"].get(module, ()):
                self.reaching.setdefault(line, []).append(name)
        began = time.monotonic()
        for mutant in mutants:
            before = self.results.get(mutant.key, {}).get("status")
            done = self.config.option.again and before in (KILLED, TIMEOUT, TEXT)
            if self.config.option.only in mutant.key and not done:
                self.results[mutant.key] = self._try(mutant, items, functions)
            status = self.results.get(mutant.key, {}).get("status", "not run")
            counts[status] = counts.get(status, 0) + 1
            if status not in (KILLED, TEXT) and status != before:
                self.say(f"{status:9} {mutant.key}")
            if sum(counts.values()) % 20 == 0:
                write(RESULTS, self.results)
        write(RESULTS, self.results)
        self.say(f"{module}: {len(mutants)} {counts} in {time.monotonic() - began:.0f} s")

    def _try(self, mutant: Mutant, items: dict[str, pytest.Item], functions: Any) -> dict[str, Any]:
        result: dict[str, Any] = {
            **{name: getattr(mutant, name) for name in ("module", "function", "before", "after")},
            "line": mutant.lines[0],
        }
        if mutant.is_text:
            return {**result, "status": TEXT}
        names, enough = self._tests(mutant, items)
        if not names:
            return {**result, "status": UNTESTED}
        pause = self.config.option.pause_while
        while pause is not None and pause.exists():
            time.sleep(1)
        expected = sum(self.noted[name]["seconds"] for name in names)
        began = time.monotonic()
        while True:
            tests = [items[name] for name in names if name in items]
            status, by = self._fork(lambda: put_in_place(mutant, functions), tests, 4 * expected + 8)
            if status != KILLED or by not in items or self._passes_without(by, items):
                break
        if status == KILLED and by:
            recent = self.recent.setdefault(mutant.function, [])
            if by in recent:
                recent.remove(by)
            recent.insert(0, by)
        return {**result, "status": status, "by": by, "all": enough, "seconds": round(time.monotonic() - began, 2)}

    def _tests(self, mutant: Mutant, items: dict[str, pytest.Item]) -> tuple[list[str], bool]:
        """The tests that reach the mutant, those first that killed its neighbours; and whether it is all of them."""
        for first, last in (mutant.lines, mutant.body):
            reaching = {name for line in range(first, last + 1) for name in self.reaching.get(line, ())}
            found = [name for name in reaching if name in items]
            if found:
                break
        found.sort(key=lambda name: (self.noted[name]["seconds"], name))
        # Core's own tests and the conformance suite have a time each, so that neither crowds out the other.
        spent: dict[bool, float] = {}
        chosen: list[str] = []
        for name in found:
            own = name.startswith(OWN)
            spent[own] = spent.get(own, 0.0) + self.noted[name]["seconds"]
            if spent[own] <= self.config.option.seconds or len(chosen) == 0:
                chosen.append(name)
        recent = [name for name in self.recent.get(mutant.function, [])[:8] if name in found]
        return recent + [name for name in chosen if name not in recent], len(chosen) == len(found)

    def _fork(self, prepare: Callable[[], str | None], tests: list[pytest.Item], limit: float) -> tuple[str, str]:
        """Runs tests in a fork until one fails, and says what came of it and by which."""
        base = Path(os.environ["MUTATION_TMP"])
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reading)
            self._child(prepare, tests, limit, writing)
        os.close(writing)
        code = wait(child, limit)
        try:
            os.killpg(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        with os.fdopen(reading, "rb") as told:
            os.set_blocking(told.fileno(), False)
            by = (told.read() or b"").decode()
        if code == 0:
            return SURVIVED, ""
        if code == 77:
            return IMPOSSIBLE, by
        return (TIMEOUT if code is None or code == -signal.SIGXCPU else KILLED), by

    def _child(self, prepare: Callable[[], str | None], tests: list[pytest.Item], limit: float, writing: int) -> None:
        main = os.getpid()
        os.setsid()

        def failed(name: str) -> None:
            if os.getpid() == main:
                os.write(writing, name.encode())
                os._exit(1)

        try:
            os.chdir(os.environ["MUTATION_TMP"])  # so that what goes astray does so there
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 3))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            self.running = failed
            if problem := prepare():
                os.write(writing, problem.encode())
                os._exit(77)
            for place, item in enumerate(tests):
                following = tests[place + 1] if place + 1 < len(tests) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            os._exit(0)
        except BaseException as error:
            os.write(writing, repr(error).encode()[:200])
        finally:
            os._exit(2)


def wait(child: int, limit: float) -> int | None:
    """A process's exit code; None if it took longer than the limit, where time that we were stopped doesn't count."""
    left = limit
    while left > 0:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL)
        left -= POLL
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def calm(item: pytest.Item) -> None:
    """Has a property be tried with few examples, the same each time, and not shrink one that fails."""
    function: Any = getattr(item, "function", None)
    if not hasattr(function, "hypothesis"):
        return
    from hypothesis import HealthCheck, Phase, settings

    old: Any = function._hypothesis_internal_use_settings or settings.default
    function._hypothesis_internal_use_settings = settings(
        old,
        max_examples=min(old.max_examples, 30),
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
