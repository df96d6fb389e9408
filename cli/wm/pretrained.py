"""The trained model in the package, written from a run: `python -m wm.pretrained STORE RUN [ITERATION]`.

`make pretrained STORE=… RUN=…` calls it. It packs C, the V and M that C was evolved with, and C's scores.
"""

import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from wm.formatting import size
from wm.out import echo
from worldmodels import artifacts, planning, stored
from worldmodels.artifacts import Artifact, Name, config_key
from worldmodels.errors import MissingInput, WmError
from worldmodels.executors import scoring
from worldmodels.store import LocalStore, Store, open_store, packaged

KEPT = (".tflite", ".npy", ".npz", ".json", ".csv")
"""Names of files that are packed; weights, pictures and films are left out."""


def pack(store: Store, run: str, iteration: int, folder: Path = packaged.FOLDER) -> int:
    """Replace `folder` by the trained model of a run, and return its size in bytes.

    Raise MissingInput if the run has no scores of its newest controller, or lacks its V or M.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".packed-") as scratch:
        made = LocalStore(Path(scratch, "store"))
        for artifact in _parts(store, run, iteration, Path(scratch)):
            _copy(artifact, made)
        if settings := planning.stored_config(store, run, iteration):
            made.put(config_key(packaged.RUN, iteration), stored.encode(settings, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made.root, folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parts(store: Store, run: str, iteration: int, scratch: Path) -> Iterator[Artifact]:
    """Yield C, the V and M that it was evolved with, and its evaluation."""
    newest = {}
    for stage in ("controller", "evaluate"):
        name = Name(run, iteration, stage)
        if not (found := artifacts.manifests(store, name)):
            raise MissingInput(
                f"{name} is not committed in {store.uri}", next=f"wm run --run {run} --store {store.uri}"
            )
        newest[stage] = artifacts.load(store, name, found[-1], scratch)
    controller, evaluation = newest["controller"], newest["evaluate"]
    if evaluation.manifest["inputs"].get(controller.name.input) != controller.digest:
        raise MissingInput(
            f"{evaluation.name} has scores of another controller than {controller.name} {controller.digest[:12]}",
            next=f"wm run evaluate --run {run} --iteration {iteration} --redo --store {store.uri}",
        )
    yield from (scoring.network(store, controller, stage, scratch) for stage in ("vae", "memory"))
    yield from (controller, evaluation)


def _copy(artifact: Artifact, target: Store) -> None:
    """Copy the artifact's KEPT files, each checked by its SHA-256, and its manifest under the packaged run's name."""
    name = replace(artifact.name, run=packaged.RUN)
    manifest = {**copy.deepcopy(artifact.manifest), "artifact": str(name)}
    manifest.pop("key", None)  # where it was read
    for file in artifacts.stored_files(manifest):
        found = replace(artifact.files, files={"it": file.copy()})
        file["key"] = f"{packaged.RUN}/{file['key'].removeprefix(f'{artifact.name.run}/')}"
        if file["key"].endswith(KEPT):
            target.put(file["key"], found.read("it"))
    identity = artifacts.Identity(name, manifest["config"], manifest["extent"], manifest["inputs"])
    target.create(identity.manifest_key, stored.encode(manifest, indent=1))


def main(uri: str, run: str, iteration: str = "1") -> None:
    """Pack a run, or end with the error's message and its next command."""
    try:
        packed = pack(open_store(uri), run, int(iteration))
    except WmError as error:
        sys.exit(f"{error.message}\nnext: {error.next}")
    echo(f"{packaged.FOLDER}: {run}/iter-{iteration}, {size(packed)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
