"""A script for the original library, moved over; each line that had to change says what it was."""

# As its author left it, without docstrings and types:
# ruff: noqa: D101, D102
# mypy: allow-incomplete-defs, allow-untyped-calls, allow-untyped-defs

import argparse
import sys
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from dowdyboy_torch.trainer import Trainer, TrainerConfig  # was: from dowdyboy_lib.trainer import ...

sys.path.append(str(Path(__file__).parents[1]))

from digits_data import load_parts  # type: ignore[import-not-found]

parser = argparse.ArgumentParser(description="Trains on digits, as a script for the original library did.")
parser.add_argument("--epoch", type=int, default=3, help="run num epoch")
parser.add_argument("--mix", type=str, default="no", help="fp mix")
parser.add_argument("--batch-size", type=int, default=64, help="batch size")
parser.add_argument("--num-workers", type=int, default=0, help="loader num workers")
parser.add_argument("--save-interval", type=int, default=5, help="save interval")
parser.add_argument("--checkpoint", type=str, default=None, help="checkpoint to go on from")
parser.add_argument("--out-dir", type=str, default="./output/moved_over/torch/", help="out dir")
args = parser.parse_args()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 20, 3, padding=1)
        self.fc = nn.Linear(20 * 4 * 4, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.fc(torch.flatten(x, 1))


def build_data():
    train, val, _ = load_parts()
    train_dataset = TensorDataset(torch.from_numpy(train.images), torch.from_numpy(train.labels))
    val_dataset = TensorDataset(torch.from_numpy(val.images), torch.from_numpy(val.labels))
    train_loader = DataLoader(train_dataset, batch_size=args.batch_size, shuffle=True, num_workers=args.num_workers)
    val_loader = DataLoader(val_dataset, batch_size=args.batch_size, num_workers=args.num_workers)
    return train_loader, train_dataset, val_loader, val_dataset


def build_optimizer(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
    return optimizer, lr_scheduler


# Where these had a fifth argument, ep, it goes: def train_step(..., global_step, ep), and trainer.epoch tells it.
def train_step(trainer: Trainer, bat, bat_idx, global_step):
    [model] = trainer.get_models()
    [loss_func] = trainer.get_components()
    bat_x, bat_y = bat
    loss = loss_func(model(bat_x), bat_y)
    trainer.set_records({"train_loss": loss.item()})
    trainer.log({"train_loss": loss.item()}, global_step)
    return loss


def val_step(trainer: Trainer, bat, bat_idx, global_step):
    [model] = trainer.get_models()
    [loss_func] = trainer.get_components()
    bat_x, bat_y = bat
    pred_y = model(bat_x)
    loss = loss_func(pred_y, bat_y)
    right_count = torch.sum(bat_y == torch.argmax(pred_y, 1)).item()
    trainer.set_records({"val_loss": loss.item(), "right_count": right_count, "total_count": bat_y.shape[0]})
    trainer.set_bar_state({"val_acc": right_count / bat_y.shape[0]})
    return loss


def calc_acc(trainer: Trainer):
    rec = trainer.get_records()
    return torch.sum(rec["right_count"]).item() / torch.sum(rec["total_count"]).item()


def on_epoch_end(trainer: Trainer, ep):
    [optimizer], _ = trainer.get_optimizers()
    rec = trainer.get_records()
    ep_train_loss = torch.mean(rec["train_loss"]).item()
    ep_val_loss = torch.mean(rec["val_loss"]).item()
    ep_val_acc = calc_acc(trainer)
    lr = optimizer.param_groups[0]["lr"]
    trainer.print(
        f"ep: {ep}, ep_train_loss: {ep_train_loss}, ep_val_loss: {ep_val_loss}, ep_val_acc: {ep_val_acc}, lr: {lr}"
    )
    trainer.log({"ep_train_loss": ep_train_loss, "ep_val_loss": ep_val_loss, "ep_val_acc": ep_val_acc}, ep)


def main():
    cfg = TrainerConfig(
        name="moved_over",
        epoch=args.epoch,
        mixed_precision=args.mix,
        save_best=True,
        save_best_type="max",
        save_interval=args.save_interval,
        out_dir=args.out_dir,
    )
    trainer = Trainer(cfg)
    trainer.print(args)

    train_loader, train_dataset, val_loader, val_dataset = build_data()
    trainer.print(f"train data size : {len(train_dataset)}")
    trainer.print(f"val data size : {len(val_dataset)}")

    model = Net()
    optimizer, lr_scheduler = build_optimizer(model)
    trainer.print(model)

    trainer.set_train_dataloader(train_loader)
    trainer.set_val_dataloader(val_loader)
    trainer.set_model(model)
    trainer.set_component(nn.CrossEntropyLoss())
    trainer.set_optimizer(optimizer, lr_scheduler)
    trainer.set_save_best_calc_func(calc_acc)

    if args.checkpoint is not None:
        # Unchanged, and it does more: fit goes on after the saved epoch, where it used to count from 1 again. To start
        # anew from the weights alone, as before: trainer.load_checkpoint(args.checkpoint, weights_only=True).
        trainer.load_checkpoint(args.checkpoint)

    trainer.fit(train_step=train_step, val_step=val_step, on_epoch_end=on_epoch_end)


if __name__ == "__main__":
    main()
