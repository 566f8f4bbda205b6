"""What stands for a model in several processes, with an exchange that notes what it is asked for."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dowdyboy_core import SetupError
from dowdyboy_core.backend.replicas import Exchange, Exchanges, Replica, exchange_of, replicate, unsynchronised, unwrap


class Weight:
    def __init__(self) -> None:
        self.trained = True


class Module:
    """A framework's module class."""

    training = True

    def __call__(self, x: Any, times: int = 1) -> Any:
        return self.forward(x) * times

    def forward(self, x: Any) -> Any:
        raise NotImplementedError


class Net(Module):
    """A user's model."""

    def __init__(self) -> None:
        self.first, self.second = Weight(), Weight()
        self.temperature = 2.0

    def forward(self, x: Any) -> Any:
        return x + 1

    def loss_of(self, x: Any) -> Any:
        return self(x) / self.temperature

    @property
    def doubled(self) -> float:
        return self.temperature * 2

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> Any:
        return [self.first, self.second][number]

    def __iter__(self) -> Iterator[Any]:
        return iter([self.first, self.second])

    def __contains__(self, item: Any) -> bool:
        return item is self.first

    def __repr__(self) -> str:
        return "Net()"


class StandIn(Replica, Module):
    pass


class Noting(Exchange):
    """Notes what it is asked for."""

    def __init__(self, model: Any, find_unused: bool = False) -> None:
        super().__init__(model, find_unused)
        self.calls: list[Any] = []
        self.recording = True

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        return [(name, item) for name, item in vars(self.model).items() if isinstance(item, Weight)]

    def wants_gradient(self, parameter: Any) -> bool:
        return bool(parameter.trained)

    def set_trained(self, parameter: Any, trained: bool) -> None:
        parameter.trained = trained

    def is_recording(self) -> bool:
        return self.recording

    def connect(self) -> None:
        assert all(item.trained for item in self.parameters)
        self.calls.append(["connect", *self.names])

    def forward(self, *inputs: Any, **named: Any) -> Any:
        self.calls.append("forward")
        return self.model(*inputs, **named)

    def prepare_backward(self, loss: Any) -> None:
        self.calls.append("prepare")

    def attributes(self) -> dict[str, Any]:
        return {"module": self.model}


def stand_in(find_unused: bool = False, **trained: bool) -> tuple[Net, Any, Noting]:
    net = Net()
    for name, value in trained.items():
        getattr(net, name).trained = value
    exchange = Noting(net, find_unused)
    return net, replicate(StandIn, Module, exchange), exchange


def test_it_is_the_model_to_whoever_looks() -> None:
    net, model, _ = stand_in()
    assert [isinstance(model, kind) for kind in (Net, Module, Replica)] == [True] * 3
    assert model.first is net.first and model.doubled == 4.0 and model.loss_of(3) == 2.0
    assert len(model) == 3 and model[1] is net.second and list(model) == [net.first, net.second]
    assert net.first in model and net.second not in model
    assert repr(model) == "Net()" and dir(model) == dir(net)
    model.temperature = 4.0
    assert net.temperature == 4.0
    del model.temperature
    assert not hasattr(net, "temperature") and not hasattr(model, "temperature")
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'missing'"):
        _ = model.missing
    assert model.module is net, "as of a wrapper of the framework's"
    assert unwrap(model) is net and unwrap(net) is net
    assert model.__class__ is Net and type(model).__name__ == "StandIn"


def test_a_copy_is_one_of_the_model() -> None:
    _, model, _ = stand_in()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(copied) is Net and copied.temperature == 2.0


