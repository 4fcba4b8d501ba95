"""Which trials of a run a tracker has: `tracked-<tracker>.jsonl` in the run's directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fusetune.bench.errors import RunDirectoryError, unusable
from fusetune.bench.results import LineFile


class SentList:
    """The trials that one tracker was sent, a line each, on disk before the next trial is sent.

    One process at a time may send a run to a tracker.

    Args:
        run: the run's directory.
        tracker: name of the tracker.
        place: where it keeps the trials. What was sent to another place does not count.

    Raises:
        RunDirectoryError: another process sends the run to this tracker, or the directory is not writable.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as run:
        ...     sent = SentList(Path(run), "wandb", "project demo")
        ...     sent.add("seed=0")
        ...     sent.close()
        ...     "seed=0" in SentList(Path(run), "wandb", "project demo").trials
        True
    """

    def __init__(self, run: Path, tracker: str, place: str) -> None:
        path = run / f"tracked-{tracker}.jsonl"
        self._place = place
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unusable(path, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise RunDirectoryError(
                path, "in use", f"another process sends this run to {tracker}", "Wait for it."
            ) from None
        self._file = LineFile(path, "a trial that was sent", "Remove the line, and the trial is sent again.")
        self._file.cut_torn_line()
        self.trials = {line["trial"] for line in self._file.read() if line.get("place") == place}

    def add(self, trial: str) -> None:
        """Note that a trial was sent."""
        self._file.append([{"trial": trial, "place": self._place}])
        self.trials.add(trial)

    def close(self) -> None:
        """Let another process send."""
        os.close(self._lock)
