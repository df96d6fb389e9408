"""Copies of a committed artifact's files in a folder of the user's, for `wm get`."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import artifacts
from ..artifacts import Artifact, FileSet
from ..errors import ConfigError, MissingInput
from . import files


@dataclass(frozen=True)
class Part:
    """One file of an artifact: its path below the target folder, and its place in the store."""

    path: str
    files: FileSet
    name: str

    @property
    def size(self) -> int:
        return int(self.files.files[self.name]["size"])

    @property
    def sha256(self) -> str:
        return str(self.files.files[self.name]["sha256"])


def parts(artifact: Artifact, file: str = "") -> list[Part]:
    """Return every file of the artifact, a shard's below `shard-<index>/`, or only `file`: one file, or one shard.

    Raise MissingInput, with the names that exist, if it has no such file.
    """
    found = [Part(name, artifact.files, name) for name in artifact.files.files]
    for shard in artifact.shards:
        found += [Part(f"shard-{shard.index:05d}/{name}", shard.files, name) for name in shard.files.files]
    chosen = [part for part in found if not file or part.path == file or part.path.startswith(f"{file.rstrip('/')}/")]
    if not chosen:
        names = sorted(part.path for part in found)
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise MissingInput(
            f"{artifact.name} has no file {file!r:.200}; it has {', '.join(names[:10])}{more}",
            next=f"wm show {artifact.name}",
        )
    return chosen


def get(chosen: list[Part], folder: Path, advance: Callable[[int], None] = lambda size: None) -> list[Path]:
    """Copy the parts to `folder`, each checked by its SHA-256 before it gets its name; return the new paths.

    A file that is there already with the same bytes stays. Raise ConfigError, before anything is written, if one is
    there with other bytes; StoreError if the folder cannot be written. `advance` receives the bytes of each file.
    """
    wanted = [part for part in chosen if not _there(folder / part.path, part)]
    made = []
    for part in chosen:
        if part in wanted:
            made.append(_copy(part, folder / part.path))
        advance(part.size)
    return made


def _there(path: Path, part: Part) -> bool:
    if not path.exists():
        return False
    if path.is_file() and path.stat().st_size == part.size and artifacts.sha256(path) == part.sha256:
        return True
    raise ConfigError(
        f"{path} is there and has other content than {part.files.label}: {part.name}",
        next=shlex.join(["mv", str(path), f"{path}.old"]),
    )


def _copy(part: Part, path: Path) -> Path:
    files.replace(path, partial(part.files.save, part.name))
    return path
