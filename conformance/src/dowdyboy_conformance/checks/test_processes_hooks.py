"""L-12 and W: a test that a hook calls in each of several processes."""

from __future__ import annotations

import pytest

from dowdyboy_conformance._together import Together


@pytest.mark.clause("L-12", "W-5", "W-8")
@pytest.mark.parametrize("processes", [2, 3])
def test_a_test_amid_training_is_that_of_one_process(together: Together, processes: int) -> None:
    for seen in together(processes, "interludes"):
        assert seen["records"] == [[first] * 7 for first in seen["first"]], "all have the first one's buffers"
        assert seen["left"] == [True] * 2, "which is nobody else's business afterwards"
        assert seen["end"] == seen["without"]


@pytest.mark.clause("L-12", "W-4")
@pytest.mark.parametrize("processes", [2, 3])
def test_a_test_in_validation_needs_all_processes(together: Together, processes: int) -> None:
    first, *others = together(processes, "interludes")
    assert first["in_val"] == [7], "where all have a batch they may test"
    assert first["refused"] == [
        "SetupError",
        "test was called from val_step with bat_idx=1, and 1 of the validation batches are in each of the "
        f"{processes} processes: some would not come to it. Call it from on_epoch_end.",
    ]
    for seen in others:
        assert seen["in_val"] == [7]
        assert seen["refused"] is None, "it has no such batch"
