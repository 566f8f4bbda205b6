"""docs/checkpoints.md is true and enough: a reader written from it reads what both backends write, value by value."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dowdyboy_conformance._inside import inside

if TYPE_CHECKING:
    from tests.checkpoint_runs import Run

pytest.importorskip("torch")
pytest.importorskip("paddle")
jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[1]
FORMAT, FORMAT_VERSION = inside("_disk.files").FORMAT, inside("_disk.files").FORMAT_VERSION
PAGE = (ROOT / "docs/checkpoints.md").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs/checkpoint.schema.json").read_text(encoding="utf-8"))


def beside(name: str) -> Any:
    """A module beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reader, making = beside("checkpoint_reader"), beside("checkpoint_runs")
read = reader.read
both = pytest.mark.parametrize("name", ["torch", "paddle"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of each backend that has come into its second epoch."""
    return {name: making.run_into_an_epoch(name, tmp_path_factory.mktemp(name)) for name in ("torch", "paddle")}


@pytest.fixture
def run(runs: dict[str, Run], name: str) -> Run:
    return runs[name]


def rows(mark: str) -> Iterator[list[str]]:
    """Yields the cells of the table under a comment ``<!-- table: mark -->``."""
    [table] = re.findall(rf"^<!-- table: {mark} -->\n((?:\|.*\n)+)", PAGE, re.M)
    for line in table.splitlines()[2:]:
        yield [cell.strip() for cell in line.split("|")[1:-1]]


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def listed(mark: str) -> list[str]:
    """The keys that begin the items of the list under a comment ``<!-- keys: mark -->``."""
    [items] = re.findall(rf"^<!-- keys: {mark} -->\n((?:[- ] .*\n)+)", PAGE, re.M)
    return re.findall(r"^- `([^`]+)`", items, re.M)


def examples() -> list[Any]:
    return [json.loads(code) for code in re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)]


def assert_same(found: Any, lives: Any, where: str = "") -> None:
    """Compares what was read with what lives, whose tuples are lists once they are read."""
    if isinstance(lives, dict):
        assert isinstance(found, dict) and found.keys() == lives.keys(), where
        for key in lives:
            assert_same(found[key], lives[key], f"{where}/{key}")
    elif isinstance(lives, (list, tuple)):
        assert isinstance(found, list) and len(found) == len(lives), where
        for place, item in enumerate(lives):
            assert_same(found[place], item, f"{where}/{place}")
    elif isinstance(lives, np.ndarray):
        assert isinstance(found, np.ndarray), where
        assert (found.dtype, found.shape) == (lives.dtype, lives.shape), where
        np.testing.assert_array_equal(found, lives, err_msg=where)
    else:
        assert (type(found), found) == (type(lives), lives), where


# ---- the reader reads everything


def test_the_reader_knows_nothing_of_the_library() -> None:
    tree = ast.parse(Path(reader.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {
        "__future__",
        "base64",
        "dataclasses",
        "hashlib",
        "json",
        "numpy",
        "pathlib",
        "struct",
        "typing",
    }


@both
def test_weights_are_read(run: Run, name: str) -> None:
    found = read(run.folder).weights
    modules = {f"model_{number}": module for number, module in enumerate(run.models())}
    modules |= {f"ema_{number}": module for number, module in enumerate(run.trainer.get_ema_models())}
    modules["component_1"] = run.trainer.get_components()[1]
    assert found.keys() == modules.keys()
    for stem, module in modules.items():
        lives = {key: run.numpy(tensor) for key, tensor in module.state_dict().items()}
        assert len(lives) >= 6
        assert_same(found[stem], lives, stem)


def named(run: Run) -> dict[str, Any]:
    """All parameters by the names that the page gives them."""
    return {
        f"{number}/{path}": parameter
        for number, model in enumerate(run.models())
        for path, parameter in model.named_parameters()
    }


def test_optimizers_of_torch_are_read(runs: dict[str, Run]) -> None:
    run, trees = runs["torch"], read(runs["torch"].folder).trees
    paths = {id(parameter): path for path, parameter in named(run).items()}
    for number, optimizer in enumerate(run.parts()[0]):
        found = trees[f"optimizer_{number}"]
        slots = {paths[id(item)]: slots for item, slots in optimizer.state.items()}
        assert_same(found["state"], {path: plain(run, item) for path, item in slots.items()})
        groups = [
            {**group, "params": [paths[id(item)] for item in group["params"]]} for group in optimizer.param_groups
        ]
        assert_same(found["param_groups"], groups)
    assert trees["optimizer_0"]["state"]["0/0.weight"]["exp_avg"].any()


def plain(run: Run, tree: Any) -> Any:
    """A tree of a framework's with arrays for its tensors."""
    if isinstance(tree, dict):
        return {key: plain(run, item) for key, item in tree.items()}
    return run.numpy(tree) if isinstance(tree, (run.framework.Tensor,)) else tree


def test_optimizers_of_paddle_are_read(runs: dict[str, Run]) -> None:
    run, trees = runs["paddle"], read(runs["paddle"].folder).trees
    parameters = named(run)
    own = {parameter.name: path for path, parameter in parameters.items()}
    for number, (optimizer, scheduler) in enumerate(zip(*run.parts(), strict=True)):
        lives: dict[str, dict[str, Any]] = {}
        for slot, tensors in optimizer._accumulators.items():
            for own_name, tensor in tensors.items():
                lives.setdefault(own[own_name], {})[slot] = run.numpy(tensor)
        found = trees[f"optimizer_{number}"]
        assert_same(found["state"], lives)
        assert found["master_weights"] == {}
        assert found["param_groups"] == [{"params": [own[item.name] for item in optimizer._parameter_list]}]
        assert_same(found["LR_Scheduler"], None if scheduler is None else scheduler.state_dict())
        assert found["learning_rate"] == (optimizer.get_lr() if scheduler is None else None)
    assert trees["optimizer_0"]["state"]["0/0.weight"]["moment1"].any()


def test_master_weights_of_paddle_are_read(tmp_path: Path) -> None:
    import paddle

    from dowdyboy_paddle.model_util import save_checkpoint

    model = paddle.nn.Linear(2, 2)
    model.to(dtype="bfloat16")
    optimizer = paddle.optimizer.AdamW(0.1, parameters=model.parameters(), multi_precision=True)
    block = paddle.base.framework.default_main_program().global_block()
    optimizer._create_accumulators(block, model.parameters())  # as a step does, which no CPU has for bfloat16
    found = read(Path(save_checkpoint(3, tmp_path, [model], [optimizer]))).trees["optimizer_0"]
    copies = optimizer._master_weights
    assert len(copies) == 2
    assert_same(
        found["master_weights"], {f"0/{path}": copies[item.name].numpy() for path, item in model.named_parameters()}
    )
    assert found["state"].keys() == found["master_weights"].keys()


@both
def test_schedulers_are_read(run: Run, name: str) -> None:
    trees = read(run.folder).trees
    for number, scheduler in enumerate(run.parts()[1]):
        lives = None if scheduler is None else {**plain(run, scheduler.state_dict())}
        if lives is not None and "milestones" in lives:
            lives["milestones"] = dict(lives["milestones"])
        assert_same(trees[f"lr_scheduler_{number}"], lives)
    infinite = [value for value in trees["lr_scheduler_2"].values() if value == float("inf")]
    assert name == "paddle" or infinite


@both
def test_loss_scale_streams_and_records_are_read(run: Run, name: str) -> None:
    trees = read(run.folder).trees
    assert trees["scaler"] == run.trainer._stepper.scaler.state()
    assert (trees["scaler"]["scale"] > 1) is (name == "torch")
    assert_same(trees["rng"], [run.seen["rng"]])
    lives = {key: run.numpy(tensor) for key, tensor in run.trainer.get_records().items()}
    assert list(trees["records"]) == ["loss", "batch", "row", "wide", "even"]
    for key, found in trees["records"].items():
        assert_same(found["values"], lives[key], key)
        assert found["positions"] == []
        assert found["dtype"] == lives[key].dtype.name
        assert tuple(found["shape"]) == lives[key].shape[1:]


@both
def test_states_of_the_users_own_are_read(run: Run, name: str) -> None:
    trees = read(run.folder).trees
    assert_same(trees["component_2"], [run.trainer.get_components()[2].state])
    statistics = [f"{place}/1.{kind}" for place in (0, 1) for kind in ("_mean", "_variance")]
    assert trees["frozen"] == (statistics if name == "paddle" else [])  # which are parameters there
    beside = {stem for stem in trees if stem.endswith("_beside")}
    assert beside == ({"model_1_beside", "component_3_beside"} if name == "torch" else set())
    for path, stem in (("1.metric", "model_1_beside"), ("", "component_3_beside")) if beside else ():
        assert_same(trees[stem], [{path: {"total": np.ones(2, np.float32)}}])


@both
def test_what_is_averaged_is_read(run: Run, name: str) -> None:
    found = read(run.folder)
    ema = found.trees["ema"]
    assert ema["decay"] == 0.5
    assert 1 < ema["updates"] <= run.seen["global_step"], "with fp16 some steps may be skipped"
    assert set(ema["parameters"]) == {path for path, item in named(run).items() if not item_is_frozen(item)}
    assert all(f"{path.partition('/')[2]}" in found.weights[f"ema_{path[0]}"] for path in ema["parameters"])
    assert not np.array_equal(found.weights["ema_0"]["0.weight"], found.weights["model_0"]["0.weight"])


def item_is_frozen(item: Any) -> bool:
    return bool(item.stop_gradient) if hasattr(item, "stop_gradient") else not item.requires_grad


@both
def test_positions_are_read(run: Run, name: str) -> None:
    index = read(run.folder).index
    trainer = run.trainer
    assert (index["epoch"], index["batch"], index["val_batch"]) == (trainer.epoch - 1, run.seen["bat_idx"], None)
    assert (index["train_step"], index["val_step"]) == (run.seen["global_step"], 3)
    assert run.seen["global_step"] == making.BATCHES + 1
    assert (index["best"], index["best_epoch"], index["best_type"]) == (run.seen["best"], 1, "min")
    assert (index["name"], index["seed"], index["run"], index["world_size"]) == ("page", 7, 1, 1)
    assert (index["backend"], index["backend_version"]) == (name, run.framework.__version__)
    assert (index["best_rec"], index["accumulate_steps"]) == ("loss", 1)
    assert (index["batches"], index["batch_size"]) == (making.BATCHES, None)
    assert (index["val_batches"], index["val_batch_size"]) == (None, None)
    assert index["python"] == sys.version.split()[0]
    assert index["precision"] == trainer.precision
    assert index["metrics_bytes"] == (run.folder.parents[1] / "metrics.jsonl").stat().st_size > 0


@both
def test_a_place_in_validation_is_read(name: str, tmp_path: Path) -> None:
    run = making.run_into_validation(name, tmp_path)
    found = read(run.folder)
    assert (found.index["epoch"], found.index["batch"], found.index["val_batch"]) == (0, making.BATCHES, 2)
    assert (found.index["train_step"], found.index["val_step"]) == (making.BATCHES, 2)
    assert (found.index["best"], found.index["best_epoch"]) == (None, None)
    assert (found.index["val_batches"], found.index["val_batch_size"]) == (3, None)
    assert found.trees["records"]["seen"]["values"].tolist() == [0, 1]
    check_against_schema(run.folder)


@both
@pytest.mark.distributed
@pytest.mark.slow
def test_what_each_process_has_is_read(name: str, tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from checkpoint_runs import train_in_two
from dowdyboy_{name} import spawn
if __name__ == "__main__":
    spawn(train_in_two, 2, ({name!r}, {str(tmp_path)!r}))
"""
    (tmp_path / "job.py").write_text(code, encoding="utf-8")
    job = subprocess.run([sys.executable, str(tmp_path / "job.py")], capture_output=True, text=True, timeout=100)
    assert job.returncode == 0, job.stdout + job.stderr
    found = read(tmp_path / "checkpoint/last_epoch_1")
    assert (found.index["world_size"], found.index["batch"], found.index["train_step"]) == (2, 1, 1)
    lives = [json.loads((tmp_path / f"rank_{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert len(found.trees["rng"]) == 2
    for stream, own in zip(found.trees["rng"], lives, strict=True):
        assert_same({key: stream[key] for key in ("python", "numpy")}, {key: own[key] for key in ("python", "numpy")})
    assert found.trees["rng"][0]["python"] != found.trees["rng"][1]["python"]
    # The first batch of both, as the page counts them.
    record = found.trees["records"]["rank"]
    assert (record["values"].tolist(), record["positions"]) == ([0, 1], [0, 1])
    check_against_schema(tmp_path / "checkpoint/last_epoch_1")


@both
def test_the_reader_notices_damage(run: Run, name: str, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    contents = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    for file, content in contents.items():
        (copied / file).write_bytes(content)
    read(copied)
    generator = np.random.default_rng(1)
    for file, content in contents.items():
        for place in generator.integers(0, len(content), 8 if file != "checkpoint.json" else 100):
            damaged = bytearray(content)
            damaged[place] ^= 1
            (copied / file).write_bytes(damaged)
            with pytest.raises(reader.NotACheckpoint):
                read(copied)
        (copied / file).write_bytes(content)


def test_every_tag_of_the_page_is_read() -> None:
    arrays = {"state/0/0.weight/exp_avg": np.ones(2), "sums": np.ones(3), "mean": np.ones(())}
    arrays |= {"wave": np.array([[1.0, 2.0]])} | {f"s/{part}": np.float64(1) for part in ("indices", "values")}
    arrays |= {f"c/{part}": np.float64(2) for part in ("crow", "col", "values")}
    given = [json.loads(words(row[0])[0]) for row in rows("tags")]
    found = [reader.untag(value, arrays) for value in given]
    assert found[0] is arrays["state/0/0.weight/exp_avg"]
    assert found[1:] == [[1, 2], pytest.approx(float("nan"), nan_ok=True), {30: 1, "a": 2}, {30: 1, 80: 2}, *found[5:]]
    assert (found[5:7], found[9:12]) == ([[1, 2], [1, 2]], [1, b"\0\xff", 1 + 2j])
    assert found[12].tolist() == [1 + 2j]
    assert found[13] == ["coo", [3, 3], arrays["s/indices"], arrays["s/values"]]
    assert found[14:] == [["csr", [3, 3], *(arrays[f"c/{part}"] for part in ("crow", "col", "values"))], {"scale": 1.5}]
    assert (found[7] is arrays["sums"]) and (found[8] is arrays["mean"])
    nested = {"$dict": [[{"$tuple": [1, "x"]}, {"$float": "-inf"}], ["$a", {"$dict": []}]]}
    assert reader.untag(nested, {}) == {(1, "x"): float("-inf"), "$a": {}}


# ---- the page names everything, and nothing that isn't there


TYPES = {
    "string": lambda value: type(value) is str,
    "integer": lambda value: type(value) is int,
    "integer from 1": lambda value: type(value) is int and value >= 1,
    "count": lambda value: type(value) is int and value >= 0,
    "count or null": lambda value: value is None or (type(value) is int and value >= 0),
    "string or null": lambda value: value is None or type(value) is str,
    "integer from 1, or null": lambda value: value is None or (type(value) is int and value >= 1),
    "array or null": lambda value: value is None or type(value) is list,
    "number or null": lambda value: value is None or type(value) is float,
    "list": lambda value: type(value) is list,
    "boolean": lambda value: type(value) is bool,
    "object": lambda value: type(value) is dict,
}


def indices(runs: dict[str, Run]) -> Iterator[dict[str, Any]]:
    """Every index of both runs."""
    for run in runs.values():
        folders = sorted(run.folder.parent.iterdir())
        assert {folder.name for folder in folders} == {"epoch_1", "last_epoch_2", "best_epoch_1"}
        for folder in folders:
            yield read(folder).index


def test_the_table_of_the_index_is_complete_and_true(runs: dict[str, Run]) -> None:
    said = {words(row[0])[0]: row[1] for row in rows("index")}
    for index in indices(runs):
        assert index.keys() == said.keys()
        for field, kind in said.items():
            assert TYPES[kind](index[field]), f"{field} is {index[field]!r} and no {kind}"
        for entry in index["files"].values():
            assert entry.keys() == {"bytes", "sha256"}
    assert all(set(example) == said.keys() for example in examples() if "format" in example)
    assert f'always `"{FORMAT}"`' in PAGE and f"| `format_version` | integer | `{FORMAT_VERSION}`;" in PAGE
    assert f"the one that it writes, which is {FORMAT_VERSION}," in PAGE


def test_the_index_of_hand_written_loops_is_as_the_page_says(tmp_path: Path) -> None:
    import torch

    from dowdyboy_torch.model_util import save_checkpoint

    said = {words(row[0])[0]: row[1] for row in rows("index of hand-written loops")}
    shared = {"format", "format_version", "dowdyboy", "backend", "backend_version", "tied", "packed", "files", "sha256"}
    index = read(Path(save_checkpoint(7, tmp_path, [torch.nn.Linear(1, 1)]))).index
    assert index.keys() == said.keys() | shared
    assert (index["step"], index["order"]) == (7, 1)
    section = PAGE[PAGE.index("## Checkpoints of hand-written loops") :]
    assert all(f"`{field}`" in section for field in shared)


def of_any_number(name: str) -> str:
    return re.sub(r"_\d+(?=\b|_)", "_I", name)


def test_the_table_of_the_files_is_complete(runs: dict[str, Run]) -> None:
    table = re.findall(r"^\| file \| content \| there \|\n((?:\|.*\n)+)", PAGE, re.M)[0]
    said = {name for line in table.splitlines()[1:] for name in words(line.split("|")[1])}
    there = {
        of_any_number(path.name) for run in runs.values() for folder in run.folder.parent.iterdir()
        for path in folder.iterdir()
    }  # fmt: skip
    assert there == said - {"loader.json", "loader.safetensors"}  # of a loader with a state of its own (clause D-21)


def keys_of(trees: Iterable[Any]) -> set[str]:
    return {key for tree in trees for key in tree}


def test_the_keys_of_every_tree_are_named(runs: dict[str, Run]) -> None:
    trees = {name: read(run.folder).trees for name, run in runs.items()}
    for name, found in trees.items():
        optimizers = [tree for stem, tree in found.items() if stem.startswith("optimizer")]
        assert keys_of(optimizers) == set(listed(f"{name} optimizer"))
        assert keys_of(found["rng"]) == set(listed("rng"))
        assert keys_of(found["records"].values()) == set(listed("records"))
        assert set(found["ema"]) == set(listed("ema"))
        assert set(found["scaler"]) == set(listed("scaler"))
    [sentence] = re.findall(r"<!-- keys: torch framework -->\n(.*?)\n\n", PAGE, re.S)
    assert keys_of(trees["torch"]["rng"][0]["framework"] for _ in "1") <= set(words(sentence))
    engine = bytes(trees["paddle"]["rng"][0]["framework"][0][3]).decode("ascii")
    assert len([int(word) for word in engine.split()]) == 313


def test_examples_are_of_what_is_there(runs: dict[str, Run]) -> None:
    trees = {name: read(run.folder).trees for name, run in runs.items()}
    shown = {"torch": 0, "paddle": 0}
    for example in examples():
        if "state" in example:
            name = "paddle" if "LR_Scheduler" in example else "torch"
            real = trees[name]["optimizer_0"]
            assert example["state"]["0/0.weight"].keys() == real["state"]["0/0.weight"].keys()
            assert example["param_groups"][0].keys() <= real["param_groups"][0].keys()
            shown[name] += 1
    assert shown == {"torch": 1, "paddle": 1}


def test_every_type_of_an_array_is_named(runs: dict[str, Run]) -> None:
    said = {word for row in rows("dtypes") for word in words(row[0])}
    assert said == reader.DTYPES.keys()
    for run in runs.values():
        found = set()
        for name in ("component_1", "component_2"):
            content = (run.folder / f"{name}.safetensors").read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            found |= {entry["dtype"] for entry in header.values()}
            places = [(entry["data_offsets"][0], entry["dtype"]) for entry in header.values()]
            sizes = [np.dtype(reader.DTYPES[dtype]).itemsize for _, dtype in sorted(places)]
            assert sizes == sorted(sizes, reverse=True), "the page says: the largest elements first"
        only = {"F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"} if run.name == "paddle" else set()  # which it has not
        assert found == said - only


# ---- the schema


def check_against_schema(folder: Path) -> None:
    """Holds every JSON file of a checkpoint against the part of the schema that is about it."""
    for path in sorted(folder.glob("*.json")):
        value = json.loads(path.read_bytes())
        part = "component" if path.stem.endswith("_beside") else re.sub(r"_\d+$", "", path.stem)
        schema = SCHEMA if part == "checkpoint" else {"$ref": f"#/$defs/{part}", "$defs": SCHEMA["$defs"]}
        jsonschema.Draft202012Validator(schema).validate(value)


@both
def test_checkpoints_are_as_the_schema_says(run: Run, name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for folder in (run.folder, run.folder.with_name("epoch_1")):
        check_against_schema(folder)
    assert SCHEMA["required"] == [words(row[0])[0] for row in rows("index")] == list(SCHEMA["properties"])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("checkpoint", {"epoch": -1}),
        ("checkpoint", {"val_batch": "1"}),
        ("checkpoint", {"sha256": "0" * 63}),
        ("checkpoint", {"format_version": 4}),
        ("checkpoint", {"files": {}}),
        ("scaler", {"clean_steps": 0.5}),
        ("records", {"loss": {"dtype": "float16", "shape": [], "positions": [], "values": {"$array": "x"}}}),
        ("optimizer_0", {"param_groups": [{}]}),
        ("optimizer_0", {"more": {"$array": 5}}),
        ("optimizer_0", {"state": {"0/0.weight": {"slot": {"$pickle": "x"}}}}),
    ],
)
def test_the_schema_refuses_what_is_not_so(
    runs: dict[str, Run], tmp_path: Path, part: str, change: dict[str, Any]
) -> None:
    value = json.loads((runs["torch"].folder / f"{part}.json").read_bytes())
    (tmp_path / f"{part}.json").write_text(json.dumps(value))
    check_against_schema(tmp_path)
    (tmp_path / f"{part}.json").write_text(json.dumps({**value, **change}))
    with pytest.raises(jsonschema.ValidationError):
        check_against_schema(tmp_path)


# ---- what users are told


@pytest.mark.parametrize("name", ["torch", "torch tied", "paddle", "numpy"])
def test_code_runs(runs: dict[str, Run], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = runs["torch" if name == "numpy" else name.split()[0]]
    [code] = re.findall(rf"^<!-- runs: {name} -->\n```python\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "out").symlink_to(run.folder.parents[1])
    monkeypatch.chdir(tmp_path)
    model = making.layers(run.name, run.framework, "LBDL")
    exec(compile(code, "checkpoints.md", "exec"), {"model": model})
    if name != "numpy":
        lives = {key: run.numpy(tensor) for key, tensor in run.models()[0].state_dict().items()}
        assert_same({key: run.numpy(tensor) for key, tensor in model.state_dict().items()}, lives)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        if not target.startswith("https:"):
            path, _, anchor = target.partition("#")
            place = ROOT / "docs" / path if path else ROOT / "docs/checkpoints.md"
            assert place.exists(), target
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.M) if anchor else []
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, target
