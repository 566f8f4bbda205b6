"""What the checks need of a framework besides its Trainer: small models, loaders, and a way to look inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dowdyboy_core import Trainer, TrainerConfig

Floats = NDArray[np.floating[Any]]
Layers = Sequence[tuple[Floats, Floats]]
"""Weight of shape (out, in) and bias of shape (out,) of each linear layer."""

COSINE_STEPS = 6
"""How many steps the schedule ``'cosine'`` is made for."""


class Optimizing(NamedTuple):
    """An optimizer and the scheduler made for it, if any."""

    optimizer: Any
    scheduler: Any


class Harness(ABC):
    """Binds the checks to one framework. A subclass is written natively and holds no expectations.

    Attributes:
        name: what the backend calls itself in messages and in ``checkpoint.json``.
        module: the import name of the distribution, whose ``Trainer`` is checked.
        viewer: the viewer that ``log_with='auto'`` means.
        world_variable: the environment variable by which the framework's launcher tells the number of processes.
        rank_variables: the others that it must set.
        linear_is_transposed: whether linear layers keep their weight as (in, out).
        arrays_become_tensors: whether the framework's own loader makes tensors of the arrays in a batch.
        running_variance: the path of the running variance of ``norm0`` in the state of ``model``.
        running_variance_is_biased: whether that follows the biased variance of a batch of n, not n / (n - 1) times it.
        capabilities: of ``'fp16'`` and ``'bf16'`` those that the CPU can do.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    viewer: ClassVar[str]
    world_variable: ClassVar[str]
    rank_variables: ClassVar[tuple[str, ...]]
    linear_is_transposed: ClassVar[bool] = False
    arrays_become_tensors: ClassVar[bool] = False
    running_variance: ClassVar[str] = "norm0.running_var"
    running_variance_is_biased: ClassVar[bool] = False
    capabilities: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def make_trainer(self, config: TrainerConfig) -> Trainer:
        """The Trainer that is checked."""

    @abstractmethod
    def model(self, layers: Layers, *, batch_norm: bool = False, dropout: float = 0.0) -> Any:
        """A model of linear layers ``fc0``, ``fc1``, … with tanh between them.

        Args:
            layers: the layers' initial weights.
            batch_norm: a BatchNorm layer ``norm0`` follows ``fc0``.
            dropout: a dropout layer with this rate follows each tanh.
        """

    @abstractmethod
    def branched_model(self, layers: Layers) -> Any:
        """A model of two linear layers ``fc0`` and ``fc1`` side by side.

        Called as ``model(features, both)`` it gives ``fc0(features)``, and where ``both`` is True adds
        ``fc1(features)``.
        """

    @abstractmethod
    def native_parameters(self, model: Any) -> Iterable[tuple[str, Any]]:
        """The parameters of a model with their paths, as the framework keeps them."""

    @abstractmethod
    def state(self, model: Any) -> dict[str, NDArray[Any]]:
        """Copies of all parameters and buffers of a model that it would save, as the framework keeps them."""

    @abstractmethod
    def freeze(self, model: Any) -> None:
        """Makes all parameters of a model untrainable."""

    @abstractmethod
    def unfreeze(self, model: Any) -> None:
        """Makes all parameters of a model trainable again."""

    @abstractmethod
    def optimizer(
        self, name: str, models: Sequence[Any], lr: float, *, schedule: str | None = None, mode: str = "min"
    ) -> Optimizing:
        """An optimizer of all parameters of some models.

        Args:
            name: ``'sgd'``; ``'momentum'``, SGD with momentum 0.9; ``'adam'``, with betas 0.9 and 0.999, epsilon 1e-8;
                ``'adamw'``, the same with a decoupled weight decay of 0.01.
            models: the models.
            lr: the learning rate.
            schedule: ``'step'`` halves the rate at each step; ``'cosine'`` lowers it to 0 along half a cosine of
                ``COSINE_STEPS`` steps, and says for how many it is made; ``'plateau'`` halves it when a value has not
                become better by a factor of 1e-4 (patience 0).
            mode: whether a smaller or a larger value is better for ``'plateau'``.
        """

    @abstractmethod
    def learning_rate(self, optimizer: Any) -> float:
        """The learning rate that the next step will use."""

    @abstractmethod
    def train_by_hand(
        self, model: Any, loss: Any, made: Optimizing, batches: Sequence[Any], *, window: int, max_norm: float | None
    ) -> None:
        """Trains for an epoch as one would without a trainer: the framework's own calls, and nothing of dowdyboy's.

        Args:
            model: is trained on the ``batches``, pairs of tensors, in their order.
            loss: takes the output and the second tensor.
            made: steps after each ``window`` batches, of which the losses are averaged; the scheduler at the end.
            batches: as many as some windows have.
            window: how many batches a step is made of.
            max_norm: what the gradient's norm is clipped to before each step, by the framework's own function.
        """

    @abstractmethod
    def loss(self, name: str) -> Any:
        """A module that computes ``'cross_entropy'`` of (scores, int64 classes) or ``'mse'``, each as a mean."""

    @abstractmethod
    def dataset(self, *arrays: NDArray[Any]) -> Any:
        """The framework's own dataset over arrays of equal length."""

    @abstractmethod
    def stream(self, start: Callable[[], Iterator[Any]]) -> Any:
        """The framework's dataset without indices, whose iteration begins with ``start()``."""

    @abstractmethod
    def loader(
        self,
        dataset: Any,
        batch_size: int | None,
        *,
        shuffle: bool = False,
        workers: int = 0,
        drop_last: bool = False,
        collate: Callable[[Any], Any] | None = None,
        init: Callable[[int], Any] | None = None,
        persistent: bool = False,
        timeout: int = 0,
    ) -> Any:
        """The framework's loader.

        Args:
            dataset: one of the above or a plain object with __getitem__ and __len__.
            batch_size: samples in a batch; None where an item is a batch already.
            shuffle: whether the order is another in each epoch.
            workers: how many processes read.
            drop_last: leave out a last batch that is not full.
            collate: makes a batch of a list of samples.
            init: what a worker begins with; gets its number.
            persistent: whether workers stay for the next epoch, where the framework has that.
            timeout: seconds after which a wait for workers is an error.
        """

    @abstractmethod
    def worker_dataset(self) -> Any:
        """In a worker, the dataset that the framework says it reads."""

    @abstractmethod
    def batched_by(self, dataset: Any, batch_sampler: Any) -> Any:
        """The framework's loader over the batches of indices that an object with __iter__ and __len__ gives."""

    @abstractmethod
    def tensor(self, values: Any) -> Any:
        """A tensor with the type and values of an array."""

    @abstractmethod
    def is_tensor(self, value: Any) -> bool:
        """Whether a value is a tensor of the framework's."""

    @abstractmethod
    def numpy(self, tensor: Any) -> NDArray[Any]:
        """A copy of a tensor's values."""

    @abstractmethod
    def has_graph(self, tensor: Any) -> bool:
        """Whether gradients flow through a tensor."""

    @abstractmethod
    def gradients(self, model: Any) -> dict[str, NDArray[Any]]:
        """Copies of the gradients that the parameters of a model have right now, by their paths."""

    @abstractmethod
    def overwrite(self, tensor: Any, value: float) -> None:
        """Sets all elements of a tensor in place."""

    @abstractmethod
    def is_training(self, model: Any) -> bool:
        """Whether a model is in training mode."""

    @abstractmethod
    def is_grad_enabled(self) -> bool:
        """Whether operations are recorded for differentiation right now."""

    @abstractmethod
    def draw(self) -> float:
        """A number from the framework's global random stream."""

    @abstractmethod
    def read_curves(self, folder: Path) -> dict[str, list[tuple[int, float]]]:
        """For each curve in the viewer's files its points (step, value) in order, by the viewer's own reader."""

    @abstractmethod
    def read_times(self, folder: Path) -> dict[str, list[float]]:
        """For each curve in the viewer's files the times of its points, in seconds since 1970, in the same order."""

    # ---- what a framework may have besides

    def further_models(self) -> dict[str, Callable[[], Any]]:
        """By a name of your own, what makes a model of a further kind: 3 scores for each of some samples of 4 features.

        Such as a convolution, or what is recurrent: they are trained, interrupted and resumed in the scripts that are
        drawn from a number.
        """
        return {}

    # ---- the same for all

    def common(self, array: NDArray[Any]) -> NDArray[Any]:
        """A parameter of ``model`` in the common layout: linear weights as (out, in)."""
        return array.T if self.linear_is_transposed and array.ndim == 2 else array

    def parameters(self, model: Any) -> dict[str, NDArray[Any]]:
        """Copies of a model's parameters by their paths, in the common layout."""
        return {path: self.common(self.numpy(item)) for path, item in self.native_parameters(model)}
