"""``on_epoch_begin``: what it draws, and how a resumed run comes to what it had done in the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dowdyboy_core.backend.trees import encode
from dowdyboy_core.rand import derive_seed

from . import frozen
from .interlude import Interlude
from .run import Run
from .snapshots import apply_all, take_snapshot


def epochs_begun(index: Mapping[str, Any]) -> int:
    """How many epochs had begun when a run was saved."""
    return int(index["epoch"]) + (bool(index["batch"]) or index["val_batch"] is not None)


class Replay:
    """Runs ``on_epoch_begin`` before an epoch, and at a resume before the state is taken up for those that had begun.

    Args:
        run: the run.
        interlude: knows where hooks run.

    Attributes:
        resuming: whether it runs for an epoch that had begun before.
    """

    def __init__(self, run: Run, interlude: Interlude) -> None:
        self._run = run
        self._interlude = interlude
        self._hook: Callable[[int], Any] | None = None
        self._done = 0  # epochs for which it has been run again, the batches of the last of which may follow
        self.resuming = False

    def begin(self, hook: Callable[[int], Any] | None) -> None:
        """Begins a fit with this hook, or without one."""
        self._hook, self._done = hook, 0
        self._run.begins_epochs = hook is not None

    def begin_epoch(self, ep: int, prepare: Callable[[], None]) -> None:
        """Runs the hook for an epoch that begins now, if it has not been run again for it.

        Args:
            ep: the epoch.
            prepare: what is to be done before the hook.
        """
        if self._hook is None or ep <= self._done:
            return
        prepare()
        before = self._run.streams.capture()
        self._seed(ep)
        fresh = self._run.streams.capture()
        self._hook(ep)
        if _equal(self._run.streams.capture(), fresh):  # who draws nothing changes nothing
            self._run.streams.restore(before)

    def _seed(self, ep: int) -> None:
        """Has the hook draw what it draws in this epoch in any run: it may keep that, and no checkpoint does."""
        run = self._run
        run.streams.seed(derive_seed(run.config.seed, "on_epoch_begin", run.backend.rank, ep))

    def again(self, index: Mapping[str, Any]) -> None:
        """Runs the hook for each epoch that had begun, with nothing in place yet of what the checkpoint holds.

        Args:
            index: that of the checkpoint.
        """
        last = epochs_begun(index)
        if self._hook is None:
            if index.get("on_epoch_begin") and last:
                self._run.warn(
                    "The checkpoint was saved in a fit with on_epoch_begin, and this one has none: what that did in "
                    f"the epochs to {last} is not done again. Give it to go on as the saved run would have."
                )
            return
        position = self._run.position
        before = dict(vars(position))
        position.load_state(index)
        self.resuming, self._interlude.phase = True, "between"
        try:
            for ep in range(1, last + 1):
                position.running = ep
                self._seed(ep)
                self._hook(ep)
            self._done = last
        finally:
            self.resuming, self._interlude.phase = False, None
            vars(position).update(before)

    def around(self, index: Mapping[str, Any], folder: Path, script: list[str] | None) -> None:
        """The same where the state is in place, by ``load_checkpoint``: it is put back after that, as it is now.

        Args:
            index: that of the checkpoint.
            folder: the checkpoint.
            script: the parameters that the script had frozen, where it is still to be told that others were; or None.
        """
        if script is None and (self._hook is None or not epochs_begun(index)):
            self.again(index)  # which may have something to say
            return
        kept = take_snapshot(self._run, 0, everywhere=True)
        kept.index["format_version"] = index["format_version"]
        kept.trees["records"] = self._run.records.state()
        if script is not None:
            frozen.restore(self._run.backend, self._run.parts, script)
        self.again(index)
        apply_all(self._run, kept, folder)


def _equal(one: Any, other: Any) -> bool:
    """Whether two states of random streams are the same."""
    (value, arrays), (other_value, other_arrays) = encode(one, "rng"), encode(other, "rng")
    return bool(value == other_value) and all(
        memoryview(array.data).tobytes() == memoryview(other_arrays[name].data).tobytes()
        for name, array in arrays.items()
    )
