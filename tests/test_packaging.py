"""What users install: the built files, and each combination of them in a fresh environment."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[1]
PROJECTS = {
    "dowdyboy_core": ROOT / "packages/dowdyboy-core",
    "dowdyboy_torch": ROOT / "packages/dowdyboy-torch",
    "dowdyboy_paddle": ROOT / "packages/dowdyboy-paddle",
    "dowdyboy_conformance": ROOT / "conformance",
}
COMBINATIONS = {
    "core": ["dowdyboy_core"],
    "torch": ["dowdyboy_core", "dowdyboy_torch"],
    "paddle": ["dowdyboy_core", "dowdyboy_paddle"],
}
DISK = Path("/var/tmp") if Path("/var/tmp").is_dir() else None
UTILITIES = {"args", "assist", "dataset_util", "log", "rand", "trainer"}

IMPORTS = """
import importlib, importlib.util, pkgutil, sys
package, expected, absent = sys.argv[1], set(sys.argv[2].split(",")), sys.argv[3].split(",")
imported = importlib.import_module(package)
assert "site-packages" in imported.__file__, imported.__file__
found = {module.name for module in pkgutil.iter_modules(imported.__path__)}
public = {name for name in found if not name.startswith("_")}
assert expected <= public, f"{expected - public} missing from {package}"
for name in sorted(public):
    importlib.import_module(f"{package}.{name}")
for name in absent:
    assert importlib.util.find_spec(name) is None, f"{name} can be imported"
"""

LIGHT = """
import sys
import dowdyboy_core
heavy = {"numpy", "safetensors", "tqdm", "yaml"} & sys.modules.keys()
assert not heavy, f"importing dowdyboy_core imports {sorted(heavy)}"
"""

TRAINING = {
    "torch": """
import torch
from dowdyboy_torch import Trainer, TrainerConfig

torch.manual_seed(0)
data = torch.utils.data.TensorDataset(torch.randn(8, 4), torch.ones(8, 1))
loader = torch.utils.data.DataLoader(data, batch_size=2)
model = torch.nn.Linear(4, 1)
before = model.weight.detach().clone()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loss_func = torch.nn.MSELoss()
""",
    "paddle": """
import paddle
from dowdyboy_paddle import Trainer, TrainerConfig

paddle.seed(0)
data = paddle.io.TensorDataset([paddle.randn([8, 4]), paddle.ones([8, 1])])
loader = paddle.io.DataLoader(data, batch_size=2)
model = paddle.nn.Linear(4, 1)
before = model.weight.detach().clone()
optimizer = paddle.optimizer.SGD(0.1, parameters=model.parameters())
loss_func = paddle.nn.MSELoss()
""",
}
TRAINING_END = """
calls = []

def train_step(trainer, bat, bat_idx, global_step):
    calls.append((bat_idx, global_step))
    [model], [loss_func] = trainer.get_models(), trainer.get_components()
    x, y = bat
    return loss_func(model(x), y)

