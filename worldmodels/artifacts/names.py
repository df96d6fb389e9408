"""Names, identities and digests of artifacts."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..config import EXECUTION, EXTENT, LATER, Config, fields, flatten
from ..errors import ConfigError

RUN_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,46}[a-z0-9])?")

ITERATION = re.compile(r"iter-([1-9][0-9]?)")


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, or of bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Name:
    """Name of a stage in one run and iteration, and prefix of its keys. Raises ConfigError for an invalid run name."""

    run: str
    iteration: int
    stage: str

    def __post_init__(self) -> None:
        if not RUN_NAME.fullmatch(self.run):
            raise ConfigError(
                f"run name {self.run!r}: use 1 to 48 of a-z 0-9 . _ - beginning and ending with a letter or digit",
                next="wm run --run my-run",
            )

    def __str__(self) -> str:
        return f"{self.run}/{self.input}"

    @property
    def input(self) -> str:
        """Return the artifact's name in manifests of the same run."""
        return f"iter-{self.iteration}/{self.stage}"

    def key(self, *parts: str) -> str:
        return "/".join((str(self), *parts))

    @classmethod
    def of(cls, key: str) -> "Name":
        """Return the name whose prefix the key has."""
        run, iteration, stage = key.split("/")[:3]
        return cls(run, int(iteration.removeprefix("iter-")), stage)


@dataclass(frozen=True)
class Identity:
    """The settings (`config` and `extent`) and the inputs' digests that decide a stage's artifact."""

    name: Name
    config: Mapping[str, Any]
    extent: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def work(self) -> str:
        """Return the workspace's name, which excludes the extent: a larger extent continues in the same workspace."""
        return digest({"config": self.config, "inputs": self.inputs})[:16]

    @property
    def manifest_key(self) -> str:
        """Return the manifest's key, with the extent: its first setting as the value alone, others with their names."""
        (_, value), *others = self.extent.items() or [("", None)]
        words = [] if value is None else [str(value).replace(":", "to")]
        words += [f"{key.rpartition('.')[2]}{value!r}".removesuffix(".0") for key, value in others]
        return self.name.key(f"{'-'.join(['manifest', *words])}.json")

    def work_key(self, *parts: str) -> str:
        return self.name.key(self.work, *parts)

    def shard_key(self, index: int) -> str:
        return self.work_key("shards", f"{index:05d}.json")

    def digest_of(self, files: Iterable[tuple[str, str]]) -> str:
        """Return the artifact digest, from (logical name, SHA-256) of every result file."""
        return digest([{**self.config, **self.extent}, dict(self.inputs), sorted(files)])

    def differences(self, manifest: Mapping[str, Any]) -> list[str]:
        """List the differences between this identity and a committed manifest as messages."""
        there = {**manifest["config"], **manifest["extent"]}
        here = {**self.config, **self.extent}
        words = [
            f"{key} was {there.get(key)!r} and is now {here.get(key)!r}"
            for key in sorted({*there, *here})
            if there.get(key) != here.get(key)
        ]
        if not words:
            before, now = manifest["inputs"], self.inputs
            words = [
                f"its input {key} was {before.get(key, 'none')[:12]} and is now {now.get(key, 'none')[:12]}"
                for key in sorted({*before, *now})
                if before.get(key) != now.get(key)
            ]
        return words


def identity(name: Name, config: Config, sections: Iterable[str], inputs: Mapping[str, str]) -> Identity:
    """Return the identity of a stage's artifact under `config`; `inputs` are digests by `iter-<n>/<stage>`."""
    config_part: dict[str, Any] = {"seed": config.seed}
    if config.env != environment({}):
        config_part["env"] = config.env
    extent: dict[str, Any] = {}
    for section in sections:
        model = getattr(config, section)
        roles = {role["role"]: set(fields(type(model), role=role["role"])) for role in (EXECUTION, EXTENT, LATER)}
        usual = type(model)().model_dump()
        for key, value in flatten(model.model_dump()):
            if key in roles["extent"]:
                if value is not None:
                    extent[f"{section}.{key}"] = value
            elif key not in roles["execution"] and not (key in roles["later"] and value == usual[key]):
                config_part[f"{section}.{key}"] = value
    return Identity(name, config_part, extent, inputs)


def environment(config: Mapping[str, Any]) -> Any:
    """Return the environment of a manifest's config, which omits the default."""
    return config.get("env", Config.model_fields["env"].default)
