"""`wm scale`: changes the number of pods of an active Job."""

import click

from wm import options
from wm.out import echo


@click.command()
@options.stage
@options.of_run(options.overrides)
@click.option(
    "--pods", type=click.IntRange(1, 10_000), metavar="N", help="So many from now on; of the controller only."
)
@click.option("--pause", is_flag=True, help="No pods until --resume; what they were doing is done again.")
@click.option("--resume", is_flag=True, help="Pods again, after --pause.")
def scale(stage_name: str, given: options.RunOptions, pods: int | None, pause: bool, resume: bool) -> None:
    """Change the number of pods of a running Job.

    New pods take their share within a generation, and those that go leave theirs to the others; results stay the same.
    The next `wm submit` of another Job goes by kubernetes.pods again. A pipeline waits for a paused stage.

    \b
    wm scale controller --run demo --pods 64
    wm scale controller --run demo --pause
    """
    from worldmodels import stages
    from worldmodels.errors import ConfigError

    if (pods is not None) + pause + resume != 1:
        raise click.UsageError("say one of --pods N, --pause and --resume")
    stage, store, run = stages.stage(stage_name), given.store, given.run
    config, _ = given.resolve()
    if pods and stage.kind != "exchange":
        raise ConfigError(
            f"--pods {pods}: {stage.name} deals its shards to the pods that it begins with;"
            " only the controller's come and go",
            next=f"wm submit {stage.name} --run {run} -o kubernetes.pods.{stage.name}={pods} --replace",
        )
    cluster = options.cluster(config.kubernetes)
    from worldmodels.executors.kubernetes import scaling, submission

    found = submission.find(cluster, store, run, stage.name, given.iteration)
    if not found:
        raise submission.no_job(cluster, store, run, stage.name)
    work = submission.carried_work(store, found[0])
    if not pods:
        changed = scaling.pause(cluster, work, paused=pause)
        words = "paused" if pause else "at work"
        echo(f"{work}: Job {work.name} is {words}{' now' if changed else ' already'}")
        return
    before = scaling.scale(cluster, work, pods)
    was = f"{before} before" if pods != before else "as before"
    echo(f"{work}: Job {work.name} has {pods} pod{'s' * (pods != 1)}, {was}")
