"""Plans for a selection of stages and a config, and their execution up to committed artifacts."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import artifacts, preflight, publishing, runner, stages, stored
from ..artifacts import Name, config_key
from ..config import Config, personal
from ..errors import Busy, ConfigError, Conflict, CorruptArtifact
from ..runner import Task
from ..store import Store

LOCK_PAUSE_SECONDS = 2.0
State = Literal["committed", "missing", "differs", "follows", "damaged"]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan: `manifest` is the current one, `reasons` list why it does not fit.

    States: `differs` from the task's settings or inputs; `follows` an input that would be made again; `damaged` files.
    """

    task: Task
    state: State
    manifest: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()


def plan(store: Store, tasks: Sequence[Task], *, verify: bool = False) -> list[PlannedStage]:
    """Return one step per task, in order. With `verify`, read committed files and check them.

    Raise CorruptArtifact for a damaged manifest; with `verify`, its step is `damaged` instead.
    """
    steps: list[PlannedStage] = []
    stale: set[Name] = set()
    renewed: set[Name] = set()
    for task in tasks:
        check_iteration(task)
        step = _step(store, task, stale, renewed, verify)
        steps.append(step)
        if step.state in ("differs", "follows"):
            stale.add(task.name)
        elif step.state != "committed":
            renewed.add(task.name)
    return steps


def _step(store: Store, task: Task, stale: set[Name], renewed: set[Name], verify: bool) -> PlannedStage:
    sources = [Name(task.run, i, s) for s, i in stages.stage(task.stage).inputs(task.config, task.iteration)]
    try:
        manifest = runner.find(store, task.name, task.config)
    except CorruptArtifact as error:
        if not verify:
            raise
        return PlannedStage(task, "damaged", None, (error.message,))
    if manifest is None:
        return PlannedStage(task, "missing")
    own = runner.identify(task, {}).differences({**manifest, "inputs": {}})
    if own:
        return PlannedStage(task, "differs", manifest, tuple(own))
    if changed := [name for name in sources if name in stale]:
        return PlannedStage(
            task, "follows", manifest, tuple(f"its input {name.stage} would be redone" for name in changed)
        )
    if not any(name in renewed for name in sources):
        work = runner.identify(task, runner.input_manifests(store, task))
        if differences := work.differences(manifest):
            return PlannedStage(task, "differs", manifest, tuple(differences))
        if verify and (damage := _damage(store, task, manifest)):
            return PlannedStage(task, "damaged", manifest, (damage,))
    return PlannedStage(task, "committed", manifest)


def _damage(store: Store, task: Task, manifest: dict[str, Any]) -> str:
    """Return why a committed artifact is incomplete or damaged; empty if it is sound."""
    if failed := manifest["made"].get("failed_shards"):
        return f"{task.name}: {len(failed)} shards could not be made"
    return _changed(store, task.name, manifest)


def _changed(store: Store, name: Name, manifest: dict[str, Any]) -> str:
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
        names = [name for name in runner.input_names(step.task) if name not in made]
        there = {name: runner.input_manifest(store, step.task, name) for name in names}
        if step.state == "committed":
            continue
        runner.belong_together(store, there)
        for name in names if step.manifest else []:
            if name not in sound and (damage := _changed(store, name, there[name])):
                raise CorruptArtifact(f"{step.task.name} cannot be made: {damage}", next=artifacts.repair_command(name))
            sound.add(name)
        with tempfile.TemporaryDirectory(prefix="wm-check-") as scratch:
            preflight.check(runner.outlook(store, step.task, there, Path(scratch)))


def execute(store: Store, steps: Sequence[PlannedStage], run: Callable[[Task], None], *, redo: bool) -> None:
    """Execute the due steps in order by `run`. Retire artifacts that do not fit, or raise Conflict without `redo`."""
    if not redo:
        refuse(steps)
    for step in steps:
        if due(store, step, redo=redo):
            run(step.task)


def due(store: Store, step: PlannedStage, *, redo: bool) -> bool:
    """Return whether the step is due after the earlier ones. With `redo`, retire an artifact that does not fit."""
    if redo:
        step = _renew(store, step)
    return step.state != "committed" or not _still_committed(store, step.task)


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


def _renew(store: Store, step: PlannedStage) -> PlannedStage:
    """Plan the step again after the earlier ones, and retire an artifact that does not fit."""
    again = plan(store, [step.task])[0] if step.state != "damaged" else step
    if again.manifest is None:
        work = runner.identify(step.task, runner.input_manifests(store, step.task))
        publishing.drop_failed_shards(store, work)
    if again.state == "damaged" and again.manifest is None:
        publishing.discard_unreadable(store, runner.identify(step.task, {}))
    if again.manifest is None or again.state == "committed":
        return again
    work = runner.identify(step.task, runner.input_manifests(store, step.task))
    if again.state == "damaged":
        _drop_damaged_shards(store, work, again.manifest)
        publishing.drop_failed_shards(store, work)
    publishing.retire(store, work, again.manifest)
    return dataclasses.replace(again, state="missing")


def _drop_damaged_shards(store: Store, work: artifacts.Identity, manifest: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="wm-verify-") as scratch:
        for shard in artifacts.load(store, work.name, manifest, Path(scratch)).shards:
            try:
                for name in shard.files.files:
                    shard.read(name)
            except CorruptArtifact:
                store.delete(work.shard_key(shard.index))


def _still_committed(store: Store, task: Task) -> bool:
    """Return whether the artifact is committed and fits the current inputs (an input may have been made again)."""
    work = runner.identify(task, runner.input_manifests(store, task))
    return runner.committed(store, task, work) is not None


def check_iteration(task: Task) -> None:
    """Raise ConfigError if a controller should drive the rollouts of iteration 1, before any controller exists."""
    if task.iteration == 1 and task.stage == "rollouts" and task.config.rollouts.controller != "random":
        raise ConfigError(
            f"rollouts.controller = {task.config.rollouts.controller!r} in iteration 1: no controller exists before it",
            next=f"wm run --run {task.run} --iteration 2",
        )


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
