"""`wm logs`: a stage's logs, from its pods or from the store."""

import time
from typing import TYPE_CHECKING

import click

from wm import options
from wm.inspection import name_of
from wm.out import echo

if TYPE_CHECKING:
    from worldmodels.artifacts import Name
    from worldmodels.config.cluster import ClusterSettings
    from worldmodels.executors.kubernetes.client import KubernetesClient
    from worldmodels.store import Store

FOLLOW_SECONDS = 1.0
PODS_SECONDS = 2.0
# For the first response of a cluster that the command can do without.
FIRST_ANSWER_SECONDS = 2.0


@click.command()
@click.argument("stage_name", required=False, metavar="[STAGE]", shell_complete=options.complete_stage)
@options.of_run(options.overrides)
@click.option("--file", "file", metavar="NAME", help="A live table instead of the log: training.csv or rewards.csv.")
@click.option(
    "--index", type=click.IntRange(0, 99_999), metavar="I", help="One pod's log; of what is stored, one worker's."
)
@click.option(
    "--source",
    type=click.Choice(["auto", "pods", "store"]),
    default="auto",
    show_default=True,
    help="Where to read: auto is the pods of the stage's Job as long as there are any, then the store.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until Ctrl-C or the Job's end.")
def logs(
    stage_name: str | None,
    given: options.RunOptions,
    file: str | None,
    index: int | None,
    source: str,
    follow: bool,
) -> None:
    """Show a stage's log, or one of its live tables.

    Without a stage, the command shows the logs of all stages.
    Workers send their logs to the store, to a bucket every 15 seconds; on a cluster, the pods' own logs are read.

    \b
    wm logs controller -f
    wm logs vae --file training.csv -f
    wm logs rollouts --index 3 -f
    """
    from worldmodels import stages

    store = given.store
    if source == "pods" and (file or not stage_name):
        raise click.UsageError("--source pods needs a stage, and no --file")
    if stage_name and not file and (source == "pods" or (source == "auto" and given.store_uri.startswith("s3://"))):
        config, _ = given.resolve()
        stage = options.stage_or_pipeline(stage_name)
        cluster = _cluster(config.kubernetes, source == "pods")
        if cluster and _from_pods(cluster, store, (given.run, stage, given.iteration), index, follow=follow):
            return
    if stage_name == "pipeline" or source == "pods":
        from worldmodels.errors import MissingInput

        raise MissingInput(f"{stage_name}: there are no pods whose log could be read", next="wm status")
    names = [name_of(stage, given) for stage in ([stage_name] if stage_name else stages.STAGES)]
    _from_store(store, names, file, index, follow=follow)


def _cluster(settings: "ClusterSettings", needed: bool) -> "KubernetesClient | None":
    """Connect to the cluster; return None if there is none and it is not `needed`."""
    from worldmodels.errors import ClusterError, ConfigError

    try:
        cluster = options.cluster(settings, first_seconds=FIRST_ANSWER_SECONDS)
        cluster.jobs({"app.kubernetes.io/managed-by": "none"})
        return cluster
    except (ClusterError, ConfigError):
        if needed:
            raise
        return None


def _from_pods(
    cluster: "KubernetesClient", store: "Store", which: tuple[str, str, int], index: int | None, *, follow: bool
) -> bool:
    """Print the logs of the newest Job's pods; return False if there are none."""
    from worldmodels.executors.kubernetes import job_status, submission
    from worldmodels.executors.kubernetes.job_spec import CONTAINER

    shown: dict[str, str] = {}
    while True:
        job = next(iter(submission.find(cluster, store, *which)), None)
        pods = submission.pods_of(cluster, job) if job else []
        for pod in pods:
            place, name = job_status.index(pod), pod["metadata"]["name"]
            if index not in (None, place):
                continue
            for moment, line in cluster.log(name, CONTAINER, since=shown.get(name, "")):
                shown[name] = moment
                echo(f"[{place}] {line}" if index is None and len(pods) > 1 else line)
        if not follow or job is None or job_status.ended(job):
            return bool(pods or shown)
        time.sleep(PODS_SECONDS)


def _from_store(store: "Store", names: "list[Name]", file: str | None, index: int | None, *, follow: bool) -> None:
    """Print the logs or live tables that workers wrote to the store."""
    from worldmodels.errors import MissingInput

    prefixes = [name.key("live", file) if file else name.key("logs/") for name in names]
    shown: dict[str, int] = {}
    while True:
        entries = [entry for prefix in prefixes for entry in store.entries(prefix)]
        if index is not None:
            entries = [entry for entry in entries if entry.key.endswith(f"-worker-{index:05d}.log")]
        if not entries and not follow:
            what = str(names[0]) if len(names) == 1 else names[0].run
            whose = "" if index is None else f" of worker {index}"
            raise MissingInput(f"{what} has no {file or 'log'}{whose} in {store.uri} yet", next=f"wm ls {names[0].run}")
        for entry in entries:
            if entry.size != shown.get(entry.key, 0):
                _print_new(store, entry.key, shown, label=len(entries) > 1)
        if not follow:
            return
        time.sleep(max(FOLLOW_SECONDS, store.publish_seconds / 3))


def _print_new(store: "Store", key: str, shown: dict[str, int], *, label: bool) -> None:
    """Print the new part of a growing text; print all of it if a worker began it anew."""
    data = store.get(key) or b""
    start = shown.get(key, 0) if len(data) >= shown.get(key, 0) else 0
    if start == 0 and label:
        echo(f"==> {key} <==")
    echo(data[start:].decode(errors="replace"), nl=False)
    shown[key] = len(data)
