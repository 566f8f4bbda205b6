"""W: whose data it is that several processes train on, and what happens where they don't agree."""

from __future__ import annotations

from typing import Any

import pytest

from dowdyboy_conformance._together import Together

several = pytest.mark.parametrize("processes", [2, 3])


def _numbers(seen: dict[str, Any], epoch: int) -> list[float]:
    """The first number of each batch of an epoch."""
    assert "error" not in seen, seen
    return [batch[0] for ep, batch in seen["seen"] if ep == epoch]


@pytest.mark.clause("W-21")
@several
@pytest.mark.parametrize("kind", ["sampler", "declared", "declared, shuffled"])
def test_data_that_is_dealt_out_already_is_taken_as_it_is(together: Together, processes: int, kind: str) -> None:
    ranks = [seen[kind] for seen in together(processes, "parts")]
    for epoch in (1, 2):
        dealt = [_numbers(seen, epoch) for seen in ranks]
        assert [len(part) for part in dealt] == [4] * processes
        whole = [number for row in zip(*dealt, strict=True) for number in row]
        assert sorted(whole) == list(range(4 * processes))
        assert all(seen["recorded"][epoch - 1] == whole for seen in ranks), "b W + r is the number of a batch"


@pytest.mark.clause("W-21", "W-3")
@several
def test_what_a_stream_that_is_dealt_out_draws_is_another_thing_in_each_process(
    together: Together, processes: int
) -> None:
    ranks = [seen["declared, shuffled"]["seen"] for seen in together(processes, "parts")]
    drawn = [[batch[1] for _, batch in seen] for seen in ranks]
    within = [number for part in drawn for place, number in enumerate(part) if place % 4]
    assert len(set(within)) == len(within)


@pytest.mark.clause("W-21")
@several
@pytest.mark.parametrize("kind", ["stream", "list", "own dataset", "list of other length"])
def test_data_that_differs_between_processes_is_refused_in_all(together: Together, processes: int, kind: str) -> None:
    for seen in (rank[kind] for rank in together(processes, "parts")):
        assert seen["error"] == "SetupError" and seen["seen"] == [], seen
        assert "The processes don't see the same train data" in seen["text"]
        assert "dealt_out=True" in seen["text"] and "dealt_out=False" in seen["text"]


@pytest.mark.clause("W-21")
@several
def test_a_sampler_for_other_processes_is_refused(together: Together, processes: int) -> None:
    for rank in together(processes, "parts"):
        assert rank["sampler for others"]["error"] == rank["one part for all"]["error"] == "SetupError"
        assert f"over {processes + 1} processes" in rank["sampler for others"]["text"]
        assert ", ".join(["0"] * processes) in rank["one part for all"]["text"]


@pytest.mark.clause("W-21", "W-2")
@several
@pytest.mark.parametrize("kind", ["declared as one", "unseeded augmentation"])
def test_other_data_is_dealt_out_as_ever(together: Together, processes: int, kind: str) -> None:
    for rank, seen in enumerate(together(processes, "parts")):
        # Of the first one each process sees a sequence of its own, of which it takes its share.
        own = list(range(rank, 4 * processes, processes)) if kind == "declared as one" else list(range(4 * processes))
        rounds = -(-len(own) // processes)
        found = [int(number) for number in _numbers(seen[kind], 1)]
        assert found == (own * 2)[: rounds * processes][rank::processes]


@pytest.mark.clause("W-22")
@several
def test_unequal_numbers_of_batches_are_told_by_all_before_one_waits(together: Together, processes: int) -> None:
    for rank in together(processes, "parts"):
        kinds = ("uneven sampler", "declared, uneven", "declared, nothing for one")
        uneven, stream, nothing = (rank[kind] for kind in kinds)
        assert uneven["error"] == stream["error"] == nothing["error"] == "SetupError"
        assert ", ".join(["4"] * (processes - 1) + ["3"]) in uneven["text"] and uneven["seen"] == []
        assert ": 2, 4" in stream["text"] and len(stream["seen"]) == 3
        assert ": 0, 1" in nothing["text"] and nothing["seen"] == []


@pytest.mark.clause("W-22", "W-20")
@several
def test_the_last_round_of_a_stream_that_is_dealt_out_is_filled_up(together: Together, processes: int) -> None:
    for rank, seen in enumerate(together(processes, "parts")):
        expected = [float(number) for number in range(rank, 4 * processes + 1, processes)]
        expected += [float(rank)] if rank else []
        assert _numbers(seen["declared, last round not full"], 2) == expected
