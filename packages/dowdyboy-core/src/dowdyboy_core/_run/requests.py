"""Checkpoints that hooks ask for: which, and where all processes know of it."""

from __future__ import annotations

from dowdyboy_core._disk.labels import check_label

from .run import Run


class Requests:
    """Collects the labels under which the run is to be saved where it next can be.

    Args:
        run: the run, whose ``stopping`` tells the other processes of a request.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._labels: set[str] = set()  # of this process
        self._told = False

    def add(self, label: str) -> bool:
        """Takes a request; False where nothing is saved at all, which is told once.

        Raises:
            ConfigError: it is no label.
        """
        check_label(label)
        if self._run.config.enable_save_checkpoint:
            self._labels.add(label)
            self._run.stopping.wished = True
            return True
        if not self._told:
            self._told = True
            self._run.warn(
                f"save_checkpoint({label!r}) saves nothing: enable_save_checkpoint=False. Leave that out, with "
                "save_last=False and a large save_interval, to save nothing but what it is called for."
            )
        return False

    def due(self) -> bool:
        """Whether there is something to ``take``, as far as all processes know."""
        return self._run.stopping.agreed_to_save()

    def take(self) -> list[str]:
        """The names, but for the number, that the processes together have asked for; all of them come here at once."""
        given = self._run.backend.gather(sorted(self._labels))
        self.forget()
        return [f"chk_{label}_step" for label in sorted(set().union(*given))]

    def forget(self) -> None:
        """Begins anew."""
        self._labels.clear()
        self._run.stopping.forget_wishes()
