import subprocess
import sys

import numpy as np
import pytest
from fakes import fix_threads

from worldmodels.config import Architecture
from worldmodels.envs.car_racing import SPEC
from worldmodels.networks import Decoder, Dream, Encoder, Step, build, sample

Z, H = 8, 16


@pytest.fixture(scope="module")
def inputs():
    """Inputs of every network, 33 rows each."""
    rng = np.random.default_rng(0)
    z, a, h, c = (rng.standard_normal((33, n), dtype=np.float32) for n in (Z, 3, H, H))
    return {
        Encoder: [rng.integers(0, 256, (33, 64, 64, 3), np.uint8)],
        Decoder: [z],
        Step: [z, a, h, c],
        Dream: [z, a, h, c],
    }


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    from worldmodels.memory.model import Memory
    from worldmodels.memory.model import play_functions as of_memory
    from worldmodels.training.export import convert
    from worldmodels.vision.model import Vae
    from worldmodels.vision.model import play_functions as of_vae

    fix_threads()
    folder, vae, memory = tmp_path_factory.mktemp("networks"), Vae(Z, 0.25), Memory(Z, 3, H, 2)
    for name, function in (of_vae(vae) | of_memory(memory)).items():
        (folder / name).write_bytes(convert(function))
    return {kind: kind(folder / f"{kind.__name__.lower()}.tflite") for kind in (Encoder, Decoder, Step, Dream)}


@pytest.mark.parametrize("kind", [Encoder, Decoder, Step, Dream])
def test_a_rows_bits_do_not_depend_on_its_batch(networks, inputs, kind):
    whole = networks[kind].run(*inputs[kind])
    for size in (1, 2, 3, 5, 8, 13, 16, 32):
        parts = [networks[kind].run(*(x[i : i + size] for x in inputs[kind])) for i in range(0, 33, size)]
        assert all(np.array_equal(a, np.concatenate(b)) for a, b in zip(whole, zip(*parts, strict=True), strict=True))


@pytest.mark.parametrize("kind", [Encoder, Decoder, Step, Dream])
def test_no_rows_give_no_rows(networks, inputs, kind):
    outputs = networks[kind].run(*(x[:0] for x in inputs[kind]))
    assert all(len(array) == 0 for array in outputs)


def test_networks_know_their_sizes(networks):
    assert (networks[Encoder].z, networks[Step].hidden, networks[Dream].hidden) == (Z, H, H)
    assert networks[Decoder](np.zeros((2, Z), np.float32)).dtype == np.uint8


def test_the_dream_moves_the_state_as_the_step_does(networks, inputs):
    h, c = networks[Step](*inputs[Step])
    dream = networks[Dream](*inputs[Dream])
    assert np.array_equal(h, dream[0]) and np.array_equal(c, dream[1])
    assert dream[2].shape == dream[3].shape == dream[4].shape == (33, Z, 2)


def test_inputs_of_another_type_are_refused(networks):
    with pytest.raises(ValueError, match="FLOAT64"):
        networks[Decoder](np.zeros((1, Z)))


def test_playing_imports_no_tensorflow():
    code = "import sys, worldmodels.networks; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


ARCHITECTURES = [Architecture(inputs=inputs, hidden=hidden) for inputs in ("z h", "z") for hidden in (0, 1, 40)]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_the_controllers_row_does_not_depend_on_its_batch(architecture):
    rng, c = np.random.default_rng(1), build(SPEC, architecture, 32, 256)
    params, z, h = (rng.standard_normal((33, n), dtype=np.float32) for n in (c.parameters, 32, 256))
    whole = c.act(params, z, h)
    for size in range(1, 34):
        parts = [c.act(params[i : i + size], z[i : i + size], h[i : i + size]) for i in range(0, 33, size)]
        assert np.array_equal(whole, np.concatenate(parts))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_the_controllers_layers_are_squashed_into_the_actions_ranges(architecture):
    rng, c = np.random.default_rng(2), build(SPEC, architecture, 4, 2)
    params = rng.standard_normal(c.parameters, dtype=np.float32)
    z, h = rng.standard_normal((1, 4), dtype=np.float32), rng.standard_normal((1, 2), dtype=np.float32)
    x, left = np.concatenate([z[0], h[0]] if architecture.inputs == "z h" else [z[0]]), params
    if n := architecture.hidden:
        x = np.tanh(left[: n * len(x)].reshape(n, -1) @ x + left[n * len(x) : n * (len(x) + 1)])
        left = left[-3 * (n + 1) :]
    raw = np.tanh(left[:-3].reshape(3, -1) @ x + left[-3:])
    np.testing.assert_allclose(c.act(params[None], z, h)[0], [raw[0], (raw[1] + 1) / 2, max(raw[2], 0)], rtol=1e-4)


@pytest.mark.parametrize(("inputs", "hidden", "count"), [("z h", 0, 867), ("z", 0, 99), ("z", 40, 1443)])
def test_the_papers_controllers_have_its_numbers_of_parameters(inputs, hidden, count):
    assert build(SPEC, Architecture(inputs=inputs, hidden=hidden), 32, 256).parameters == count


def test_a_cold_sample_is_the_heaviest_gaussians_center():
    logits = np.array([[[0.0, 3.0]]], np.float32)
    mu = np.array([[[5.0, -2.0]]], np.float32)
    z = sample(logits, mu, np.zeros_like(mu), np.random.default_rng(0), temperature=1e-6)
    assert z == pytest.approx(-2.0, abs=0.01)


@pytest.mark.parametrize("temperature, heavy, spread", [(1.0, 0.731, 1.0), (0.5, 0.881, 0.5**0.5)])
def test_samples_follow_the_mixture_and_the_temperature(temperature, heavy, spread):
    shape = (20_000, 1, 2)
    logits, mu = np.broadcast_to(np.float32([0, 1]), shape), np.broadcast_to(np.float32([-20, 20]), shape)
    z = sample(logits, mu, np.zeros(shape, np.float32), np.random.default_rng(0), temperature)
    assert np.mean(z > 0) == pytest.approx(heavy, abs=0.02)
    assert np.std(z[z > 0]) == pytest.approx(spread, rel=0.05)
