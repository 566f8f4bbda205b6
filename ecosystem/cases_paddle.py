"""What PaddlePaddle itself brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
from paddle import nn
from paddle.io import DataLoader, TensorDataset
from PIL import Image

from . import data
from .harness import Parts, case


def loader(x: Any, y: Any, *, shuffle: bool = True) -> Any:
    """A loader over arrays."""
    return DataLoader(TensorDataset([paddle.to_tensor(x), paddle.to_tensor(y)]), batch_size=data.BATCH, shuffle=shuffle)


def classify(model: Any, bat: Any) -> Any:
    """The loss of a classifier."""
    x, y = bat
    return nn.functional.cross_entropy(model(x), y)


def perceptron(*, dropout: float = 0.2) -> Any:
    """A small classifier of vectors."""
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def vectors(*, shuffle: bool = True) -> Any:
    """A loader of labelled vectors."""
    return loader(*data.vectors(), shuffle=shuffle)


@case("paddle: multilayer perceptron, AdamW, validation", "paddle")
def plain() -> Parts:
    """The simplest, to see that the harness is right."""
    model = perceptron()
    optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    return Parts(model, optimizer, vectors(), classify, val_loader=loader(*data.vectors(seed=1), shuffle=False))


@case("paddle: the same in two processes", "paddle", processes=2)
def together() -> Parts:
    """Without dropout, of which each process draws its own."""
    model = perceptron(dropout=0.0)
    optimizer = paddle.optimizer.AdamW(0.01, parameters=model.parameters())
    return Parts(model, optimizer, vectors(), classify)


def adamw(model: Any, rate: Any = 0.01) -> Any:
    """The usual optimizer, for what is trained."""
    return paddle.optimizer.AdamW(rate, parameters=[item for item in model.parameters() if not item.stop_gradient])


@case(
    "paddle: gradients of two batches accumulated, clipped by the trainer",
    "paddle",
    settings={"accumulate_steps": 2, "clip_grad_norm": 0.5},
)
def window() -> Parts:
    model = perceptron()
    return Parts(model, paddle.optimizer.Momentum(0.1, parameters=model.parameters()), vectors(), classify)


@case("paddle: ClipGradByGlobalNorm in the optimizer", "paddle")
def clipped() -> Parts:
    model = perceptron()
    clip = nn.ClipGradByGlobalNorm(0.5)
    optimizer = paddle.optimizer.Momentum(0.1, parameters=model.parameters(), grad_clip=clip)
    return Parts(model, optimizer, vectors(), classify)


@case(
    "paddle: bfloat16 asked for on a CPU",
    "paddle",
    settings={"mixed_precision": "bf16"},
    note="PaddlePaddle has no autocast on a CPU: the trainer says so, and computes in float32",
)
def bfloat16() -> Parts:
    model = perceptron()
    return Parts(model, adamw(model), vectors(), classify)


class Copies(nn.Layer):
    """Linear layers side by side, one for each of many optimizers."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.layers = nn.LayerList([nn.Linear(6, 3) for _ in range(number)])

    def forward(self, x: Any) -> Any:
        return paddle.stack([layer(x) for layer in self.layers]).mean(0)


@case("paddle: 16 kinds of paddle.optimizer.lr, an optimizer each, by epoch", "paddle")
def schedulers() -> Parts:
    lr = paddle.optimizer.lr
    made = [
        lr.NoamDecay(16, 2),
        lr.PiecewiseDecay([1, 2], [0.1, 0.05, 0.01]),
        lr.NaturalExpDecay(0.1, 0.5),
        lr.InverseTimeDecay(0.1, 0.5),
        lr.PolynomialDecay(0.1, 3),
        lr.LinearWarmup(lr.StepDecay(0.1, 2), 1, 0.01, 0.1),
        lr.ExponentialDecay(0.1, 0.5),
        lr.MultiStepDecay(0.1, [1, 2]),
        lr.StepDecay(0.1, 2),
        lr.LambdaDecay(0.1, lambda epoch: 0.9**epoch),
        lr.MultiplicativeDecay(0.1, lambda epoch: 0.9),
        lr.CosineAnnealingDecay(0.1, 3),
        lr.CosineAnnealingWarmRestarts(0.1, 2),
        lr.OneCycleLR(0.1, 4),
        lr.CyclicLR(0.01, 0.1, 2),
        lr.LinearLR(0.1, 2),
    ]
    model = Copies(len(made))
    pairs = zip(made, model.layers, strict=True)
    optimizers = [paddle.optimizer.Momentum(rate, parameters=layer.parameters()) for rate, layer in pairs]
    return Parts(model, optimizers, vectors(), classify, scheduler=made)