def test_one_call_readies_the_exchange_by_itself() -> None:
    _, model, exchange = stand_in()
    assert model(1, times=2) == 4
    assert exchange.before_backward(None)
    assert exchange.calls == [["connect", "first", "second"], "forward"]


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.loss_of(1),
        lambda model: model.forward(1),
        lambda model: (model(1), model(2)),
        lambda model: (model(1), model.loss_of(2)),
        lambda model: model[0],
        lambda model: model.first,
        lambda model: (model(1), exchange_of(model).before_backward(None)),
    ],
    ids=["method", "forward", "two calls", "call and method", "operator", "part", "second backward pass"],
)
def test_anything_else_has_it_readied_before_the_backward_pass(use: Any) -> None:
    _, model, exchange = stand_in()
    use(model)
    assert exchange.before_backward(None)
    assert exchange.calls[-1] == "prepare"


def test_what_may_be_unused_is_readied_for_each_loss() -> None:
    _, model, exchange = stand_in(find_unused=True)
    model(1)
    assert exchange.before_backward(None)
    assert exchange.calls[1:] == ["forward", "prepare"]


def test_nothing_is_exchanged_of_a_model_that_was_not_used() -> None:
    _, model, exchange = stand_in()
    assert unwrap(model)(1) == 2
    assert not exchange.before_backward(None)


def test_nothing_is_exchanged_in_an_evaluation_or_a_window() -> None:
    net, model, exchange = stand_in()
    exchange.training = net.training = False
    model(1)
    assert not exchange.before_backward(None)
    exchange.training = True
    with unsynchronised([model, net]):
        model(1)
        assert not exchange.synchronised and not exchange.before_backward(None)
    assert exchange.synchronised
    exchange.recording = False
    model(1)
    assert exchange.calls[1:] == ["forward"], "within the window"


def test_what_is_trained_is_followed_when_it_is_told_to() -> None:
    net, model, exchange = stand_in(second=False)
    assert exchange.calls == [["connect", "first"]]
    exchange.follow()
    net.second.trained = True
    exchange.follow()
    net.first.trained = False
    exchange.follow()
    assert exchange.calls == [["connect", "first"], ["connect", "first", "second"], ["connect", "second"]]
    net.second.trained = False
    exchange.follow()
    assert exchange.names == ["second"], "it may be trained again any time"
    model(1)
    assert exchange.calls[-1] == ["connect", "second"], "there is nothing to exchange"


def test_with_unused_ones_a_frozen_parameter_stays_exchanged() -> None:
    net, _, exchange = stand_in(find_unused=True, second=False)
    net.first.trained, net.second.trained = False, True
    exchange.follow()
    assert exchange.calls[-1] == ["connect", "first", "second"]
    assert not net.first.trained


def test_what_changes_in_between_is_refused_by_its_name() -> None:
    net, model, exchange = stand_in(second=False)
    model(1)
    net.second.trained = True
    with pytest.raises(SetupError, match=r"'second' began to be trained within an epoch.*on_epoch_end"):
        exchange.before_backward(None)
    exchange.follow()
    model(1)
    net.first.trained = False
    with pytest.raises(SetupError, match=r"'first' was frozen within an epoch.*find_unused_parameters=True"):
        exchange.before_backward(None)
    net.second.trained = False
    model(1)
    assert not exchange.before_backward(None), "wholly frozen, as in adversarial training"


def test_a_model_that_was_wholly_frozen_is_refused_too() -> None:
    net, model, exchange = stand_in(first=False, second=False)
    assert exchange.calls == []
    model(1)
    assert not exchange.before_backward(None)
    net.first.trained = net.second.trained = True
    model(1)
    with pytest.raises(SetupError, match="Each of the 2 parameters 'first', 'second' began"):
        exchange.before_backward(None)


def test_exchanges_live_as_long_as_what_stands_for_their_models() -> None:
    exchanges: Exchanges[Noting] = Exchanges()
    _, kept, first = stand_in()
    _, gone, second = stand_in()
    for exchange, model in ((first, kept), (second, gone)):
        exchanges.add(exchange)
        model(1)
    assert exchanges.before_backward(None) == [first, second]
    del gone, second, exchange, model
    gc.collect()
    assert exchanges.before_backward(None) == [first]