trainer = Trainer(TrainerConfig(name="t", epoch=2, out_dir="out"))
trainer.set_train_dataloader(loader)
trainer.set_model(model)
trainer.set_component(loss_func)
trainer.set_optimizer(optimizer)
trainer.fit(train_step)
assert calls == [(step % 4, step) for step in range(8)], calls
assert not bool((model.weight == before).all()), "the model did not move"
"""


@dataclass(frozen=True)
class Artifacts:
    """One package's built files."""

    wheel: Path
    sdist: Path

    def metadata(self) -> Message:
        with zipfile.ZipFile(self.wheel) as wheel:
            [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            return email.message_from_bytes(wheel.read(name))


def run(*command: str | Path, cwd: Path, **variables: str) -> None:
    """Runs a command, away from the repository's own sources; what it printed is in the failure."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HATCH_ENV"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(map(str, command))
        pytest.fail(f"{shown}\nexited {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)


def wheel_files(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts]:
    """Builds every package by the command a release uses."""
    hatch = shutil.which("hatch") or shutil.which("hatch", path=Path(sys.executable).parent)
    assert hatch is not None, "hatch is not on PATH: pip install hatch"
    dist = tmp_path_factory.mktemp("dist")
    # Built from a copy, so that nothing is written into the repository.
    source = tmp_path_factory.mktemp("source")
    for path in [*PROJECTS.values(), ROOT / "hatch.toml", ROOT / "pyproject.toml"]:
        target = source / path.relative_to(ROOT)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", "dist"))
        else:
            shutil.copyfile(path, target)
    run(hatch, "build", "--all", dist, cwd=source, HATCH_DATA_DIR=str(tmp_path_factory.mktemp("hatch")))
    built = {}
    for name in PROJECTS:
        [wheel] = dist.glob(f"{name}-*-py3-none-any.whl")
        [sdist] = dist.glob(f"{name}-*.tar.gz")
        built[name] = Artifacts(wheel, sdist)
    assert len(list(dist.iterdir())) == 2 * len(PROJECTS)
    return built


@pytest.fixture(scope="module")
def environments(artifacts: dict[str, Artifacts], constraints: Path) -> Iterator[dict[str, Path]]:
    """Installs each combination of wheels into an environment of its own; yields their interpreters."""
    # Not where pytest keeps its folders, which may be in memory: these have gigabytes, and programs in them.
    folders = {combination: Path(tempfile.mkdtemp(prefix=combination, dir=DISK)) for combination in COMBINATIONS}

    def install(combination: str) -> Path:
        folder = folders[combination]
        venv.create(folder, with_pip=False)
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        wheels = [artifacts[name].wheel for name in COMBINATIONS[combination]]
        pip = (sys.executable, "-m", "pip", "--python", python)
        run(*pip, "install", "--quiet", "--no-compile", "--constraint", constraints, *wheels, cwd=folder)
        run(*pip, "check", cwd=folder)
        return python

    try:
        with ThreadPoolExecutor() as pool:
            yield dict(zip(COMBINATIONS, pool.map(install, COMBINATIONS), strict=True))
    finally:
        for folder in folders.values():
            shutil.rmtree(folder)


@pytest.mark.parametrize("name", PROJECTS)
def test_metadata_is_complete(artifacts: dict[str, Artifacts], name: str) -> None:
    metadata = artifacts[name].metadata()
    assert metadata["Name"] == name.replace("_", "-")
    assert metadata["Summary"]
    assert metadata["Author"] == "The dowdyboy authors"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (PROJECTS[name] / "README.md").read_text(encoding="utf-8")
    assert set(metadata.get_all("Classifier", [])) >= {
        "Typing :: Typed",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
    }
    labels = {url.partition(",")[0] for url in metadata.get_all("Project-URL", [])}
    assert labels >= {"Homepage", "Source", "Changelog", "Issues"}


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_holds_the_package_and_nothing_else(artifacts: dict[str, Artifacts], name: str) -> None:
    files = wheel_files(artifacts[name].wheel)
    [licence] = [path for path in files if path.endswith(".dist-info/licenses/LICENSE")]
    assert files[licence] == (ROOT / "LICENSE").read_bytes()
    source = PROJECTS[name] / "src"
    assert {path for path in files if ".dist-info/" not in path} == {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{name}/py.typed" in files


@pytest.mark.parametrize("name", PROJECTS)
def test_sdist_builds_the_same_wheel(artifacts: dict[str, Artifacts], name: str, tmp_path: Path) -> None:
    with tarfile.open(artifacts[name].sdist) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    assert (unpacked / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=unpacked)
    [wheel] = (tmp_path / "dist").iterdir()
    rebuilt, direct = wheel_files(wheel), wheel_files(artifacts[name].wheel)
    # These depend on the build tool's version, RECORD by its digests of the others.
    for files in (rebuilt, direct):
        for path in [path for path in files if path.endswith(("/RECORD", "/WHEEL", "/METADATA"))]:
            del files[path]
    assert rebuilt == direct


def test_core_alone(environments: dict[str, Path], tmp_path: Path) -> None:
    run(
        environments["core"],
        "-c",
        IMPORTS,
        "dowdyboy_core",
        ",".join(UTILITIES),
        "torch,paddle,dowdyboy_torch,dowdyboy_paddle",
        cwd=tmp_path,
    )


def test_core_imports_its_dependencies_when_needed(environments: dict[str, Path], tmp_path: Path) -> None:
    run(environments["core"], "-c", LIGHT, cwd=tmp_path)


@pytest.mark.parametrize(("framework", "other"), [("torch", "paddle"), ("paddle", "torch")])
def test_one_framework_without_the_other(
    environments: dict[str, Path], tmp_path: Path, framework: str, other: str
) -> None:
    run(
        environments[framework],
        "-c",
        IMPORTS,
        f"dowdyboy_{framework}",
        ",".join({*UTILITIES, "model_util"}),
        f"{other},dowdyboy_{other}",
        cwd=tmp_path,
    )


@pytest.mark.parametrize("framework", TRAINING)
def test_training_as_installed(environments: dict[str, Path], tmp_path: Path, framework: str) -> None:
    run(environments[framework], "-c", TRAINING[framework] + TRAINING_END, cwd=tmp_path)


@pytest.mark.parametrize("framework", TRAINING)
def test_the_readmes_program_runs(environments: dict[str, Path], tmp_path: Path, framework: str) -> None:
    readme = (PROJECTS[f"dowdyboy_{framework}"] / "README.md").read_text(encoding="utf-8")
    [program] = re.findall(r"^```python\n(.*?)^```", readme, flags=re.DOTALL | re.MULTILINE)
    run(environments[framework], "-c", program, cwd=tmp_path)
    assert list((tmp_path / "out").rglob("*.safetensors")), "no weights in out/"
