"""A whole run in a fraction of a second: what stages commit, made by what commits it, without their networks."""

import json
import logging
from pathlib import Path

import fakes
import numpy as np
from test_control import QUICK, player
from test_control import plan as evolution

from worldmodels import artifacts, evaluation, planning, stages
from worldmodels.artifacts import publishing
from worldmodels.config import Config, Origins, resolve
from worldmodels.control.exchange import Exchange
from worldmodels.evaluation import TrackScore
from worldmodels.planning import Task, TaskState
from worldmodels.rollouts import episodes
from worldmodels.store import LocalStore, Store
from worldmodels.vision import latents
from worldmodels.vision.latents import Latents

RUN = "small"
OVERRIDES = (
    "rollouts.episodes=4", "rollouts.shard_episodes=2", "rollouts.steps=12", "controller.population=6",
    "controller.tracks=3", "controller.generations=5", "evaluate.tracks=4", "evaluate.shard_tracks=2",
)  # fmt: skip
ATTEMPT = "20260101T000000-0123abcd"
LOG = logging.getLogger("small_run")
MADE = {
    "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00", "seconds": 60.0, "host": "laptop",
    "python": "3.11.7", "versions": {"numpy": "2.0"}, "git": "abc", "cpu": {"model": "A CPU", "features": ["avx2"]},
    "attempt": ATTEMPT, "workers": 1, "failed_shards": [], "notes": {},
}  # fmt: skip


def config() -> tuple[Config, Origins]:
    return resolve("demo", (), OVERRIDES)


def build(root: Path, scratch: Path) -> LocalStore:
    """Commit every stage but the report of the run `small`, iteration 1, in a folder store at `root`."""
    store, settled = LocalStore(root), config()
    planning.store_config(store, RUN, 1, *settled)
    rng = np.random.default_rng(0)
    found = [[fakes.episode(rng, 6 + i + j, 10 * i + j) for j in range(2)] for i in range(2)]
    encoded = [[Latents(*(rng.normal(size=(len(e), 4)).astype(np.float32) for _ in "ab"), e.actions) for e in shard]
               for shard in found]  # fmt: skip
    rows = [TrackScore(300_000_000 + i, 10.5 * i, 40 + i, False, 100 + i, 280, False) for i in range(4)]
    _commit(store, "rollouts", scratch, shards=[episodes.encode(shard) for shard in found])
    _commit(store, "vae", scratch, {"encoder.tflite": b"encoder", "vae.weights.h5": b"weights"}, table("loss"))
    _commit(store, "latents", scratch, shards=[{latents.FILE: latents.pack(shard)} for shard in encoded])
    heldout = {"mdn_rnn": 12.0, "unchanged": 30.5, "gaussian": 45.2, "frames": 2400}
    _commit(store, "memory", scratch, {"step.tflite": b"step", "heldout.json": json.dumps(heldout).encode()})
    _commit(store, "controller", scratch, evolve(store))
    scores = json.dumps({**evaluation.summary(rows, "CarRacing-v3", "fast"), "reference": None}).encode()
    shards = [{"scores.json": json.dumps({"fast": [row.__dict__ for row in rows[i : i + 2]]}).encode()} for i in (0, 2)]
    _commit(store, "evaluate", scratch, {"scores.json": scores}, shards=shards)
    store.put(f"{RUN}/iter-1/vae/logs/20260101T000000-worker-00000.log", b"2026-01-01 I begins\n")
    store.put(f"{RUN}/iter-1/controller/live/rewards.csv", b"generation,best\n1,2\n")
    beat = {"host": "h", "machine": "m", "process": 7, "began": "1", "worker": 0}
    store.put(f"{RUN}/iter-1/report/alive/{ATTEMPT}", json.dumps(beat).encode())
    return store


def table(column: str) -> dict[str, bytes]:
    return {"training.csv": f"step,{column}\n1,2\n".encode()}


def evolve(store: Store) -> dict[str, bytes]:
    """Play the evolution's part in the store, and return its files."""
    workspace = state(store, "controller").workspace
    workspace.open()
    return Exchange(workspace, evolution(), 0, 4, LOG, QUICK).run(player(4), lambda rate: None)


def state(store: Store, stage: str) -> TaskState:
    return TaskState(store, Task(RUN, 1, stage, config()[0]))


def _commit(store: Store, stage: str, scratch: Path, files=(), telemetry=(), shards=()) -> None:
    assert stage in stages.STAGES
    work, records = state(store, stage).identity, []
    for index, content in enumerate(shards):
        publishing.commit_shard(store, work, index, ATTEMPT, content)
        records.append(artifacts.read_record(store, work.shard_key(index)))
    stored = []
    for kind, content in (("results", dict(files)), ("telemetry", dict(telemetry))):
        folder = scratch / stage / kind
        folder.mkdir(parents=True)
        for name, data in content.items():
            (folder / name).write_bytes(data)
        stored.append(publishing.upload(store, work.name, ATTEMPT, folder, "telemetry" if kind == "telemetry" else ""))
    publishing.commit(
        store, work, files=stored[0], telemetry=stored[1], shards=records, resolved=config()[0].model_dump(), made=MADE
    )