@case("paddle: ReduceOnPlateau, following the validation", "paddle", settings={"save_best_rec": "val_loss"})
def plateau() -> Parts:
    model = perceptron()
    scheduler = paddle.optimizer.lr.ReduceOnPlateau(0.5, patience=0, threshold=0.5)
    optimizer = paddle.optimizer.SGD(scheduler, parameters=model.parameters())
    val_loader = loader(*data.vectors(seed=1), shuffle=False)
    return Parts(model, optimizer, vectors(), classify, scheduler, val_loader=val_loader)


@case(
    "paddle: OneCycleLR, step by step",
    "paddle",
    by_step=True,
    note="the hook steps the optimizer itself (`auto_optimize=False`, `auto_schedule=False`)",
)
def one_cycle() -> Parts:
    model = perceptron()
    scheduler = paddle.optimizer.lr.OneCycleLR(0.1, 12)
    return Parts(model, adamw(model, scheduler), vectors(), classify, scheduler, by_step=True)


@case(
    "paddle: a scheduler that only the optimizer is told of",
    "paddle",
    fails=("by hand", "it is never stepped; give it to `set_optimizer`, too"),
)
def own_schedule() -> Parts:
    model = perceptron()
    scheduler = paddle.optimizer.lr.ExponentialDecay(0.1, 0.5)
    return Parts(model, adamw(model, scheduler), vectors(), classify, scheduler, told_of_scheduler=False)


@case("paddle: 13 optimizers of paddle.optimizer, a layer each", "paddle")
def optimizers() -> Parts:
    kinds = paddle.optimizer
    makers = [
        kinds.Adadelta, kinds.Adagrad, kinds.Adam, kinds.Adamax, kinds.AdamW, kinds.ASGD, kinds.Lamb, kinds.Momentum,
        kinds.NAdam, kinds.RAdam, kinds.RMSProp, kinds.Rprop, kinds.SGD,
    ]  # fmt: skip
    model = Copies(len(makers))
    made = []
    for kind, layer in zip(makers, model.layers, strict=True):
        more = {"batch_num": 2} if kind is kinds.ASGD else {}
        made.append(kind(learning_rate=0.01, parameters=layer.parameters(), **more))
    return Parts(model, made, vectors(), classify)


@case(
    "paddle: incubate.LookAhead around Adam",
    "paddle",
    fails=("killed", "the state of the optimizer inside is not in the checkpoint"),
)
def lookahead() -> Parts:
    model = perceptron()
    inner = paddle.optimizer.Adam(0.01, parameters=model.parameters())
    return Parts(model, paddle.incubate.LookAhead(inner, k=2), vectors(), classify)


class Tied(nn.Layer):
    """A bag of words whose output layer is its embedding."""

    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 8, sparse=sparse)
        self.output = nn.Linear(8, 32) if sparse else None

    def forward(self, x: Any) -> Any:
        found = self.embedding(x).mean(1)
        return (
            paddle.matmul(found, self.embedding.weight, transpose_y=True) if self.output is None else self.output(found)
        )


def words() -> Any:
    """Sequences, and the word that is to be told."""
    sequences = data.tokens()
    return loader(sequences[:, :-1], sequences[:, -1])


@case("paddle: weights that are tied", "paddle")
def tied() -> Parts:
    model = Tied()
    return Parts(model, adamw(model), words(), classify)


@case("paddle: sparse gradients", "paddle")
def sparse() -> Parts:
    model = Tied(sparse=True)
    optimizer = paddle.optimizer.Adam(0.01, parameters=model.parameters(), lazy_mode=True)
    return Parts(model, optimizer, words(), classify)


