"""A GAN on PyTorch: two models, two optimizers, stepped by hand; diff this file with ../paddle/gan.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from dowdyboy_torch import Trainer, TrainerConfig
from dowdyboy_torch.args import parse_args

sys.path.append(str(Path(__file__).parents[1]))  # for the module that both frameworks share

from digits_data import CLASSES, SIZE, load_parts  # type: ignore[import-not-found]

NOISE = 16
WIDTH = 128


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Learns to draw the digit that it is asked for.")
    parser.add_argument("--epoch", type=int, default=30, help="epochs to train (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="images a training step (default: %(default)s)")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1024, help="seed of the run (default: %(default)s)")
    parser.add_argument("--device", help="cpu, gpu, gpu:1, ... (default: a GPU if there is one)")
    parser.add_argument("--resume", help="auto, or a checkpoint to go on from (default: start afresh)")
    parser.add_argument("--out-dir", default="output/gan/torch", help="folder to write to (default: %(default)s)")
    return parse_args(parser)


def make_generator() -> nn.Module:
    """From noise and a digit, (batch, NOISE + CLASSES), to the pixels of an image, (batch, SIZE * SIZE)."""
    return nn.Sequential(
        nn.Linear(NOISE + CLASSES, WIDTH),
        nn.BatchNorm1d(WIDTH),  # without it, every noise soon gives the same image
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, SIZE * SIZE),
        nn.Sigmoid(),
    )


def make_critic() -> nn.Module:
    """From pixels and a digit, (batch, SIZE * SIZE + CLASSES), to a score: above 0 for what it holds to be real."""
    return nn.Sequential(
        nn.Linear(SIZE * SIZE + CLASSES, WIDTH),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDTH, WIDTH),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDTH, 1),
    )


def imagine(generator: Any, digits: Tensor) -> Tensor:
    noise = torch.randn([len(digits), NOISE]).to(digits.device)
    pixels: Tensor = generator(torch.cat([noise, digits], 1))
    return pixels


def train_step(trainer: Trainer, bat: Any, bat_idx: int, global_step: int) -> Tensor:
    generator, critic = trainer.get_models()
    [of_generator, of_critic], _ = trainer.get_optimizers()
    images, labels = bat
    real, digits = images.flatten(1), F.one_hot(labels, CLASSES).float()
    fake = imagine(generator, digits)

    # The critic learns to tell them apart. The generator is left out: its images are detached.
    score_real = critic(torch.cat([real, digits], 1))
    score_fake = critic(torch.cat([fake.detach(), digits], 1))
    critic_loss = F.softplus(-score_real).mean() + F.softplus(score_fake).mean()
    trainer.zero_grad(of_critic)
    trainer.backward(critic_loss)
    trainer.step(of_critic)

    # The generator learns to be taken for real. The critic gets gradients too, which the next step clears.
    generator_loss: Tensor = F.softplus(-critic(torch.cat([fake, digits], 1))).mean()
    trainer.zero_grad(of_generator)
    trainer.backward(generator_loss)
    trainer.step(of_generator)

    trainer.set_records({"critic_loss": critic_loss, "generator_loss": generator_loss})
    trainer.set_bar_state({"critic": critic_loss})
    return generator_loss  # only to be shown: with auto_optimize=False the trainer takes no step itself


def on_epoch_end(trainer: Trainer, ep: int) -> None:
    means = {name: values.mean().item() for name, values in trainer.get_records().items()}
    trainer.log(means, ep)
    trainer.print(f"epoch {ep}: " + ", ".join(f"{name} {mean:.4f}" for name, mean in means.items()))


@torch.no_grad()
def draw_samples(trainer: Trainer, path: Path) -> None:
    """Draws ten rows of the digits 0 to 9, each pixel four pixels wide."""
    generator, _ = trainer.get_models()
    generator.eval()
    digits = F.one_hot(torch.arange(CLASSES), CLASSES).float().tile([10, 1]).to(trainer.device())
    cells = imagine(generator, digits).cpu().numpy().reshape(10, CLASSES, SIZE, SIZE)
    cells = np.pad(cells, ((0, 0), (0, 0), (1, 1), (1, 1)))  # a margin between the images
    sheet = cells.transpose(0, 2, 1, 3).reshape(10 * (SIZE + 2), CLASSES * (SIZE + 2))
    image.imsave(path, np.kron(sheet, np.ones((4, 4))), cmap="gray_r", vmin=0, vmax=1)
    trainer.print(f"drew {path}")


def main() -> None:
    args = options()
    trainer = Trainer(
        TrainerConfig(
            name="gan",
            epoch=args.epoch,
            out_dir=args.out_dir,
            seed=args.seed,
            device=args.device,
            resume=args.resume,
            save_interval=args.epoch,  # besides the last, keep none on the way
            auto_optimize=False,  # train_step takes the steps
        )
    )
    train, _, _ = load_parts()
    dataset = TensorDataset(torch.from_numpy(train.images), torch.from_numpy(train.labels))
    trainer.set_train_dataloader(DataLoader(dataset, batch_size=args.batch_size, shuffle=True, drop_last=True))

    generator, critic = make_generator(), make_critic()
    of_generator = torch.optim.Adam(generator.parameters(), args.lr, (0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), args.lr, (0.5, 0.999))
    trainer.set_models([generator, critic])
    trainer.set_optimizers([of_generator, of_critic])
    trainer.fit(train_step, on_epoch_end=on_epoch_end)
    if trainer.is_main_process():
        draw_samples(trainer, Path(args.out_dir, "samples.png"))


if __name__ == "__main__":
    main()
