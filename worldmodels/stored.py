"""Models of stored JSON, and its only parser: a reader names the model that the JSON must fit.

Any process that can write to the store may write any bytes. So a model bounds size, depth, numbers, texts and names.
A key is a relative path of plain names; `artifacts/manifest.py` checks its folder. `encode` adds a checksum, so that a
flipped bit is detected in every field; JSON of earlier versions has no checksum.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic accepts typing's from Python 3.12 on

from .errors import CorruptArtifact

JSON_BYTES, JSON_PARTS = 2**25, 300_000
"""Most bytes and commas of one JSON text, from the manifest of 20,000 shards. Smaller models have lower limits."""
FILE_BYTES = 2**31
"""Most bytes of one stored file."""
SHARDS = 20_000
"""Most shards of one artifact."""
MOST_BLOCKS = 2**17
"""Most blocks of one generation."""
MOST_PARAMETERS = 10**6
"""Most parameters of C."""
DEPTH, ITEMS, TEXT = 32, 10_000, 100_000

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_OPEN = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def _bounded(value: Any) -> Any:
    """Return the value if its depth, size and texts are within the limits, floats finite and integers of 64 bits.

    Raise ValueError otherwise.
    """
    todo, seen = [(value, 0)], 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if depth > DEPTH or seen > ITEMS:
            raise ValueError(f"is deeper than {DEPTH} levels, or has more than {ITEMS} parts")
        if isinstance(item, dict):
            if any(len(key) > 200 for key in item):
                raise ValueError("has a name of more than 200 characters")
            todo += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            todo += [(inner, depth + 1) for inner in item]
        elif isinstance(item, str) and len(item) > TEXT:
            raise ValueError(f"has a text of more than {TEXT} characters")
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"has a number that is {item}")
        elif isinstance(item, int) and not -(2**63) <= item < 2**63:
            raise ValueError("has an integer of more than 64 bits")
    return value


_PART = r"[A-Za-z0-9_][A-Za-z0-9._+-]*"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(max_length=1000, pattern=rf"^{_PART}(/{_PART})*$")]
FileName = Annotated[str, Field(max_length=200, pattern=rf"^{_PART}(/{_PART})*$")]
Setting = Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")]
Source = Annotated[str, Field(pattern=r"^iter-[1-9][0-9]?/[a-z]{1,20}$")]
Word = Annotated[str, Field(max_length=300)]
Text = Annotated[str, Field(max_length=TEXT)]
Whole = Annotated[int, Field(ge=0, lt=2**53)]
Plain = Annotated[Any, AfterValidator(_bounded)]
Settings = Annotated[dict[Setting, Plain], Field(max_length=500)]


@with_config(_STRICT)
class File(TypedDict):
    """A stored file: the key of its content, and the size in bytes and SHA-256 that the content must have."""

    key: Key
    size: Annotated[int, Field(ge=0, le=FILE_BYTES)]
    sha256: Sha256


FileSet = Annotated[dict[FileName, File], Field(max_length=1000)]
ShardFiles = Annotated[dict[FileName, File], Field(min_length=1, max_length=100)]
Index = Annotated[int, Field(ge=0, lt=SHARDS)]


@with_config(_STRICT)
class Record(TypedDict):
    """Record of a shard: its files and their digest, or why it failed."""

    index: Index
    digest: NotRequired[Sha256]
    files: NotRequired[ShardFiles]
    failed: NotRequired[Text]
    checksum: NotRequired[Sha256]


@with_config(_OPEN)
class Cpu(TypedDict):
    model: NotRequired[Word]
    features: NotRequired[Annotated[list[Word], Field(max_length=100)]]


@with_config(_OPEN)
class Made(TypedDict):
    """How an artifact was made; later versions may add fields."""

    finished: Annotated[str, Field(max_length=40)]
    started: NotRequired[Annotated[str, Field(max_length=40)]]
    seconds: NotRequired[Annotated[float, Field(ge=0, le=1e9)]]
    host: NotRequired[Word]
    python: NotRequired[Word]
    versions: NotRequired[Annotated[dict[Word, Word], Field(max_length=100)]]
    git: NotRequired[Word]
    cpu: NotRequired[Cpu]
    attempt: NotRequired[Word]
    workers: NotRequired[Whole]
    failed_shards: NotRequired[Annotated[list[Index], Field(max_length=SHARDS)]]
    notes: NotRequired[Annotated[dict[Word, Text], Field(max_length=100)]]


@with_config(_STRICT)
class Manifest(TypedDict):
    artifact: Annotated[str, Field(max_length=200)]
    digest: Sha256
    config: Settings
    extent: Settings
    inputs: Annotated[dict[Source, Sha256], Field(max_length=1000)]
    files: FileSet
    telemetry: FileSet
    shards: Annotated[list[Record], Field(max_length=SHARDS)]
    resolved: Annotated[dict[Setting, Plain], Field(max_length=100)]
    made: Annotated[Made, AfterValidator(_bounded)]
    checksum: NotRequired[Sha256]


@with_config(_OPEN)
class Driver(TypedDict):
    controller: Word | Whole


@with_config(_OPEN)
class Sections(TypedDict):
    rollouts: Driver


@with_config(_STRICT)
class StoredConfig(TypedDict):
    """The settings with which a run was last started, by section (see `config/`), and the source of each."""

    config: Annotated[Sections, AfterValidator(_bounded)]
    origins: Annotated[dict[Setting, Annotated[str, Field(max_length=5000)]], Field(max_length=1000)]
    checksum: NotRequired[Sha256]


@with_config(_OPEN)
class Signature(TypedDict):
    """The process that wrote a lease or a heartbeat (`store/process_identity.py`)."""

    host: NotRequired[Word]
    machine: NotRequired[Word]
    process: NotRequired[Annotated[int, Field(ge=1, lt=2**31)]]
    began: NotRequired[Annotated[str, Field(max_length=40)]]


@with_config(_OPEN)
class Lease(Signature):
    holder: Word
    seconds: NotRequired[Annotated[float, Field(ge=-3600, le=3600)]]


@with_config(_STRICT)
class Starts(TypedDict):
    """How often a pod was started after a failure without progress (`executors/patience.py`)."""

    progress: NotRequired[Plain]
    failures: NotRequired[Whole]
    starts: NotRequired[Whole]


Seconds = Annotated[float, Field(ge=0, le=1e12)]


@with_config(_STRICT)
class Spent(TypedDict):
    """The time that one start of a stage used (`executors/budget.py`)."""

    seconds: Seconds
    core_seconds: Seconds
    gpu_seconds: Seconds


@with_config(_STRICT)
class Result(TypedDict):
    """Result of a block: each episode's sum of rewards and environment steps; the worker, and its steps per second."""

    scores: Annotated[list[float], Field(max_length=MOST_BLOCKS)]
    steps: Annotated[list[Whole], Field(max_length=MOST_BLOCKS)]
    worker: NotRequired[Annotated[int, Field(ge=-1, lt=10**6)]]
    rate: NotRequired[Annotated[float, Field(ge=0, le=1e9)]]
    checksum: NotRequired[Sha256]


