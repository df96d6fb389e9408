"""The settings of a run: one frozen model per section, with units and bounds."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from .. import parts, stored
from ..stored import SHARDS
from .base import EXECUTION, EXTENT, LATER, MOST, Count, Positive, Section
from .cluster import ClusterSettings

Renderer = Literal["fast", "gymnasium"]
Iterations = Literal["all", "latest"]
RENDERER = "renderer of the frames: fast, or gymnasium (the same road and rewards, some 40 times slower)"
Threads = Annotated[int, Field(ge=1, le=64)]
Precision = Literal["float32", "bfloat16", "float16"]
PRECISION = "precision of layers while training; stored weights and driving are float32 always; the others are for GPUs"
TEST_TRACKS = range(300_000_000, 400_000_000)
"""Seeds of the test tracks, disjoint from those of training and validation (see `envs/tracks.py`)."""
Passes = Annotated[int, Field(ge=0, le=100_000)]
Score = Annotated[float, Field(ge=-MOST, le=MOST)]

GENERATIONS = 99_998
"""The most generations: their keys have five digits, and an evolution writes one key more than it has generations."""
SHARD_FRAMES = 100_000
"""The most frames of a shard, 1.2 GB; readers refuse more (`rollouts/episodes.py`)."""
EPISODES = stored.MOST_BLOCKS
"""The most episodes of one generation."""


class Rollouts(Section):
    """Episodes, stored in shards."""

    episodes: Count = Field(
        64, description="episodes in all; more of them later only add shards", json_schema_extra=EXTENT
    )
    steps: Count = Field(400, le=1000, description="longest episode, in environment steps")
    shard_episodes: Count = Field(8, le=1000, description="episodes stored together")
    controller: Literal["random", "mean", "best", "imported"] | Annotated[int, Field(ge=1, le=GENERATIONS)] = Field(
        "random", description="who drives: random, or the previous iteration's mean, best or mean of generation N"
    )
    source: str = Field(
        "",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 of imported episodes, with controller = imported; `wm import` sets both",
        json_schema_extra=LATER,
    )
    hold: Positive = Field(8.0, le=1000, description="mean number of steps a random action is held")
    renderer: Renderer = Field("fast", description=RENDERER)

    @model_validator(mode="after")
    def _origin(self) -> "Rollouts":
        if (self.controller == "imported") != bool(self.source):
            raise ValueError("controller = imported and source belong together: `wm import` sets both")
        return self

    @model_validator(mode="after")
    def _whole_shards(self) -> "Rollouts":
        if self.episodes % self.shard_episodes:
            raise ValueError(f"episodes ({self.episodes}) must be a multiple of shard_episodes ({self.shard_episodes})")
        if self.episodes // self.shard_episodes > SHARDS:
            raise ValueError(f"episodes / shard_episodes must be at most {SHARDS} shards")
        if self.shard_episodes * self.steps > SHARD_FRAMES:
            raise ValueError(f"shard_episodes times steps must be at most {SHARD_FRAMES}: a shard is in memory at once")
        return self


class Vae(Section):
    """V: a variational autoencoder of 64x64x3 frames (paper, appendix A.1)."""

    z: Count = Field(32, le=512, description="size of the latent vector")
    width: Positive = Field(1.0, le=4, description="factor on every layer's channels; 1.0 is the paper's network")
    epochs: Passes = Field(1, description="passes over all frames; 0: the weights that it starts from")
    batch: Count = Field(100, le=100_000, description="frames per training step")
    learning_rate: Positive = Field(1e-4, le=100, description="Adam's step size")
    kl_tolerance: Annotated[float, Field(ge=0, le=1000)] = Field(0.5, description="free nats per latent dimension")
    episodes: Iterations = Field("all", description="train on the rollouts of all iterations so far, or of the latest")
    warm_start: bool = Field(False, description="start from the previous iteration's weights")
    threads: Threads = Field(
        2, description="TensorFlow threads: part of the result's identity, never the machine's count"
    )
    precision: Precision = Field("float32", description=PRECISION, json_schema_extra=LATER)


class Latents(Section):
    """Mean and log-variance of every stored frame."""

    episodes: str = Field(
        "all",
        pattern=r"^(all|[0-9]{1,7}:[0-9]{1,7})$",
        description="all, or a range A:B of episodes per iteration",
        json_schema_extra=EXTENT,
    )
    iterations: Iterations = Field("all", description="encode the rollouts of all iterations so far, or of the latest")


class Memory(Section):
    """M: an LSTM with a mixture-density output (paper, appendix A.2)."""

    hidden: Count = Field(256, le=4096, description="LSTM units")
    mixtures: Count = Field(5, le=64, description="Gaussians per latent dimension")
    epochs: Passes = Field(20, description="passes over all training episodes; 0: the weights that it starts from")
    batch: Count = Field(16, le=10_000, description="episodes per training step")
    sequence: Count = Field(
        100, le=10_000, description="steps of truncated back-propagation; the state is carried over"
    )
    learning_rate: Positive = Field(1e-3, le=100, description="Adam's step size at the first step")
    learning_rate_min: Positive = Field(1e-5, le=100, description="lowest step size, however long `decay` acts")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(0.9999, description="learning-rate factor per training step")
    clip: Positive = Field(1.0, description="gradients are clipped to this")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(0.1, description="share of episodes kept out of training")
    warm_start: bool = Field(False, description="start from the previous iteration's weights")
    threads: Threads = Field(2, description="TensorFlow threads: part of the result's identity")
    precision: Precision = Field("float32", description=PRECISION, json_schema_extra=LATER)


class GrowthLevel(Section):
    """A level of an evolution, from the validation score `score` of the mean on; 0 keeps the previous value."""

    score: Score
    tracks: Annotated[int, Field(ge=0, le=10_000)] = 0
    steps: Annotated[int, Field(ge=0, le=1000)] = 0
    sigma: Annotated[float, Field(ge=0, le=1000)] = 0.0


class Architecture(Section):
    """The settings that decide C's parameters and its actions with them.

    Everything that drives with a stored C reads them from its manifest (`Artifact.architecture`).
    """

    network: Annotated[str, AfterValidator(parts.known(parts.CONTROLLERS))] = Field(
        "layers", description="C's network: layers", json_schema_extra=LATER
    )
    inputs: Literal["z h", "z"] = Field(
        "z h", description="what C sees: z h (V's latents and M's state), or z alone", json_schema_extra=LATER
    )
    hidden: Annotated[int, Field(ge=0, le=4096)] = Field(
        0, description="tanh units of C's hidden layer; 0: C is linear", json_schema_extra=LATER
    )

    def changed(self) -> dict[str, Any]:
        """Return these settings, without those that have their default."""
        return {name: getattr(self, name) for name, info in Architecture.model_fields.items()
                if getattr(self, name) != info.default}  # fmt: skip


class Controller(Architecture):
    """C: a map from z and h to the action, found by evolution (paper, appendix A.4)."""

    population: Annotated[int, Field(ge=4, le=4096)] = Field(32, description="candidates per generation")
    tracks: Count = Field(2, le=10_000, description="tracks that every candidate of a generation drives")
    hard_tracks: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0,
        description="of these tracks, recent ones on which candidates scored worst; the others are fresh",
        json_schema_extra=LATER,
    )
    steps: Count = Field(1000, le=1000, description="longest training episode, in environment steps")
    patience: Annotated[int, Field(ge=0, le=1000)] = Field(
        60, description="end a training episode after so many steps without a reward (a new tile); 0: never"
    )
    strategy: Annotated[str, AfterValidator(parts.known(parts.STRATEGIES))] = Field(
        "cma-es", description="search for C: cma-es, or openai-es (constant sigma, momentum)", json_schema_extra=LATER
    )
    components: Annotated[int, Field(ge=0, le=4608)] = Field(
        0,
        description="search in so many principal components of z and h, each scaled; 0: in C's parameters themselves",
        json_schema_extra=LATER,
    )
    warm_start: bool = Field(
        False,
        description="begin with the previous iteration's C, fitted to the new V and M; network = layers only",
        json_schema_extra=LATER,
    )
    sigma: Positive = Field(0.1, le=1000, description="first step size of the search")
    sigma_bound: bool = Field(
        False,
        description="whether sigma must not grow beyond the one that the evolution, or its level, begins with",
        json_schema_extra=LATER,
    )
    generations: Count = Field(
        20,
        le=GENERATIONS,
        description="generations in all; more of them later go on from the last",
        json_schema_extra=EXTENT,
    )
    evaluate_every: Annotated[int, Field(ge=0, le=GENERATIONS)] = Field(
        5, description="score the mean on validation tracks every N generations; 0: never"
    )
    evaluate_tracks: Count = Field(8, le=10_000, description="validation tracks of that score")
    covariance: Literal["full", "diagonal"] = Field("full", description="covariance that CMA-ES adapts")
    average: Count = Field(
        1,
        le=GENERATIONS,
        description="validate and hand on the average of the last N generations' means",
        json_schema_extra=LATER,
    )
    select: Literal["last", "best"] = Field(
        "last",
        description="hand on the last mean (or average), or the one with the best validation score",
        json_schema_extra=LATER,
    )
    start_from: Annotated[int, Field(ge=1, le=GENERATIONS)] | None = Field(
        None, description="begin with the state after that generation of an earlier evolution"
    )
    growth: list[GrowthLevel] = Field(
        [],
        max_length=100,
        description="from the mean's validation score on: tracks, longest episode, sigma, [{score=400, tracks=4}, …]",
        json_schema_extra=LATER,
    )
    target: Score | None = Field(
        None, description="end once the mean scores that on validation tracks", json_schema_extra=EXTENT
    )
    stagnation: Count | None = Field(
        None, description="end after so many generations without a better validation score", json_schema_extra=EXTENT
    )
    core_hours: Positive | None = Field(
        None, description="end after so many hours times workers", json_schema_extra=EXTENT
    )
    wall_hours: Positive | None = Field(
        None, description="end after so many hours of work; pauses do not count", json_schema_extra=EXTENT
    )
    renderer: Renderer = Field("fast", description=RENDERER)

    @field_validator("growth")
    @classmethod
    def _rising(cls, growth: list[GrowthLevel]) -> list[GrowthLevel]:
        scores = [level.score for level in growth]
        if scores != sorted(set(scores)):
            raise ValueError(f"scores must rise from level to level, not {scores}")
        return growth

    @model_validator(mode="after")
    def _components_of_a_linear_controller(self) -> "Controller":
        if self.components and self.changed():
            raise ValueError("components need a linear C of z and h: set neither network, inputs nor hidden")
        return self

    @model_validator(mode="after")
    def _fresh_tracks_are_left(self) -> "Controller":
        fewest = min([self.tracks, *(level.tracks for level in self.growth if level.tracks)])
        if self.hard_tracks >= fewest:
            raise ValueError(f"hard_tracks ({self.hard_tracks}) must be less than tracks ({fewest})")
        return self

    @model_validator(mode="after")
    def _something_is_left(self) -> "Controller":
        if self.start_from is not None and self.start_from >= self.generations:
            raise ValueError(f"start_from ({self.start_from}) must be less than generations ({self.generations})")
        return self

    @model_validator(mode="after")
    def _scores_are_needed(self) -> "Controller":
        asking = [name for name in ("growth", "target", "stagnation") if getattr(self, name)]
        asking += ["select"] if self.select == "best" else []
        if asking and not self.evaluate_every:
            raise ValueError(f"{asking[0]} goes by validation scores: evaluate_every must not be 0")
        tracks = max([self.tracks, *(level.tracks for level in self.growth)])
        if self.population * tracks + self.evaluate_tracks > EPISODES:
            raise ValueError(f"population times tracks, and evaluate_tracks, must be at most {EPISODES} episodes")
        return self


class Evaluate(Section):
    """The mean controller's score on fresh tracks."""

    tracks: Count = Field(
        100, le=100_000, description="test tracks; training never sees them", json_schema_extra=EXTENT
    )
    first_track: Annotated[int, Field(ge=TEST_TRACKS.start, lt=TEST_TRACKS.stop)] = Field(
        300_000_000, description="seed of the first test track"
    )
    shard_tracks: Count = Field(5, le=10_000, description="tracks scored together")
    steps: Count = Field(1000, le=1000, description="longest episode; never ended early")
    reference_tracks: Annotated[int, Field(ge=0, le=100_000)] = Field(
        10, description="repeat the first so many tracks on unmodified Gymnasium, to compare"
    )

    @model_validator(mode="after")
    def _whole_shards(self) -> "Evaluate":
        if self.tracks % self.shard_tracks:
            raise ValueError(f"tracks ({self.tracks}) must be a multiple of shard_tracks ({self.shard_tracks})")
        if self.first_track + self.tracks > TEST_TRACKS.stop:
            raise ValueError(
                f"the last of {self.tracks} tracks from {self.first_track} must be below {TEST_TRACKS.stop}"
            )
        if self.tracks // self.shard_tracks > SHARDS:
            raise ValueError(f"tracks / shard_tracks must be at most {SHARDS} shards")
        return self


