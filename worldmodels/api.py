"""The Python interface: committed runs as NumPy arrays, and their controllers as policies for Gymnasium.

    import worldmodels

    run = worldmodels.open("runs").run("demo")    # or worldmodels.open("s3://bucket/prefix")
    run = worldmodels.pretrained()                # the trained run in the package
    run.scores().mean                             # the evaluation's scores
    policy = run.policy()                         # drives gymnasium.make("CarRacing-v3")

Objects read from the store on demand and change nothing there. Every file is checked against its SHA-256 first. Errors
are those of `worldmodels.errors`, each with the command to type next in `error.next`; a wrong argument raises
ValueError. docs/python.md shows the whole interface.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import artifacts, stages
from .artifacts import Artifact, Name
from .envs import FRAME_SHAPE, spec
from .envs.preprocess import RAW, shrink
from .errors import MissingInput
from .executors import scoring
from .networks import Decoder, Dream, Encoder, Step
from .rollouts import episodes
from .rollouts.driver import Driver
from .rollouts.episodes import Episode
from .rollouts.player import EpisodeSpec
from .rollouts.policies import WorldPolicy
from .rollouts.stage import load_parameters
from .store import PackagedStore, Store, open_store, packaged
from .upkeep import entries
from .vision import latents
from .vision.latents import Latents

__all__ = ["Artifact", "Episode", "Latents", "Policy", "Prediction", "Run", "Runs", "Scores", "open", "pretrained"]

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]
Which = Literal["mean", "best"] | int
CURVES = {"vae": "training.csv", "memory": "training.csv", "controller": "rewards.csv"}


def open(store: str | Path) -> "Runs":
    """Open the runs of a store: a folder's path or s3://bucket/prefix. Raise ConfigError for any other address.

    >>> worldmodels.open("runs").names()
    ['demo']
    """
    return Runs(open_store(str(store)))


def pretrained() -> "Run":
    """Return the trained run in the package: V, M, C, curves and scores, without episodes, latents and weights.

    >>> worldmodels.pretrained().policy().act(np.zeros((64, 64, 3), np.uint8)).shape
    (3,)
    """
    store = PackagedStore()
    return Run(store, packaged.RUN, store.iteration)


class Runs:
    """The runs of one store.

    >>> runs = worldmodels.open("runs")
    >>> runs.run("demo").iteration
    1
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def names(self) -> list[str]:
        """Return the names of the store's runs, in order.

        >>> worldmodels.open("runs").names()
        ['demo']
        """
        return entries.runs(self._store)

    def run(self, name: str, iteration: int | None = None) -> "Run":
        """Return one iteration of a run, by default the last one whose controller is committed.

        Raise MissingInput, with the runs that exist, if there is none.

        >>> worldmodels.open("runs").run("night")
        Traceback (most recent call last):
        worldmodels.errors.MissingInput: there is no run 'night' in runs; it has demo
        """
        entries.runs(self._store, name)
        there = artifacts.iterations(self._store, name)
        if iteration is None:
            iteration = artifacts.last_evolved(self._store, name)
        if iteration not in there:
            raise MissingInput(
                f"run {name!r} in {self._store.uri} has no iteration {iteration}; it has {', '.join(map(str, there))}",
                next=f"wm run --run {name} --iteration {iteration}",
            )
        return Run(self._store, name, iteration)


@dataclass(frozen=True)
class Scores:
    """The scores of a controller's mean on test tracks, in the order of the tracks.

    >>> scores = worldmodels.open("runs").run("demo").scores()
    >>> bool(scores.mean == scores.score.mean())
    True
    """

    tracks: NDArray[np.int64]
    """Gymnasium's seed of each track [N]."""
    score: NDArray[np.float64]
    """The sum of rewards on each track [N]."""
    steps: NDArray[np.int64]
    """The environment steps of each episode [N]."""
    laps: NDArray[np.bool_]
    """Whether every tile was visited [N]."""
    interval: tuple[float, float]
    """The 95 % confidence interval of the mean (Student's t)."""

    @property
    def mean(self) -> float:
        """Return the mean score.

        >>> scores = worldmodels.open("runs").run("demo").scores()
        >>> scores.interval[0] <= scores.mean <= scores.interval[1]
        True
        """
        return float(self.score.mean())


