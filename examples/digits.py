"""The demo: the same training on PyTorch and on PaddlePaddle, and a table that shows how far apart they are.

    python examples/digits.py

Exit codes: 0 if both reach the accuracy and agree to the tolerance; 1 if they do not, or if a run fails; 3 if only one
framework is installed, so that there is nothing to compare.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt

from dowdyboy_core.args import parse_args

VIEWERS = {"torch": "tensorboard", "paddle": "visualdl"}
"""The frameworks, and the viewer of each one's curves."""
ACCURACY = 0.95
TOLERANCE = 1e-4

Curves = dict[str, dict[int, float]]
"""By name, what ``trainer.log`` was given at each step."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains on digits with both frameworks and compares them.")
    parser.add_argument("--epoch", type=int, default=15, help="epochs to train (default: %(default)s)")
    parser.add_argument("--out-dir", type=Path, default="output/digits", help="where to write (default: %(default)s)")
    return parse_args(parser)


def installed(framework: str) -> bool:
    # The name of a missing framework still finds the folder examples/torch or examples/paddle, which has no origin.
    specs = [importlib.util.find_spec(name) for name in (framework, f"dowdyboy_{framework}")]
    return all(spec is not None and spec.origin is not None for spec in specs)


def clear(folder: Path) -> None:
    """Removes what an earlier demo left, so that no file holds two runs; refuses a folder that is not the demo's."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "digits_run.log").is_file():
        sys.exit(f"{folder} holds files that are not from this demo. Move them, or give another --out-dir.")
    shutil.rmtree(folder)


def train(framework: str, epoch: int, out_dir: Path, *options: str) -> str | None:
    """Runs one framework's script in a process of its own and passes on what it says.

    Args:
        framework: which one.
        epoch: how many epochs it trains.
        out_dir: where it writes.
        options: further options of the script.

    Returns:
        What went wrong, None if nothing did.
    """
    script = Path(__file__).resolve().parent / framework / "digits.py"
    # On the CPU, where both compute in full float32; one thread each, since two are at work.
    command = [sys.executable, str(script), "--device=cpu", f"--epoch={epoch}", f"--out-dir={out_dir}", *options]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    # Progress and warnings go to stderr: kept aside, and shown only if it fails.
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8") as process:
            for line in process.stdout or ():
                if not line.startswith("======="):  # an epoch begins; the line at its end says more
                    print(f"{framework:>6} | {line.rstrip()}", flush=True)
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace").splitlines()
    if process.returncode == 0:
        return None
    return "\n".join([f"{script} ended with exit code {process.returncode}; the last it said:", *said[-40:]])


