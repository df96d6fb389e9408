"""Objects that workers commit: a generation's parameters and a block's results, in deterministic bytes.

settings                             the settings that determine the evolution, JSON
generations/00042/params             Generation, an npz without pickle (numpy.load reads it)
generations/00042/claims/00007-0     the worker that drives block 7, JSON (-1, -2 ... once the one before has expired)
generations/00042/results/00007      BlockResult of block 7, JSON
final/00100                          the stage's result files after generation 100, an npz of their bytes
"""

import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property, lru_cache
from statistics import fmean
from typing import Any

import numpy as np

from .. import npz, stored
from ..errors import CorruptArtifact
from .blocks import MEAN, Block, Lengths, known, reserved
from .stopping import RunStats

FINAL = ("mean.npy", "best.npy", "generations.npz", "rewards.csv")
"""Names of the files in `final`; `unpack` requires all of them."""


def params_key(generation: int) -> str:
    return f"generations/{generation:05d}/params"


def result_key(generation: int, block: int) -> str:
    return f"generations/{generation:05d}/results/{block:05d}"


def claim_key(generation: int, block: int, attempt: int) -> str:
    return f"generations/{generation:05d}/claims/{block:05d}-{attempt}"


def final_key(generations: int) -> str:
    return f"final/{generations:05d}"


def claim(worker: int) -> bytes:
    """Return the content of a worker's claims."""
    return stored.encode({"worker": worker})


