import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from worldmodels.envs import make, tracks
from worldmodels.envs.preprocess import SEEN_ROWS, shrink
from worldmodels.errors import ConfigError
from worldmodels.rollouts.policies import random_actions

TRACKS = (5, 77, 123_456_789)


@pytest.fixture
def engine():
    made = []

    def start(name, lanes=1):
        made.append(make(name, lanes))
        return made[-1]

    yield start
    for lanes in made:
        lanes.close()


def drive(lanes, lane, track, actions):
    """Frames [T + 1, ...], rewards [T], and tiles after every step, up to the step that terminates."""
    frames, rewards, tiles = [lanes.start(lane, track)], [], []
    for action in actions:
        frame, reward, terminated = lanes.step([lane], action[None])
        frames.append(frame[0])
        rewards.append(reward[0])
        tiles.append(lanes.tiles(lane))
        if terminated[0]:
            break
    return np.array(frames), np.array(rewards), tiles


def full_gas(steps, steering=0.0):
    return np.tile(np.array([steering, 1, 0], np.float32), (steps, 1))


@pytest.fixture(scope="module")
def pairs():
    """The same actions on the same tracks, on both engines."""
    fast, reference = make("envpool", 1), make("gymnasium", 1)
    plans = [random_actions(np.random.default_rng(track), 100, 8) for track in TRACKS]
    yield [
        (drive(fast, 0, track, plan), drive(reference, 0, track, plan))
        for track, plan in zip(TRACKS, plans, strict=True)
    ]
    fast.close()
    reference.close()


def test_both_engines_earn_the_same_on_the_same_track(pairs):
    for (_, fast, _), (_, reference, _) in pairs:
        np.testing.assert_allclose(fast, reference, atol=1e-4)


def test_both_engines_show_nearly_the_same(pairs):
    for (fast, _, _), (reference, _, _) in pairs:
        difference = np.abs(fast.astype(int) - reference).mean(axis=(1, 2, 3))
        assert difference.max() < 5


def test_tiles_inferred_from_rewards_are_those_that_gymnasium_counts(pairs):
    for (_, _, inferred), (_, _, counted) in pairs:
        assert inferred == counted
        assert counted[-1][0] > counted[0][0] == 2


def test_no_engine_ends_an_episode_by_itself(engine):
    idle = np.zeros((1010, 3), np.float32)
    assert len(drive(engine("envpool"), 0, 5, idle)[1]) == 1010


def test_leaving_the_field_terminates_with_minus_100(engine):
    _, rewards, _ = drive(engine("envpool"), 0, 5, full_gas(1000))
    assert rewards[-1] == -100 and len(rewards) < 1000


def test_a_lane_keeps_no_trace_of_the_episode_before(engine):
    lanes = engine("envpool", 2)
    drive(lanes, 0, 77, full_gas(30, 0.5))
    again, fresh = (drive(lanes, lane, 5, full_gas(30)) for lane in (0, 1))
    np.testing.assert_array_equal(again[0], fresh[0])
    assert again[2] == fresh[2]


@pytest.mark.parametrize("name", ["envpool", "gymnasium"])
def test_lanes_do_not_feel_each_other(engine, name):
    lanes = engine(name, 3)
    alone, _, _ = drive(lanes, 0, 5, full_gas(20))
    beside = [lanes.start(lane, track) for lane, track in enumerate((77, 5, 6))]
    for _ in range(20):
        beside, _, _ = lanes.step([0, 1, 2], full_gas(3))
    np.testing.assert_array_equal(beside[1], alone[-1])


def test_only_carracing_is_loaded():
    code = "import sys; from worldmodels.envs.envpool import load; load(); print('envpool.mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_unknown_engine():
    with pytest.raises(ConfigError, match="unity"):
        make("unity", 1)


def test_shrinking_averages_whole_pixels():
    raw = np.random.default_rng(0).integers(0, 256, (11, 96, 96, 3), np.uint8)
    small = shrink(raw)
    assert small.shape == (11, 64, 64, 3)
    np.testing.assert_array_equal(small[:, 0, 0], (raw[:, 0, 0].astype(int) + raw[:, 0, 1] + 1) // 2)
    np.testing.assert_array_equal(small[:, 0, 1], raw[:, 0, 2])


def test_shrinking_is_pillows_box_filter():
    raw = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    pillow = np.asarray(Image.fromarray(raw[:SEEN_ROWS]).resize((64, 64), Image.Resampling.BOX))
    assert np.abs(shrink(raw[None])[0].astype(int) - pillow).max() <= 1


def test_shrinking_does_not_depend_on_the_batch():
    raw = np.random.default_rng(0).integers(0, 256, (20, 96, 96, 3), np.uint8)
    np.testing.assert_array_equal(shrink(raw)[13], shrink(raw[13:14])[0])


def test_the_gauges_are_not_seen():
    raw = np.zeros((1, 96, 96, 3), np.uint8)
    raw[:, SEEN_ROWS:] = 255
    assert not shrink(raw).any()


def test_purposes_share_no_track():
    drawn = [
        [tracks.rollout_track(1, 1, episode) for episode in range(50)],
        tracks.training_tracks(1, 1, 1, 50),
        tracks.validation_tracks(1, 50),
        tracks.test_tracks(tracks.TEST.start, 50),
    ]
    assert len({track for purpose in drawn for track in purpose}) == 200


def test_tracks_follow_from_what_they_are_for():
    assert tracks.training_tracks(1, 1, 3, 8)[:4] == tracks.training_tracks(1, 1, 3, 4)
    assert tracks.training_tracks(1, 1, 3, 4) != tracks.training_tracks(1, 1, 4, 4)
    assert tracks.rollout_track(1, 1, 0) != tracks.rollout_track(1, 2, 0)


def test_training_tracks_cannot_be_tested_on():
    with pytest.raises(ConfigError, match="100000000"):
        tracks.test_tracks(tracks.TRAINING.start, 5)
