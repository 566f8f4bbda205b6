"""What holds for the repository as a whole: one version, two mirrored backends, small files, no pickle."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECTS = [
    ROOT / "packages/dowdyboy-core",
    ROOT / "packages/dowdyboy-torch",
    ROOT / "packages/dowdyboy-paddle",
    ROOT / "conformance",
]
CORE, TORCH, PADDLE, CONFORMANCE = (
    project / "src" / name
    for project, name in zip(
        PROJECTS,
        ["dowdyboy_core", "dowdyboy_torch", "dowdyboy_paddle", "dowdyboy_conformance"],
        strict=True,
    )
)
SOURCES = [CORE, TORCH, PADDLE, CONFORMANCE]

MODULE_LINES = 350
LONGER = {  # docs/adr/0006
    "packages/dowdyboy-core/src/dowdyboy_core/trainer.py": 650,
    "packages/dowdyboy-core/src/dowdyboy_core/backend/seam.py": 400,
}
FUNCTION_LINES = 60  # without the docstring
TOOLS = {"mypy", "pytest", "python", "ruff", "tensorboard", "torchrun", "visualdl"}
CAN_RUN_CODE = {"_pickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


def read_toml(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return table


def metadata(project: Path) -> dict[str, Any]:
    table: dict[str, Any] = read_toml(project / "pyproject.toml")["project"]
    return table


def modules(*packages: Path) -> list[Path]:
    found = [path for package in packages for path in sorted(package.rglob("*.py"))]
    assert found, f"no Python file in {packages}"
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the line and the top-level package of every import, import_module and __import__ in a file."""
    for node in ast.walk(parse(path)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name.partition(".")[0]) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield node.lineno, module.partition(".")[0]
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield node.lineno, module.partition(".")[0]


def imports_of(forbidden: set[str], *packages: Path) -> list[str]:
    return [
        f"{relative(path)}:{line} imports {name}"
        for path in modules(*packages)
        for line, name in imports(path)
        if name in forbidden
    ]