@case("paddle: nn.utils.weight_norm and spectral_norm", "paddle")
def normed() -> Parts:
    utils = nn.utils
    model = nn.Sequential(utils.weight_norm(nn.Linear(6, 8)), nn.Tanh(), utils.spectral_norm(nn.Linear(8, 3)))
    return Parts(model, adamw(model), vectors(), classify)


def _with_norm() -> Any:
    return nn.Sequential(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1D(8), nn.ReLU()), nn.Linear(8, 3))


@case(
    "paddle: a frozen backbone, whose BatchNorm is kept in evaluation mode",
    "paddle",
    note="call `backbone.eval()` in train_step",
)
def frozen() -> Parts:
    model = _with_norm()
    backbone = model[0]
    for item in backbone.parameters():
        item.stop_gradient = True
    return Parts(model, adamw(model[1]), vectors(), classify, before_batch=backbone.eval)


@case("paddle: an average of the weights as component", "paddle", by_step=True)
def averaged() -> Parts:
    model, average = _with_norm(), _with_norm()
    average.set_state_dict(model.state_dict())
    for item in average.parameters():
        item.stop_gradient = True

    def update() -> None:
        own = model.state_dict()
        with paddle.no_grad():
            for name, item in average.state_dict().items():
                item.set_value(item * 0.9 + own[name] * 0.1)

    return Parts(model, adamw(model), vectors(), classify, by_step=True, components=[average], after_step=update)


class Recomputed(nn.Layer):
    """A perceptron that computes its middle again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)
        self.middle = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, x: Any) -> Any:
        from paddle.distributed.fleet.utils import recompute

        return self.last(recompute(self.middle, self.first(x), use_reentrant=False))


@case("paddle: recompute over dropout", "paddle")
def recomputed() -> Parts:
    model = Recomputed()
    return Parts(model, adamw(model), vectors(), classify)


@case("paddle: jit.to_static", "paddle")
def static() -> Parts:
    model = paddle.jit.to_static(perceptron())
    return Parts(model, adamw(model), vectors(), classify)


class Translator(nn.Layer):
    """An nn.Transformer between an embedding and an output layer."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(32, 8), nn.Linear(8, 32)
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, dropout=dropout)

    def forward(self, source: Any, target: Any) -> Any:
        return self.output(self.transformer(self.embedding(source), self.embedding(target)))


def _translated(dropout: float) -> Parts:
    sequences = data.tokens()

    def loss(model: Any, bat: Any) -> Any:
        source, target = bat
        return nn.functional.cross_entropy(model(source, target), target)

    model = Translator(dropout)
    return Parts(model, adamw(model), loader(sequences, sequences[:, ::-1].copy()), loss)


@case("paddle: nn.Transformer with dropout", "paddle")
def transformer() -> Parts:
    return _translated(0.1)


@case("paddle: nn.Transformer in two processes", "paddle", processes=2)
def transformer_together() -> Parts:
    return _translated(0.0)


class Recurrent(nn.Layer):
    """A language model."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.embedding, self.recurrent, self.output = nn.Embedding(32, 8), kind(8, 8), nn.Linear(8, 32)

    def forward(self, x: Any) -> Any:
        return self.output(self.recurrent(self.embedding(x))[0][:, -1])


@case("paddle: LSTM", "paddle")
def recurrent() -> Parts:
    model = Recurrent(nn.LSTM)
    return Parts(model, adamw(model), words(), classify)


class Noisy(paddle.io.Dataset[Any]):
    """Vectors that are augmented with the global random streams."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = data.vectors()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + np.random.standard_normal(6).astype(np.float32), self.y[index]


@case("paddle: random augmentation, read by two workers", "paddle")
def augmented() -> Parts:
    model = perceptron()
    return Parts(model, adamw(model), DataLoader(Noisy(), batch_size=data.BATCH, shuffle=True, num_workers=2), classify)


class Stream(paddle.io.IterableDataset[Any]):
    """The labelled vectors, one after another."""

    def __iter__(self) -> Any:
        yield from zip(*data.vectors(), strict=True)


@case("paddle: an IterableDataset", "paddle")
def streamed() -> Parts:
    model = perceptron()
    return Parts(model, adamw(model), DataLoader(Stream(), batch_size=data.BATCH), classify)


