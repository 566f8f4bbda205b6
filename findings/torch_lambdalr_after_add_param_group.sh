#!/usr/bin/env bash
# torch 2.13.0: once a parameter group is added, LambdaLR can't be stepped any more, while StepLR takes it along.
#
# Unfreezing a backbone in epoch 3 and giving it a group of its own is a usual way to fine-tune. `add_param_group` tells
# the schedulers nothing. LambdaLR has one function for each group that there was, and its next step raises a ValueError
# of `zip`, which names neither the scheduler nor the group. StepLR multiplies each group's own rate, and so takes the
# new one along.
#
# Seen with Python 3.11 on a CPU:
#   LambdaLR: ValueError: zip() argument 2 is shorter than argument 1
#   StepLR: [0.25, 0.5]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.13.0 numpy

venv/bin/python - <<'PY' | tee seen
import torch
from torch.optim.lr_scheduler import LambdaLR, StepLR

for make in (lambda optimizer: LambdaLR(optimizer, lambda epoch: 0.5**epoch), lambda optimizer: StepLR(optimizer, 1, 0.5)):
    head, backbone = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    scheduler = make(optimizer)
    optimizer.step()
    scheduler.step()
    optimizer.add_param_group({"params": list(backbone.parameters()), "lr": 1.0})
    optimizer.step()
    name = type(scheduler).__name__
    try:
        scheduler.step()
    except ValueError as error:
        print(f"{name}: ValueError: {error}")
    else:
        print(f"{name}: {[group['lr'] for group in optimizer.param_groups]}")
PY

diff seen - <<'SEEN'
LambdaLR: ValueError: zip() argument 2 is shorter than argument 1
StepLR: [0.25, 0.5]
SEEN
