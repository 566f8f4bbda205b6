"""One run on two frameworks: digits, begun on PyTorch, gone on with on PaddlePaddle, and brought back.

    python examples/crossing.py

Beside it the same training is run on PyTorch alone, and a table shows how far apart the two are. Exit codes: 0 if they
agree to the tolerance; 1 if they do not, or if a part fails.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
from digits import TOLERANCE, Curves, clear, difference, installed, read_curves, train  # type: ignore[import-not-found]
from matplotlib import pyplot as plt

from dowdyboy_core.args import parse_args


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains on digits with two frameworks in turn.")
    parser.add_argument("--epoch", type=int, default=5, help="epochs before each change (default: %(default)s)")
    parser.add_argument("--out-dir", type=Path, default="output/crossing", help="where to write (default: %(default)s)")
    return parse_args(parser)


def cross(parts: list[tuple[str, int]], out_dir: Path) -> str | None:
    """Trains in one folder, with one framework after another; each goes on from what the one before has saved.

    Args:
        parts: the frameworks, and the epoch to which each of them trains.
        out_dir: the folder of the run.

    Returns:
        What went wrong, None if nothing did.
    """
    for framework, epoch in parts:
        failure: str | None = train(framework, epoch, out_dir, "--resume=auto")
        if failure:
            return failure
    return None


def print_table(crossed: Curves, alone: Curves, owner: dict[int, str]) -> None:
    print("\nepoch | trained by |   crossed  uninterrupted  difference")
    print("------|------------|-------------------------------------")
    for ep, loss in crossed["train_loss"].items():
        other = alone["train_loss"][ep]
        print(f"{ep:5} | {owner[ep]:10} | {loss:9.6f}  {other:13.6f}  {abs(loss - other):10.1e}")


def draw(crossed: Curves, alone: Curves, changes: list[int], path: Path) -> None:
    """Draws both losses of every step, how far they are apart, and where the framework changes."""
    matplotlib.use("Agg")  # draws into a file, and so needs no display
    figure, (loss, gap) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    loss.plot(*zip(*alone["step_loss"].items(), strict=True), label="PyTorch alone", linewidth=4, alpha=0.5)
    loss.plot(*zip(*crossed["step_loss"].items(), strict=True), label="crossed", linewidth=1)
    gap.plot(*zip(*difference(crossed["step_loss"], alone["step_loss"]).items(), strict=True), ".")
    gap.axhline(TOLERANCE, color="red", linestyle="--", label="tolerance")
    steps_an_epoch = len(alone["step_loss"]) // len(alone["train_loss"])
    for axes in (loss, gap):
        for epoch in changes:
            axes.axvline(epoch * steps_an_epoch, color="gray", linestyle=":")
        axes.legend()
    loss.set(title="training loss; the dotted lines are where it crosses", xlabel="step", yscale="log")
    gap.set(title="difference to the uninterrupted run", xlabel="step", yscale="log")
    figure.savefig(path)


def main() -> None:
    args = options()
    missing = [framework for framework in ("torch", "paddle") if not installed(framework)]
    if missing:
        sys.exit(f"This needs both frameworks. Install the other one: pip install dowdyboy-{missing[0]}")
    crossed, alone = args.out_dir / "crossed", args.out_dir / "alone"
    for folder in (crossed, alone):
        clear(folder)
    parts = [("torch", args.epoch), ("paddle", 2 * args.epoch), ("torch", 3 * args.epoch)]
    print(f"Training {3 * args.epoch} epochs: {', '.join(f'{name} to {epoch}' for name, epoch in parts)} ...")
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(cross, parts, crossed), pool.submit(train, "torch", 3 * args.epoch, alone)]
    failures = [failure for job in jobs if (failure := job.result())]
    if failures:
        sys.exit("\n\n".join(failures))

    curves = [read_curves(folder) for folder in (crossed, alone)]
    owner = {ep: parts[(ep - 1) // args.epoch][0] for ep in range(1, 3 * args.epoch + 1)}
    print_table(curves[0], curves[1], owner)
    draw(curves[0], curves[1], [args.epoch, 2 * args.epoch], args.out_dir / "curves.png")
    gap = max(difference(curves[0]["step_loss"], curves[1]["step_loss"]).values())
    print(f"\nAt most {gap:.1e} apart over {len(curves[0]['step_loss'])} steps; see {args.out_dir / 'curves.png'}.")
    if not gap <= TOLERANCE:
        sys.exit(f"The claim does not hold: they differ by {gap:.1e}, and at most {TOLERANCE:.0e} is claimed.")
    print("The run has crossed twice as if nothing had been.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
