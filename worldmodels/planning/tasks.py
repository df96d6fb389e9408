"""Tasks, and the questions about one that settings and store answer: inputs, identity, committed artifact."""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .. import __version__ as VERSION
from .. import artifacts, stages
from ..artifacts import Artifact, Identity, Name, Reading
from ..config import Config
from ..context import Outlook, StoreWorkspace
from ..errors import ConfigError, Conflict, MissingInput
from ..store import Store
from ..stored import Manifest


@dataclass(frozen=True)
class Task:
    """One stage of one run and iteration, under one config."""

    run: str
    iteration: int
    stage: str
    config: Config

    @property
    def name(self) -> Name:
        return Name(self.run, self.iteration, self.stage)

    @property
    def inputs(self) -> list[Name]:
        """Return the names of the input artifacts, oldest first."""
        inputs = stages.stage(self.stage).inputs(self.config, self.iteration)
        return [Name(self.run, iteration, stage) for stage, iteration in inputs]

    def to_json(self) -> str:
        return json.dumps({**self.__dict__, "config": self.config.model_dump()})

    @classmethod
    def from_json(cls, text: str) -> "Task":
        """Return the task of such JSON. Raise ConfigError if this version of `wm` cannot read it."""
        try:
            value = json.loads(text)
            return cls(**{**value, "config": Config.model_validate(value["config"])})
        except (ValueError, TypeError, KeyError) as error:
            raise misunderstood("task", error) from error


def misunderstood(what: str, error: Exception) -> ConfigError:
    """Return the error for JSON that another version of `wm` wrote; `what` names its kind."""
    details = error.errors() if isinstance(error, ValidationError) else []
    reason = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in details) or repr(error)
    return ConfigError(
        f"this {what} is not one that wm {VERSION} understands: {reason}; is the image of another version?",
        next="make build-images push-images, then submit again",
    )


def find(store: Store, name: Name, config: Config) -> Manifest | None:
    """Return the committed manifest for this config, whose extent is part of the key, or None."""
    probe = artifacts.identity(name, config, stages.stage(name.stage).sections, {})
    return artifacts.read_manifest(store, probe.manifest_key)


@dataclass(frozen=True)
class TaskState:
    """A task with its inputs in the store, which are read at the first use, and once.

    `pending` are the inputs that the same command makes first, so they are not read.
    """

    store: Store
    task: Task
    pending: frozenset[Name] = frozenset()

    def given(self, made: Iterable[Name]) -> "TaskState":
        """Return the state for a command that first makes these artifacts."""
        pending = frozenset(made) & frozenset(self.task.inputs)
        return self if pending == self.pending else replace(self, pending=pending)

    @cached_property
    def inputs(self) -> Mapping[Name, Mapping[str, Any]]:
        """Return the manifest of every input, oldest first. Raise MissingInput for the first that is not committed."""
        return {name: self._input(name) for name in self.task.inputs if name not in self.pending}

    @cached_property
    def identity(self) -> Identity:
        """Return the identity that the task's artifact will have."""
        return self._identity({name.input: str(manifest["digest"]) for name, manifest in self.inputs.items()})

    @property
    def settings(self) -> Identity:
        """Return the identity without the inputs, which need not exist."""
        return self._identity({})

    @property
    def workspace(self) -> StoreWorkspace:
        """Return the task's workspace."""
        inputs = json.dumps(dict(self.identity.inputs), sort_keys=True)
        return StoreWorkspace(self.store, str(self.task.name), self.identity.work, inputs)

    def differences(self, manifest: Mapping[str, Any]) -> list[str]:
        """List as messages why the manifest does not fit: the settings, or else the inputs if none is pending."""
        own = self.settings.differences({**manifest, "inputs": {}})
        return own if own or self.pending else self.identity.differences(manifest)

    def committed(self) -> Manifest | None:
        """Read the task's manifest; None if there is none. Raise Conflict if it has another identity."""
        manifest = artifacts.read_manifest(self.store, self.identity.manifest_key)
        if manifest and (differences := self.identity.differences(manifest)):
            raise Conflict(
                f"{self.task.name} is committed, but {'; '.join(differences)}",
                next=artifacts.repair_command(self.task.name),
            )
        return manifest

    def outlook(self, reading: Path | Reading) -> Outlook:
        """Return what is known of the task before it begins; files of its inputs are read as `reading` says."""
        found = [artifacts.load(self.store, name, manifest, reading) for name, manifest in self.inputs.items()]
        return Outlook(
            config=self.task.config,
            run=self.task.run,
            iteration=self.task.iteration,
            stage=self.task.stage,
            inputs=_by_stage(found),
            workspace=None if self.pending else self.workspace,
        )

    def _identity(self, inputs: Mapping[str, str]) -> Identity:
        return artifacts.identity(self.task.name, self.task.config, stages.stage(self.task.stage).sections, inputs)

    def _input(self, name: Name) -> Mapping[str, Any]:
        """Return an input's manifest: an earlier iteration may have another extent, so its newest one.

        Raise MissingInput if it is not committed, Conflict if it is from another environment.
        """
        if name.iteration == self.task.iteration:
            manifest = find(self.store, name, self.task.config)
        else:
            manifest = next(reversed(artifacts.manifests(self.store, name)), None)
        if manifest is None:
            raise MissingInput(
                f"{self.task.name} is made from {name}, which is not committed in {self.store.uri}",
                next=f"wm run {name.stage} --run {name.run} --iteration {name.iteration}",
            )
        if (there := artifacts.environment(manifest["config"])) != self.task.config.env:
            raise Conflict(
                f"{name} was made with env = {there!r:.100}, and {self.task.name} would be made with"
                f" {self.task.config.env!r}",
                next=f"wm run {self.task.stage} -o {shlex.quote(f'env={there}'[:100])}",
            )
        return manifest


