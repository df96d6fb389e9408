"""CarRacing with the fast renderer is Gymnasium's CarRacing, and shows what Gymnasium shows."""

import hashlib
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from PIL import Image

from worldmodels.envs import compiled, rasterizer, simulator, tracks
from worldmodels.envs.car_racing import SPEC, make, random_actions
from worldmodels.envs.physics import generate
from worldmodels.envs.preprocess import SEEN_ROWS, shrink
from worldmodels.errors import ConfigError

SEEDS = (5, 77, 123_456_789)


@pytest.fixture
def lanes():
    made = []

    def of(renderer, count=1):
        made.append(make(renderer, count))
        return made[-1]

    yield of
    for each in made:
        each.close()


def drive(lanes, lane, track, actions):
    """Frames [T + 1, ...], rewards [T], terminated [T] and tiles after every step, up to the step that terminates."""
    frames, rewards, ends, tiles = [lanes.start(lane, track)], [], [], []
    for action in actions:
        frame, reward, terminated = lanes.step([lane], action[None])
        frames.append(frame[0])
        rewards.append(reward[0])
        ends.append(terminated[0])
        tiles.append(lanes.progress(lane))
        if terminated[0]:
            break
    return np.array(frames), rewards, ends, tiles


def plain(track, actions):
    """The same without any code of ours but `shrink`: three lines of Gymnasium."""
    env = gymnasium.make("CarRacing-v3")
    frames, rewards, ends, tiles = [env.reset(seed=track)[0]], [], [], []
    for action in actions:
        frame, reward, terminated, _, _ = env.step(action)
        frames.append(frame)
        rewards.append(np.float32(reward))
        ends.append(terminated)
        tiles.append((env.unwrapped.tile_visited_count, len(env.unwrapped.track)))
        if terminated:
            break
    return shrink(np.array(frames)), rewards, ends, tiles


def full_gas(steps, steering=0.0):
    return np.tile(np.array([steering, 1, 0], np.float32), (steps, 1))


def difference(frames, others):
    """Grey levels between each two frames [T], mean over pixels and channels."""
    return np.abs(frames.astype(int) - others).mean(axis=(1, 2, 3))


@pytest.fixture(scope="module")
def pairs():
    """Random driving, and off the field at full speed: with the fast renderer, and on unmodified Gymnasium."""
    fast = make("fast", 1)
    plans = {seed: random_actions(np.random.default_rng(seed), 90, 8) for seed in SEEDS}
    plans[6] = full_gas(400)
    yield [(drive(fast, 0, seed, plan), plain(seed, plan)) for seed, plan in plans.items()]
    fast.close()


def test_rewards_ends_and_tiles_are_gymnasiums_bit_for_bit(pairs):
    for fast, reference in pairs:
        assert fast[1:] == reference[1:]
        assert fast[3][-1][0] > 2


def test_frames_are_gymnasiums_to_a_fraction_of_a_grey_level(pairs):
    differences = np.concatenate([difference(fast[0], reference[0]) for fast, reference in pairs])
    assert differences.mean() <= 0.2
    assert differences.max() <= 1.0


def test_leaving_the_field_terminates_with_minus_100(pairs):
    _, rewards, ends, _ = pairs[-1][0]
    assert rewards[-1] == -100 and ends[-1] and len(rewards) < 400


def test_the_reference_renderer_is_unmodified_gymnasium(lanes):
    actions = random_actions(np.random.default_rng(1), 15, 8)
    ours, reference = drive(lanes("gymnasium"), 0, 5, actions), plain(5, actions)
    np.testing.assert_array_equal(ours[0], reference[0])
    assert ours[1:] == reference[1:]


