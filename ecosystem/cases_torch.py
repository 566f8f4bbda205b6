"""What PyTorch itself brings."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from . import data
from .harness import Parts, case


def loader(x: Any, y: Any, *, shuffle: bool = True, batch_size: int = data.BATCH) -> DataLoader[Any]:
    """A loader over arrays."""
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=batch_size, shuffle=shuffle)


def classify(model: Any, bat: Any) -> Any:
    """The loss of a classifier."""
    x, y = bat
    return nn.functional.cross_entropy(model(x), y)


def perceptron(*, dropout: float = 0.2) -> nn.Module:
    """A small classifier of vectors."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def vectors(*, shuffle: bool = True) -> DataLoader[Any]:
    """A loader of labelled vectors."""
    return loader(*data.vectors(), shuffle=shuffle)


@case("multilayer perceptron, AdamW, validation", "torch")
def plain() -> Parts:
    """The simplest, to see that the harness is right."""
    model = perceptron()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    return Parts(model, optimizer, vectors(), classify, val_loader=loader(*data.vectors(seed=1), shuffle=False))


@case("the same in two processes", "torch", processes=2)
def together() -> Parts:
    """Without dropout, of which each process draws its own."""
    model = perceptron(dropout=0.0)
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)


BY_STEP = "the hook steps the optimizer itself (`auto_optimize=False`, `auto_schedule=False`)"


@case(
    "gradients of two batches accumulated, clipped",
    "torch",
    settings={"accumulate_steps": 2, "clip_grad_norm": 0.5},
)
def window() -> Parts:
    model = perceptron()
    return Parts(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), vectors(), classify)


@case("bfloat16 under autocast", "torch", settings={"mixed_precision": "bf16"})
def bfloat16() -> Parts:
    model = perceptron()
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)


def _schedulers(make: Any) -> list[Any]:
    """One of each kind that follows the clock, each over an optimizer of its own."""
    from torch.optim import lr_scheduler as lr

    return [
        lr.LambdaLR(make(), lambda epoch: 0.9**epoch),
        lr.MultiplicativeLR(make(), lambda epoch: 0.9),
        lr.StepLR(make(), 2),
        lr.MultiStepLR(make(), [1, 2]),
        lr.ConstantLR(make(), total_iters=2),
        lr.LinearLR(make(), total_iters=2),
        lr.ExponentialLR(make(), 0.5),
        lr.PolynomialLR(make(), 3),
        lr.CosineAnnealingLR(make(), 3),
        lr.CosineAnnealingWarmRestarts(make(), 2),
        lr.CyclicLR(make(), 0.01, 0.1, step_size_up=2),
        lr.SequentialLR(first := make(), [lr.ConstantLR(first), lr.ExponentialLR(first, 0.9)], [1]),
        lr.ChainedScheduler([lr.ConstantLR(second := make()), lr.ExponentialLR(second, 0.9)]),
    ]


class Copies(nn.Module):
    """Linear layers side by side, one for each of many optimizers."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 3) for _ in range(number))

    def forward(self, x: Any) -> Any:
        return torch.stack([layer(x) for layer in self.layers]).mean(0)


def _one_each(number: int, make: Any) -> tuple[nn.Module, Any]:
    """A model of so many layers, and a function that makes an optimizer of the next one."""
    model = Copies(number)
    layers = iter(model.layers)
    return model, lambda: make(next(layers).parameters())


@case("13 kinds of torch.optim.lr_scheduler, an optimizer each, by epoch", "torch")
def schedulers() -> Parts:
    model, make = _one_each(13, lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9))
    made = _schedulers(make)
    return Parts(model, [getattr(item, "optimizer", None) for item in made], vectors(), classify, scheduler=made)


@case("ReduceLROnPlateau, following the validation", "torch", settings={"save_best_rec": "val_loss"})
def plateau() -> Parts:
    model = perceptron()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
    return Parts(
        model, optimizer, vectors(), classify, scheduler, val_loader=loader(*data.vectors(seed=1), shuffle=False)
    )


@case("OneCycleLR, step by step", "torch", by_step=True, note=BY_STEP)
def one_cycle() -> Parts:
    model = perceptron()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=12)
    return Parts(model, optimizer, vectors(), classify, scheduler, by_step=True)


@case("13 optimizers of torch.optim, a layer each", "torch")
def optimizers() -> Parts:
    kinds = [
        torch.optim.Adadelta, torch.optim.Adafactor, torch.optim.Adagrad, torch.optim.Adam, torch.optim.AdamW,
        torch.optim.Adamax, torch.optim.ASGD, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop,
        torch.optim.Rprop, torch.optim.SGD,
    ]  # fmt: skip
    model = Copies(len(kinds) + 1)
    made: list[Any] = [kind(layer.parameters(), lr=0.01) for kind, layer in zip(kinds, model.layers, strict=False)]
    last = model.layers[-1]
    assert isinstance(last, nn.Linear)
    made.append(torch.optim.Muon([last.weight], lr=0.01))  # of matrices only
    return Parts(model, made, vectors(), classify)


@case("torch.compile, backend eager", "torch")
def compiled() -> Parts:
    model: Any = torch.compile(perceptron(), backend="eager")
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)


@case("torch.compile, names in the checkpoint", "torch")
def compiled_names() -> Parts:
    inner = perceptron()
    model: Any = torch.compile(inner, backend="eager")
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify, saved_as=inner)


@case("model.compile() in place, backend aot_eager", "torch")
def compiled_in_place() -> Parts:
    model = perceptron()
    model.compile(backend="aot_eager")
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)


class Tied(nn.Module):
    """A bag of words whose output layer is its embedding."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 8, sparse=sparse)
        self.output = nn.Linear(8, 32, bias=False)
        if not sparse:
            self.output.weight = self.embedding.weight

    def forward(self, x: Any) -> Any:
        return self.output(self.embedding(x).mean(1))


