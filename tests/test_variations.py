"""`wm evaluate --vary`: the same tracks under conditions that training did not show."""

import json
import re

import numpy as np
import pytest

from worldmodels.envs import spec
from worldmodels.executors.scoring import variations

SPEC, TRACK = spec("CarRacing-v3"), 300_000_000
ACTION = np.array([[0.1, 0.9, 0.0]], np.float32)


def drive(vary, steps: int = 60):
    lanes = vary(SPEC.lanes("fast", 1))
    frames, earned = [lanes.start(0, TRACK)], []
    for _ in range(steps):
        frame, reward, _ = lanes.step([0], ACTION)
        frames.append(frame[0])
        earned.append(float(reward[0]))
    lanes.close()
    return np.stack(frames), earned


@pytest.mark.parametrize("name", variations("CarRacing-v3"))
def test_a_variation_changes_the_frames_or_the_drive_and_repeats_itself(name):
    frames, earned = drive(variations("CarRacing-v3")[name])
    again, earned_again = drive(variations("CarRacing-v3")[name])
    plain, earned_plain = drive(lambda lanes: lanes)
    assert frames.dtype == np.uint8 and (frames == again).all() and earned == earned_again
    assert not (frames == plain).all()
    assert (earned == earned_plain) == ("grip" not in name and "gas" not in name)


def test_a_car_with_less_grip_or_gas_is_elsewhere_in_the_same_pictures():
    plain, _ = drive(lambda lanes: lanes)
    for name in ("80% of the grip", "80% of the gas"):
        frames, _ = drive(variations("CarRacing-v3")[name])
        assert (frames[0] == plain[0]).all() and not (frames[-1] == plain[-1]).all()


def test_evaluate_scores_every_variation_next_to_the_plain_score(finished):
    plain = json.loads(finished("evaluate", "--seeds", "7:9", "--json").stdout)
    varied = json.loads(finished("evaluate", "--seeds", "7:9", "--vary", "--json").stdout)
    assert varied["scores"] == plain["scores"] and "variations" not in plain
    assert list(varied["variations"]) == list(variations("CarRacing-v3"))
    for found in varied["variations"].values():
        assert found["difference"] == pytest.approx(found["mean"] - plain["mean"])
    table = finished("evaluate", "--seeds", "7:9", "--vary").stdout
    assert re.search(r"^plain +-?[0-9.]+ ± +[0-9.]+ +0$", table, re.M)
    assert re.search(r"^80% of the gas .* to [+-][0-9.]+$", table, re.M)
