"""docs/exchange.md has the words that both backends use, and its code runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
paddle = pytest.importorskip("paddle")

from dowdyboy_conformance._inside import inside  # noqa: E402
from dowdyboy_paddle import _exchange as of_paddle  # noqa: E402
from dowdyboy_torch import _exchange as of_torch  # noqa: E402

PAGE = (Path(__file__).parents[1] / "docs/exchange.md").read_text(encoding="utf-8")
KNOWN = inside("backend.known_layouts")


def rows(mark: str) -> Iterator[list[set[str]]]:
    """The words in the cells of the table under a comment ``<!-- table: mark -->``."""
    [table] = re.findall(rf"^<!-- table: {mark} -->\n((?:\|.*\n)+)", PAGE, re.M)
    for line in table.splitlines()[2:]:
        yield [set(re.findall(r"`([^`]+)`", cell)) for cell in line.split("|")[1:-1]]


def test_every_class_of_layers_that_has_a_rule_is_in_the_table_and_no_other() -> None:
    for column, backend in ((2, of_torch), (3, of_paddle)):
        there: dict[str, set[str]] = {}
        for cls, (kind, _) in backend.RULES._rules.items():
            there.setdefault(kind, set()).add(cls.__name__)
        told: dict[str, set[str]] = {}
        for row in rows("kinds"):
            for kind in row[0] - {"parameter", "buffer"}:
                told.setdefault(kind, set()).update(row[column])
        # A row may have several kinds, whose classes stand in one cell.
        assert set().union(*there.values()) == set().union(*told.values())
        for kind, classes in there.items():
            assert classes <= told[kind], kind


def test_every_role_that_a_layout_has_is_in_the_table() -> None:
    told = {kind: row[1] for row in rows("kinds") for kind in row[0]}
    for framework, layouts in KNOWN.LAYOUTS.items():
        for kind, layout in layouts.items():
            roles = {role for own in layout for role in ((own.roles,) if isinstance(own.roles, str) else own.roles)}
            plain = {role.replace("_l{n}", "_ln").removesuffix("_reverse") for role in roles}
            if framework == "paddle" and kind == "rms_norm":  # it has no such layer
                continue
            assert plain <= told[kind] | {"weight", "bias"}, kind


def test_every_optimizer_and_scheduler_that_has_a_rule_is_in_the_tables() -> None:
    for column, backend in ((2, of_torch), (3, of_paddle)):
        made = backend._SCHEDULES
        told = {name: kind for row in rows("schedules") for kind in row[0] for name in row[column - 1]}
        assert told == {name: "warmup" if kind == "sequential" else kind for name, kind in made.items()}
        optimizers = {name for row in rows("optimizers") for name in row[column]}
        module: Any = torch.optim if column == 2 else paddle.optimizer
        assert all(hasattr(module, name) for name in optimizers)
    kinds = {kind for row in rows("optimizers") for kind in row[0]}
    parameter = torch.nn.Parameter(torch.zeros(2))
    known = {}
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop"):
        known[name] = of_torch.TorchVocabulary().optimizer(getattr(torch.optim, name)([parameter], lr=0.1)).kind
    assert set(known.values()) | {"momentum"} == kinds


@pytest.mark.parametrize("framework", ["torch", "paddle"])
def test_code_runs(framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(rf"^<!-- runs: {framework} -->\n```python\n(.*?)^```$", PAGE, re.M | re.S)
    monkeypatch.chdir(tmp_path)
    model = None
    if framework == "paddle":
        from safetensors.torch import save_file

        other = torch.nn.Linear(3, 2)
        save_file({f"fc.{name}": tensor.detach().clone() for name, tensor in other.state_dict().items()},
                  "resnet18.safetensors")  # fmt: skip
        model = paddle.nn.Sequential()
        model.add_sublayer("head", paddle.nn.Linear(3, 2))
    exec(compile(code, "exchange.md", "exec"), {"model": model})
    if model is not None:
        assert (model.head.weight.numpy().T == other.weight.detach().numpy()).all()