def words() -> DataLoader[Any]:
    """Sequences, and the word that is to be told."""
    sequences = data.tokens()
    return loader(sequences[:, :-1], sequences[:, -1])


@case("weights that are tied", "torch")
def tied() -> Parts:
    model = Tied()
    return Parts(model, torch.optim.Adam(model.parameters(), 0.01), words(), classify)


@case("sparse gradients, SparseAdam beside Adam", "torch")
def sparse() -> Parts:
    model = Tied(sparse=True)
    optimizers = [
        torch.optim.SparseAdam(model.embedding.parameters(), 0.01),
        torch.optim.Adam(model.output.parameters(), 0.01),
    ]
    return Parts(model, optimizers, words(), classify)


@case("parametrizations.weight_norm and spectral_norm", "torch")
def parametrized() -> Parts:
    from torch.nn.utils.parametrizations import spectral_norm, weight_norm

    model = nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.Tanh(), spectral_norm(nn.Linear(8, 3)))
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)


def _keep(backbone: nn.Module) -> None:
    backbone.eval()


def _with_norm() -> nn.Sequential:
    backbone = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
    return nn.Sequential(backbone, nn.Linear(8, 3))


@case(
    "a frozen backbone, whose BatchNorm is kept in evaluation mode",
    "torch",
    note="call `backbone.eval()` in train_step",
)
def frozen() -> Parts:
    model = _with_norm()
    backbone = model[0]
    backbone.requires_grad_(False)
    optimizer = torch.optim.SGD(model[1].parameters(), 0.1)
    return Parts(model, optimizer, vectors(), classify, before_batch=lambda: _keep(backbone))


@case(
    "swa_utils.AveragedModel with an EMA as component",
    "torch",
    by_step=True,
    note="freeze the average: `ema.requires_grad_(False)`",
)
def averaged() -> Parts:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = _with_norm()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def update() -> None:
        average.update_parameters(model)

    return Parts(model, optimizer, vectors(), classify, by_step=True, components=[average], after_step=update)


@case("SWALR, and an average of the weights once an epoch", "torch", note="update the average in on_epoch_end")
def stochastic_averaging() -> Parts:
    from torch.optim.swa_utils import SWALR, AveragedModel

    model = perceptron()
    average = AveragedModel(model).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = SWALR(optimizer, 0.05, anneal_epochs=2)

    def update(epoch: int) -> None:
        average.update_parameters(model)

    return Parts(model, optimizer, vectors(), classify, scheduler, components=[average], after_epoch=update)


class Checkpointed(nn.Module):
    """A perceptron that computes its middle again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 8), perceptron_middle(), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        from torch.utils.checkpoint import checkpoint

        return self.last(checkpoint(self.middle, self.first(x), use_reentrant=False))


def perceptron_middle() -> nn.Module:
    """A layer with dropout."""
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5))


@case("gradient checkpointing over dropout", "torch")
def checkpointed() -> Parts:
    model = Checkpointed()
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), vectors(), classify)


@case("nn.TransformerEncoder with dropout", "torch")
def transformer() -> Parts:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    model = nn.Sequential(nn.Embedding(32, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 32))

    def loss(model: Any, bat: Any) -> Any:
        x, y = bat
        return nn.functional.cross_entropy(model(x)[:, -1], y)

    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), words(), loss)


class Carrying(nn.Module):
    """An LSTM that carries its state from batch to batch, in buffers."""

    hidden: torch.Tensor
    cell: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm, self.output = nn.Embedding(32, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 32)
        self.register_buffer("hidden", torch.zeros(1, data.BATCH, 8))
        self.register_buffer("cell", torch.zeros(1, data.BATCH, 8))

    def forward(self, x: Any) -> Any:
        states, (hidden, cell) = self.lstm(self.embedding(x), (self.hidden, self.cell))
        self.hidden, self.cell = hidden.detach(), cell.detach()
        return self.output(states[:, -1])


@case(
    "an LSTM that carries its state over batches",
    "torch",
    note="keep the state in buffers: it is in the checkpoint then",
)
def carrying() -> Parts:
    model = Carrying()
    return Parts(model, torch.optim.Adam(model.parameters(), 0.01), words(), classify)


@case("LazyLinear", "torch")
def lazy() -> Parts:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    return Parts(model, torch.optim.SGD(model.parameters(), 0.1), vectors(), classify)


class Noisy(torch.utils.data.Dataset[Any]):
    """Vectors that are augmented with the global random streams."""

    def __init__(self) -> None:
        self.x, self.y = map(torch.from_numpy, data.vectors())

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + 0.1 * torch.randn(6), self.y[index]


@case("random augmentation, read by two workers", "torch")
def augmented() -> Parts:
    model = perceptron()
    batches = DataLoader(Noisy(), data.BATCH, shuffle=True, num_workers=2)
    return Parts(model, torch.optim.AdamW(model.parameters(), 0.01), batches, classify)


class Unfreezing:
    """Trains the backbone from the second epoch on."""

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone.requires_grad_(False)

    def __call__(self, epoch: int) -> None:
        self.backbone.requires_grad_(True)


@case(
    "a backbone that is unfrozen after the first epoch",
    "torch",
    fails=(
        "killed",
        "what is frozen is not in the checkpoint; decide by `trainer.epoch` in train_step, not once in a hook",
    ),
)
def unfrozen() -> Parts:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    unfreeze = Unfreezing(model[0])
    return Parts(model, torch.optim.SGD(model.parameters(), 0.1), vectors(), classify, after_epoch=unfreeze)
