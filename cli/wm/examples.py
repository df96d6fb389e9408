"""The Job specs in `k8s/jobs`, as `wm render` makes them: `python -m wm.examples k8s/jobs` (`make manifests`)."""

import sys
from pathlib import Path

from wm import render
from wm.options import RunOptions
from worldmodels import stages
from worldmodels.executors.kubernetes.job_spec import PIPELINE

STORE = "s3://my-bucket/world-models"
ITERATIONS = 2


def examples() -> dict[str, str]:
    """Return the Job specs of every stage and of the pipeline: YAML by file name."""
    jobs = {stage: render.text(stage, RunOptions(STORE, "demo")) for stage in stages.STAGES}
    jobs[PIPELINE] = render.text(PIPELINE, RunOptions(STORE, "demo", ITERATIONS))
    return {f"{name}.yaml": f"# Written by `make manifests`; edits are lost.\n{job}" for name, job in jobs.items()}


def write(folder: Path) -> None:
    """Write the examples into `folder`, and remove its other YAML files."""
    made = examples()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.yaml"):
        if path.name not in made:
            path.unlink()
    for name, content in made.items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