def last(holds: Callable[[int], bool], first: int, most: int) -> int:
    """Return the last generation from `first` to `most` for which `holds` is true, as for all before it.

    Call it for a few numbers only: each call may be a request. Return `first` - 1 if it holds for none.
    """
    low, high, step = first - 1, most + 1, 1
    while low + step < high and holds(low + step):
        low, step = low + step, 2 * step
    high = min(high, low + step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def unreadable(key: str, error: Exception) -> CorruptArtifact:
    """Return CorruptArtifact for `key`, with the repair.

    Results remain when params are removed, so the evolution soon reaches the damaged generation again.
    """
    return CorruptArtifact(
        f"controller: {key} cannot be read ({error}); remove it and every later params below the stage's folder, "
        "and they are made again",
        next="wm run controller",
    )


def arrays(members: Mapping[str, Any]) -> bytes:
    """Return the bytes of an .npz; the same values give the same bytes."""
    buffer = io.BytesIO()
    npz.save(buffer, **{name: np.asarray(value) for name, value in members.items()})
    return buffer.getvalue()


@dataclass(frozen=True)
class GenerationResult:
    """Results of a generation: `scores` float64 [N, T], `validation` float64 [V], environment steps in all."""

    scores: np.ndarray
    validation: np.ndarray
    steps: int


@dataclass(frozen=True)
class Generation:
    """One committed generation. `mean` and `sigma` are those its candidates were drawn with.

    `alive` are the workers that committed results of the previous generation, beginning with the one that committed
    this, with their `rates` in steps per second (0: not measured). `steps` is the longest training episode (0: as
    configured). `before` is the result of the previous generation, None in a workspace's first. `averaged` are the
    parameters that validation scores (None: the mean).
    """

    number: int
    candidates: np.ndarray  # float32 [N, P]
    mean: np.ndarray  # float32 [P]
    sigma: float
    tracks: tuple[int, ...]
    validation: tuple[int, ...]
    blocks: tuple[Block, ...]
    alive: tuple[int, ...]
    before: GenerationResult | None
    rates: tuple[float, ...] = ()
    lengths: Lengths = field(default_factory=Lengths)
    steps: int = 0
    stats: RunStats = field(default_factory=RunStats)
    averaged: np.ndarray | None = None

    @cached_property
    def reserved(self) -> frozenset[int]:
        """Return the blocks that their owners drive without a claim."""
        return reserved(self.blocks)

    @property
    def validated(self) -> np.ndarray:
        """Return the parameters float32 [P] that drive the validation tracks."""
        return self.mean if self.averaged is None else self.averaged

    @cached_property
    def work(self) -> float:
        """Return the steps that all its episodes together are expected to last."""
        return sum(map(self.lengths.steps, self.blocks))

    @cached_property
    def speeds(self) -> dict[int, float]:
        """Return the steps per second of each worker; empty if none is measured."""
        return known(dict(zip(self.alive, self.rates, strict=True))) if any(self.rates) else {}

    @cached_property
    def owned(self) -> dict[int, list[int]]:
        """Return each worker's blocks, the largest first."""
        found: dict[int, list[int]] = {}
        for index, block in enumerate(self.blocks):
            found.setdefault(block.owner, []).append(index)
        return found

    def encode(self) -> bytes:
        before = self.before or GenerationResult(np.zeros((0, 0)), np.zeros(0), 0)
        blocks = [[b.candidate, b.first, b.count, b.owner] for b in self.blocks]
        averaged = {} if self.averaged is None else {"averaged": self.averaged}
        return arrays(
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
                "course": np.asarray(astuple(self.stats), np.float64),
                **averaged,
            }
        )

    @classmethod
    @lru_cache(maxsize=2)
    def decode(cls, data: bytes, key: str) -> "Generation":
        """Decode the generation stored as `key`; raise CorruptArtifact if the bytes are not that generation."""
        try:
            a = npz.load(data)
            before = GenerationResult(a["before_scores"], a["before_validation"], int(a["before_steps"]))
            found = cls(
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
            found._check(key)
            return found
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise unreadable(key, error) from error

    def _check(self, key: str) -> None:
        """Raise ValueError unless it is the generation of that key, and its parts fit each other."""
        count, tracks, validation = len(self.candidates), len(self.tracks), len(self.validation)
        ends = [(block, validation if block.candidate == MEAN else tracks) for block in self.blocks]
        if params_key(self.number) != key:
            raise ValueError(f"it is generation {self.number}")
        if self.candidates.ndim != 2 or {self.candidates.dtype, self.mean.dtype} != {np.dtype(np.float32)}:
            raise ValueError("its candidates are no parameters")
        if self.validated.dtype != np.float32 or self.validated.shape != self.mean.shape:
            raise ValueError("its average is no parameters")
        if self.mean.shape != self.candidates.shape[1:] or not self.alive or not self.blocks:
            raise ValueError("its parts do not fit each other")
        if self.rates and len(self.rates) != len(self.alive):
            raise ValueError("its workers' rates are not theirs")
        fits = all(MEAN <= b.candidate < count and b.first >= 0 < b.count <= end - b.first for b, end in ends)
        if not fits or sum(b.count for b in self.blocks) != count * tracks + validation:
            raise ValueError("its blocks are not its candidates' tracks")
        numbers = (
            self.sigma,
            *self.rates,
            *astuple(self.lengths),
            *([] if self.before is None else [self.before.steps]),
        )
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError("its numbers are none")
        if self.before is not None and (self.before.scores.ndim, self.before.validation.ndim) != (2, 1):
            raise ValueError("its outcome is none")


def _advice(a: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields that the first versions did not commit; empty if they are missing."""
    if "course" not in a:
        return {}
    best, since, longest, seconds, cores = a["course"].tolist()
    return {
        "rates": tuple(a["rates"].tolist()),
        "lengths": Lengths(*a["lengths"].tolist()),
        "steps": int(a["steps"]),
        "stats": RunStats(best, int(since), int(longest), seconds, cores),
        "averaged": a.get("averaged"),
    }


@dataclass(frozen=True)
class BlockResult:
    """Results of a block's episodes, in track order: sums of rewards, and environment steps.

    `worker` drove them, at `rate` steps per second (-1, 0: not stored, as by earlier versions).
    """

    scores: tuple[float, ...]
    steps: tuple[int, ...]
    worker: int = -1
    rate: float = 0.0

    def encode(self) -> bytes:
        return stored.encode(asdict(self))

    @classmethod
    def decode(cls, data: bytes, key: str, count: int) -> "BlockResult":
        """Decode the result of `count` episodes stored as `key`; raise CorruptArtifact if the bytes are none."""
        try:
            value = stored.parse(data, stored.RESULT, key, "")
        except CorruptArtifact as error:
            raise unreadable(key, error) from error
        if (len(value["scores"]), len(value["steps"])) != (count, count):
            raise unreadable(key, ValueError(f"its block has {count} episodes"))
        return cls(**{**value, "scores": tuple(value["scores"]), "steps": tuple(value["steps"])})


def gather(generation: Generation, results: Mapping[int, BlockResult]) -> GenerationResult:
    """Return all blocks' results by candidate and track."""
    scores = np.full((len(generation.candidates), len(generation.tracks)), np.nan)
    validation = np.full(len(generation.validation), np.nan)
    for index, block in enumerate(generation.blocks):
        row = validation if block.candidate < 0 else scores[block.candidate]
        row[block.first : block.first + block.count] = results[index].scores
    return GenerationResult(scores, validation, sum(sum(result.steps) for result in results.values()))


def speeds(results: Iterable[BlockResult]) -> dict[int, float]:
    """Return the workers that drove blocks, in order, and the mean of each one's rates in steps per second."""
    rates: dict[int, list[float]] = {}
    for result in results:
        if result.worker >= 0:
            rates.setdefault(result.worker, []).append(result.rate)
    return {worker: fmean(found) for worker, found in sorted(rates.items())}


def pack(files: Mapping[str, bytes]) -> bytes:
    return arrays({name: np.frombuffer(data, np.uint8) for name, data in files.items()})


def unpack(data: bytes, key: str) -> dict[str, bytes]:
    """Return the files that `pack` packed, by name; raise CorruptArtifact if `key` has something else."""
    try:
        return {name: array.tobytes() for name, array in npz.load(data, *FINAL).items()}
    except ValueError as error:
        raise unreadable(key, error) from error
