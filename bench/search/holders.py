"""Who holds which paused training: what each worker of a search may ask for (no torch)."""

from __future__ import annotations

from fusetune.tuner.search import Searcher, SearchTrial


class Holders:
    """The workers' memories, each with the trainings that the worker trained last.

    A worker goes on with what it holds, or begins anew. What another holds would have to be trained again from the
    start, so it is asked for only if nothing else is left and nothing is in flight.

    Args:
        searcher: decides between the trainings that a worker may go on with and new ones.

    Example:
        >>> holders = Holders(Searcher({"depth": [1, 2]}, max_epochs=2))
        >>> first, second = holders.ask(worker=0), holders.ask(worker=1)
        >>> first.config != second.config, holders.ask(worker=2)
        (True, None)
        >>> holders.searcher.tell(first, 0.5)
        >>> holders.landed(first)
        >>> holders.ask(worker=0) is first, holders.of(1) == [second]
        (True, True)
    """

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        # Trial number -> worker that has it in memory. Trials from before a resume have none.
        self._holder: dict[int, int] = {}
        self._in_flight: set[int] = set()

    @property
    def any_in_flight(self) -> bool:
        """Whether a worker trains an epoch now."""
        return bool(self._in_flight)

    def ask(self, worker: int) -> SearchTrial | None:
        """Return the training that a worker trains next, which it holds from now on. None: there is none for it now."""
        elsewhere = [number for number, holder in self._holder.items() if holder != worker]
        trial = self.searcher.ask(elsewhere)
        if trial is None and elsewhere and not self._in_flight:
            trial = self.searcher.ask()
        if trial is not None:
            self._holder[trial.number] = worker
            self._in_flight.add(trial.number)
        return trial

    def landed(self, trial: SearchTrial) -> None:
        """Take that a training's epoch is over, after the searcher has been told."""
        self._in_flight.discard(trial.number)
        if trial.status != "paused":
            self.forget(trial)

    def of(self, worker: int) -> list[SearchTrial]:
        """Return the trainings that a worker holds."""
        return [self.searcher.trials[number] for number, holder in self._holder.items() if holder == worker]

    def forget(self, trial: SearchTrial) -> None:
        """Take that no worker holds a training any more."""
        self._holder.pop(trial.number, None)
