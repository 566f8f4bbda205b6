"""A test amid training: what PaddlePaddle alone has that it must not disturb."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from dowdyboy_paddle._backend import PaddleBackend


class Merging(nn.Layer):
    """Adds something to its weight for evaluation, and takes it away for training, as adapters do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.merged = False

    def train(self, mode: bool = True) -> Any:
        self._change(not mode)
        return super().train(mode)

    def eval(self) -> Any:
        self._change(True)
        return super().eval()

    @paddle.no_grad()
    def _change(self, merged: bool) -> None:
        if merged != self.merged:
            self.linear.weight.add_(paddle.to_tensor(1.0 if merged else -1.0))
            self.merged = merged


def test_a_layer_is_told_of_its_mode_by_its_own_method() -> None:
    model = Merging()
    before = model.linear.weight.numpy().copy()
    backend = PaddleBackend()
    put_back = backend.keep_modes(model)
    backend.set_training(model, False)
    assert model.merged
    put_back()
    assert [model.training, model.linear.training, model.merged] == [True, True, False]
    assert abs(model.linear.weight.numpy() - before).max() < 1e-6


class Stubborn(nn.Linear):
    """Stays in evaluation mode, whatever it is told."""

    def train(self, mode: bool = True) -> Any:
        return self.eval()


def test_each_layer_gets_its_own_mode_back() -> None:
    model = nn.Sequential(nn.BatchNorm1D(2), Stubborn(2, 2), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[0].eval()
    model[2][1].eval()
    layers = model.sublayers(include_self=True)
    before = [layer.training for layer in layers]
    assert before == [True, False, True, True, True, False]
    backend = PaddleBackend()
    put_back = backend.keep_modes(model)
    backend.set_training(model, False)
    put_back()
    assert [layer.training for layer in layers] == before