@dataclass(frozen=True)
class Prediction:
    """M's state and its prediction of the next z, step by step along an episode.

    >>> run = worldmodels.open("runs").run("demo")
    >>> episode = next(run.episodes())
    >>> z, _ = run.encode(episode.frames)
    >>> predicted = run.predict(z, episode.actions)
    >>> predicted.mean.shape == z.shape
    True
    """

    h: Floats
    """The state after each step [T, H]."""
    logits: Floats
    """The logits of the mixtures' weights [T, Z, K]."""
    mu: Floats
    """The means of the mixtures' Gaussians [T, Z, K]."""
    log_sigma: Floats
    """The logarithms of their standard deviations [T, Z, K]."""

    @property
    def mean(self) -> Floats:
        """Return the expected z_{t+1} [T, Z].

        >>> run = worldmodels.open("runs").run("demo")
        >>> episode = next(run.episodes())
        >>> z, _ = run.encode(episode.frames)
        >>> error = run.predict(z, episode.actions).mean[:-1] - z[1:]
        >>> error.dtype
        dtype('float32')
        """
        weights = np.exp(self.logits - self.logits.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.asarray((weights * self.mu).sum(axis=-1), np.float32)


class Policy:
    """V, M and C as one policy: `reset` before each episode, `act` in each step.

    A new environment for each track gives the scores of `wm evaluate --renderer gymnasium`: after a reset, Box2D keeps
    an order of bodies that affects its solver.

    >>> import gymnasium
    >>> policy = worldmodels.open("runs").run("demo").policy()
    >>> environment = gymnasium.make("CarRacing-v3")
    >>> observation, info = environment.reset(seed=300000000)
    >>> policy.reset()
    >>> for step in range(10):
    ...     action = policy.act(observation)
    ...     observation, reward, terminated, truncated, info = environment.step(action)
    >>> action.shape, action.dtype
    ((3,), dtype('float32'))
    """

    def __init__(self, driver: Driver, parameters: Floats) -> None:
        """Begin an episode with V, M and C as `driver`, and C's parameters [P]."""
        self.parameters = parameters
        self._world = WorldPolicy(driver, 1)
        self.reset()

    def reset(self) -> None:
        """Begin a new episode: M's state becomes zero.

        >>> worldmodels.open("runs").run("demo").policy().reset()
        """
        self._world.begin(0, EpisodeSpec(None, 0, self.parameters))

    def act(self, observation: Frames) -> Floats:
        """Return the action [3] for the next observation: steering in [-1, 1], gas and brake in [0, 1].

        The observation is uint8 [96, 96, 3], as CarRacing-v3 gives it, or [64, 64, 3], as rollouts store it. Raise
        ValueError for another type or shape.

        >>> policy = worldmodels.open("runs").run("demo").policy()
        >>> policy.act(np.zeros((96, 96, 3), np.uint8)).shape
        (3,)
        >>> policy.act(np.zeros((32, 32, 3), np.uint8))
        Traceback (most recent call last):
        ValueError: frames are uint8 [..., 96, 96, 3] or [..., 64, 64, 3], not uint8 [32, 32, 3]
        """
        return np.asarray(self._world.act([0], _small(observation)[None])[0])


class Run:
    """One iteration of a run: its artifacts, and what they hold.

    V and M are those that the newest controller was evolved with; without a controller, they are the newest ones. The
    object keeps what it has read: open the run again to see what was committed since.

    >>> run = worldmodels.open("runs").run("demo")
    >>> sorted(run.artifacts())
    ['controller', 'evaluate', 'latents', 'memory', 'report', 'rollouts', 'vae']
    """

    def __init__(self, store: Store, name: str, iteration: int) -> None:
        """Refer to an iteration; nothing is read yet."""
        self.name, self.iteration, self._store = name, iteration, store
        self._found: dict[str, Artifact] = {}
        self._scratch = Path(tempfile.mkdtemp(prefix="wm-api-"))
        weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)

    def artifact(self, stage: str) -> Artifact:
        """Return the newest committed artifact of a stage: `digest`, `manifest`, and `path(file)` of a checked copy.

        Raise MissingInput if the stage has none, ConfigError if there is no such stage.

        >>> vae = worldmodels.open("runs").run("demo").artifact("vae")
        >>> vae.manifest["config"]["vae.z"], vae.path("encoder.tflite").name
        (8, 'encoder.tflite')
        """
        if stage not in self._found:
            name = Name(self.name, self.iteration, stages.stage(stage).name)
            there = artifacts.manifests(self._store, name)
            if not there:
                raise MissingInput(
                    f"{name} is not committed in {self._store.uri}",
                    next=f"wm run {stage} --run {self.name} --iteration {self.iteration}",
                )
            self._found[stage] = artifacts.load(self._store, name, there[-1], self._scratch)
        return self._found[stage]

    def artifacts(self) -> dict[str, Artifact]:
        """Return the newest artifact of every stage that has one.

        >>> for stage, artifact in worldmodels.open("runs").run("demo").artifacts().items():
        ...     print(stage, artifact.digest[:12])
        rollouts ...
        """
        for stage in stages.STAGES:
            try:
                self.artifact(stage)
            except MissingInput:
                continue
        return {stage: self._found[stage] for stage in stages.STAGES if stage in self._found}

    def scores(self) -> Scores:
        """Return the scores that the stage `evaluate` committed.

        >>> worldmodels.open("runs").run("demo").scores().tracks
        array([300000000, 300000001, 300000002, 300000003])
        """
        found = artifacts.scores(self.artifact("evaluate"))
        rows = found["scores"]
        return Scores(
            tracks=np.array([row["track"] for row in rows], np.int64),
            score=np.array([row["score"] for row in rows], np.float64),
            steps=np.array([row["steps"] for row in rows], np.int64),
            laps=np.array([row["lap"] for row in rows], np.bool_),
            interval=(found["interval"][0], found["interval"][1]),
        )

    def curves(self, stage: str) -> dict[str, NDArray[np.float64]]:
        """Return the columns of a training's table by name, [rows] each, NaN where a cell is empty.

        The stages are vae, memory and controller. Raise ValueError for another one.

        >>> curves = worldmodels.open("runs").run("demo").curves("controller")
        >>> curves["generation"]
        array([1., 2., 3.])
        """
        from .reports.sources import table

        if stage not in CURVES:
            raise ValueError(f"stage {stage!r} has no curves; {', '.join(CURVES)} have")
        return table(self.artifact(stage).path(CURVES[stage]))

    def episodes(self) -> Iterator[Episode]:
        """Yield the stored episodes in order: frames uint8 [T, 64, 64, 3], actions [T, 3], rewards [T], track.

        Memory holds one shard at a time.

        >>> episode = next(worldmodels.open("runs").run("demo").episodes())
        >>> episode.frames.shape, episode.actions.shape, episode.rewards.shape
        ((40, 64, 64, 3), (40, 3), (40,))
        """
        rollouts = self.artifact("rollouts")
        for shard in rollouts.shards:
            yield from episodes.read(shard, spec(rollouts.env).actions)

    def latents(self) -> Iterator[Latents]:
        """Yield the stored latents of each episode: mean and logvar [T, Z], actions [T, 3].

        >>> next(worldmodels.open("runs").run("demo").latents()).mean.shape
        (40, 8)
        """
        found = self.artifact("latents")
        for shard in found.shards:
            yield from latents.read(shard, spec(found.env).actions)

    def encode(self, frames: Frames) -> tuple[Floats, Floats]:
        """Return V's mean and log-variance, [T, Z] each, of frames uint8 [T, 96, 96, 3] or [T, 64, 64, 3].

        >>> run = worldmodels.open("runs").run("demo")
        >>> mean, logvar = run.encode(next(run.episodes()).frames)
        >>> mean.shape, mean.dtype
        ((40, 8), dtype('float32'))
        """
        small = _small(frames)
        if small.ndim != 4:
            raise ValueError(f"encode takes frames [T, 64, 64, 3], not {list(frames.shape)}; frames[None] is a batch")
        return self._encoder(small)

    def decode(self, z: Floats) -> Frames:
        """Return V's pictures uint8 [T, 64, 64, 3] of z [T, Z].

        >>> run = worldmodels.open("runs").run("demo")
        >>> run.decode(np.zeros((2, 8), np.float32)).shape
        (2, 64, 64, 3)
        """
        return self._decoder(np.asarray(z, np.float32))

    def predict(self, z: Floats, actions: Floats) -> Prediction:
        """Return M's predictions along z [T, Z] and actions [T, 3]: row t predicts z_{t+1}. The first state is zero.

        >>> run = worldmodels.open("runs").run("demo")
        >>> episode = next(run.latents())
        >>> run.predict(episode.mean, episode.actions).h.shape
        (40, 16)
        """
        h = c = np.zeros((1, self._dream.hidden), np.float32)
        rows = []
        for each, action in zip(np.asarray(z, np.float32), np.asarray(actions, np.float32), strict=True):
            h, c, *mixture = self._dream(each[None], action[None], h, c)
            rows.append((h, *mixture))
        return Prediction(*(np.concatenate(part) for part in zip(*rows, strict=True)))

    def dream(
        self,
        episode: Episode,
        steps: int = 100,
        *,
        warm_up: int = 20,
        controller: Which | None = "mean",
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Frames:
        """Return a drive inside M, decoded: uint8 [steps + 1, 64, 64, 3].

        M follows `warm_up` frames of the episode; then each z is drawn from its own prediction (Ha & Schmidhuber 2018,
        section 4). With `controller` None, the episode's own actions are taken.

        >>> run = worldmodels.open("runs").run("demo")
        >>> run.dream(next(run.episodes()), steps=5).shape
        (6, 64, 64, 3)
        """
        from .reports.dream import Networks, roll_out

        drives = None
        if controller is not None:
            drives = self._driver(self._encoder, self._step).controller, self.parameters(controller)
        networks = Networks(self._encoder, self._decoder, self._step, self._dream, drives)
        rng = np.random.default_rng(seed)
        return roll_out(networks, episode, rng, warm_up=warm_up, steps=steps, temperature=temperature)

    def parameters(self, controller: Which = "mean") -> Floats:
        """Return C's parameters [P]: "mean", "best", or the mean after generation N, from 1.

        Raise MissingInput for a generation that the evolution does not have.

        >>> worldmodels.open("runs").run("demo").parameters(2).dtype
        dtype('float32')
        """
        if not (controller in ("mean", "best") or (isinstance(controller, int) and controller > 0)):
            raise ValueError(f"controller {controller!r} is not 'mean', 'best' or the number of a generation")
        return load_parameters(self.artifact("controller"), controller, "wm evaluate --controller {}")

    def policy(self, controller: Which = "mean") -> Policy:
        """Return a policy that drives with the controller "mean", "best", or the mean after generation N.

        Each policy has networks of its own, so several may drive in different threads.

        >>> policy = worldmodels.open("runs").run("demo").policy("best")
        >>> policy.act(np.zeros((64, 64, 3), np.uint8)).dtype
        dtype('float32')
        """
        parameters = self.parameters(controller)
        encoder = Encoder(self.driven_by("vae").path("encoder.tflite"))
        step = Step(self.driven_by("memory").path("step.tflite"))
        return Policy(self._driver(encoder, step), parameters)

    def driven_by(self, stage: str) -> Artifact:
        """Return the artifact of V ("vae") or M ("memory") that the controller was evolved with, retired or not.

        Without a controller, it is the newest one. Raise MissingInput if it is gone.

        >>> run = worldmodels.open("runs").run("demo")
        >>> run.driven_by("vae").digest == run.artifact("vae").digest
        True
        """
        try:
            controller = self.artifact("controller")
        except MissingInput:
            return self.artifact(stage)
        return scoring.network(self._store, controller, stage, self._scratch)

    def driver(self) -> Driver:
        """Return V's encoder, M's step and C's network, for code that drives many environments at once.

        >>> worldmodels.open("runs").run("demo").driver().controller.parameters
        75
        """
        return self._driver(self._encoder, self._step)

    @property
    def dreamer(self) -> Dream:
        """Return M's step with its prediction: z, action, h, c -> h, c, and the mixtures of z_{t+1}.

        >>> worldmodels.open("runs").run("demo").dreamer.hidden
        16
        """
        return self._dream

    def _driver(self, encoder: Encoder, step: Step) -> Driver:
        controller = self.artifact("controller")
        return Driver.of(controller.env, controller.architecture, encoder, step)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.driven_by("vae").path("encoder.tflite"))

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.driven_by("vae").path("decoder.tflite"))

    @cached_property
    def _step(self) -> Step:
        return Step(self.driven_by("memory").path("step.tflite"))

    @cached_property
    def _dream(self) -> Dream:
        return Dream(self.driven_by("memory").path("dream.tflite"))


def _small(frames: Frames) -> Frames:
    """Return frames uint8 [..., 64, 64, 3]; shrink those of CarRacing. Raise ValueError for another type or shape."""
    frames = np.asarray(frames)
    if frames.dtype == np.uint8 and frames.shape[-3:] == FRAME_SHAPE:
        return frames
    if frames.dtype == np.uint8 and frames.shape[-3:] == RAW:
        return shrink(frames.reshape(-1, *RAW)).reshape(*frames.shape[:-3], *FRAME_SHAPE)
    raise ValueError(f"frames are uint8 [..., 96, 96, 3] or [..., 64, 64, 3], not {frames.dtype} {list(frames.shape)}")
