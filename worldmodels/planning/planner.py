"""Plans for a selection of stages and a config, and their execution up to committed artifacts."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .. import artifacts, stored
from ..artifacts import Name, config_key, publishing
from ..config import Config, personal
from ..errors import Busy, Conflict, CorruptArtifact
from ..store import Store
from ..stored import Manifest
from . import preflight
from .tasks import Task, TaskState, belong_together, find

if TYPE_CHECKING:
    from ..executors.base import Executor

LOCK_PAUSE_SECONDS = 2.0
Work = TypeVar("Work")
Report = TypeVar("Report")
State = Literal["committed", "missing", "differs", "follows", "damaged"]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan: `manifest` is the current one, `reasons` list why it does not fit.

    States: `differs` from the task's settings or inputs; `follows` an input that would be made again; `damaged` files.
    """

    found: TaskState
    state: State
    manifest: Manifest | None = None
    reasons: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        return self.found.task


def plan(store: Store, tasks: Sequence[Task], *, verify: bool = False) -> list[PlannedStage]:
    """Return one step per task, in order. With `verify`, read committed files and check them.

    Raise CorruptArtifact for a damaged manifest; with `verify`, its step is `damaged` instead.
    """
    steps: list[PlannedStage] = []
    for task in tasks:
        made = {step.task.name: step.state for step in steps if step.state != "committed"}
        steps.append(_step(TaskState(store, task).given(made), made, verify))
    return steps


def _step(found: TaskState, made: Mapping[Name, State], verify: bool) -> PlannedStage:
    """Plan a task after the earlier steps; `made` has the states of those that would be made first."""
    try:
        manifest = find(found.store, found.task.name, found.task.config)
    except CorruptArtifact as error:
        if not verify:
            raise
        return PlannedStage(found, "damaged", None, (error.message,))
    if manifest is None:
        return PlannedStage(found, "missing")
    if differences := found.differences(manifest):
        return PlannedStage(found, "differs", manifest, tuple(differences))
    if changed := [name for name in found.task.inputs if made.get(name) in ("differs", "follows")]:
        words = tuple(f"its input {name.stage} would be redone" for name in changed)
        return PlannedStage(found, "follows", manifest, words)
    if verify and not found.pending and (damage := _damage(found.store, found.task, manifest)):
        return PlannedStage(found, "damaged", manifest, (damage,))
    return PlannedStage(found, "committed", manifest)


def _damage(store: Store, task: Task, manifest: Mapping[str, Any]) -> str:
    """Return why a committed artifact is incomplete or damaged; empty if it is sound."""
    if failed := manifest["made"].get("failed_shards"):
        return f"{task.name}: {len(failed)} shards could not be made"
    return _changed(store, task.name, manifest)


def _changed(store: Store, name: Name, manifest: Mapping[str, Any]) -> str:
    """Return a message on the first stored file that differs from the manifest; empty if all match."""
    with tempfile.TemporaryDirectory(prefix="wm-verify-") as scratch:
        artifact = artifacts.load(store, name, manifest, Path(scratch))
        try:
            for files in (artifact.files, *(shard.files for shard in artifact.shards)):
                for each in files.files:
                    files.read(each)
        except CorruptArtifact as error:
            return error.message
    return ""


def refuse(steps: Sequence[PlannedStage], command: str = "") -> None:
    """Raise Conflict, with all stages that would be redone, if a step would replace a committed artifact."""
    unfit = [step for step in steps if step.state in ("differs", "follows")]
    if not unfit:
        return
    first = unfit[0]
    names = ", ".join(step.task.stage for step in unfit)
    raise Conflict(
        f"{first.task.name} is committed, but {'; '.join(first.reasons)}. This would redo {names}; "
        "another --run keeps both",
        next=command or artifacts.repair_command(first.task.name),
    )