@with_config(_STRICT)
class Level(TypedDict):
    score: float
    tracks: Whole
    steps: Whole
    sigma: Annotated[float, Field(ge=0)]


@with_config(_STRICT)
class Evolution(TypedDict):
    """The settings that decide an evolution."""

    seed: Whole
    parameters: Annotated[int, Field(ge=1, le=MOST_PARAMETERS)]
    population: Annotated[int, Field(ge=2, le=10**6)]
    tracks: Annotated[int, Field(ge=1, le=10**6)]
    sigma: Annotated[float, Field(gt=0)]
    covariance: Word
    start_from: Annotated[int, Field(ge=1, le=10**6)] | None
    growth: NotRequired[Annotated[list[Level], Field(max_length=1000)]]
    average: NotRequired[Annotated[int, Field(ge=2, le=10**6)]]
    sigma_bound: NotRequired[bool]
    hard_tracks: NotRequired[Annotated[int, Field(ge=1, le=10**6)]]
    strategy: NotRequired[Word]
    components: NotRequired[Annotated[int, Field(ge=1, le=10**6)]]
    warm_start: NotRequired[bool]
    architecture: NotRequired[Annotated[dict[Word, Word | int], Field(min_length=1, max_length=100)]]
    checksum: NotRequired[Sha256]


