"""What a loop that is written by hand says in each framework's own words."""

from __future__ import annotations

import importlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np

from dowdyboy_core.rand import derive_seed


class Framework(ABC):
    """A framework, as a loop that is written by hand uses it."""

    name: str

    def trainer(self, settings: dict[str, Any]) -> Any:
        """A trainer with these settings."""
        module = importlib.import_module(f"dowdyboy_{self.name}")
        return module.Trainer(module.TrainerConfig(**settings))

    def seed(self, seed: int) -> None:
        """Seeds the streams of Python, NumPy and the framework."""
        importlib.import_module(f"dowdyboy_{self.name}.rand").set_seed(seed)

    def seed_fit(self, seed: int) -> None:
        """The same where training begins."""
        self.seed(derive_seed(seed, "fit", 0))

    @contextmanager
    def aside(self, seed: int) -> Iterator[None]:
        """Runs a block with the streams seeded, and puts them back."""
        python, numpy, own = random.getstate(), np.random.get_state(), self.get_state()
        self.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            self.set_state(own)

    def batches(self, loader: Any, seed: int, role: str, epoch: int) -> Iterator[Any]:
        """The batches of an epoch: in the order, and with the random numbers, that docs/spec.md promises (D-2, S-4)."""
        seed = derive_seed(seed, role)
        if hasattr(getattr(loader, "dataset", None), "set_epoch"):
            loader.dataset.set_epoch(epoch)
        if not self.is_indexed(loader):
            with self.aside(derive_seed(seed, "stream", epoch)):
                self.begin(loader)
                batches = iter(loader)
            number = 0
            while True:
                with self.aside(derive_seed(seed, "batch", epoch, number)):
                    found = list(islice(batches, 1))
                if not found:
                    return
                yield found[0]
                number += 1
        for number, indices in enumerate(self._indices(loader, derive_seed(seed, "order", epoch))):
            with self.aside(derive_seed(seed, "batch", epoch, number)):
                data = loader.dataset
                many = getattr(data, "__getitems__", None)
                samples = [data[index] for index in indices] if many is None else many(indices)
                batch = self.collate(loader)(samples)
            yield batch

    def _indices(self, loader: Any, seed: int) -> list[list[int]]:
        if not self.is_plain(loader):
            with self.aside(seed):
                self.seed_sampler(loader, seed)
                return [list(indices) for indices in loader.batch_sampler]
        size, total = loader.batch_sampler.batch_size, len(loader.dataset)
        order = np.arange(total)
        if self.is_shuffled(loader):
            order = np.random.Generator(np.random.PCG64(seed)).permutation(total)
        cut = [order[start : start + size].tolist() for start in range(0, total, size)]
        return [part for part in cut if len(part) == size or not loader.batch_sampler.drop_last]

    @abstractmethod
    def begin(self, loader: Any) -> None:
        """Makes a loader ready that is iterated over as it is."""

    def number(self, value: Any) -> float:
        """A Python number of a tensor with one element."""
        return float(value.item())

    @abstractmethod
    def get_state(self) -> Any:
        """The state of the framework's own stream."""

    @abstractmethod
    def set_state(self, state: Any) -> None:
        """Puts it back."""

    @abstractmethod
    def is_indexed(self, loader: Any) -> bool:
        """Whether a loader reads its data by index."""

    @abstractmethod
    def is_shuffled(self, loader: Any) -> bool:
        """Whether it shuffles."""

    @abstractmethod
    def is_plain(self, loader: Any) -> bool:
        """Whether its batch sampler is the framework's own, and not another one, which is asked (D-7)."""

    def seed_sampler(self, loader: Any, seed: int) -> None:
        """Seeds the generator that a sampler has of its own."""
        generator = getattr(loader.sampler, "generator", None)
        if generator is not None:
            generator.manual_seed(seed)

    @abstractmethod
    def is_module(self, value: Any) -> bool:
        """Whether something is a module, whose state is compared."""

    @abstractmethod
    def collate(self, loader: Any) -> Any:
        """What makes a batch of samples."""

    @abstractmethod
    def train(self, model: Any) -> None:
        """Training mode."""

    @abstractmethod
    def evaluate(self, model: Any) -> None:
        """Evaluation mode."""

    @abstractmethod
    def no_grad(self) -> AbstractContextManager[Any]:
        """Without gradients."""

    @abstractmethod
    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Mixed precision on a CPU."""

    @abstractmethod
    def zero_grad(self, optimizer: Any) -> None:
        """Clears gradients."""

    @abstractmethod
    def clip(self, model: Any, norm: float) -> None:
        """Clips gradients by their total norm."""

    @abstractmethod
    def step_scheduler(self, scheduler: Any, values: list[float]) -> None:
        """Steps a scheduler at the end of an epoch, by the mean of the validation losses if it follows a value."""

    @abstractmethod
    def learning_rate(self, optimizer: Any) -> float:
        """The learning rate in force, of the first group."""

    @abstractmethod
    def weights(self, model: Any) -> dict[str, Any]:
        """The state of a model as arrays."""

    @abstractmethod
    def array(self, value: Any) -> Any:
        """A tensor or number as an array."""

    @abstractmethod
    def meet(self, processes: int) -> None:
        """Waits for the other processes."""


class Torch(Framework):
    """PyTorch."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def get_state(self) -> Any:
        return self._torch.get_rng_state()

    def set_state(self, state: Any) -> None:
        self._torch.set_rng_state(state)

    def is_indexed(self, loader: Any) -> bool:
        data = self._torch.utils.data
        if not isinstance(loader, data.DataLoader) or self._iterates_itself(loader):
            return False
        return not isinstance(loader.dataset, data.IterableDataset)

    def _iterates_itself(self, loader: Any) -> bool:
        """Whether it is a subclass that is iterated over as it is (D-14)."""
        native = self._torch.utils.data.DataLoader
        return isinstance(loader, native) and type(loader).__iter__ is not native.__iter__

    def begin(self, loader: Any) -> None:
        if self._iterates_itself(loader):
            self.seed_sampler(loader, int(self._torch.empty((), dtype=self._torch.int64).random_().item()))

    def is_shuffled(self, loader: Any) -> bool:
        return isinstance(loader.sampler, self._torch.utils.data.RandomSampler)

    def is_plain(self, loader: Any) -> bool:
        return type(loader.batch_sampler) is self._torch.utils.data.BatchSampler

    def is_module(self, value: Any) -> bool:
        return isinstance(value, self._torch.nn.Module)

    def collate(self, loader: Any) -> Any:
        return loader.collate_fn

    def train(self, model: Any) -> None:
        model.train()

    def evaluate(self, model: Any) -> None:
        model.eval()

    def no_grad(self) -> AbstractContextManager[Any]:
        return self._torch.no_grad()

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        if precision == "no":
            return nullcontext()
        assert precision == "bf16", precision
        return self._torch.autocast("cpu", dtype=self._torch.bfloat16)

    def zero_grad(self, optimizer: Any) -> None:
        optimizer.zero_grad()

    def clip(self, model: Any, norm: float) -> None:
        self._torch.nn.utils.clip_grad_norm_(model.parameters(), norm)

    def step_scheduler(self, scheduler: Any, values: list[float]) -> None:
        if isinstance(scheduler, self._torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(float(np.mean(values)))
        else:
            scheduler.step()

    def learning_rate(self, optimizer: Any) -> float:
        return float(optimizer.param_groups[0]["lr"])

    def weights(self, model: Any) -> dict[str, Any]:
        return {name: self.array(value) for name, value in model.state_dict().items()}

    def array(self, value: Any) -> Any:
        if isinstance(value, self._torch.Tensor):
            value = value.detach()
            return (value.float() if value.dtype == self._torch.bfloat16 else value).numpy().copy()
        return np.asarray(value)

    def meet(self, processes: int) -> None:
        if processes > 1:
            self._torch.distributed.barrier()


class Paddle(Framework):
    """PaddlePaddle."""

    name = "paddle"

    def __init__(self) -> None:
        import paddle

        self._paddle = paddle

    def get_state(self) -> Any:
        return self._paddle.get_rng_state("cpu")

    def set_state(self, state: Any) -> None:
        self._paddle.set_rng_state(state, "cpu")

    def is_indexed(self, loader: Any) -> bool:
        io = self._paddle.io
        return isinstance(loader, io.DataLoader) and not isinstance(loader.dataset, io.IterableDataset)

    def begin(self, loader: Any) -> None:
        """Nothing: what its samplers draw comes from the global streams."""

    def is_shuffled(self, loader: Any) -> bool:
        return isinstance(loader.batch_sampler.sampler, self._paddle.io.RandomSampler)

    def is_plain(self, loader: Any) -> bool:
        return type(loader.batch_sampler) is self._paddle.io.BatchSampler

    def is_module(self, value: Any) -> bool:
        return isinstance(value, self._paddle.nn.Layer)

    def collate(self, loader: Any) -> Any:
        collate = loader.collate_fn or self._paddle.io.dataloader.collate.default_collate_fn

        def as_its_loader(samples: list[Any]) -> list[Any]:
            return [self._paddle.to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in collate(samples)]

        return as_its_loader

    def train(self, model: Any) -> None:
        model.train()

    def evaluate(self, model: Any) -> None:
        model.eval()

    def no_grad(self) -> AbstractContextManager[Any]:
        return self._paddle.no_grad()

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        return nullcontext()  # there is none on a CPU

    def zero_grad(self, optimizer: Any) -> None:
        optimizer.clear_grad()

    def clip(self, model: Any, norm: float) -> None:
        self._paddle.nn.utils.clip_grad_norm_(model.parameters(), norm)

    def step_scheduler(self, scheduler: Any, values: list[float]) -> None:
        if isinstance(scheduler, self._paddle.optimizer.lr.ReduceOnPlateau):
            scheduler.step(float(np.mean(values)))
        else:
            scheduler.step()

    def learning_rate(self, optimizer: Any) -> float:
        return float(optimizer.get_lr())

    def weights(self, model: Any) -> dict[str, Any]:
        return {name: self.array(value) for name, value in model.state_dict().items()}

    def array(self, value: Any) -> Any:
        return value.numpy().copy() if isinstance(value, self._paddle.Tensor) else np.asarray(value)

    def meet(self, processes: int) -> None:
        if processes > 1:
            self._paddle.distributed.barrier()


def framework_named(name: str) -> Framework:
    """The framework of a name."""
    made: Framework = {"torch": Torch, "paddle": Paddle}[name]()
    return made
