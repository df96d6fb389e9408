import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from worldmodels.config import Architecture, resolve
from worldmodels.envs.car_racing import SPEC, random_actions
from worldmodels.envs.tracks import rollout_track
from worldmodels.errors import CorruptArtifact, MissingInput
from worldmodels.rollouts import episodes, stage
from worldmodels.rollouts.driver import Driver
from worldmodels.rollouts.episodes import Episode
from worldmodels.rollouts.player import EpisodeSpec, play
from worldmodels.rollouts.policies import RandomPolicy, WorldPolicy


class Counting:
    """Frames show (track, step); every `pays`-th step earns 1; an episode ends after `track % 10` steps, unless 0."""

    def __init__(self, count, pays=3):
        self.count, self.pays = count, pays
        self.at = {}

    def start(self, lane, track):
        self.at[lane] = (track, 0)
        return self.frame(lane)

    def frame(self, lane):
        return np.broadcast_to(np.uint8([self.at[lane][0] % 256, self.at[lane][1] % 256, 0]), (64, 64, 3))

    def step(self, lanes, actions):
        for lane in lanes:
            self.at[lane] = (self.at[lane][0], self.at[lane][1] + 1)
        states = [self.at[lane] for lane in lanes]
        rewards = np.array([float(step % self.pays == 0) - 0.1 for _, step in states], np.float32)
        ended = np.array([step == track % 10 for track, step in states])
        return np.stack([self.frame(lane) for lane in lanes]), rewards, ended

    def progress(self, lane):
        return self.at[lane][1] // self.pays, 100

    def close(self):
        pass


class Idle:
    def begin(self, lane, spec): ...

    def act(self, lanes, frames):
        return np.zeros((len(lanes), 3), np.float32)


def feed(tracks):
    specs = iter([EpisodeSpec(i, track) for i, track in enumerate(tracks)])
    return lambda: next(specs, None)


class Shard(SimpleNamespace):
    """Files of a shard in a folder."""

    def read(self, name):
        return (self.folder / name).read_bytes()


