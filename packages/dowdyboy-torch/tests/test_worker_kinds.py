"""Every kind of loader, with workers started in every way; programs of their own, since such workers import them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Each kind is trained on in this process and by a worker, which sets an attribute of the dataset that is read.
PROGRAM = """
import multiprocessing
import sys
from collections import namedtuple

import numpy as np
import torch
from dowdyboy_torch import Trainer, TrainerConfig
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, TensorDataset, get_worker_info

Pair = namedtuple("Pair", "image name")
KINDS = ["tensors", "own dicts", "own namedtuples", "own stream", "own batches", "own collate", "own batch sampler"]


class Own(Dataset):
    mark = "unmarked"

    def __init__(self, kind):
        self.kind, self.tensor = kind, torch.arange(12, dtype=torch.bfloat16).reshape(4, 3)

    def __len__(self):
        return 4 if self.kind != "own batches" else 2

    def __getitem__(self, index):
        if self.kind == "own namedtuples":
            return Pair(self.tensor[index], f"{self.mark} {index}")
        return {"image": self.tensor[index], "name": f"{self.mark} {index}", "number": (index, np.float64(index))}


class Stream(Own, IterableDataset):
    def __iter__(self):
        return map(self.__getitem__, range(4))


class Backwards:
    def __iter__(self):
        return iter([[3, 2], [1, 0]])

    def __len__(self):
        return 2


def collate(samples):
    return [sample["image"] for sample in samples], samples[0]["name"]


def mark(worker_id):
    get_worker_info().dataset.mark = "marked"


def make(kind, **options):
    if kind == "tensors":
        return DataLoader(TensorDataset(torch.arange(12.0).reshape(4, 3), torch.arange(4)), 2, **options)
    if kind == "own batches":
        return DataLoader(Own(kind), None, **options)
    if kind == "own batch sampler":
        return DataLoader(Own(kind), batch_sampler=Backwards(), **options)
    if kind == "own collate":
        return DataLoader(Own(kind), 2, collate_fn=collate, **options)
    return DataLoader(Stream(kind) if kind == "own stream" else Own(kind), 2, **options)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value).__name__, [plain(item) for item in value]
    if hasattr(value, "numpy"):
        return str(value.dtype), value.tolist()
    return value


def train(out_dir, loader):
    seen = []
    model = torch.nn.Linear(1, 1)
    trainer = Trainer(TrainerConfig(epoch=1, out_dir=out_dir, cpu=True, log_with="none", disable_tqdm=True,
                                    auto_optimize=False, enable_save_checkpoint=False))
    trainer.set_model(model)
    trainer.set_train_dataloader(loader)
    trainer.fit(lambda trainer, bat, bat_idx, global_step: seen.append(plain(bat)))
    return seen


if __name__ == "__main__":
    out_dir, method, *kinds = sys.argv[1:]
    if method == "forkserver":
        multiprocessing.set_forkserver_preload(["dowdyboy_torch"])
    multiprocessing.set_start_method(method)
    for kind in kinds or KINDS:
        here = train(out_dir, make(kind, num_workers=0))
        worked = train(out_dir, make(kind, num_workers=1, worker_init_fn=mark))
        marked = [item for item in worked if "marked" in repr(item)]
        assert repr(worked).replace("marked", "unmarked") == repr(here), (kind, here, worked)
        assert len(here) == 2 and (len(marked) == 2) == kind.startswith("own"), (kind, worked)
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_every_kind_of_loader_has_workers_however_they_are_started(tmp_path: Path, method: str) -> None:
    (tmp_path / "kinds.py").write_text(PROGRAM, encoding="utf-8")
    kinds = ["tensors"] if method == "spawn" else []  # what is sent is the same as for forkserver
    command = [sys.executable, "kinds.py", str(tmp_path / "out"), method, *kinds]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
