"""Costs and gains of the evolution's options.  python bench/options.py STORE RUN FOLDER

Takes V and M of a finished run and evolves C anew under each option, for about as many environment steps each (half as
many generations for twice the tracks), with everything else as the run has it. Reports the mean's score on 64 tracks
that nothing else uses, and what it took. Goes on where it was stopped: FOLDER keeps a store for each option.
One seed is one sample: runs of unlike seeds differ by tens of points.
"""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from worldmodels import artifacts
from worldmodels.artifacts import Name
from worldmodels.config import Controller
from worldmodels.store import Store, open_store

SCORED = (
    "evaluate.tracks=64",
    "evaluate.shard_tracks=4",
    "evaluate.reference_tracks=0",
    "evaluate.first_track=390000000",
)


def options(c: Controller) -> Iterator[tuple[str, ...]]:
    """Settings to compare, first those of the run itself."""
    yield ()
    yield ("covariance=diagonal",)
    yield ("growth=[{score=400, tracks=4, steps=1000, sigma=0.04}]",)
    for factor in (0.5, 2.0):
        yield (f"sigma={c.sigma * factor:g}",)
        yield f"population={c.population * factor:.0f}", f"generations={c.generations / factor:.0f}"
        if c.tracks * factor >= 1:
            yield f"tracks={c.tracks * factor:.0f}", f"generations={c.generations / factor:.0f}"


def wm(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "wm", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def found(store: Store, run: str, stage: str) -> tuple[str, float]:
    """The stage's table of results, and the seconds that it took."""
    name = Name(run, 1, stage)
    manifest = artifacts.manifests(store, name)[-1]
    table = manifest["files"]["rewards.csv" if stage == "controller" else "scores.json"]
    return (store.get(table["key"]) or b"").decode(), float(manifest["made"]["seconds"])


def main(uri: str, run: str, folder: str) -> None:
    config = json.loads(wm("config", "--json", "--store", uri, "--run", run))["config"]
    print("  score   ±   laps  generations      steps   hours  option")
    for number, option in enumerate(options(Controller(**config["controller"]))):
        there = f"{folder}/{number}"
        if not Path(there).exists():
            wm("cp", uri, there, "--run", run)
        overrides = [f"controller.{each}" for each in option] + list(SCORED)
        wm("run", "controller", "evaluate", "--redo", "--store", there, "--run", run, *(f"-o{o}" for o in overrides))
        store = open_store(there)
        (rewards, seconds), (scores, _) = found(store, run, "controller"), found(store, run, "evaluate")
        rows, score = list(csv.DictReader(io.StringIO(rewards))), json.loads(scores)
        steps = sum(int(row["steps"]) for row in rows)
        print(
            f"{score['mean']:7.0f}{score['std']:6.0f}{score['laps']:6d}{len(rows):13d}{steps:11,d}{seconds / 3600:8.2f}"
            f"  {', '.join(option) or 'as the run has it'}",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:4])
