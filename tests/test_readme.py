"""What the READMEs say is true: their code runs as printed, their tables match the code, and both say the same."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import dowdyboy_core
from dowdyboy_core import DowdyboyError, Trainer, TrainerConfig

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
ENGLISH = READMES[0]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+) -->\n)?(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^ *```$", re.M | re.S
)
both = pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        mark: what the comment above it says of it; empty if there is none.
        language: what stands behind the opening fence.
        code: its content.
    """

    mark: str
    language: str
    code: str


def read(readme: Path) -> str:
    return readme.read_text(encoding="utf-8")


def blocks(readme: Path, mark: str | None = None) -> list[Block]:
    found = [
        Block(match["mark"] or "", match["language"], re.sub(f"^{match['indent']}", "", match["code"], flags=re.M))
        for match in _BLOCK.finditer(read(readme))
    ]
    assert read(readme).count("```") == 2 * len(found), "a block was not understood"
    return [block for block in found if mark is None or block.mark == mark]


def prose(readme: Path) -> str:
    return _BLOCK.sub("", read(readme))


def rows(readme: Path, mark: str) -> Iterator[list[str]]:
    """Yields the cells of every table under a comment ``<!-- table: mark -->``."""
    for table in re.findall(rf"^<!-- table: {mark} -->\n((?:\|.*\n)+)", read(readme), re.M):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def script(readme: Path, framework: str) -> str:
    """The smallest script for a framework, put together as the README tells."""
    [torch] = blocks(readme, "script: torch")
    if framework == "torch":
        return torch.code
    [paddle] = blocks(readme, "script: paddle")
    count = len(paddle.code.splitlines())
    assert re.search(rf"\b{count} (lines|行)", prose(readme)), f"the README does not say that {count} lines differ"
    return paddle.code + "".join(torch.code.splitlines(keepends=True)[count:])


