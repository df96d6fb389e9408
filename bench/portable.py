"""Does an exported policy drive as `wm evaluate` does?  python bench/portable.py STORE RUN [A:B]

Exports the run's mean controller to ONNX and drives the tracks A:B (300000000:300000003) three times on unmodified
Gymnasium: with `wm evaluate`; with the file, in a process that has ONNX Runtime, NumPy and Gymnasium only; and with
`worldmodels.open`, whose frames the file sees beside it. Prints each track's scores, and the largest difference of
actions for equal frames.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gymnasium
import numpy as np

import worldmodels
from worldmodels.interchange import exporting
from worldmodels.interchange.onnx_files import session

ALONE = """
import sys
import gymnasium, numpy, onnxruntime
policy = onnxruntime.InferenceSession(sys.argv[1])
for track in map(int, sys.argv[2:]):
    env = gymnasium.make("CarRacing-v3")
    frame, _ = env.reset(seed=track)
    h = c = numpy.zeros((1, policy.get_inputs()[1].shape[1]), numpy.float32)
    score, ended = 0.0, False
    while not ended:
        action, h, c = policy.run(None, {"frame": frame[None], "h": h, "c": c})
        frame, reward, terminated, truncated, _ = env.step(action[0])
        score, ended = score + float(numpy.float32(reward)), terminated or truncated
    print(score)
assert not [name for name in sys.modules if name.split(".")[0] in ("worldmodels", "wm", "tensorflow", "ai_edge_litert")]
"""


def beside(run: worldmodels.api.Run, file: Path, track: int) -> tuple[float, float]:
    """The score of `worldmodels`' policy, and the largest difference of the file's actions for the same frames."""
    policy, other, environment = run.policy(), session(file), gymnasium.make("CarRacing-v3")
    h = c = np.zeros((1, other.get_inputs()[1].shape[1]), np.float32)
    frame, _ = environment.reset(seed=track)
    score, apart, ended = 0.0, 0.0, False
    while not ended:
        action = policy.act(frame)
        exported, h, c = other.run(None, {"frame": frame[None], "h": h, "c": c})
        apart = max(apart, float(np.abs(exported[0] - action).max()))
        frame, reward, terminated, truncated, _ = environment.step(action)
        score, ended = score + float(np.float32(reward)), terminated or truncated
    return score, apart


def main(store: str, name: str, seeds: str = "300000000:300000003") -> None:
    first, last = map(int, seeds.split(":"))
    run, tracks = worldmodels.open(store).run(name), range(first, last)
    command = [sys.executable, "-m", "wm", "evaluate", "--store", store, "--run", name, "--seeds", seeds, "--json"]
    done = subprocess.run([*command, "--renderer", "gymnasium"], capture_output=True, text=True, check=True)
    evaluated = [row["score"] for row in json.loads(done.stdout)["scores"]]
    with tempfile.TemporaryDirectory() as folder:
        list(exporting.export(run, Path(folder), ["onnx"]))
        file = Path(folder, "policy.onnx")
        command = [sys.executable, "-I", "-c", ALONE, str(file), *map(str, tracks)]
        alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        print("track       wm evaluate   ONNX alone   worldmodels.open   largest difference of actions")
        for track, one, two in zip(tracks, evaluated, alone, strict=True):
            three, apart = beside(run, file, track)
            print(f"{track:<12}{one:>11.3f}  {float(two):>11.3f}  {three:>17.3f}   {apart:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