@case("paddle: hapi, paddle.Model beside it in place of a loop by hand", "paddle")
def hapi() -> Parts:
    network = perceptron()
    optimizer = adamw(network)
    model = paddle.Model(network)
    model.prepare(optimizer, nn.CrossEntropyLoss())

    def train_batch(bat: Any) -> float:
        x, y = bat
        found: Any = model.train_batch([x], [y])
        return float(np.asarray(found[0]).item())

    return Parts(network, optimizer, vectors(), classify, train_batch_by_hand=train_batch)


def _measured(*, training: bool, as_component: bool) -> Parts:
    """A classifier with a metric of the training or of the validation, computed once an epoch."""
    model, metric = perceptron(), paddle.metric.Accuracy()

    def loss(model: Any, bat: Any) -> Any:
        x, y = bat
        found = model(x)
        if model.training == training:
            metric.update(metric.compute(found.detach(), y.unsqueeze(1)))
        return nn.functional.cross_entropy(found, y)

    def compute(epoch: int) -> float:
        value: Any = metric.accumulate()
        metric.reset()
        return float(value)

    val_loader = loader(*data.vectors(seed=1), shuffle=False)
    components = [metric] if as_component else []
    return Parts(
        model, adamw(model), vectors(), loss, val_loader=val_loader, components=components, after_epoch=compute
    )


@case(
    "paddle: metric.Accuracy of the validation, kept by the hooks",
    "paddle",
    note="update it in val_step, compute and reset in on_epoch_end",
)
def metric_of_validation() -> Parts:
    return _measured(training=False, as_component=False)


@case(
    "paddle: metric.Accuracy of the training as component",
    "paddle",
    fails=("killed", "it is no layer, and its state is not in the checkpoint; record sums with `set_records` instead"),
)
def metric_of_training() -> Parts:
    return _measured(training=True, as_component=True)


def _of_vision(name: str, **settings: Any) -> Callable[[], Parts]:
    def build() -> Parts:
        model = getattr(paddle.vision.models, name)(num_classes=3, **settings)
        optimizer = paddle.optimizer.Momentum(0.01, parameters=model.parameters())
        return Parts(model, optimizer, loader(*data.images()), classify)

    return build


for _name, _settings in {
    "resnet18": {},
    "mobilenet_v1": {"scale": 0.25},
    "mobilenet_v2": {"scale": 0.25},
    "mobilenet_v3_small": {"scale": 0.5},
    "shufflenet_v2_x0_25": {},
    "squeezenet1_1": {},
}.items():
    case(f"paddle: vision.models.{_name}", "paddle")(_of_vision(_name, **_settings))
case(
    "paddle: vision.models.shufflenet_v2_x0_25 in two processes",
    "paddle",
    processes=2,
    not_by_hand="in two processes BatchNorm keeps the statistics of process 0, in one those of all batches",
)(_of_vision("shufflenet_v2_x0_25"))


class Pictures(paddle.io.Dataset[Any]):
    """Pictures that a transform turns into tensors or arrays."""

    def __init__(self, transform: Any) -> None:
        super().__init__()
        drawn = np.random.default_rng(0)
        self.pictures = [drawn.integers(0, 255, (40, 40, 3), np.uint8) for _ in range(data.SAMPLES)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.transform(Image.fromarray(self.pictures[index])), np.int64(index % 3)


def _transformed(last: Any, workers: int) -> Parts:
    steps = paddle.vision.transforms
    transform = steps.Compose([steps.RandomResizedCrop(32), steps.RandomHorizontalFlip(), last])
    model = nn.Sequential(nn.Conv2D(3, 4, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 3))
    batches = DataLoader(Pictures(transform), batch_size=data.BATCH, shuffle=True, num_workers=workers)
    return Parts(model, adamw(model), batches, classify)


@case("paddle: vision.transforms that draw, with ToTensor", "paddle")
def transforms() -> Parts:
    return _transformed(paddle.vision.transforms.ToTensor(), 0)


def _as_array(picture: Any) -> Any:
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


@case("paddle: vision.transforms that draw, to arrays, read by two workers", "paddle")
def transforms_by_workers() -> Parts:
    return _transformed(_as_array, 2)
