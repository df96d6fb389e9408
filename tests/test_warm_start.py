"""The warm start of C: its outputs survive a change of V and M."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from worldmodels import npz, parts
from worldmodels.config import Architecture, Config, Controller
from worldmodels.control import warm_start
from worldmodels.control.evolution import Evolution, Settings
from worldmodels.envs import spec
from worldmodels.errors import CorruptArtifact
from worldmodels.networks import build
from worldmodels.stages import STAGES

Z, H, ACTIONS = 4, 6, 3
P = (Z + H + 1) * ACTIONS


def test_a_c_fitted_to_other_numbers_of_the_same_frames_acts_the_same() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=(500, Z + H)).astype(np.float32)
    rotation, _ = np.linalg.qr(rng.normal(size=(Z + H, Z + H)))
    now = (2 * before @ rotation + 3).astype(np.float32)  # another V and M saw the same
    c = rng.normal(size=P).astype(np.float32)
    outputs = before @ c[:-ACTIONS].reshape(ACTIONS, -1).T + c[-ACTIONS:]
    fitted = warm_start.fit(now, outputs.astype(np.float64)).astype(np.float32)
    controller = build(spec("CarRacing-v3"), Architecture(), Z, H)
    acts = [
        controller.act(np.tile(parameters, (500, 1)), x[:, :Z], x[:, Z:])
        for parameters, x in ((c, before), (fitted, now))
    ]
    assert acts[1] == pytest.approx(acts[0], abs=0.02)


def test_an_evolution_begins_at_its_origin_with_and_without_components() -> None:
    origin = np.arange(P, dtype=np.float64)
    matrix = np.random.default_rng(1).normal(size=(5, P))
    for coordinates in (None, matrix):
        evolution = Evolution(Settings(1, P, 8, 1, 0.1, warm_start=True), coordinates, origin)
        assert (evolution.mean == origin.astype(np.float32)).all()
        target = origin + matrix[0]
        for _ in range(200):
            candidates = evolution.ask(1)
            evolution.tell(candidates, [-float(((x - target) ** 2).sum()) for x in candidates])
        assert evolution.mean == pytest.approx(target, abs=0.05)


def test_settings_without_a_warm_start_are_written_as_ever_and_it_cannot_change_on_the_way() -> None:
    plain, warm = Settings(1, P, 6, 1, 0.1), Settings(1, P, 6, 1, 0.1, warm_start=True)
    assert b"warm_start" not in plain.encode() and Settings.decode(warm.encode()) == warm
    with pytest.raises(Exception, match="warm_start = False"):
        warm.continues(plain)


def test_a_network_of_ones_own_begins_with_zeros(monkeypatch) -> None:
    monkeypatch.setitem(parts.CONTROLLERS, "own", "worldmodels.networks.controllers:Layers")
    inputs = [
        STAGES["controller"].inputs(Config(controller=Controller(warm_start=True, network=network)), 2)
        for network in ("own", "layers")
    ]
    assert inputs[0] == [("vae", 2), ("memory", 2)] and ("controller", 1) in inputs[1]


def test_iteration_two_begins_with_the_c_of_iteration_one(copy):
    copy.ok("--iteration", "2", "-o", "controller.components=4")
    (start,) = copy.store.glob("*/iter-2/controller/*/start")
    parameters = npz.load(start.read_bytes(), "parameters")["parameters"]
    assert np.abs(parameters).max() > 0
    first = np.load(next(start.parent.glob("generations/00001/params")))
    assert np.abs(first["mean"] - parameters).max() < 1e-6
    assert copy("verify").returncode == 0


def test_a_hidden_layer_is_fitted_and_the_rest_kept(copy):
    copy.ok("controller", "--redo", "-o", "controller.inputs=z", "-o", "controller.hidden=5")
    before = max(copy.store.glob("tiny/iter-1/controller/data/*/mean.npy"), key=lambda path: path.stat().st_mtime)
    copy.ok("--iteration", "2")
    (start,) = copy.store.glob("tiny/iter-2/controller/*/start")
    parameters, c = npz.load(start.read_bytes(), "parameters")["parameters"], np.load(before)
    rest = 3 * (5 + 1)
    assert parameters.shape == c.shape and (parameters[-rest:] == c[-rest:]).all()
    assert not (parameters[:-rest] == c[:-rest]).any()


def test_a_c_of_another_architecture_is_no_start(copy):
    copy.ok("controller", "--redo", "-o", "controller.inputs=z")
    refused = copy("run", "--iteration", "2", "-o", "controller.inputs=z h")
    assert refused.returncode == 43 and "'inputs': 'z'}, and C would have a linear one" in refused.stderr


def test_without_training_v_and_m_stay_and_c_goes_on(copy):
    copy.ok("--iteration", "2", "-o", "vae.epochs=0", "-o", "memory.epochs=0", "-o", "memory.warm_start=true")
    for stage, file in (("vae", "encoder.tflite"), ("memory", "step.tflite")):
        before, now = (next(copy.store.glob(f"tiny/iter-{i}/{stage}/data/*/{file}")).read_bytes() for i in (1, 2))
        assert before == now
    (start,) = copy.store.glob("tiny/iter-2/controller/*/start")
    c = np.load(next(copy.store.glob("tiny/iter-1/controller/data/*/mean.npy")))
    assert npz.load(start.read_bytes(), "parameters")["parameters"] == pytest.approx(c, abs=1e-9)


def test_an_m_without_training_is_exported_as_it_began(copy):
    copy.ok("memory", "--redo", "-o", "memory.epochs=0")
    held_out = max(copy.store.glob("tiny/iter-1/memory/data/*/heldout.json"), key=lambda path: path.stat().st_mtime)
    assert json.loads(held_out.read_text())["mdn_rnn"] > 0


@pytest.mark.parametrize("wrong", [np.zeros(7), np.full(75, np.nan), np.full(75, np.inf), np.zeros((3, 25))])
def test_parameters_that_fit_no_networks_start_nothing(monkeypatch, wrong) -> None:
    """A writer of the store can commit any numbers; `start` would keep them."""
    monkeypatch.setattr(warm_start, "load_parameters", lambda controller, which: wrong)
    networks = SimpleNamespace(encoder=SimpleNamespace(z=8), step=SimpleNamespace(hidden=16))
    ctx = SimpleNamespace(one=lambda stage: SimpleNamespace(name="tiny/iter-1/controller"), config=Config())
    with pytest.raises(CorruptArtifact, match=r"tiny/iter-1/controller: mean.npy"):
        warm_start._before(ctx, networks)
