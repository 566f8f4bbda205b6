"""Loaders and data of other libraries: torchdata, webdataset, torch_geometric."""

from __future__ import annotations

import io
import random
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric.data
import torch_geometric.loader
import torch_geometric.nn
import torchdata.nodes
import webdataset
from torch.utils.data import DataLoader, TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from . import data
from .cases_hf import adamw
from .cases_torch import Noisy, classify, perceptron
from .harness import Parts, case


@case(
    "StatefulDataLoader",
    "torch",
    ("torchdata",),
    note="it goes on from its own state, and reads nothing again",
)
def stateful() -> Parts:
    model = perceptron()
    x, y = map(torch.from_numpy, data.vectors())
    return Parts(model, adamw(model), StatefulDataLoader(TensorDataset(x, y), data.BATCH, shuffle=True), classify)


@case(
    "StatefulDataLoader with two workers that draw",
    "torch",
    ("torchdata",),
    note="what is drawn depends on the number of workers",
)
def stateful_workers() -> Parts:
    return _stateful()


@case(
    "StatefulDataLoader with two workers that draw and persist",
    "torch",
    ("torchdata",),
    fails=(
        "killed",
        "its workers go on with random numbers that a resumed run doesn't have; leave out `persistent_workers=True`",
    ),
)
def stateful_workers_that_persist() -> Parts:
    return _stateful(persistent_workers=True)


def _stateful(**settings: Any) -> Parts:
    model = perceptron()
    loader: Any = StatefulDataLoader(Noisy(), data.BATCH, shuffle=True, num_workers=2, **settings)
    return Parts(model, adamw(model), loader, classify)


def _noisy(sample: Any) -> Any:
    x, y = sample
    return x + 0.1 * torch.randn(6), y


@case("torchdata.nodes: a mapper that draws, and a batcher", "torch", ("torchdata",))
def nodes() -> Parts:
    model = perceptron()
    x, y = map(torch.from_numpy, data.vectors())
    source: Any = torchdata.nodes.IterableWrapper(list(zip(x, y, strict=True)))
    batcher: Any = torchdata.nodes.Batcher(torchdata.nodes.Mapper(source, _noisy), data.BATCH)
    collated = torchdata.nodes.Mapper(batcher, torch.utils.data.default_collate)
    return Parts(model, adamw(model), torchdata.nodes.Loader(collated), classify)


def _tars(shards: int = 2) -> list[str]:
    """Writes the labelled vectors into tar files."""
    folder, (x, y) = Path(tempfile.mkdtemp()), data.vectors()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, len(y), shards):
                buffer = io.BytesIO()
                np.save(buffer, x[number])
                for kind, content in (("npy", buffer.getvalue()), ("cls", str(y[number]).encode())):
                    member = tarfile.TarInfo(f"{number:04}.{kind}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return sorted(str(path) for path in folder.iterdir())


def _shards(shuffle: Any = None) -> Any:
    found: Any = webdataset.WebDataset(_tars(), shardshuffle=False)
    return (found if shuffle is None else found.shuffle(8, **shuffle)).decode().to_tuple("npy", "cls")


@case("shards that are read in order", "torch", ("webdataset",))
def shards() -> Parts:
    model = perceptron()
    return Parts(model, adamw(model), DataLoader(_shards(), data.BATCH), classify)


@case("shards read by two workers of WebLoader, batched in the pipeline", "torch", ("webdataset",))
def shards_by_workers() -> Parts:
    model = perceptron()
    loader = webdataset.WebLoader(_shards().batched(data.BATCH), batch_size=None, num_workers=2)
    return Parts(model, adamw(model), loader, classify)


@case(
    "shards that are shuffled within a buffer",
    "torch",
    ("webdataset",),
    note="by itself `shuffle` draws from a stream seeded by the clock; `shuffle(size, rng=random)` draws from Python's "
    "global one, which the run seeds",
)
def shards_shuffled() -> Parts:
    model = perceptron()
    return Parts(model, adamw(model), DataLoader(_shards({"rng": random}), data.BATCH), classify)


class Graphs(torch.nn.Module):
    """A classifier of graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch_geometric.nn.GCNConv(4, 8)
        self.output = torch.nn.Linear(8, 3)

    def forward(self, bat: Any) -> Any:
        found = self.convolution(bat.x, bat.edge_index).relu()
        return self.output(torch_geometric.nn.global_mean_pool(found, bat.batch))


@case("graphs, batched by its DataLoader", "torch", ("torch_geometric",))
def graphs() -> Parts:
    drawn = np.random.default_rng(0)
    made = [
        torch_geometric.data.Data(
            x=torch.from_numpy(drawn.standard_normal((5, 4)).astype(np.float32)),
            edge_index=torch.from_numpy(drawn.integers(0, 5, (2, 8))),
            y=torch.tensor([number % 3]),
        )
        for number in range(data.SAMPLES)
    ]
    model = Graphs()

    def loss(model: Any, bat: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(bat), bat.y)

    return Parts(model, adamw(model), torch_geometric.loader.DataLoader(made, data.BATCH, shuffle=True), loss)
