"""Does this image do its work, here? `python /opt/wm/smoke.py`: exit 0, and a line for each thing seen; or a traceback.

In wm-cpu it drives with both renderers and encodes what it sees; in wm-gpu it trains V for three steps and plays all
that trainings commit. `make build-images` runs it in every image; on a node it tells whether the image suits that
machine.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from worldmodels import planning, stages
from worldmodels.artifacts import provenance
from worldmodels.config import resolve

NETWORK = Path(__file__).with_name("smoke.tflite")  # V's encoder with z = 4, a 32nd as wide, untrained
ABSENT = ("tensorflow", "keras")


def main() -> None:
    trains = importlib.util.find_spec("tensorflow") is not None
    assert os.getuid() != 0, "it runs as root"
    say("image", f"{'wm-gpu' if trains else 'wm-cpu'}, revision {provenance.git_revision() or 'unknown'}")
    say("user", f"{os.getuid()}:{os.getgid()}, {provenance.cores()} cores, {', '.join(provenance.cpu()['features'])}")
    say("packages", "  ".join(f"{name} {version}" for name, version in provenance.versions()))
    say("size", f"{sum(sizes(Path('/'))) / 1e6:.0f} MB unpacked")
    imports(trains)
    (train if trains else play)()


def imports(trains: bool) -> None:
    for stage in stages.STAGES.values():
        if stage.gpu == trains:
            with timed(f"import {stage.name}"):
                for entrypoint in filter(None, (stage.entrypoint, stage.collect)):
                    stages.function(entrypoint)
    if not trains:
        with timed("import the cluster's client"):
            importlib.import_module("kubernetes.client")
    with timed("import S3's client"):
        importlib.import_module("worldmodels.store.s3.store")
    importlib.import_module("wm.main")


def play() -> None:
    from worldmodels.envs import rasterizer
    from worldmodels.envs.car_racing import make
    from worldmodels.networks import Encoder

    present = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not present, f"only wm-gpu needs {present}, or nothing does"
    encode = Encoder(NETWORK)
    for renderer in ("fast", "gymnasium"):
        with timed(f"50 steps of CarRacing, renderer {renderer}"):
            lanes = make(renderer, 1)
            first = frame = lanes.start(0, track=7)
            for _ in range(50):
                frames, _, _ = lanes.step([0], np.array([[0.0, 0.3, 0.0]], np.float32))
                frame = frames[0]
            assert frame.any() and (frame != first).any() and lanes.progress(0)[0] > 0, "the car does not move"
            lanes.close()
        mean, logvar = encode(np.stack([first, frame]))
        assert np.isfinite([mean, logvar]).all() and (mean[0] != mean[1]).any(), "V does not see"
        assert (encode(frame[None])[0] == mean[1:]).all(), "a row depends on its batch"
    assert rasterizer.render.stats.cache_hits, "the renderer was compiled anew: its machine code is not in the image"
    say("first step of a worker", f"{first_step():.2f} s after its start")


def first_step() -> float:
    """Seconds from a worker's start to its first step in the environment."""
    small = ("rollouts.episodes=2", "rollouts.shard_episodes=2", "rollouts.steps=10")
    task = planning.Task("smoke", 1, "rollouts", resolve("demo", (), small)[0])
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as folder, os.fdopen(reading) as events:
        environment = {"WM_TASK": task.to_json(), "WM_STORE": folder, "WM_EVENTS_FD": str(writing)}
        began = time.monotonic()
        worker = subprocess.Popen(
            [sys.executable, "-m", "worldmodels.executors.worker"],
            env=os.environ | environment, pass_fds=[writing], stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(writing)
        event = events.readline()
        seconds = time.monotonic() - began
        assert worker.wait() == 0 and json.loads(event)["done"] > 0, f"the worker failed: {event}"
    return seconds


def train() -> None:
    import keras
    import tensorflow as tf

    from worldmodels.memory import model as memory
    from worldmodels.networks import Decoder, Dream, Encoder, Step
    from worldmodels.training import devices, export
    from worldmodels.vision import model as vision
    from worldmodels.vision.train import make_step

    devices.prepare(1)
    say("devices", ", ".join(device.name for device in tf.config.list_physical_devices()))
    rng, (z, hidden) = np.random.default_rng(0), (4, 8)
    frames = rng.integers(0, 256, (8, 64, 64, 3), np.uint8)
    with timed("three training steps of V"):
        vae, optimizer = vision.Vae(z, 1 / 8), keras.optimizers.Adam()
        optimizer.build(vae.trainable_variables)
        step = make_step(vae, optimizer, seed=1, kl_tolerance=0.5)
        losses = [float(step(frames, tf.constant(i))[0]) for i in range(3)]
        assert losses[2] < losses[0], f"it does not learn: {losses}"
    state = [rng.standard_normal((8, n), np.float32) for n in (z, 3, hidden, hidden)]
    remembers = memory.Memory(z, 3, hidden, 2)  # its variables live as long as it does
    functions = vision.play_functions(vae) | memory.play_functions(remembers)
    players = {
        "encoder": (Encoder, [frames]),
        "decoder": (Decoder, state[:1]),
        "step": (Step, state),
        "dream": (Dream, state),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (player, inputs) in players.items():
            with timed(f"what was trained plays: {name}"):
                export.export_tflite(Path(folder) / f"{name}.tflite", functions[f"{name}.tflite"], player, inputs)


def say(what: str, value: str) -> None:
    print(f"{what:38} {value}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    say(what, f"{time.monotonic() - began:.2f} s")


def sizes(top: Path) -> Iterator[int]:
    """Bytes of every file of the image; what is mounted into it does not count."""
    device, seen = top.stat().st_dev, set()
    for folder, folders, files in os.walk(top):
        here = Path(folder)
        folders[:] = [name for name in folders if not (here / name).is_symlink() and on(here / name, device)]
        for name in files:
            status = (here / name).lstat()
            if status.st_ino not in seen and status.st_dev == device:
                seen.add(status.st_ino)
                yield status.st_size


def on(path: Path, device: int) -> bool:
    try:
        return path.stat().st_dev == device
    except OSError:
        return False


if __name__ == "__main__":
    main()
