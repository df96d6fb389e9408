"""The search in principal components of z and h: what its coordinates mean, and that workers and restarts agree."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import folder_shards

from worldmodels.config import Architecture, Controller
from worldmodels.control import components, shared_arrays
from worldmodels.control.components import Components
from worldmodels.control.evolution import Evolution, Settings
from worldmodels.control.records import arrays
from worldmodels.envs import spec
from worldmodels.errors import CorruptArtifact
from worldmodels.networks import build
from worldmodels.upkeep import verifying
from worldmodels.vision import latents
from worldmodels.vision.latents import Latents

Z, H, ACTIONS = 4, 6, 3


class Step:
    """An M whose state is a random map of what came in."""

    hidden = H

    def __init__(self) -> None:
        self._weights = np.random.default_rng(5).normal(size=(Z + ACTIONS + H, H)).astype(np.float32) * 0.3

    def __call__(self, z: np.ndarray, a: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tanh(np.concatenate([z, a, h], axis=1) @ self._weights), c


def episodes(count: int = 5, steps: int = 60) -> Iterator[Latents]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        mean = (rng.normal(size=(steps, Z)) * [3, 1, 0.1, 0.01] + 2).astype(np.float32)
        yield Latents(mean, mean, rng.uniform(-1, 1, (steps, ACTIONS)).astype(np.float32))


def seen(step: Step) -> np.ndarray:
    return np.concatenate([components.seen(episode, step) for episode in episodes()])


def test_components_are_uncorrelated_and_as_large_as_the_root_of_their_deviation() -> None:
    found = components.compute(episodes(), Step(), 5)  # type: ignore[arg-type]
    values = (seen(Step()) - found.mean) @ found.directions.T
    assert np.cov(values.T) == pytest.approx(np.diag(values.var(axis=0, ddof=1)), abs=1e-5)
    sizes = values.std(axis=0) / np.linalg.norm(found.directions, axis=1)  # of unscaled components
    assert (np.diff(sizes) < 0).all()
    assert values.std(axis=0) / np.sqrt(sizes) == pytest.approx(np.full(5, 1 / np.sqrt(6 * sizes.mean())), rel=1e-2)


def test_sigma_is_the_deviation_of_outputs_along_the_episodes() -> None:
    found = components.compute(episodes(), Step(), 5)  # type: ignore[arg-type]
    y = np.random.default_rng(3).normal(size=(2000, ACTIONS * 6)) * 0.3
    parameters = (y @ found.matrix(ACTIONS)).reshape(2000, -1)
    weights, biases = parameters[:, :-ACTIONS].reshape(2000, ACTIONS, Z + H), parameters[:, -ACTIONS:]
    outputs = np.einsum("nai,ti->nta", weights, seen(Step())) + biases[:, None]
    assert outputs.std(axis=0).mean() == pytest.approx(0.3, rel=0.1)


def test_a_coordinate_is_a_weight_of_an_action_on_a_component_or_its_bias() -> None:
    found = components.compute(episodes(), Step(), 5)  # type: ignore[arg-type]
    matrix, controller = found.matrix(ACTIONS), build(spec("CarRacing-v3"), Architecture(), Z, H)
    y = np.random.default_rng(0).normal(size=ACTIONS * 6) * 0.1
    x = seen(Step())[:20]
    parameters = np.tile((y @ matrix).astype(np.float32), (20, 1))
    weights, biases = y.reshape(ACTIONS, 6)[:, :5], y.reshape(ACTIONS, 6)[:, 5] / np.sqrt(6)
    raw = (x - found.mean) @ found.directions.T @ weights.T + biases
    assert controller.act(parameters, x[:, :Z], x[:, Z:])[:, 0] == pytest.approx(np.tanh(raw[:, 0]), abs=1e-4)


def test_a_search_in_coordinates_stays_in_them_and_finds_an_optimum() -> None:
    found = components.compute(episodes(), Step(), 3)  # type: ignore[arg-type]
    matrix = found.matrix(ACTIONS)
    target = np.random.default_rng(2).normal(size=len(matrix)) @ matrix
    evolution = Evolution(Settings(1, matrix.shape[1], 16, 1, 0.5), matrix)
    for _ in range(300):
        candidates = evolution.ask(1)
        evolution.tell(candidates, [-float(((x - target) ** 2).sum()) for x in candidates])
    assert evolution.mean == pytest.approx(target, abs=1e-2)
    assert candidates.shape == (16, ACTIONS * (Z + H + 1)) and candidates.dtype == np.float32


def test_stored_components_are_the_same_and_damage_is_found() -> None:
    found = components.compute(episodes(), Step(), 3)  # type: ignore[arg-type]
    shapes = {"mean": (Z + H,), "directions": (3, Z + H)}

    def encode(**changes: np.ndarray) -> bytes:
        return arrays({**found._asdict(), **changes})

    again = shared_arrays.decode(encode(), "components", shapes)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    assert arrays(components.compute(episodes(), Step(), 3)._asdict()) == encode()  # type: ignore[arg-type]
    d = found.directions
    wrong = [encode(directions=x) for x in (np.full_like(d, np.nan), np.full_like(d, 1e300), d[:2], d.astype("f4"))]
    for data in (b"", encode()[:-9], arrays({"mean": found.mean}), *wrong):
        with pytest.raises(CorruptArtifact, match="components cannot be read"):
            shared_arrays.decode(data, "components", shapes)


def test_verify_finds_a_flipped_bit_of_stored_components() -> None:
    data = bytearray(arrays(components.compute(episodes(), Step(), 3)._asdict()))  # type: ignore[arg-type]
    verifying._shared(Components._fields, bytes(data), "components")
    for place in (40, len(data) // 2, len(data) - 30):
        data[place] ^= 1
        with pytest.raises(ValueError):
            verifying._shared(Components._fields, bytes(data), "components")
        data[place] ^= 1


def test_stored_latents_are_read_up_to_a_number_of_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list(episodes(4, steps=10))
    stored = folder_shards(tmp_path, [{latents.FILE: latents.pack(made[:2])}, {latents.FILE: latents.pack(made[2:])}])
    monkeypatch.setattr(components, "EPISODES", 3)
    found = list(components._episodes(stored, ACTIONS))  # type: ignore[arg-type]
    assert [each.mean.tolist() for each in found] == [each.mean.tolist() for each in made[:3]]


def test_other_controllers_have_no_components() -> None:
    assert Controller(components=3).components == 3
    for changes in ({"hidden": 4}, {"inputs": "z"}):
        with pytest.raises(ValueError, match="linear C"):
            Controller(components=3, **changes)  # type: ignore[arg-type]


def test_settings_without_components_are_written_as_ever() -> None:
    plain = Settings(1, 7, 6, 1, 0.1)
    assert b"components" not in plain.encode()
    searched = Settings(1, 7, 6, 1, 0.1, components=3)
    assert Settings.decode(searched.encode()) == searched
    assert io.BytesIO(searched.encode()).read().count(b"components") == 1