def headings(path: Path) -> list[str]:
    """Returns the headings of a Markdown file, those in code blocks left out."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ .*$", text, flags=re.MULTILINE)


def test_versions_agree() -> None:
    version = metadata(PROJECTS[0])["version"]
    assert {metadata(project)["name"]: metadata(project)["version"] for project in PROJECTS} == {
        "dowdyboy-core": version,
        "dowdyboy-torch": version,
        "dowdyboy-paddle": version,
        "dowdyboy-conformance": version,
    }

    literals = {
        relative(path): literal
        for path in modules(*SOURCES)
        for literal in re.findall(
            r"^__version__(?:: .+)? = ['\"](.+)['\"]$", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert literals, "no module assigns __version__"
    assert set(literals.values()) == {version}, f"pyproject.toml says {version}, the modules {literals}"

    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("project", PROJECTS[1:], ids=lambda project: project.name)
def test_siblings_are_pinned_exactly(project: Path) -> None:
    siblings = [spec for spec in metadata(project)["dependencies"] if spec.startswith("dowdyboy")]
    assert siblings == [f"dowdyboy-core=={metadata(project)['version']}"]


@pytest.mark.parametrize("project", PROJECTS[1:], ids=lambda project: project.name)
def test_every_python_that_is_named_is_tested(project: Path) -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {each.rpartition(" ")[2] for each in metadata(project)["classifiers"] if each.startswith(prefix)}
    [matrix] = read_toml(ROOT / "hatch.toml")["envs"]["py"]["matrix"]
    assert named == set(matrix["python"])
    assert metadata(project)["requires-python"] == f">={matrix['python'][0]}"


@pytest.mark.parametrize("project", PROJECTS[1:], ids=lambda project: project.name)
def test_projects_share_their_metadata(project: Path) -> None:
    core, other = metadata(PROJECTS[0]), metadata(project)
    for key in ("authors", "license", "license-files", "readme", "requires-python", "urls"):
        assert other[key] == core[key], f"{key} of {other['name']} differs from that of {core['name']}"
    assert set(other["classifiers"]) >= set(core["classifiers"])


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_each_project_carries_the_license(project: Path) -> None:
    assert (project / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert not (project / "LICENSE").is_symlink(), "an sdist would carry the link, not the licence"


def test_backends_have_the_same_files() -> None:
    torch, paddle = ({path.relative_to(package).as_posix() for path in modules(package)} for package in (TORCH, PADDLE))
    assert torch == paddle


@pytest.mark.parametrize(("package", "distribution"), [(TORCH, "torch"), (PADDLE, "paddlepaddle")])
def test_the_oldest_framework_is_the_same_all_over(package: Path, distribution: str) -> None:
    text = (package / "_framework.py").read_text(encoding="utf-8")
    [least] = re.findall(r"^LEAST = \((\d+), (\d+)\)$", text, re.MULTILINE)
    wanted = f"{distribution}>={'.'.join(least)}"
    assert [each for each in metadata(package.parents[1])["dependencies"] if each.startswith(distribution)] == [wanted]
    oldest = read_toml(ROOT / "hatch.toml")["envs"]["oldest"]["dependencies"]
    assert f"{wanted.replace('>=', '==')}.0" in oldest
    named = {re.split("[=~]=", each)[0] for each in oldest}
    ranges = {each.partition(">=")[0] for each in metadata(package.parents[1])["dependencies"] if ">=" in each}
    assert ranges <= named, "hatch.toml's oldest environment leaves out a range"


def test_core_imports_no_framework() -> None:
    assert not imports_of({"paddle", "tensorboard", "thop", "torch", "visualdl"}, CORE)


def test_each_backend_imports_its_own_framework_only() -> None:
    assert not imports_of({"paddle", "visualdl", "dowdyboy_paddle"}, TORCH)
    assert not imports_of({"torch", "tensorboard", "thop", "dowdyboy_torch"}, PADDLE)


def test_nothing_imports_a_loader_that_can_run_code() -> None:
    found = imports_of(CAN_RUN_CODE, *SOURCES)
    # Between the processes of one job, as PyTorch's all_gather_object and Paddle's do; never from a file.
    [exchange] = [place for place in found if place.startswith(relative(TORCH / "_distributed.py"))]
    assert exchange.endswith("imports pickle")
    assert found == [exchange]


def test_core_bans_what_the_root_bans() -> None:
    root = read_toml(ROOT / "pyproject.toml")["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    core = read_toml(PROJECTS[0] / "ruff.toml")["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {"torch", "paddle"} <= core.keys()
    # A ban of all of torch covers torch.load.
    assert {name for name in root if name.partition(".")[0] not in {"torch", "paddle"}} <= core.keys()


def test_modules_are_short() -> None:
    lines = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*SOURCES)}
    assert not {path: count for path, count in lines.items() if count > LONGER.get(path, MODULE_LINES)}


def test_functions_are_short() -> None:
    long = []
    for path in modules(*SOURCES):
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                docstring = node.body[0]
                assert docstring.end_lineno is not None
                lines -= docstring.end_lineno - docstring.lineno + 1
            if lines > FUNCTION_LINES:
                long.append(f"{relative(path)}:{node.lineno} {node.name} has {lines} lines")
    assert not long


def test_readme_says_the_same_in_english_and_chinese() -> None:
    readmes = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
    for readme in readmes:
        assert readme.is_file(), f"{readme.name} is missing"
    english, chinese = map(headings, readmes)
    levels = [[len(line.split()[0]) for line in lines] for lines in (english, chinese)]
    assert levels[0] == levels[1], f"the headings differ:\n{english}\n{chinese}"


@pytest.mark.parametrize(
    "name", ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "benchmarks/README.md", "docs/performance.md"]
)
def test_documented_commands_exist(name: str) -> None:
    assert (ROOT / name).is_file(), f"{name} is missing"
    text = (ROOT / name).read_text(encoding="utf-8")
    environments = read_toml(ROOT / "hatch.toml")["envs"]
    scripts = {f"{env}:{script}" for env, table in environments.items() for script in table.get("scripts", ())}
    commands = set(re.findall(r"hatch run ([\w:-]+)", text))
    assert commands, f"{name} names no `hatch run` command"
    assert commands <= scripts | {script.removeprefix("default:") for script in scripts} | TOOLS


def test_ci_runs_the_readmes_test_command() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^exec .*hatch\S* run test\b", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert (ROOT / "README.md").is_file(), "README.md is missing"
    assert "hatch run test" in (ROOT / "README.md").read_text(encoding="utf-8")
