#!/usr/bin/env bash
# paddlepaddle 3.3.1: Tensor.clear_gradient takes no notice of its argument where that is given by name, and the
# optimizer's clear_grad passes over what is frozen.
#
# `clear_gradient(False)` drops a gradient. `clear_gradient(set_to_zero=False)`, the same call by the name that the
# documentation gives the argument, leaves a gradient of zeros, without a word: with a gradient of zeros AdamW still decays
# the weight, and momentum still moves it. And a parameter that is frozen in the middle of a run keeps the gradient of the
# step before, which `clear_grad` leaves there: a norm taken over all parameters goes on counting it.
#
# Seen with Python 3.11 on a CPU:
#   clear_gradient(False): None
#   clear_gradient(set_to_zero=False): [0.0, 0.0]
#   clear_grad() of what was frozen: [2.0, 4.0]
#   clear_grad() of what is trained: [0.0, 0.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet paddlepaddle==3.3.1

venv/bin/python - 2>warnings <<'PY' | tee seen
import paddle


def with_gradient():
    tensor = paddle.create_parameter([2], "float32", default_initializer=paddle.nn.initializer.Assign([1.0, 2.0]))
    (tensor * tensor).sum().backward()
    return tensor


def shown(tensor):
    return None if tensor.grad is None else tensor.grad.tolist()


one, other = with_gradient(), with_gradient()
one.clear_gradient(False)
other.clear_gradient(set_to_zero=False)
print("clear_gradient(False):", shown(one))
print("clear_gradient(set_to_zero=False):", shown(other))

frozen, trained = with_gradient(), with_gradient()
optimizer = paddle.optimizer.SGD(0.1, parameters=[frozen, trained])
frozen.stop_gradient = True
optimizer.clear_grad()
print("clear_grad() of what was frozen:", shown(frozen))
print("clear_grad() of what is trained:", shown(trained))
PY

diff seen - <<'SEEN'
clear_gradient(False): None
clear_gradient(set_to_zero=False): [0.0, 0.0]
clear_grad() of what was frozen: [2.0, 4.0]
clear_grad() of what is trained: [0.0, 0.0]
SEEN
