"""The plan of a sweep: the artifacts to make, those that runs share, and an estimate of hours and price.

Inputs that are not made yet have no digests. So the plan compares how artifacts would be made: their settings, and
those of their inputs.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from .. import artifacts, planning, stages
from ..artifacts import Name
from ..errors import ConfigError, Conflict, CorruptArtifact, MissingInput
from ..planning import PlannedStage, Task, TaskState
from ..planning.estimate import estimate
from ..store import Store
from ..upkeep.parallel import each
from .sharing import shareable


@dataclass(frozen=True)
class SweepStage:
    """A stage of one run: its step, and the run whose artifact is copied instead of making it (or empty)."""

    step: PlannedStage
    source: str = ""

    @property
    def state(self) -> str:
        """Return the step's state, or `shared`."""
        return "shared" if self.source else self.step.state


@dataclass(frozen=True)
class SweepPlan:
    """The chosen stages of every run, by run."""

    runs: Mapping[str, Sequence[SweepStage]]

    @property
    def todo(self) -> list[Task]:
        """Return the tasks that are to be made."""
        every = (stage for run in self.runs.values() for stage in run)
        return [stage.step.task for stage in every if stage.state not in ("committed", "shared")]

    def count(self, state: str) -> int:
        return sum(stage.state == state for run in self.runs.values() for stage in run)

    def core_hours(self) -> float:
        """Return the hours that one core needs for all tasks, as if nothing of them were done."""
        return sum(stages.stage(task.stage).core_seconds(task.config) for task in self.todo) / 3600

    def hours(self, cores: int) -> float:
        """Return the hours on a machine with so many cores, where one stage runs after the other."""
        return sum(
            stages.stage(task.stage).core_seconds(task.config) / min(cores, _most(task, cores)) for task in self.todo
        ) / 3600  # fmt: skip

    def local_price(self) -> float:
        return sum(
            stages.stage(t.stage).core_seconds(t.config) / 3600 * t.config.kubernetes.prices.cpu_hour for t in self.todo
        )

    def pod_hours(self) -> tuple[float, float, list[str]]:
        """Return pod-hours and their price on a cluster, and the stages on GPUs, whose hours are unknown."""
        found = [(task.stage, estimate(task)) for task in self.todo]
        known = [(cost.pods * cost.hours, cost.price) for _, cost in found if cost.hours is not None]
        unknown = dict.fromkeys(stage for stage, cost in found if cost.hours is None)
        return sum(hours for hours, _ in known), sum(hours * price for hours, price in known), list(unknown)


def _most(task: Task, cores: int) -> int:
    """Return how many cores the task can use."""
    if stages.stage(task.stage).kind == "single":
        return int(getattr(getattr(task.config, task.stage, None), "threads", 1))
    return task.config.execution.workers or cores


def plan(store: Store, runs: Mapping[str, Sequence[Task]], chosen: Set[Name], base: str) -> SweepPlan:
    """Plan the chosen stages. `runs` has the tasks of each run, inputs included; `base` may have equal artifacts, too.

    Raise ConfigError if two runs would have the same artifacts.
    """
    alike = {run: _likeness(store, tasks) for run, tasks in runs.items()}
    _require_differences(alike, chosen)
    there: dict[str, str] = {}
    steps, bases = _all_steps(store, runs), _all_steps(store, _in_run(base, runs))
    for run in runs:
        for step, source in [*((step, run) for step in steps[run]), *((step, base) for step in bases[run])]:
            if step.state == "committed":
                there.setdefault(alike[run][replace(step.task.name, run=run)], source)
    found: dict[str, list[SweepStage]] = {}
    for run in runs:
        found[run] = []
        for step in steps[run]:
            if step.task.name in chosen:
                source = there.setdefault(alike[run][step.task.name], run)
                copied = step.state == "missing" and source != run and shareable(step.task.stage)
                found[run].append(SweepStage(step, source if copied else ""))
    return SweepPlan(found)


def _in_run(base: str, runs: Mapping[str, Sequence[Task]]) -> Mapping[str, Sequence[Task]]:
    return {run: [replace(task, run=base) for task in tasks] for run, tasks in runs.items()}


def _all_steps(store: Store, runs: Mapping[str, Sequence[Task]]) -> dict[str, list[PlannedStage]]:
    """Plan several runs at once: each takes a dozen small requests."""
    return dict(each(lambda item: (item[0], _steps(store, item[1])), runs.items()))


def _steps(store: Store, tasks: Sequence[Task]) -> list[PlannedStage]:
    """Plan one run; all its stages are `damaged` if that is impossible, so that the other runs go on."""
    try:
        return planning.plan(store, tasks)
    except (CorruptArtifact, MissingInput, Conflict) as error:
        return [PlannedStage(TaskState(store, task), "damaged", None, (error.message,)) for task in tasks]


def _likeness(store: Store, tasks: Sequence[Task]) -> dict[Name, str]:
    """Return a digest of how each task's artifact would be made; equal ones give equal artifacts."""
    found: dict[Name, str] = {}
    for task in tasks:
        own = artifacts.identity(task.name, task.config, stages.stage(task.stage).sections, {})
        inputs = [found.get(name) or _earlier(store, name) for name in task.inputs]
        found[task.name] = artifacts.digest([task.name.input, {**own.config, **own.extent}, inputs])
    return found


def _earlier(store: Store, name: Name) -> str:
    """Return the digest of an earlier iteration's artifact, or its name if it is missing."""
    committed, _ = artifacts.examined(store, name)
    return str(committed[-1]["digest"]) if committed else str(name)


def _require_differences(alike: Mapping[str, Mapping[Name, str]], chosen: Set[Name]) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for run, found in alike.items():
        made = tuple(value for name, value in found.items() if name in chosen)
        if made in seen:
            made_of = ", ".join(dict.fromkeys(name.stage for name in found if name in chosen))
            raise ConfigError(
                f"{seen[made]} and {run} would be equal: no chosen stage ({made_of}) depends on the setting"
                " in which they differ",
                next="wm sweep --help",
            )
        seen[made] = run