def run_python(path: Path) -> str:
    result = subprocess.run(
        [sys.executable, str(path)], cwd=path.parent, capture_output=True, encoding="utf-8", errors="replace"
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


# ---- the code


@both
def test_python_compiles(readme: Path) -> None:
    codes = [block.code for block in blocks(readme) if block.language == "python"]
    assert len(codes) > 10
    for code in codes:
        compile(code, readme.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize(
    "readme",
    # Which show the same code, as another test sees.
    [ENGLISH, *(pytest.param(readme, marks=pytest.mark.long) for readme in READMES[1:])],
    ids=lambda path: path.name,
)
@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_the_script_does_what_the_readme_says(readme: Path, framework: str, tmp_path: Path) -> None:
    code = script(readme, framework)
    assert len(code.splitlines()) <= 40
    (tmp_path / "digits.py").write_text(code, encoding="utf-8")

    said = run_python(tmp_path / "digits.py")

    assert "======= epoch 10/10 begin =======" in said
    points = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    accuracies = [point["values"]["val_acc"] for point in points if "val_acc" in point["values"]]
    assert len(accuracies) == 10
    assert accuracies[-1] == pytest.approx(0.92, abs=0.03), "the README says about 92%"
    losses = [point["values"]["train_loss"] for point in points if "train_loss" in point["values"]]
    assert len(losses) == 300
    assert sum(losses[-30:]) < 0.2 * sum(losses[:30])

    [listing] = blocks(readme, "files")
    written = {re.split(r"  +", line)[0] for line in listing.code.splitlines()}
    written |= {f"out/checkpoint/epoch_{number}" for number in range(1, 11)}
    written -= {"out/checkpoint/epoch_1 ... epoch_10"}
    best = 1 + accuracies.index(max(accuracies))
    if best != 10:  # another machine may round otherwise
        written = {path.replace("best_epoch_10", f"best_epoch_{best}") for path in written}
    assert {path.rstrip("/") for path in written} >= {
        path.relative_to(tmp_path).as_posix()
        for pattern in ("out/*.*", "out/log", "out/checkpoint/*")
        for path in tmp_path.glob(pattern)
    }
    assert all((tmp_path / path).exists() for path in written)
    assert any((tmp_path / "out/log").iterdir())


@pytest.mark.slow
def test_blocks_that_follow_the_script_run(tmp_path: Path) -> None:
    (tmp_path / "digits.py").write_text(script(ENGLISH, "torch"), encoding="utf-8")
    followers = [block.code for block in blocks(ENGLISH, "runs after the script")]
    assert followers
    driver = ["import runpy", "names = runpy.run_path('digits.py')"]
    driver += [f"exec(compile({code!r}, 'README.md', 'exec'), dict(names))" for code in followers]
    (tmp_path / "driver.py").write_text("\n".join(driver), encoding="utf-8")

    said = run_python(tmp_path / "driver.py")

    assert "0.weight (64, 64) float32" in said
    assert "took the weights of 'out/checkpoint/best_epoch_" in said
    assert "resumed from 'out/checkpoint/" in said
    assert "======= epoch 11/12 begin =======" in said


@pytest.mark.slow
def test_blocks_that_run_on_their_own_run(tmp_path: Path) -> None:
    codes = [block.code for block in blocks(ENGLISH, "runs")]
    assert codes
    driver = "\n".join(f"exec(compile({code!r}, 'README.md', 'exec'), {{}})" for code in codes)
    (tmp_path / "driver.py").write_text(driver, encoding="utf-8")

    run_python(tmp_path / "driver.py")

    assert "[WARNING] the learning rate is high" in (tmp_path / "logs/notes.log").read_text(encoding="utf-8")


def block_that_defines(*names: str) -> str:
    """The code of the one block whose functions have these names."""
    found = []
    for block in blocks(ENGLISH, "runs"):
        defined = {node.name for node in ast.parse(block.code).body if isinstance(node, ast.FunctionDef)}
        if defined == set(names):
            found.append(block.code)
    [code] = found
    return code


@pytest.mark.slow
def test_the_sums_give_the_mean_over_samples(tmp_path: Path) -> None:
    driver = """
import torch
from dowdyboy_torch import Trainer, TrainerConfig

trainer = Trainer(TrainerConfig(out_dir="out"))
model = torch.nn.Linear(2, 3)
x, y = torch.randn(5, 2), torch.randint(0, 3, (5,))
trainer.set_model(model)
trainer.set_test_dataloader([(x[:4], y[:4]), (x[4:], y[4:])])
found = []
trainer.test(val_step, lambda trainer: found.append(accuracy(trainer)))
assert found == [float((model(x).argmax(1) == y).sum()) / 5]
"""
    path = tmp_path / "driver.py"
    path.write_text(block_that_defines("val_step", "accuracy") + driver, encoding="utf-8")
    run_python(path)


@pytest.mark.slow
def test_the_two_models_both_learn(tmp_path: Path) -> None:
    driver = """
import torch
from dowdyboy_torch import Trainer, TrainerConfig

trainer = Trainer(TrainerConfig(epoch=3, out_dir="out", auto_optimize=False, auto_schedule=False))
models = [torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)]
before = [model.weight.detach().clone() for model in models]
optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
scheduler = torch.optim.lr_scheduler.StepLR(optimizers[0], step_size=1, gamma=0.5)
trainer.set_models(models)
trainer.set_optimizers(optimizers, [scheduler])
trainer.set_train_dataloader([(torch.ones(4, 2), torch.ones(4, 1))])
trainer.fit(train_step)
assert all(not torch.equal(old, model.weight) for old, model in zip(before, models))
assert scheduler.get_last_lr() == [0.1 * 0.5**3]
"""
    path = tmp_path / "driver.py"
    path.write_text(block_that_defines("train_step") + driver, encoding="utf-8")
    run_python(path)


# ---- the tables


@both
def test_the_table_of_the_configuration_is_complete(readme: Path) -> None:
    said = {cells[0].strip("`"): ast.literal_eval(cells[1].strip("`")) for cells in rows(readme, "config")}
    real = {field.name: field.default for field in dataclasses.fields(TrainerConfig)}
    assert list(said) == list(real)
    assert {name: (type(value), value) for name, value in said.items()} == {
        name: (type(value), value) for name, value in real.items()
    }


@both
def test_what_the_table_says_is_accepted_is(readme: Path) -> None:
    for name, _, _, accepted in rows(readme, "config"):
        for text in re.findall(r"`([^`]+)`", accepted):
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError):  # the name of a type, or of another field
                continue
            TrainerConfig(**{name.strip("`"): value})


@both
def test_the_tables_of_the_trainer_are_complete(readme: Path) -> None:
    said = [cells[0].strip("`") for cells in rows(readme, "trainer")]
    real = ["config"]
    for name in dir(Trainer):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(Trainer, name)
        if isinstance(member, property):
            real.append(name)
            continue
        _, *parameters = inspect.signature(member).parameters.values()
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
        real.append(f"{name}{inspect.Signature(bare)}")
    assert sorted(said) == sorted(real)


def test_the_backends_have_no_other_members() -> None:
    for framework in ("torch", "paddle"):
        native = import_module(f"dowdyboy_{framework}").Trainer
        assert {name for name in dir(native) if name[0] != "_"} == {name for name in dir(Trainer) if name[0] != "_"}


# What `hatch run conformance` writes, which `hatch run test` runs before the tests.
REPORT = ROOT / "output" / "conformance.json"


@both
def test_the_table_of_clauses_is_what_the_suite_has_shown(readme: Path) -> None:
    if not REPORT.exists():
        pytest.skip("the conformance suite has not been run")
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    if not report["complete"]:
        pytest.skip("the conformance suite was run in part")
    signs = {"passed": "✓", "failed": "✗", "not applicable": "n/a"}
    for name, count, *cells in rows(readme, "conformance"):
        clauses = [results for clause, results in report["clauses"].items() if clause.startswith(f"{name[0]}-")]
        assert len(clauses) == int(count), name
        columns = [
            [results[backend][processes]["status"] for results in clauses]
            for backend in report["backends"]
            for processes in "123"
        ]
        assert cells == [
            " ".join(f"{column.count(status)} {sign}" for status, sign in signs.items() if status in column) or "–"
            for column in columns
        ], name


@both
def test_the_table_of_the_errors_is_true(readme: Path) -> None:
    said = {cells[0].strip("`"): cells[1].strip("`") for cells in rows(readme, "errors")}
    real = {error.__name__: error.__bases__[1].__name__ for error in DowdyboyError.__subclasses__()}
    assert said == real
    assert said.keys() < set(dowdyboy_core.__all__)


@both
def test_every_utility_is_named(readme: Path) -> None:
    for module in ("args", "assist", "dataset_util", "log", "model_util", "rand"):
        names = import_module(f"dowdyboy_torch.{module}").__all__
        assert names == import_module(f"dowdyboy_paddle.{module}").__all__
        section = re.search(rf"^### {module}$(.*?)^##", read(readme), re.M | re.S)
        assert section is not None, f"there is no section on {module}"
        assert not {name for name in names if not re.search(rf"\b{name}\b", section[1])}


# ---- both languages, and the links


def comparable(block: Block) -> Any:
    """What has to be the same in both languages: all but comments."""
    if block.language == "python":
        return ast.dump(ast.parse(block.code))
    lines = block.code.splitlines()
    if block.mark == "files":
        return [re.split(r"  +", line)[0] for line in lines]
    return [re.split(r" +# ", line)[0] for line in lines]


def test_both_languages_show_the_same_code() -> None:
    english, chinese = (
        [(block.mark, block.language, comparable(block)) for block in blocks(readme)] for readme in READMES
    )
    assert english == chinese


def test_both_languages_have_the_same_tables() -> None:
    def shapes(readme: Path) -> list[list[int]]:
        tables = re.findall(r"((?:^\|.*\n)+)", prose(readme), re.M)
        return [[line.count("|") for line in table.splitlines()] for table in tables]

    assert shapes(READMES[0]) == shapes(READMES[1])


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@both
def test_links_lead_somewhere(readme: Path) -> None:
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(readme), re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", prose(readme)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        if path:
            assert (readme.parent / path).exists(), f"{target} is not there"
        else:
            assert anchor in anchors, f"#{anchor} is no heading"


@both
def test_files_that_are_named_exist(readme: Path) -> None:
    for path in re.findall(r"`((?:examples|docs|packages|benchmarks|conformance|tests)/[\w./-]+)`", prose(readme)):
        assert (ROOT / path).exists(), f"{path} is not there"
