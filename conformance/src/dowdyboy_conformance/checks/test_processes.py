"""W: several processes compute what one would."""

from __future__ import annotations

from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dowdyboy_conformance._together import Together
from dowdyboy_conformance.harnesses.harness import Harness
from dowdyboy_conformance.scenarios import numbers as scenarios

several = pytest.mark.parametrize("processes", [2, 3])


@pytest.mark.clause("W-1", "A-7", "A-8")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_each_process_knows_its_place(together: Together, processes: int) -> None:
    for rank, seen in enumerate(together(processes, "facts")):
        assert seen == {"rank": rank, "world_size": processes, "main": [rank == 0] * 2, "raw": True}


@pytest.mark.clause("W-4", "W-5")
@several
def test_evaluation_is_that_of_one_process_to_the_last_bit(together: Together, processes: int) -> None:
    [alone] = together(1, "evaluation")
    assert len(alone) == 17 * 5
    assert {name for name, *_ in alone["17 samples in batches of 5"]} == {
        *("every third", "loss", "size", "long", "mixed", "scores", "once")
    }
    for seen in together(processes, "evaluation"):
        assert [name for name in alone if seen[name] != alone[name]] == []


@pytest.mark.clause("W-2", "W-3", "D-2", "D-5", "D-7", "S-4")
@several
def test_training_batches_are_dealt_out(together: Together, processes: int) -> None:
    [alone] = together(1, "dealing")
    ranks = together(processes, "dealing")
    for name, whole in alone.items():
        assert [got[name] for got in ranks] == [_share(whole, rank, processes) for rank in range(processes)], name


def _share(whole: list[Any], rank: int, processes: int) -> list[Any]:
    """What a process should get, from (epoch, batch in epoch, global step, batch) of one process."""
    expected: list[Any] = []
    for epoch in (1, 2):
        batches = [bat for ep, _, _, bat in whole if ep == epoch]
        rounds = -(-len(batches) // processes)
        filled = list(islice(chain(batches, cycle(batches)), rounds * processes))
        for number, bat in enumerate(filled[rank::processes]):
            expected.append([epoch, number, (epoch - 1) * rounds + number, bat])
    return expected


@pytest.mark.clause("W-3", "D-5", "S-4")
def test_the_sequences_dealt_out_are_what_they_should_be(together: Together) -> None:
    [alone] = together(1, "dealing")
    counts = {name: len([ep for ep, *_ in seen if ep == 1]) for name, seen in alone.items()}
    assert counts == {**dict.fromkeys(alone, 7), "one batch": 1, "two batches": 2}
    assert alone["augmented"] == alone["augmented by workers"]
    assert alone["shuffled"] == alone["workers"]
    for name in ("shuffled", "weighted", "augmented"):
        first, second = ([bat for ep, _, _, bat in alone[name] if ep == epoch] for epoch in (1, 2))
        assert first != second, name


@pytest.mark.clause("W-11", "S-3")
@several
def test_processes_draw_different_numbers(together: Together, processes: int) -> None:
    ranks = together(processes, "draws")
    for stream in range(3):
        drawn = [row[stream] for seen in ranks for row in seen]
        assert len(drawn) == len(ranks[0]) * processes > processes
        assert len(set(drawn)) == len(drawn)


@pytest.mark.clause("W-6", "W-8", "O-1", "O-2", "O-3")
@several
@pytest.mark.parametrize("kind", [kind for kind in scenarios.KINDS if kind != "sync_bn"])
def test_training_is_that_of_one_process_on_the_joined_batches(
    harness: Harness, together: Together, tmp_path: Path, processes: int, kind: str
) -> None:
    _check_training(harness, together, tmp_path, processes, kind)


@pytest.mark.clause("W-9")
@several
def test_sync_bn_is_batch_norm_over_the_joined_batch(
    harness: Harness, together: Together, tmp_path: Path, processes: int
) -> None:
    _check_training(harness, together, tmp_path, processes, "sync_bn")


def _check_training(harness: Harness, together: Together, tmp_path: Path, processes: int, kind: str) -> None:
    ranks = [seen[kind] for seen in together(processes, "training")]
    assert [seen["state"] == ranks[0]["state"] for seen in ranks] == [True] * processes
    expected = scenarios.joined_training(harness, tmp_path, processes, kind)
    assert ranks[0]["steps"] == scenarios.KINDS[kind].get("epoch", 1) * -(-7 // processes)
    assert ranks[0]["state"].keys() == expected.keys()
    for name, want in expected.items():
        np.testing.assert_allclose(ranks[0]["state"][name], want, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.clause("W-6", "W-8", "O-5")
@several
def test_models_that_train_against_each_other_are_those_of_one_process(
    harness: Harness, together: Together, tmp_path: Path, processes: int
) -> None:
    ranks = together(processes, "adversaries")
    assert all(seen == ranks[0] for seen in ranks)
    for got, wanted in zip(ranks[0], scenarios.joined_adversaries(harness, tmp_path, processes), strict=True):
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.clause("W-7")
@several
def test_gradients_stay_at_home_until_the_window_closes(together: Together, processes: int) -> None:
    ranks = together(processes, "training")
    within = [seen["windows"]["gradients"][1] for seen in ranks]  # what the first batch of a window of two has left
    assert all(gradient is not None for gradient in within)
    assert all(np.abs(np.subtract(within[0], other)).max() > 1e-4 for other in within[1:])


@pytest.mark.clause("W-8")
@several
def test_buffers_are_those_of_the_first_process(together: Together, processes: int) -> None:
    ranks = together(processes, "buffers")
    assert len(ranks[0]) == 2
    assert all(seen == ranks[0] for seen in ranks)


@pytest.mark.clause("W-15", "O-8")
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_an_overflow_is_one_of_all_processes_and_of_one_optimizer(together: Together, processes: int) -> None:
    ranks = together(processes, "overflow")
    assert all(seen == ranks[0] for seen in ranks)
    (first, second), (first_then, second_then), (first_after, _) = ranks[0]["seen"]
    assert first_then == first == first_after, "its gradients overflowed, and then were zero"
    assert second_then != second, "it steps where the first one overflows"
    assert ranks[0]["scale"] == 65536.0 / 2


@pytest.mark.clause("W-14")
@several
def test_a_branch_that_some_skip_is_trained_with_find_unused_parameters(
    harness: Harness, together: Together, tmp_path: Path, processes: int
) -> None:
    ranks = together(processes, "branches")
    assert all(seen == ranks[0] for seen in ranks)
    expected = scenarios.joined_branches(harness, tmp_path, processes)
    for name, want in expected.items():
        np.testing.assert_allclose(ranks[0][name], want, rtol=0, atol=2e-6, err_msg=name)
    before = harness.state(scenarios.branched(harness))
    assert np.abs(before["fc1.weight"] - expected["fc1.weight"]).max() > 1e-4, "the branch must matter"
