"""`wm render`: the Job spec that `wm submit` sends, as YAML."""

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from wm import options
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.config import Config


@click.command()
@click.argument("what", metavar="STAGE|pipeline")
@options.of_run(options.iterations, options.settings)
def render(what: str, given: options.RunOptions, iterations: int | None) -> None:
    """Print the Job that `wm submit` sends, as YAML.

    It is a stage's Job, or the Job of the pipeline, which submits all stages in turn. The command works offline,
    without the cluster and the store. So settings come from presets, files and -o, not from the run's last start, and
    the command does not check whether the stage's inputs are committed.

    \b
    wm render rollouts --store s3://bucket/prefix | kubectl create -f -
    wm render pipeline --store s3://bucket/prefix --preset paper --iterations 2 > pipeline.yaml
    """
    from worldmodels.executors.kubernetes.job_spec import PIPELINE

    if what == PIPELINE and given.iteration != 1:
        raise click.UsageError("The pipeline begins with iteration 1; say how many with --iterations N.")
    if what != PIPELINE and iterations:
        raise click.UsageError(f"Only the pipeline has --iterations; say which one of {what} with --iteration N.")
    if what == PIPELINE:
        from worldmodels.config import resolve

        iterations = iterations or resolve(given.preset, given.files, given.overrides)[0].iterations
    echo(text(what, replace(given, iteration=iterations or given.iteration)), nl=False)


def text(what: str, given: options.RunOptions) -> str:
    """Return the YAML of a stage's Job in that iteration, or the pipeline's up to it, below the command to send it."""
    from worldmodels.config import resolve
    from worldmodels.executors.kubernetes import job_spec

    run, store, last = given.run, given.store_uri, given.iteration
    configs = [resolve(given.preset, given.files, given.overrides, iteration=i)[0] for i in range(1, last + 1)]
    pipeline = what == job_spec.PIPELINE
    made = _pipeline(run, configs, store) if pipeline else _stage(what, run, configs, store)
    which = ["--iterations" if pipeline else "--iteration", str(last)] if last > 1 else []
    chosen = [("--preset", given.preset)] if given.preset else []
    chosen += [("--config", str(path)) for path in given.files] + [("-o", override) for override in given.overrides]
    words = ["wm", "render", what, "--run", run, "--store", store, *which, *(w for pair in chosen for w in pair)]
    return f"# {shlex.join(words)} | kubectl create -f -\n{job_spec.to_yaml(made)}"


def _stage(name: str, run: str, configs: "list[Config]", store_uri: str) -> dict[str, Any]:
    from worldmodels import stages
    from worldmodels.executors.kubernetes import job_spec
    from worldmodels.planning import Task

    stage, iteration = stages.stage(name), len(configs)
    stage.inputs(configs[-1], iteration)  # raises ConfigError if the iteration cannot have them
    return job_spec.job(Task(run, iteration, stage.name, configs[-1]), store_uri)


def _pipeline(run: str, configs: "list[Config]", store_uri: str) -> dict[str, Any]:
    from worldmodels import stages
    from worldmodels.executors.kubernetes import job_spec

    stages.stage("rollouts").inputs(configs[0], 1)  # raises ConfigError if a controller should drive
    return job_spec.pipeline_job(job_spec.Pipeline(run, tuple(configs)), store_uri)
