#!/usr/bin/env bash
# paddlepaddle 3.3.1: Rprop can't be made with a scheduler as its learning rate, which its signature allows.
#
# Its constructor compares the learning rate with the two bounds of learning_rate_range before it looks what it is. All other
# optimizers of paddle.optimizer take a scheduler. A number and set_lr after each epoch is the way round.
#
# Seen with Python 3.11 on a CPU:
#   SGD: takes a scheduler
#   Rprop: TypeError: '<=' not supported between instances of 'float' and 'StepDecay'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet paddlepaddle==3.3.1

venv/bin/python - 2>warnings <<'PY' | tee seen
import paddle

for kind in (paddle.optimizer.SGD, paddle.optimizer.Rprop):
    parameter = paddle.create_parameter([2], "float32")
    try:
        kind(paddle.optimizer.lr.StepDecay(0.01, 2), parameters=[parameter])
    except TypeError as error:
        print(f"{kind.__name__}: TypeError: {error}")
    else:
        print(f"{kind.__name__}: takes a scheduler")
PY

diff seen - <<'SEEN'
SGD: takes a scheduler
Rprop: TypeError: '<=' not supported between instances of 'float' and 'StepDecay'
SEEN