def check(store: Store, steps: Sequence[PlannedStage], planned: Sequence[PlannedStage] = ()) -> None:
    """Raise the errors of later steps that can be detected before the command changes the store.

    `planned` are the steps of all stages of the iteration, of which `steps` are those to be done.
    """
    made = {step.task.name for step in steps if step.state != "committed"}
    sound = {step.task.name for step in planned if step.state == "committed"}  # with `redo`, `plan` has read its files
    for step in steps:
        inputs = (found := step.found.given(made)).inputs
        if step.state == "committed":
            continue
        belong_together(store, inputs)
        for name, manifest in inputs.items() if step.manifest else ():
            if name not in sound and (damage := _changed(store, name, manifest)):
                raise CorruptArtifact(f"{step.task.name} cannot be made: {damage}", next=artifacts.repair_command(name))
            sound.add(name)
        with tempfile.TemporaryDirectory(prefix="wm-check-") as scratch:
            preflight.check(found.outlook(Path(scratch)))


def execute(
    store: Store,
    steps: Sequence[PlannedStage],
    executor: "Executor[Work, Report]",
    watch: Callable[[Task], AbstractContextManager[Report]],
    *,
    redo: bool,
    adopt: Callable[[TaskState], bool] = lambda found: False,
) -> None:
    """Execute the due steps in order; `watch` yields the function that receives a task's progress.

    `adopt` may commit a due task's artifact as a copy, and then returns True; a damaged artifact is always made again.
    Retire artifacts that do not fit, or raise Conflict without `redo`.
    """
    if not redo:
        refuse(steps)
    for step in steps:
        found = due(store, step, redo=redo)
        if found is None or (step.state != "damaged" and adopt(found)):
            continue
        with watch(step.task) as report:
            executor.wait(executor.submit(found), report)


def due(store: Store, step: PlannedStage, *, redo: bool) -> TaskState | None:
    """Return the task's state after the earlier steps; None if it is committed, so that the step is not due.

    With `redo`, retire an artifact that does not fit.
    """
    found = TaskState(store, step.task)
    if redo:
        _renew(found, step)
    return None if found.committed() else found


@contextmanager
def lock(store: Store, run: str, seconds: float) -> Iterator[None]:
    """Hold the run's lock. Raise Busy if another process still holds it after `seconds`."""
    until = time.monotonic() + seconds
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(store.lock(run))
                break
            except Busy:
                if time.monotonic() >= until:
                    raise
                time.sleep(LOCK_PAUSE_SECONDS)
        yield


def _renew(found: TaskState, step: PlannedStage) -> None:
    """Retire the artifact if it is damaged or does not fit; forget shards that failed or are damaged."""
    damaged, store = step.state == "damaged", found.store
    manifest = step.manifest if damaged else find(store, found.task.name, found.task.config)
    if damaged and manifest:
        _drop_damaged_shards(store, found.identity, manifest)
    if damaged or manifest is None:
        publishing.drop_failed_shards(store, found.identity)
    if damaged and manifest is None:
        publishing.discard_unreadable(store, found.settings)
    if manifest and (damaged or found.differences(manifest)):
        publishing.retire(store, found.identity, manifest)


def _drop_damaged_shards(store: Store, work: artifacts.Identity, manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory(prefix="wm-verify-") as scratch:
        for shard in artifacts.load(store, work.name, manifest, Path(scratch)).shards:
            try:
                for name in shard.files.files:
                    shard.read(name)
            except CorruptArtifact:
                store.delete(work.shard_key(shard.index))


def stored_config(store: Store, run: str, iteration: int) -> dict[str, Any] | None:
    """Return the config with which the run was last started, as {"config", "origins"}, or None."""
    next = f"wm run --run {run} --preset demo"
    return artifacts.read_json(store, config_key(run, iteration), stored.CONFIG, next)


def store_config(store: Store, run: str, iteration: int, config: Config, origins: dict[str, str]) -> None:
    """Write the config that later commands on the run use, without the settings of personal sections."""
    kept = {key: origin for key, origin in origins.items() if not personal(key)}
    data = stored.encode({"config": config.storable(), "origins": kept}, indent=1)
    if store.get(config_key(run, iteration)) != data:
        store.put(config_key(run, iteration), data)