def shard(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Shard(index=0, folder=folder, repair="")


def some_episodes():
    rng = np.random.default_rng(0)
    return [
        Episode(
            rng.integers(0, 256, (length, 64, 64, 3), np.uint8),
            rng.random((length, 3), np.float32),
            rng.random(length, np.float32),
            track=7 + length,
            terminated=length == 3,
        )
        for length in (5, 3)
    ]


def context(lanes, **settings):
    config = resolve("demo", (), [f"rollouts.{key}={value}" for key, value in settings.items()])[0]
    steps = []
    progress = lambda done, total, unit, rate, **figures: steps.append((done, total))  # noqa: E731
    return SimpleNamespace(
        config=config, iteration=1, lanes=lanes, progress=progress, steps=steps, log=logging.getLogger("test")
    )


def test_a_shard_gives_back_what_was_put_in(tmp_path):
    before = some_episodes()
    after = episodes.read(shard(tmp_path, episodes.encode(before)), 3)
    for a, b in zip(before, after, strict=True):
        for name in ("frames", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert (a.track, a.terminated) == (b.track, b.terminated)


def test_the_same_episodes_give_the_same_bytes():
    assert episodes.encode(some_episodes()) == episodes.encode(some_episodes())


def test_lengths_need_no_frames(tmp_path):
    files = episodes.encode(some_episodes())
    del files[episodes.FRAMES]
    assert episodes.lengths(shard(tmp_path, files)).tolist() == [5, 3]


def test_damaged_frames_are_refused(tmp_path):
    files = episodes.encode(some_episodes())
    files[episodes.FRAMES] = files[episodes.FRAMES][:-1]
    with pytest.raises(CorruptArtifact, match="shard 0"):
        episodes.read(shard(tmp_path, files), 3)


def test_play_ends_at_the_step_limit_or_when_terminated():
    outcomes = list(play(Counting(2), Idle(), feed([4, 10]), steps=6))
    assert [(o.spec.key, o.steps, o.terminated) for o in outcomes] == [(0, 4, True), (1, 6, False)]
    assert outcomes[1].score == pytest.approx(2 - 0.6)
    assert (outcomes[1].done, outcomes[1].total) == (2, 100)


def test_play_loses_patience_without_a_reward():
    (outcome,) = play(Counting(1, pays=50), Idle(), feed([10]), steps=300, patience=20)
    assert (outcome.steps, outcome.terminated) == (20, False)
    (outcome,) = play(Counting(1, pays=15), Idle(), feed([10]), steps=300, patience=20)
    assert outcome.steps == 300


def test_play_refills_lanes_at_once():
    active = []
    list(play(Counting(2), Idle(), feed([1, 3, 2, 10]), steps=4, on_step=active.append))
    assert active == [2, 2, 2, 1, 1, 1, 1]


def test_a_recording_pairs_what_was_seen_with_what_was_done():
    (outcome,) = play(Counting(1), RandomPolicy(SPEC, 1, 1, 8, 2.0), feed([13]), steps=8, record=True)
    assert outcome.episode.frames[:, 0, 0, 1].tolist() == [0, 1, 2]
    assert outcome.episode.rewards.round(1).tolist() == pytest.approx([-0.1, -0.1, 0.9], abs=1e-6)
    expected = random_actions(np.random.default_rng((1, 1, 0)), 8, 2.0)[:3]
    np.testing.assert_array_equal(outcome.episode.actions, expected)


def test_without_a_recording_no_frames_are_kept():
    (outcome,) = play(Counting(1), Idle(), feed([3]), steps=8)
    assert outcome.episode is None


def test_random_actions_are_held_and_within_bounds():
    actions = random_actions(np.random.default_rng(0), 20_000, hold=8)
    changes = (np.diff(actions, axis=0) != 0).any(axis=1).mean()
    assert 1 / changes == pytest.approx(8, rel=0.1)
    assert (actions >= [-1, 0, 0]).all() and (actions <= 1).all()


def test_random_actions_give_gas_and_rarely_brake():
    actions = np.concatenate([random_actions(np.random.default_rng(i), 400, 8) for i in range(50)])
    assert 0.2 < actions[:, 1].mean() < 0.5
    assert (actions[:, 2] > 0).mean() < 0.1
    assert abs(actions[:, 0].mean()) < 0.05


class Shown:
    """z = (track, step) of Counting's frames."""

    z = 2

    def __call__(self, frames):
        return frames[:, 0, 0, :2].astype(np.float32), np.zeros((len(frames), 2), np.float32)


class Sums:
    """h counts steps, c adds up the actions."""

    hidden = 1

    def __call__(self, z, a, h, c):
        return h + 1, c + a.sum(axis=1, keepdims=True)


def test_the_world_policy_begins_without_memory_and_advances_it():
    driver = Driver.of("CarRacing-v3", Architecture(), Shown(), Sums())
    parameters = np.zeros(driver.controller.parameters, np.float32)
    parameters[2] = 0.1  # steering from h alone
    spec = EpisodeSpec(0, 5, parameters)
    policy = WorldPolicy(driver, 2)
    for _ in range(2):
        policy.begin(1, spec)
        steering = [policy.act([1], np.zeros((1, 64, 64, 3), np.uint8))[0, 0] for _ in range(3)]
        np.testing.assert_allclose(steering, np.tanh([0, 0.1, 0.2]), rtol=1e-6)


def test_the_world_policy_keeps_lanes_apart():
    specs = [
        EpisodeSpec(i, 11 + 7 * i, row) for i, row in enumerate(np.random.default_rng(0).random((7, 12), np.float32))
    ]

    def driven(lanes):
        queue = iter(specs)
        policy = WorldPolicy(Driver.of("CarRacing-v3", Architecture(), Shown(), Sums()), lanes)
        played = play(Counting(lanes), policy, lambda: next(queue, None), steps=9, record=True)
        return {outcome.spec.key: outcome.episode.actions.tobytes() for outcome in played}

    assert driven(4) == driven(1)


@pytest.fixture(scope="module")
def rolled():
    """Two shards of real episodes, with 1, 3 and 8 lanes; 8 in the other order."""
    settings = {"episodes": 6, "shard_episodes": 3, "steps": 25}
    return {
        lanes: dict(stage.shards(context(lanes, **settings), todo))
        for lanes, todo in ((1, [0, 1]), (3, [0, 1]), (8, [1, 0]))
    }


@pytest.mark.parametrize("lanes", [3, 8])
def test_shards_do_not_depend_on_lanes_or_order(rolled, lanes):
    assert rolled[lanes] == rolled[1]


def test_shards_hold_their_episodes_in_order(rolled, tmp_path):
    stored = episodes.read(shard(tmp_path, rolled[3][1]), 3)
    assert [episode.track for episode in stored] == [rollout_track(1, 1, i) for i in (3, 4, 5)]
    assert [len(episode) for episode in stored] == [25] * 3


def test_rollouts_with_gymnasiums_own_renderer(tmp_path):
    ctx = context(2, episodes=1, shard_episodes=1, steps=5, renderer='"gymnasium"')
    ((_, files),) = stage.shards(ctx, [0])
    assert len(episodes.read(shard(tmp_path, files), 3)[0]) == 5
    assert ctx.steps[-1] == (5, 5)


@pytest.fixture
def controller(tmp_path):
    np.save(tmp_path / "mean.npy", np.float32([1, 2]))
    np.savez(tmp_path / "generations.npz", mean=np.float32([[3, 4], [5, 6]]))
    return SimpleNamespace(path=lambda name: Path(tmp_path / name))


def test_who_drives_is_mean_or_a_generation_counted_from_one(controller):
    assert stage.load_parameters(controller, "mean").tolist() == [1, 2]
    assert stage.load_parameters(controller, 1).tolist() == [3, 4]
    with pytest.raises(MissingInput, match="generations 1 to 2"):
        stage.load_parameters(controller, 3)