def test_a_track_that_is_driven_again_is_the_same(lanes):
    again = lanes("fast")
    generate.cache_clear()
    first, second = (drive(again, 0, 7, full_gas(40, 0.3)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1:] == second[1:]
    assert generate.cache_info().misses == 1


def test_box2d_frees_the_shapes_of_a_track_that_is_dropped(lanes):
    lanes("fast", 1).start(0, 31)
    assert all(shape.thisown for shape in generate(31).shapes)


def test_no_episode_ends_by_itself(lanes):
    assert len(drive(lanes("fast"), 0, 5, np.zeros((1010, 3), np.float32))[1]) == 1010


def test_a_lane_keeps_no_trace_of_the_episode_before(lanes):
    two = lanes("fast", 2)
    drive(two, 0, 77, full_gas(30, 0.5))
    again, fresh = (drive(two, lane, 5, full_gas(30)) for lane in (0, 1))
    np.testing.assert_array_equal(again[0], fresh[0])
    assert again[3] == fresh[3]


@pytest.mark.parametrize("renderer", ["fast", "gymnasium"])
def test_lanes_do_not_feel_each_other(lanes, renderer):
    three = lanes(renderer, 3)
    alone = drive(three, 0, 5, full_gas(20))[0]
    beside = [three.start(lane, track) for lane, track in enumerate((77, 5, 6))]
    for _ in range(20):
        beside, _, _ = three.step([0, 1, 2], full_gas(3))
    np.testing.assert_array_equal(beside[1], alone[-1])


def test_a_person_sees_the_tiles_that_were_driven_over(lanes):
    """The film's picture is Gymnasium's own, also on a track that was generated before."""
    fast = lanes("fast")
    drive(fast, 0, 5, full_gas(30))
    env = gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    env.reset(seed=5)
    for action in full_gas(30):
        env.step(action)
    np.testing.assert_array_equal(fast.picture(0), env.render())


def test_a_seed_that_gymnasium_refuses_is_named(lanes):
    with pytest.raises(Exception, match=r"greater or equal to zero.*-1"):
        lanes("fast").start(0, -1)


def test_unknown_renderer():
    with pytest.raises(ConfigError, match="unity"):
        SPEC.lanes("unity", 1)


def test_a_gymnasium_that_draws_differently_is_refused():
    code = """
import hashlib, gymnasium.envs.box2d.car_racing
original = hashlib.sha256
hashlib.sha256 = lambda data: original(data + b"# changed")
from worldmodels.envs.car_racing import make
make("fast", 1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ConfigError: the CarRacing of Gymnasium" in done.stderr and simulator.SUPPORTED in done.stderr


def test_a_broken_box2d_is_named(tmp_path):
    (tmp_path / "Box2D.py").write_text("raise ImportError('_Box2D.so: invalid ELF header')")
    code = "from worldmodels.envs.car_racing import make; make('fast', 1)"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "ConfigError: Gymnasium's CarRacing cannot be imported here" in done.stderr
    assert "invalid ELF header" in done.stderr


def test_without_a_folder_for_machine_code_it_is_compiled_anew_and_says_so(monkeypatch):
    monkeypatch.setattr(compiled.caching.CacheImpl, "_locator_classes", [])
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        double = compiled.compiled(lambda x: 2 * x)
    assert double(21) == 42


def test_machine_code_is_found_where_nothing_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled.caching.CacheImpl, "_locator_classes", [compiled.ReadOnlyCache])
    (tmp_path / "__pycache__").mkdir()
    monkeypatch.setattr(compiled.ReadOnlyCache, "get_cache_path", lambda self: str(tmp_path / "__pycache__"))
    monkeypatch.setattr("tempfile.TemporaryFile", None)  # numba's own test whether it may write
    with pytest.warns(UserWarning, match="compiled anew"):
        compiled.compiled(lambda x: x)
    (tmp_path / "__pycache__/rasterizer.render-1.py311.nbi").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled.compiled(lambda x: x)


def test_a_frame_has_the_same_bytes_on_every_machine():
    """The digest was made on x86-64; it holds wherever IEEE arithmetic does."""
    count = 60
    along, turn = np.arange(count + 1) * 3.5, np.cumsum(np.full(count + 1, 0.03))
    left, right = np.stack([along - 90, 7 + 30 * turn**2], 1), np.stack([along - 90, -7 + 30 * turn**2], 1)
    tiles = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)  # [60, 4, 2]
    state = np.array([1.5, 8.0, 0.6, 0.8] * 5 + [0.0, 0.7, 2.0, -3.0] + [1.0])
    state[4:20] += np.array([[0.9, 1.2, 0, 0], [-0.9, 1.2, 0, 0], [0.9, -1.2, 0, 0], [-0.9, -1.2, 0, 0]]).ravel()
    times = (0.02, 0.5, 1.0)
    states = np.stack([np.append(state[:-1], time) for time in times])
    polygons = np.tile(np.concatenate([tiles, tiles[::7] + 9]), (3, 1, 1, 1))
    kinds = np.tile(np.concatenate([np.arange(count), -np.full(len(tiles[::7]), rasterizer.RED_KERB)]), (3, 1))
    colours = np.tile((102 + np.arange(count) % 3 * 2.55)[:, None], (3, 1, 3))
    frames, canvas = np.empty((3, 64, 64, 3), np.uint8), np.empty((rasterizer.LINES, rasterizer.COLUMNS), np.uint8)
    rasterizer.render(np.arange(3), states, polygons, kinds, np.full(3, kinds.shape[1]), colours, canvas, frames)
    assert len(np.unique(frames.reshape(-1, 3), axis=0)) > 100
    assert hashlib.sha256(frames.tobytes()).hexdigest().startswith("2641d64d977fe06c")


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