@with_config(_STRICT)
class Track(TypedDict):
    """One track's score."""

    track: Annotated[int, Field(ge=0, lt=2**31)]
    score: float
    steps: Whole
    terminated: bool
    tiles_visited: Whole
    tiles_total: Whole
    lap: bool
    missed: NotRequired[Whole]


Interval = Annotated[list[float], Field(min_length=2, max_length=2)]
Tracks = Annotated[int, Field(ge=1, le=10**6)]


@with_config(_OPEN)
class Reference(TypedDict):
    """The same controller's score with the reference renderer."""

    tracks: Tracks
    mean: float
    fast_mean: float
    difference: float
    difference_interval: Interval


@with_config(_OPEN)
class Scores(TypedDict):
    """An evaluation's scores.json."""

    env: NotRequired[Annotated[str, Field(pattern=r"^[A-Za-z0-9_./-]{1,100}$")]]  # part of code in the report
    gymnasium: NotRequired[Word]
    renderer: NotRequired[Word]
    tracks: Tracks
    mean: float
    std: float
    interval: Interval
    min: float
    max: float
    median: float
    interquartile_mean: NotRequired[float]
    interquartile_interval: NotRequired[Interval]
    laps: Whole
    laps_95: NotRequired[Whole]
    lap_steps: float | None
    tiles_missed: float
    scores: Annotated[list[Track], Field(min_length=1, max_length=10**6)]
    reference: NotRequired[Reference | None]


class Model:
    """A shape that stored JSON must have, in at most `limit` bytes."""

    def __init__(self, shape: Any, limit: int) -> None:
        self.limit = limit
        self._shape = shape

    def validate(self, data: bytes) -> Any:
        return self._adapter.validate_json(data)

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self._shape)  # takes milliseconds, so only when it is needed


MANIFEST, RECORD, CONFIG = Model(Manifest, JSON_BYTES), Model(Record, 2**18), Model(StoredConfig, 2**20)
STARTS, SPENT = Model(Starts, 2**13), Model(Spent, 2**13)
SIGNATURE, LEASE = Model(Signature, 2**13), Model(Lease, 2**13)
RESULT, EVOLUTION = (
    Model(Result, 2**22),
    Model(Evolution, 2**17),
)
INPUTS = Model(Annotated[dict[Source, Sha256], Field(max_length=1000)], 2**17)
TRACKS = Model(dict[Literal["fast", "gymnasium"], list[Track]], 2**22)
SCORES = Model(Scores, 2**25)
ANYTHING = Model(Annotated[dict[str, Plain], Field(max_length=1000)], 2**20)


def parse(data: bytes, model: Model, label: str, next: str) -> Any:
    """Return the value of a JSON text that fits the model. Raise CorruptArtifact, with `label`, for any other text."""
    if len(data) > model.limit or data.count(b",") > JSON_PARTS:  # each part may cost a validation error in memory
        raise CorruptArtifact(f"{label} is damaged: {len(data)} bytes are more than it can have", next=next)
    try:
        value = model.validate(data)
    except ValidationError as error:
        raise CorruptArtifact(f"{label} is {_reason(error, len(data))}", next=next) from None
    if isinstance(value, dict) and value.pop("checksum", None) not in (None, checksum(value)):
        raise CorruptArtifact(f"{label} is damaged: it is not what its checksum says", next=next)
    return value


def advice(data: bytes | None, model: Model) -> Any:
    """Return what `parse` does, or None for missing or damaged data; for optional data that only saves work."""
    try:
        return None if data is None else parse(data, model, "", "")
    except CorruptArtifact:
        return None


def encode(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """Return a value as JSON, with a checksum of its other fields."""
    return json.dumps({**value, "checksum": checksum(value)}, indent=indent).encode()


def checksum(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(value), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _reason(error: ValidationError, size: int) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "json_invalid":
        return f"not JSON ({size} bytes)"
    where = ".".join(str(part)[:100] for part in first["loc"])
    value = f", not {first['input']!r:.200}" if isinstance(first["input"], (str, float)) else ""
    return f"damaged: {f'{where}: ' if where else ''}{first['msg'][:300]}{value}"