def by_digest(store: Store, name: Name, digest: str) -> Mapping[str, Any] | None:
    """Return the manifest of that digest, committed or retired; None if it does not exist."""
    found = next((m for m in artifacts.manifests(store, name) if m["digest"] == digest), None)
    retired = found or artifacts.read_manifest(store, name.key("retired", f"{digest[:16]}.json"))
    return retired if retired and retired["digest"] == digest else None


def belong_together(store: Store, manifests: Mapping[Name, Mapping[str, Any]]) -> None:
    """Raise Conflict unless C drives with the V and M that it was evolved with, and M predicts what that V encodes.

    The manifests contain the digests of inputs: C's those of V and M, M's that of its latents, the latents' that of V.
    """
    for name, manifest in reversed(list(manifests.items())):  # the last first: its repair command includes the others
        made_from: dict[str, str] = {}
        if name.stage == "controller":
            made_from = dict(manifest["inputs"])
        if name.stage == "memory" and any(other.stage == "vae" for other in manifests):
            for key, digest in manifest["inputs"].items():
                latents = _named(name.run, key)
                if latents.stage == "latents" and (found := by_digest(store, latents, digest)):
                    made_from |= found["inputs"]
        for key, digest in made_from.items():
            other = _named(name.run, key)
            if other.stage in ("vae", "memory") and other in manifests and manifests[other]["digest"] != digest:
                raise Conflict(
                    f"{name} {manifest['digest'][:12]} was made with {other} {digest[:12]}, which is"
                    f" {manifests[other]['digest'][:12]} now: they do not belong together",
                    next=renew_command(name),
                )


def renew_command(name: Name) -> str:
    """Return the command that makes a stage again from the current V, with all stages between."""
    order = list(stages.STAGES)
    between = order[order.index("latents") : order.index(name.stage) + 1]
    return f"wm run {' '.join(between)} --run {name.run} --iteration {name.iteration} --redo"


def _named(run: str, key: str) -> Name:
    """Return the name for an input's key in a manifest, `iter-<n>/<stage>`."""
    return Name.of(f"{run}/{key}")


def _by_stage(found: list[Artifact]) -> dict[str, tuple[Artifact, ...]]:
    return {a.stage: tuple(b for b in found if b.stage == a.stage) for a in found}