def read_curves(out_dir: Path) -> Curves:
    curves: Curves = {}
    for line in (out_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        point = json.loads(line)
        for name, value in point["values"].items():
            curves.setdefault(name, {})[point["step"]] = float(value)  # float reads "nan" and "inf" too
    return curves


def difference(one: dict[int, float], other: dict[int, float]) -> dict[int, float]:
    if one.keys() != other.keys():
        sys.exit(f"One run logged {len(one)} points and the other {len(other)}, or not at the same steps.")
    return {step: abs(one[step] - other[step]) for step in one}


def print_table(torch: Curves, paddle: Curves) -> None:
    print("\n      |           training loss            |        validation accuracy")
    print("epoch |     torch     paddle    difference |   torch    paddle    difference")
    print("------|------------------------------------|------------------------------")
    for ep in torch["train_loss"]:
        losses = [curves["train_loss"][ep] for curves in (torch, paddle)]
        accs = [curves["val_acc"][ep] for curves in (torch, paddle)]
        print(
            f"{ep:5} | {losses[0]:9.6f}  {losses[1]:9.6f}  {abs(losses[0] - losses[1]):12.1e} "
            f"| {accs[0]:7.2%}   {accs[1]:7.2%}  {abs(accs[0] - accs[1]):12.2%}"
        )


def draw(runs: dict[str, Curves], path: Path) -> None:
    """Draws the losses of every step, how far they are apart, and the accuracies."""
    matplotlib.use("Agg")  # draws into a file, and so needs no display
    figure, (loss, gap, accuracy) = plt.subplots(1, 3, figsize=(15, 4), layout="constrained")
    for (framework, curves), width in zip(runs.items(), (4, 1), strict=False):  # the second lies on the first
        loss.plot(*zip(*curves["step_loss"].items(), strict=True), label=framework, linewidth=width)
        accuracy.plot(*zip(*curves["val_acc"].items(), strict=True), label=framework, linewidth=width)
    if len(runs) == 2:
        steps, gaps = zip(*difference(*(curves["step_loss"] for curves in runs.values())).items(), strict=True)
        gap.plot(steps, gaps, ".")  # on a logarithmic axis, differences of exactly 0 are left out
        gap.axhline(TOLERANCE, color="red", linestyle="--", label="tolerance")
        gap.legend()
    loss.set(title="training loss", xlabel="step", yscale="log")
    gap.set(title="difference of the training losses", xlabel="step", yscale="log")
    accuracy.set(title="validation accuracy", xlabel="epoch")
    loss.legend()
    accuracy.legend()
    figure.savefig(path)


def find_faults(runs: dict[str, Curves]) -> list[str]:
    """Checks what the demo claims; returns what does not hold."""
    faults = []
    print()
    for framework, curves in runs.items():
        [accuracy] = curves["test_acc"].values()
        print(f"{framework:>6} | accuracy on the test images, which no epoch has seen: {accuracy:.2%}")
        if not accuracy >= ACCURACY:
            faults.append(f"{framework} has {accuracy:.2%} of the test images right, and {ACCURACY:.0%} are claimed")
    if len(runs) == 2:
        for name in ("step_loss", "train_loss", "val_loss"):
            gaps = difference(*(curves[name] for curves in runs.values()))
            step, gap = max(gaps.items(), key=lambda item: item[1])
            print(f"  both | {name}: at most {gap:.1e} apart over {len(gaps)} points")
            if not all(value <= TOLERANCE for value in gaps.values()):  # with NaN it does not hold either
                faults.append(f"{name} differs by {gap:.1e} at {step}, and at most {TOLERANCE:.0e} is claimed")
    return faults


def main() -> None:
    args = options()
    frameworks = [framework for framework in VIEWERS if installed(framework)]
    if not frameworks:
        sys.exit("Neither framework is installed. For both: pip install dowdyboy-torch dowdyboy-paddle")
    for framework in frameworks:
        clear(args.out_dir / framework)
    (args.out_dir / "curves.png").unlink(missing_ok=True)

    print(f"Training with {' and '.join(frameworks)}, {args.epoch} epochs ...")
    with ThreadPoolExecutor() as pool:
        failures = list(pool.map(lambda name: train(name, args.epoch, args.out_dir / name), frameworks))
    if any(failures):
        sys.exit("\n\n".join(failure for failure in failures if failure))

    runs = {framework: read_curves(args.out_dir / framework) for framework in frameworks}
    if len(runs) == 2:
        print_table(runs["torch"], runs["paddle"])
    draw(runs, args.out_dir / "curves.png")
    faults = find_faults(runs)

    print(f"\nCurves          {args.out_dir / 'curves.png'}")
    for framework in frameworks:
        folder = args.out_dir / framework
        print(f"Log             {folder / 'digits_run.log'}")
        print(f"Checkpoints     {folder / 'checkpoint'}")
        print(f"Viewer          {VIEWERS[framework]} --logdir {shlex.quote(str(folder / 'log'))}")

    if faults:
        sys.exit("\nThe claim does not hold: " + "; ".join(faults) + ".")
    if len(runs) == 1:
        [missing] = VIEWERS.keys() - runs.keys()
        print(f"\nOnly {frameworks[0]} is installed. To compare it with {missing}: pip install dowdyboy-{missing}")
        sys.exit(3)
    print(f"\nThe claim holds: both have {ACCURACY:.0%} right or more, and every loss is equal to {TOLERANCE:.0e}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # Ctrl-C reaches the trainings as well, and main has waited for them to end
        sys.exit(130)
