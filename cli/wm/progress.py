"""Live progress: bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from worldmodels.durations import clock
from worldmodels.terminal import plain

if TYPE_CHECKING:
    from worldmodels.executors.local import Snapshot

PLAIN_SECONDS = 10.0


def console(stream: TextIO) -> Console:
    """Return a rich console on the stream. FORCE_COLOR, which CI systems set, does not make a pipe a terminal."""
    return Console(file=stream, highlight=False, force_terminal=stream.isatty())


def left(snapshot: "Snapshot", spent: float, start: float) -> str:
    """Return the time left, estimated from `spent` seconds and the progress since `start`; empty if unknown."""
    done = snapshot.done - start
    if done <= 0 or spent < 3:
        return ""
    return f"{clock(spent / done * (snapshot.total - snapshot.done))} left"


class Tail(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(plain(task.fields.get("tail", "")))


class Screen:
    """Shows progress, one line per stage: bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = console(sys.stdout)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(min_width=10)),
            BarColumn(bar_width=12, table_column=Column(min_width=12)),
            Tail(table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            TimeElapsedColumn(table_column=Column(min_width=7)),
            expand=True,
            console=self._console,
            refresh_per_second=4,
        )

    def __enter__(self) -> "Screen":
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def say(self, text: str) -> None:
        self._console.print(plain(text, keep="\n\t"), soft_wrap=True, markup=False)

    @contextmanager
    def stage(self, name: str) -> "Iterator[Callable[[Snapshot], None]]":
        began = time.monotonic()
        bar = self.bar(name)
        first: list[float] = []
        printed = began
        last: list[str] = [""]

        def report(snapshot: "Snapshot") -> None:
            nonlocal printed
            first.append(snapshot.done)
            del first[1:]
            now = time.monotonic()
            last[0] = _words(snapshot)
            line = f"{left(snapshot, now - began, first[0])}  {last[0]}".strip()
            if bar is not None:
                bar(snapshot.done, snapshot.total, line)
            elif now - printed >= PLAIN_SECONDS:
                printed = now
                self.say(f"{name}: {line}")

        if bar is None:
            self.say(f"{name}: starting")
        yield report
        spent = time.monotonic() - began
        if bar is not None:
            bar.end(last[0])
        else:
            self.say(f"{name}: done in {spent:.0f} s  {last[0]}")

    def bar(self, name: str) -> "Bar | None":
        """Return a line that can be rewritten; None if the output is no terminal."""
        return Bar(self._bars, name) if self._console.is_terminal else None


class Bar:
    """A progress bar, one line of a terminal."""

    def __init__(self, bars: Progress, name: str) -> None:
        self._bars, self._id = bars, bars.add_task(plain(name), total=None, tail="starting")

    def __call__(self, done: float, total: float, tail: str) -> None:
        self._bars.update(self._id, total=total, completed=done, tail=tail)

    def end(self, tail: str) -> None:
        total = self._bars.tasks[self._id].total or 1
        self._bars.update(self._id, total=total, completed=total, tail=tail)
        self._bars.stop_task(self._id)


@contextmanager
def bar(name: str, total: int, unit: Callable[[float], str]) -> Iterator[Callable[[int], None]]:
    """Show the progress of one long task on standard error; yield a function that adds to the amount done."""
    where = console(sys.stderr)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=12), Tail())
    bars = Progress(*columns, console=where, transient=True, disable=not where.is_terminal)
    task = bars.add_task(plain(name), total=total, tail="")
    began = printed = time.monotonic()
    done = 0

    def advance(count: int) -> None:
        nonlocal done, printed
        done += count
        now = time.monotonic()
        rate = done / max(now - began, 1e-3)
        line = f"{unit(done)} of {unit(total)}  {unit(rate)}/s  {clock((total - done) / rate) if rate else '0:00'} left"
        bars.update(task, completed=done, tail=line)
        if not where.is_terminal and now - printed >= PLAIN_SECONDS:
            printed = now
            where.print(plain(f"{name}: {line}"), soft_wrap=True, markup=False)

    with bars:
        yield advance


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the current item on a terminal's standard error."""
    with console(sys.stderr).status("") as line:
        yield lambda words: line.update(Text(plain(words)))


def _words(snapshot: "Snapshot") -> str:
    figures = "".join(f"  {name} {value:.4g}" for name, value in snapshot.figures.items())
    rate = f"  {snapshot.rate:.4g}/s" if snapshot.rate else ""
    return f"{snapshot.done:.5g}/{snapshot.total:.5g} {snapshot.unit}{rate}{figures}"
