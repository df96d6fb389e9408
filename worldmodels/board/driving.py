"""A live drive for the page. It moves only when the page asks for the next picture, so a hidden page pauses it."""

import contextlib
import io
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ..errors import CorruptArtifact, MissingInput, WmError, lacking
from ..hints import ITERATION, RUN, STORE, complete
from ..store import Store

if TYPE_CHECKING:
    from ..interchange.drives import Drive, View

IDLE_SECONDS = 600.0  # without a request, until the drive is closed
EPISODE = 1000  # steps until a drive of C alone ends, as in `wm evaluate`
CALM = 50  # steps before a dream: CarRacing zooms in during the first second, and M knows no speed yet
NICENESS = 10  # of a thread that drives: a run on this machine comes first
QUALITY = 90  # of the JPEG
KEYS = {"left": (-1.0, 0.0, 0.0), "right": (1.0, 0.0, 0.0), "up": (0.0, 1.0, 0.0), "down": (0.0, 0.0, 0.8)}
"""Steering, gas and brake of each key, as in Gymnasium's own CarRacing for people."""
_REQUEST = ConfigDict(strict=True, extra="forbid")


class Start(BaseModel):
    """A request for a drive: C's parameters of an iteration, or None for no C, on the track of a seed."""

    model_config = _REQUEST
    run: Annotated[str, Field(max_length=100)]
    iteration: Annotated[int, Field(ge=1, le=99)]
    controller: Literal["mean", "best"] | Annotated[int, Field(ge=1, lt=2**31)] | None
    track: Annotated[int, Field(ge=0, lt=2**31)]


class Move(BaseModel):
    """A request for the picture after some steps. The keys that are pressed drive; with None, C drives."""

    model_config = _REQUEST
    steps: Annotated[int, Field(ge=1, le=10)]
    keys: Annotated[list[Literal["left", "right", "up", "down"]], Field(max_length=4)] | None
    dream: bool
    temperature: Annotated[float, Field(ge=0.05, le=3)]


class Picture(NamedTuple):
    """A JPEG, and the facts that the page shows beside it.

    The JPEG has the picture for people, if there is one, above the three frames of 64 pixels.
    """

    data: bytes
    facts: dict[str, Any]


@dataclass
class _Going:
    drive: "Drive"
    of: Start
    id: str
    asked: float
    by_keys: bool = False
    view: "View | None" = None

    @property
    def left(self) -> float:
        """Return the steps on the track until the drive ends."""
        return 0 if self.drive.ended else math.inf if self.by_keys else EPISODE - self.drive.steps


