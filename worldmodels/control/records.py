"""What workers commit: a generation's parameters and a block's results, as bytes that follow from their content alone.

settings                             what the evolution follows from, JSON
generations/00042/params             Generation, an npz without pickle (numpy.load reads it)
generations/00042/claims/00007-0     who plays block 7, JSON (advice; -1 if that worker is gone or late, and so on)
generations/00042/results/00007      BlockResult of block 7, JSON
final/00100                          the stage's result files after generation 100, an npz of their bytes
workers/3                            worker 3's heartbeat, JSON, overwritten
status                               what the leader knows of the generation in hand, JSON, overwritten (advice)
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from ..errors import CorruptArtifact
from ..npz import save
from .blocks import Block, Lengths, firm, known
from .course import Course


def params_key(generation: int) -> str:
    return f"generations/{generation:05d}/params"


def result_key(generation: int, block: int) -> str:
    return f"generations/{generation:05d}/results/{block:05d}"


def claim_key(generation: int, block: int, attempt: int) -> str:
    return f"generations/{generation:05d}/claims/{block:05d}-{attempt}"


def final_key(generations: int) -> str:
    return f"final/{generations:05d}"


def unreadable(key: str, error: Exception) -> CorruptArtifact:
    """Results outlive params, so an evolution that is cut off at a damaged generation is soon where it was."""
    return CorruptArtifact(
        f"controller: {key} cannot be read ({error}); remove it and every later params below the stage's folder, "
        "and they are made again",
        next="wm run controller",
    )


def npz(arrays: Mapping[str, Any]) -> bytes:
    """The bytes of an .npz; the same for the same values."""
    buffer = io.BytesIO()
    members: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    save(buffer, **members)
    return buffer.getvalue()


@dataclass(frozen=True)
class Outcome:
    """What the generation before gave: `scores` float64 [N, T], `validation` float64 [V], environment steps in all."""

    scores: np.ndarray
    validation: np.ndarray
    steps: int


@dataclass(frozen=True)
class Generation:
    """One committed generation. `mean` and `sigma` are those its candidates were drawn with.

    `alive` are the workers known to run, the one that committed this first, with their `rates` in steps per second (0:
    not measured). `steps` is the longest training episode (0: as the config says). `before` is None in an area's first
    generation.
    """

    number: int
    candidates: np.ndarray  # float32 [N, P]
    mean: np.ndarray  # float32 [P]
    sigma: float
    tracks: tuple[int, ...]
    validation: tuple[int, ...]
    blocks: tuple[Block, ...]
    alive: tuple[int, ...]
    before: Outcome | None
    rates: tuple[float, ...] = ()
    lengths: Lengths = field(default_factory=Lengths)
    steps: int = 0
    course: Course = field(default_factory=Course)

    @cached_property
    def firm(self) -> frozenset[int]:
        """Blocks that are their owner's without a claim."""
        return firm(self.blocks, self.lengths)

    @cached_property
    def all(self) -> frozenset[int]:
        return frozenset(range(len(self.blocks)))

    @cached_property
    def loose(self) -> frozenset[int]:
        """Blocks for whoever is free."""
        return self.all - self.firm

    @cached_property
    def work(self) -> float:
        """Steps that its episodes are expected to last, in all."""
        return sum(map(self.lengths.steps, self.blocks))

    @cached_property
    def speeds(self) -> dict[int, float]:
        """Steps per second of each worker, as far as known."""
        return known(dict(zip(self.alive, self.rates, strict=True))) if any(self.rates) else {}

    @cached_property
    def owned(self) -> dict[int, list[int]]:
        """Each worker's blocks, the largest first."""
        found: dict[int, list[int]] = {}
        for index, block in enumerate(self.blocks):
            found.setdefault(block.owner, []).append(index)
        return found

    def encode(self) -> bytes:
        before = self.before or Outcome(np.zeros((0, 0)), np.zeros(0), 0)
        blocks = [[b.candidate, b.first, b.count, b.owner] for b in self.blocks]
        return npz(
            {
                "number": self.number,
                "candidates": self.candidates,
                "mean": self.mean,
                "sigma": self.sigma,
                "tracks": np.asarray(self.tracks, np.int64),
                "validation": np.asarray(self.validation, np.int64),
                "blocks": np.asarray(blocks, np.int64),
                "alive": np.asarray(self.alive, np.int64),
                "before_scores": before.scores,
                "before_validation": before.validation,
                "before_steps": before.steps,
                "rates": np.asarray(self.rates, np.float64),
                "lengths": np.asarray(astuple(self.lengths), np.float64),
                "steps": self.steps,
                "course": np.asarray(astuple(self.course), np.float64),
            }
        )

    @classmethod
    @lru_cache(maxsize=2)
    def decode(cls, data: bytes, key: str) -> "Generation":
        """The generation stored as `key`; CorruptArtifact if these are not its bytes."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                a = {name: arrays[name] for name in arrays.files}
            before = Outcome(a["before_scores"], a["before_validation"], int(a["before_steps"]))
            return cls(
                number=int(a["number"]),
                candidates=a["candidates"],
                mean=a["mean"],
                sigma=float(a["sigma"]),
                tracks=tuple(a["tracks"].tolist()),
                validation=tuple(a["validation"].tolist()),
                blocks=tuple(Block(*row) for row in a["blocks"].tolist()),
                alive=tuple(a["alive"].tolist()),
                before=before if before.scores.size else None,
                **_advice(a),
            )
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise unreadable(key, error) from error


def _advice(a: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What earlier versions did not commit."""
    if "course" not in a:
        return {}
    best, since, longest, seconds, cores = a["course"].tolist()
    return {
        "rates": tuple(a["rates"].tolist()),
        "lengths": Lengths(*a["lengths"].tolist()),
        "steps": int(a["steps"]),
        "course": Course(best, int(since), int(longest), seconds, cores),
    }


@dataclass(frozen=True)
class BlockResult:
    """Of every episode of a block, in track order: sum of rewards, and environment steps."""

    scores: tuple[float, ...]
    steps: tuple[int, ...]

    def encode(self) -> bytes:
        return json.dumps({"scores": self.scores, "steps": self.steps}).encode()

    @classmethod
    def decode(cls, data: bytes, key: str) -> "BlockResult":
        """The result stored as `key`; CorruptArtifact if these are not its bytes."""
        try:
            value = json.loads(data)
            return cls(tuple(value["scores"]), tuple(value["steps"]))
        except (ValueError, KeyError, TypeError) as error:
            raise unreadable(key, error) from error


def gather(generation: Generation, results: Mapping[int, BlockResult]) -> Outcome:
    """All blocks' results, by candidate and track."""
    scores = np.full((len(generation.candidates), len(generation.tracks)), np.nan)
    validation = np.full(len(generation.validation), np.nan)
    for index, block in enumerate(generation.blocks):
        row = validation if block.candidate < 0 else scores[block.candidate]
        row[block.first : block.first + block.count] = results[index].scores
    return Outcome(scores, validation, sum(sum(result.steps) for result in results.values()))


def pack(files: Mapping[str, bytes]) -> bytes:
    return npz({name: np.frombuffer(data, np.uint8) for name, data in files.items()})


def unpack(data: bytes) -> dict[str, bytes]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files}
