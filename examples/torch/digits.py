"""Handwritten digits on PyTorch; diff this file with ../paddle/digits.py to see what a framework changes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from dowdyboy_torch import Trainer, TrainerConfig
from dowdyboy_torch.args import parse_args

sys.path.append(str(Path(__file__).parents[1]))  # for the module that both frameworks share

from digits_data import Part, initial_weights, load_parts  # type: ignore[import-not-found]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains a small network on 8x8 images of digits.")
    parser.add_argument("--epoch", type=int, default=15, help="epochs to train (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="images a training step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=0.05, help="first learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1024, help="seed of the run (default: %(default)s)")
    parser.add_argument("--device", help="cpu, gpu, gpu:1, ... (default: a GPU if there is one)")
    parser.add_argument("--resume", help="auto, or a checkpoint to go on from (default: start afresh)")
    parser.add_argument("--out-dir", default="output/digits/torch", help="folder to write to (default: %(default)s)")
    return parse_args(parser)  # also reads --config options.yaml


class Net(nn.Module):
    """Two convolutions, each followed by pooling, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.head = nn.Linear(32 * 2 * 2, 10)

    def forward(self, x: Tensor) -> Tensor:
        """From images (batch, 1, 8, 8) to scores (batch, 10)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        scores: Tensor = self.head(x.flatten(1))
        return scores


def make_model() -> Net:
    model = Net()
    weights = initial_weights()
    model.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})
    return model


def make_loader(part: Part, batch_size: int, shuffle: bool = False) -> DataLoader[Any]:
    dataset = TensorDataset(torch.from_numpy(part.images), torch.from_numpy(part.labels))
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle)


def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
    [model], [loss_func] = trainer.get_models(), trainer.get_components()
    [optimizer], _ = trainer.get_optimizers()
    images, labels = bat
    loss: Tensor = loss_func(model(images), labels)
    trainer.set_records({"train_loss": loss, "lr": optimizer.param_groups[0]["lr"]})
    trainer.log({"step_loss": loss}, global_step)
    return loss  # the trainer does the rest: backward, the optimizer's step, zeroed gradients


def val_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
    [model], [loss_func] = trainer.get_models(), trainer.get_components()
    images, labels = bat
    scores = model(images)
    loss: Tensor = loss_func(scores, labels)
    trainer.set_records({"val_loss": loss, "val_acc": (scores.argmax(1) == labels).float().mean()})
    return loss


def test_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> None:
    [model] = trainer.get_models()
    images, labels = bat
    trainer.set_records({"test_acc": (model(images).argmax(1) == labels).float().mean()})


def on_epoch_end(trainer: Trainer, ep: int) -> None:
    means = {name: values.mean().item() for name, values in trainer.get_records().items()}
    trainer.log(means, ep)
    trainer.print(f"epoch {ep}: " + ", ".join(f"{name} {mean:.4f}" for name, mean in means.items()))


def on_test_end(trainer: Trainer) -> None:
    accuracy = trainer.get_records()["test_acc"].mean().item()
    trainer.log({"test_acc": accuracy}, trainer.epoch)
    trainer.print(f"test_acc {accuracy:.4f}")


def main() -> None:
    args = options()
    trainer = Trainer(
        TrainerConfig(
            name="digits",
            epoch=args.epoch,
            out_dir=args.out_dir,
            seed=args.seed,
            device=args.device,
            resume=args.resume,
            save_interval=args.epoch,  # besides the best and the last, keep none on the way
            save_best=True,
            save_best_type="max",
            save_best_rec="val_acc",
        )
    )
    train, val, test = load_parts()
    trainer.set_train_dataloader(make_loader(train, args.batch_size, shuffle=True))
    # 300 = 2 x 150 and 450 = 3 x 150: of batches of one size the mean is the mean over the images.
    trainer.set_val_dataloader(make_loader(val, 150))
    trainer.set_test_dataloader(make_loader(test, 150))

    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), args.lr, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=5, gamma=0.5)
    trainer.set_model(model)
    trainer.set_component(nn.CrossEntropyLoss())
    trainer.set_optimizer(optimizer, scheduler)
    trainer.fit(train_step, val_step, on_epoch_end)

    # What is worth testing are the weights of the best epoch, not those of the last.
    [best] = Path(args.out_dir, "checkpoint").glob("best_epoch_*")
    trainer.load_checkpoint(best, weights_only=True)
    trainer.test(test_step, on_test_end)


if __name__ == "__main__":
    main()