class Execution(Section):
    """Settings of the execution, which never change a result."""

    workers: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="processes; 0: one per core of the CPU quota", json_schema_extra=EXECUTION
    )
    lanes: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="episodes that a process drives side by side", json_schema_extra=EXECUTION
    )
    cache_mb: Annotated[int, Field(ge=16, le=MOST)] = Field(
        1024, description="memory for decoded training data, MB; never less than two pools", json_schema_extra=EXECUTION
    )
    disk_mb: Annotated[int, Field(ge=0, le=MOST)] = Field(
        4096,
        description="disk for copies of a bucket's training data, MB; 0: read it anew",
        json_schema_extra=EXECUTION,
    )
    stall_seconds: Annotated[int, Field(ge=10, le=86_400)] = Field(
        300, description="give a worker up after so long without progress", json_schema_extra=EXECUTION
    )
    min_shards: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="share of a stage's shards that must succeed", json_schema_extra=EXECUTION
    )


PERSONAL = frozenset({"kubernetes"})
"""Sections with the settings where to compute. They come only from the user's files, `-o` and environment; commands
never write them to a store or read them from one.
"""


class Config(Section):
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(1, description="everything random follows from it")
    env: Annotated[str, AfterValidator(parts.known(parts.ENVIRONMENTS))] = Field(
        "CarRacing-v3", description="environment: CarRacing-v3", json_schema_extra=LATER
    )
    iterations: Annotated[int, Field(ge=1, le=99)] = Field(
        1, description="iterations that `wm run` and `wm submit pipeline` make", json_schema_extra=EXECUTION
    )
    rollouts: Rollouts = Rollouts()
    vae: Vae = Vae()
    latents: Latents = Latents()
    memory: Memory = Memory()
    controller: Controller = Controller()
    evaluate: Evaluate = Evaluate()
    execution: Execution = Execution()
    kubernetes: ClusterSettings = ClusterSettings()

    def storable(self) -> dict[str, Any]:
        """Return the settings that commands write to a store: all but the personal ones."""
        return self.model_dump(exclude=set(PERSONAL))


def personal(key: str) -> bool:
    """Return whether a setting, by its full name, belongs to a personal section."""
    return key.partition(".")[0] in PERSONAL
