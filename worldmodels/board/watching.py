"""Reading a store again and again, as long as a browser asks, with bounded requests."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from .. import artifacts
from ..config import Config
from ..errors import ConfigError, CorruptArtifact, WmError
from ..store import Store
from ..upkeep.parallel import each
from .details import PANELS, POINTS, Details, Film
from .metered import Metered, price
from .overview import legible, row
from .reading import Iteration

log = logging.getLogger("wm.board")
ACTIVE_AT_ONCE = 8  # iterations at work, or shown in full, that one look reads
THREADS = 16
QUIET_AT_ONCE = 5  # others, in turn
LISTING_SECONDS = 60.0  # between two listings of one stage in a bucket; a worker's heartbeat is written as often
FIRST_SECONDS = 0.3  # between two pages while the first look reads
MOST_CHOSEN = 8  # a colour each


class Watch:
    """The runs of a store, or the run `only`. `look` reads; `state` returns what was read last, without waiting.

    Curves are thinned to about `points` points.
    """

    def __init__(
        self,
        store: Store,
        settings: Config,
        only: str = "",
        clock: Callable[[], float] = time.monotonic,
        points: float = POINTS,
    ) -> None:
        if only:
            artifacts.Name(only, 1, "rollouts")  # refuses an invalid name
        self.store_of_user, self.metered = store, Metered(store, clock)
        self.store = cast(Store, self.metered)
        self.seconds = store.publish_seconds
        self._settings, self._only, self._clock, self._points = settings, only, clock, points
        self._iterations: dict[str, Iteration] = {}
        self._full: dict[str, Details] = {}
        self._runs: set[str] = set()
        self._listed: dict[str, float] = {}
        self._turns: dict[str, float] = {}
        self._chosen: dict[str, float] = {}
        self._asked = -1e9
        self.error = ""
        self._now = time.time()  # of the store's clock, at the last look
        self._read: float | None = None
        self._reading = True
        self.details: dict[str, dict[str, Any]] = {}
        self._rows: list[dict[str, Any]] = []
        self._hurry, self._stop = threading.Event(), threading.Event()

    @property
    def iterations(self) -> dict[str, Iteration]:
        """Return the iterations found so far, by `<run>/<number>`."""
        return dict(self._iterations)

    def refuse_inside(self, folder: Path, next: str) -> None:
        """Raise ConfigError if the folder to write to is inside the store."""
        root = getattr(self.store_of_user, "root", None)
        if root is not None and folder.absolute().is_relative_to(root):
            raise ConfigError(f"{folder} is inside the store, whose folders are runs", next=next)

    # For the page.

    def state(self, chosen: Iterable[str] = ()) -> dict[str, Any]:
        """Return what is known, with the details of the iterations `chosen`, and ask the thread to go on reading."""
        now = self._clock()
        wanted = [id for id in chosen if id in self._iterations][:MOST_CHOSEN]
        if now - self._asked > self.seconds or any(id not in self.details for id in wanted):
            self._reading = True
            self._hurry.set()
        self._asked = now
        self._chosen |= dict.fromkeys(wanted, now)
        return self.document({id: self.details[id] for id in wanted if id in self.details})

    def document(self, details: dict[str, dict[str, Any]]) -> dict[str, Any]:
        reads, lists = self.metered.minute()
        return {
            "store": self.store.uri,
            "bucket": not self.store.local,
            "read": self._read,
            "error": self.error,
            "after": FIRST_SECONDS if self._reading else min(self.seconds, 2.0),
            "requests": {"reads": reads, "lists": lists, "hour": price(reads * 60, lists * 60)},
            "panels": [asdict(panel) for panel in PANELS],
            "runs": self._rows,
            "details": details,
        }

    def film(self, address: str) -> Film | None:
        return next((d.films[address] for d in list(self._full.values()) if address in d.films), None)

    # For the thread.

    def start(self) -> None:
        threading.Thread(target=self._run, name="board", daemon=True).start()

    def end(self) -> None:
        """Let the thread end after its present look."""
        self._stop.set()
        self._hurry.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            idle = self._clock() - self._asked > 2 * self.seconds + 5
            self._hurry.wait(None if idle else self.seconds)
            self._hurry.clear()
            if self._clock() - self._asked <= 2 * self.seconds + 5 and not self._stop.is_set():
                self.look()

    def look(self, *, everything: bool = False) -> None:
        """Read what may have changed; note an error of the store for the page. `everything`: no turns, all details."""
        try:
            self.find()
            self._now = self.store.now()
            now = self._clock()
            reported = now
            recent = [id for id, at in self._chosen.items() if now - at < 3 * self.seconds + 5]
            chosen = list(self._iterations) if everything else recent
            for iteration in each(self._refresh, self._due(chosen, everything), THREADS):
                if iteration.id in chosen:
                    self._fill(iteration)
                if self._clock() - reported > FIRST_SECONDS:
                    reported = self._clock()
                    self._publish(chosen)
            self.error = ""
            self._read = self._now
        except WmError as error:
            self.error = f"{error.message}; next: {error.next}" if error.next else error.message
        except Exception as error:  # a bug: the next look may succeed
            log.exception("the board cannot read %s", self.store.uri)
            self.error = f"{type(error).__name__}: {error}; the terminal of `wm board` shows more"
        self._reading = False
        self._publish(chosen=self._full)

    def find(self) -> None:
        """Find new runs, by one listing; in a bucket at most every LISTING_SECONDS. Raise StoreError."""
        if self._due_listing("") or not self._runs:
            names = [self._only] if self._only else self.store.folders("")
            found = {name for name in names if artifacts.RUN_NAME.fullmatch(name)}
            for run in self._runs - found:
                self._iterations = {id: it for id, it in self._iterations.items() if it.run != run}
            list(each(self._find_iterations, sorted(found - self._runs)))
            self._runs = found
            if not self._rows:
                self._publish(())

    def _find_iterations(self, run: str) -> None:
        try:
            numbers = artifacts.iterations(self.store, run)
        except CorruptArtifact:  # a link in place of the folder
            numbers = []
        for number in numbers:
            self._iterations.setdefault(f"{run}/{number}", Iteration(self.store, run, number))

    def _due(self, chosen: Iterable[str], everything: bool) -> list[Iteration]:
        """Return the iterations to read now: all unread ones, then the busy and a few quiet ones, each in turn."""
        turns = sorted(self._iterations.values(), key=lambda it: self._turns.get(it.id, 0.0))
        if everything:
            return turns
        new = [it for it in turns if not it.looked]
        busy = [it for it in turns if it.looked and (it.active or it.id in chosen)]
        quiet = [it for it in turns if it.looked and it not in busy]
        return [*new, *busy[:ACTIVE_AT_ONCE], *quiet[:QUIET_AT_ONCE]]

    def _refresh(self, iteration: Iteration) -> Iteration:
        self._turns[iteration.id] = self._clock()
        due = self._due_listing(iteration.id)
        following = f"{iteration.run}/{iteration.number + 1}"
        iteration.refresh(listings=due or not iteration.looked, every=due)
        key = artifacts.config_key(iteration.run, iteration.number + 1)
        if due and following not in self._iterations and self.store.modified(key) is not None:
            self._iterations[following] = Iteration(self.store, iteration.run, iteration.number + 1)
        return iteration

    def _due_listing(self, what: str) -> bool:
        """Return whether it is time to list `what` again."""
        now = self._clock()
        if now - self._listed.get(what, -1e9) < (0 if self.store.local else LISTING_SECONDS - 1):
            return False
        self._listed[what] = now
        return True

    def _fill(self, iteration: Iteration) -> None:
        known = self._full.get(iteration.id)
        if known is None or known.iteration is not iteration:  # a run that was removed and made again
            self._full[iteration.id] = known = Details(self.store, iteration, self._settings, self._points)
        known.refresh()

    def _publish(self, chosen: Iterable[str]) -> None:
        """Replace the document; readers in other threads see the old one or the new one."""
        found = sorted(self._iterations.values(), key=lambda it: (not it.active, -it.latest, it.run, -it.number))
        self._rows = legible([row(it) for it in found])
        self.details = {id: legible(self._full[id].document(self._now)) for id in chosen if id in self._full}