class Driving:
    """The one drive of a board; the next one takes its place. Its methods may be called in any thread."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._lock = threading.Lock()  # networks are not reentrant
        self._going: _Going | None = None

    def start(self, wanted: Start) -> dict[str, Any]:
        """Put the car on the track; return the drive's id. Raise WmError if the run or this machine cannot drive."""
        _give_way()
        with self._lock, self._telling(wanted):
            self._close()
            self._going = _Going(self._open(wanted), wanted, secrets.token_hex(8), self._clock())
            drive = self._going.drive
            self._wait(self._going.id, IDLE_SECONDS)
            return {"id": self._going.id, "rate": drive.env.steps_per_second, "calm": CALM}

    def move(self, id: str, wanted: Move) -> Picture:
        """Take steps, and return the view of the last one. Raise MissingInput if the drive was closed."""
        _give_way()
        with self._lock, self._telling((going := self._known(id)).of):
            dreams = wanted.dream and going.drive.steps >= CALM
            view = self._dream(going, wanted) if dreams else self._step(going, wanted)
            return Picture(_jpeg(view), _facts(view, dreams, ended=not dreams and going.left <= 0))

    def end(self, id: str) -> None:
        """Close the drive, if it still goes on."""
        with self._lock:
            if self._going and self._going.id == id:
                self._close()

    def _open(self, wanted: Start) -> "Drive":
        try:
            from ..api import Runs
            from ..interchange.drives import Drive

            run = Runs(self._store).run(wanted.run, wanted.iteration)
            return Drive(run, wanted.controller, wanted.track)
        except ModuleNotFoundError as error:
            raise lacking("a drive", error.name) from error

    @contextlib.contextmanager
    def _telling(self, wanted: Start) -> Iterator[None]:
        """Complete the next command of errors; turn those of arrays that do not fit into CorruptArtifact."""
        try:
            yield
        except WmError as error:
            error.next = self._complete(error.next, wanted)
            raise
        except (ValueError, RuntimeError) as error:
            words = f"{wanted.run}/iter-{wanted.iteration}: V, M or C gives what cannot drive: {error}"
            raise CorruptArtifact(words, next=self._complete("wm verify", wanted)) from error

    def _complete(self, command: str, wanted: Start) -> str:
        return complete(command, {RUN: [wanted.run], ITERATION: [str(wanted.iteration)], STORE: [self._store.uri]})

    def _known(self, id: str) -> _Going:
        if not self._going or self._going.id != id:
            raise MissingInput(
                "this drive was closed: another one began, or its page was hidden for long; start it again"
            )
        self._going.asked = self._clock()
        return self._going

    def _dream(self, going: _Going, wanted: Move) -> "View":
        action = _action(going, wanted.keys)
        return [going.drive.dream(action, temperature=wanted.temperature) for _ in range(wanted.steps)][-1]

    def _step(self, going: _Going, wanted: Move) -> "View":
        """Take the steps that are left; return the last view of the track."""
        going.by_keys = going.by_keys or wanted.keys is not None
        steps = int(min(wanted.steps, going.left))
        for left in reversed(range(steps)):
            if not going.drive.ended:
                going.view = going.drive.step(_action(going, wanted.keys), picture=left == 0)
        assert going.view  # a drive begins with steps left
        return going.view

    def _wait(self, id: str, seconds: float) -> None:
        timer = threading.Timer(seconds, self._expire, (id,))
        timer.daemon = True
        timer.start()

    def _expire(self, id: str) -> None:
        with self._lock:
            if self._going and self._going.id == id:
                left = self._going.asked + IDLE_SECONDS - self._clock()
                self._wait(id, left) if left > 0 else self._close()

    def _close(self) -> None:
        if self._going:
            self._going.drive.close()
            self._going = None


def _give_way() -> None:
    """Lower this thread's priority; on other systems than Linux, that of the process."""
    os.setpriority(os.PRIO_PROCESS, 0, max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0)))


def _action(going: _Going, keys: Sequence[str] | None) -> Any:
    """Return the action [A] of the pressed keys: their sum. None stays None."""
    import numpy as np

    if keys is None:
        return None
    pressed = np.sum([KEYS[key] for key in set(keys)] or [(0.0, 0.0, 0.0)], axis=0)
    action = np.zeros(going.drive.env.actions, np.float32)
    action[:3] = pressed[: len(action)]
    return action


def _jpeg(view: "View") -> bytes:
    import numpy as np
    from PIL import Image

    strip = np.concatenate([view.frame, view.reconstruction, view.prediction], axis=1)
    above = [] if view.picture is None else [view.picture]
    canvas = Image.new("RGB", (max(part.shape[1] for part in (*above, strip)), sum(len(p) for p in (*above, strip))))
    top = 0
    for part in (*above, strip):
        canvas.paste(Image.fromarray(part), (0, top))
        top += len(part)
    data = io.BytesIO()
    canvas.save(data, "JPEG", quality=QUALITY, subsampling=0)
    return data.getvalue()


def _facts(view: "View", dreams: bool, ended: bool) -> dict[str, Any]:
    action = [round(float(value), 3) if math.isfinite(value) else None for value in view.action]
    score = round(view.score, 3) if math.isfinite(view.score) else None
    return {"step": view.step, "score": score, "action": action, "dream": dreams, "ended": ended}
