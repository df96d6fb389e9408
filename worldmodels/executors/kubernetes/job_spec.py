"""Pure functions from a task to its Job spec, a plain dict with the structure of the YAML.

Every stage is one Indexed Job (Kubernetes 1.34 and later; the newest field, `successPolicy`, is GA since 1.33), whose
environment contains the resolved config. https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from ... import artifacts, stages
from ...artifacts import digest
from ...config import Config
from ...config.cluster import SUBMITTERS, ClusterSettings, Resources
from ...errors import ConfigError, lacking
from ...planning import Task, misunderstood
from ...store.address import bucket_and_prefix

Dict = dict[str, Any]
CONTAINER = "worker"
PIPELINE, DOCTOR = "pipeline", "doctor"
SPEC = "worldmodels/spec"
STORE = "worldmodels/store"
ITERATION = "worldmodels/iteration"
POINTLESS = (10, 11, 43)
"""Exit codes after which no pod of the Job can succeed: a conflict, a missing input, a wrong setting."""
ENDED = (14, 16, 42, 44, 45, 46)
"""Exit codes after which Kubernetes does not retry the pipeline: the stage's Job used its own tries, or a limit."""
NO_SIDECARS = {
    "labels": {"sidecar.istio.io/inject": "false", "kuma.io/sidecar-injection": "disabled"},
    "annotations": {"linkerd.io/inject": "disabled", "consul.hashicorp.com/connect-inject": "false"},
}
"""Labels and annotations that keep service meshes from adding a container to a pod."""
NIGHT = 50
"""Allowed failures of an index, with eight hours of back-off in all. Without progress, pods give up after three."""
FAILURES = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"}}
RESTRICTED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
}  # fmt: skip
CERTIFICATES = "/etc/wm-ca"
VARIABLE_BYTES = 2**17
"""Longest environment variable, name and value, with which Linux starts a process (MAX_ARG_STRLEN)."""


@dataclass(frozen=True)
class Pipeline:
    """A whole run, whose stages one small Job submits: the config of every iteration, from the first on."""

    run: str
    configs: tuple[Config, ...]

    def __post_init__(self) -> None:
        artifacts.Name(self.run, 1, PIPELINE)  # raises ConfigError for an invalid run name

    def to_json(self) -> str:
        return json.dumps({"run": self.run, "configs": [config.model_dump() for config in self.configs]})

    @classmethod
    def from_json(cls, text: str) -> "Pipeline":
        """Return the pipeline of such JSON. Raise ConfigError if this version of `wm` cannot read it."""
        try:
            value = json.loads(text)
            return cls(value["run"], tuple(Config.model_validate(config) for config in value["configs"]))
        except (ValueError, TypeError, KeyError) as error:
            raise misunderstood("pipeline", error) from error


def job(task: Task, store_uri: str) -> Dict:
    """Return the Job spec of one stage. Raise ConfigError if pods cannot reach the store."""
    stage, settings, store_uri = stages.stage(task.stage), task.config.kubernetes, _reachable(store_uri)
    pods = settings.pods_of(task.stage)
    on_gpu = stage.gpu and settings.gpus
    pod = _pod(
        settings,
        image=settings.image_gpu if stage.gpu else settings.image_cpu,
        command=["python", "-P", "-m", "worldmodels.executors.pod"],
        environment={"WM_TASK": _carried(task), "WM_STORE": store_uri, "WM_PODS": str(pods)},
        resources=settings.resources_of(task.stage),
        gpu=on_gpu,
        account=settings.service_account,
    )
    spec = _spec(settings, pod, pods, limit=NIGHT if stage.kind == "exchange" else 3)
    if stage.kind == "exchange":
        spec["successPolicy"] = {"rules": [{"succeededCount": 1}]}
    return _job(settings, task.stage, task.run, task.iteration, name(task, store_uri), store_uri, spec)


def pipeline_job(pipeline: Pipeline, store_uri: str, limits: str = "") -> Dict:
    """Return the spec of the Job that submits all stages of all iterations; its service account may create Jobs.

    `limits` is the JSON of `budget.Limits`, or empty. The URL for notifications comes from a Secret only.
    """
    settings, store_uri = pipeline.configs[0].kubernetes, _reachable(store_uri)
    # SUBMITTERS without pending_seconds: the pipeline waits for pods itself.
    carried = Pipeline(pipeline.run, tuple(_without(config, ("context", "prices")) for config in pipeline.configs))
    pod = _pod(
        settings,
        image=settings.image_cpu,
        command=["python", "-P", "-m", "worldmodels.executors.pipeline"],
        environment={
            "WM_PIPELINE": carried.to_json(),
            "WM_STORE": store_uri,
            **({"WM_LIMITS": limits} if limits else {}),
        },
        resources=settings.resources_of(PIPELINE),
        gpu=False,
        account=settings.pipeline_service_account,
    )
    pod["spec"]["automountServiceAccountToken"] = True
    if settings.notify_secret:
        key = {"name": settings.notify_secret, "key": "WM_NOTIFY"}
        pod["spec"]["containers"][0]["env"].append({"name": "WM_NOTIFY", "valueFrom": {"secretKeyRef": key}})
    pod["metadata"] = _merge(pod.get("metadata", {}), {"labels": {"worldmodels/role": PIPELINE}})
    configs = [_results(config) for config in pipeline.configs]
    identity = digest([store_uri, pipeline.run, PIPELINE, configs])
    spec = _spec(settings, pod, 1, limit=NIGHT, hopeless=ENDED)
    return _job(settings, PIPELINE, pipeline.run, 1, _name(PIPELINE, pipeline.run, identity), store_uri, spec)


def probe_job(settings: ClusterSettings, store_uri: str, *, gpu: bool = False) -> Dict:
    """Return the spec of a Job whose one pod, like a worker's (`gpu`: a training's), checks the store once."""
    store_uri, settings = _reachable(store_uri), settings.model_copy(update={"ttl_seconds": 300})
    pod = _pod(
        settings,
        image=settings.image_gpu if gpu else settings.image_cpu,
        command=["python", "-P", "-m", "wm", "doctor", "--store", store_uri, "--json"],
        environment={},
        resources=settings.resources_of("report"),
        gpu=gpu and settings.gpus,
        account=settings.service_account,
    )
    spec = _spec(settings, pod, 1, limit=0)
    return _job(
        settings, DOCTOR, DOCTOR, 1, _name(DOCTOR, "gpu" if gpu else DOCTOR, digest(store_uri)), store_uri, spec
    )


def elsewhere(endpoint: str, settings: ClusterSettings) -> str:
    """Return why pods would use another server for the bucket than this machine's `endpoint`; empty if they agree."""
    aws = (urlsplit(endpoint).hostname or "amazonaws.com").endswith(("amazonaws.com", "amazonaws.com.cn"))
    overrides = json.dumps([settings.pod_overrides, settings.job_overrides])
    if not aws and not settings.s3_endpoint and "AWS_ENDPOINT_URL" not in overrides:
        return (
            f"this machine finds the bucket at {endpoint}, and kubernetes.s3_endpoint is empty: unless the Secret names"
            " one, pods will look for it at AWS, with another server's keys"
        )
    if aws and settings.s3_endpoint:
        return (
            f"this machine finds the bucket at AWS, and pods will look for it at {settings.s3_endpoint}:"
            " what they commit will not be seen here"
        )
    return ""


def name(task: Task, store_uri: str) -> str:
    """Return the Job's name, at most 57 characters, so that `-<index>` of five digits fits into a pod's 63."""
    work = artifacts.identity(task.name, task.config, stages.stage(task.stage).sections, {})
    identity = digest([_reachable(store_uri), task.run, task.iteration, task.stage, work.config, work.extent])
    return _name(task.stage, task.run, identity)


def spec_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest that distinguishes Jobs of one name; what the server adds to a live Job does not change it."""
    return str(manifest["metadata"]["annotations"][SPEC])


def to_yaml(manifest: Mapping[str, Any]) -> str:
    """Return a Job spec as YAML, keys in their order. Raise ConfigError if PyYAML is not installed."""
    try:
        import yaml
    except ModuleNotFoundError:
        raise lacking("YAML", "PyYAML") from None
    return str(yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120))


def _carried(task: Task) -> str:
    """Return the task as JSON, without settings that only the submitting command uses: users may differ in these."""
    return replace(task, config=_without(task.config, SUBMITTERS)).to_json()


def _without(config: Config, settings: tuple[str, ...]) -> Config:
    """Return the config with these Kubernetes settings at their defaults."""
    kubernetes = config.kubernetes.model_copy(update={key: getattr(ClusterSettings(), key) for key in settings})
    return config.model_copy(update={"kubernetes": kubernetes})


def _name(stage: str, run: str, identity: str) -> str:
    plain = re.sub(r"[^a-z0-9-]", "-", run)
    return f"wm-{stage}-{plain[: 57 - len('wm--') - len(stage) - 11].strip('-')}-{identity[:10]}"


def _results(config: Config) -> Dict:
    """Return the settings that decide the results: all except `execution` and `kubernetes`."""
    return config.model_dump(exclude={"execution", "kubernetes"})


def _reachable(store_uri: str) -> str:
    if not store_uri.startswith("s3://"):
        raise ConfigError(
            f"store {store_uri}: pods meet in a bucket, s3://bucket/prefix, and cannot reach a folder of this machine",
            next="export WM_STORE=s3://bucket/prefix",
        )
    bucket_and_prefix(store_uri)
    return store_uri.rstrip("/")


def _job(
    settings: ClusterSettings, stage: str, run: str, iteration: int, name: str, store_uri: str, spec: Dict
) -> Dict:
    labels = {
        "app.kubernetes.io/name": "wm",
        "app.kubernetes.io/instance": run,
        "app.kubernetes.io/component": stage,
        "app.kubernetes.io/managed-by": "wm",
        ITERATION: str(iteration),
    }
    queue = {"kueue.x-k8s.io/queue-name": settings.queue} if settings.queue else {}
    more = {"labels": settings.labels, "annotations": settings.annotations}
    more = {key: value for key, value in more.items() if value}
    own: Dict = {
        "name": name, "namespace": settings.namespace, "labels": labels | queue, "annotations": {STORE: store_uri},
    }  # fmt: skip
    spec["template"] = _merge({"metadata": _merge(more, {"labels": labels})}, spec["template"])
    spec["template"] = _merge(spec["template"], settings.pod_overrides)
    if queue:
        spec["suspend"] = True  # Kueue resumes it
    job: Dict = {"apiVersion": "batch/v1", "kind": "Job", "metadata": _merge(more, own), "spec": spec}
    job = _merge(job, settings.job_overrides)
    for field in settings.removed_fields:
        job = _without_field(job, field.split("."), field)
    job["metadata"] = _merge(job.get("metadata", {}), own)  # commands find the Job by these
    plain = own["labels"].keys() | own["annotations"].keys()
    others = {
        kind: {k: v for k, v in job["metadata"][kind].items() if k not in plain} for kind in ("labels", "annotations")
    }
    identity = [job["spec"], others] if any(others.values()) else job["spec"]
    job["metadata"]["annotations"][SPEC] = digest(identity)[:16]
    return job


def _without_field(tree: Any, path: list[str], whole: str) -> Any:
    """Return the tree without the field at that path; `name` selects from lists. Raise ConfigError if it is missing."""
    name, *rest = path
    if isinstance(tree, list):
        found = [each for each in tree if _named(each) and each["name"] == name]
        if found and rest:
            return [_without_field(each, rest, whole) if each in found else each for each in tree]
        if found:
            return [each for each in tree if each not in found]
    if isinstance(tree, dict) and name in tree:
        if not rest:
            return {key: value for key, value in tree.items() if key != name}
        return {**tree, name: _without_field(tree[name], rest, whole)}
    names = [each["name"] for each in tree if _named(each)] if isinstance(tree, list) else tree
    known = ", ".join(names) if isinstance(names, (list, dict)) else "nothing"
    raise ConfigError(
        f"kubernetes.removed_fields: a Job has no {whole}; in place of {name!r} there is: {known}",
        next="wm render rollouts --store s3://bucket/prefix",
    )


def _spec(settings: ClusterSettings, pod: Dict, pods: int, limit: int, hopeless: tuple[int, ...] = (42,)) -> Dict:
    def on_exit(action: str, *codes: int) -> Dict:
        return {"action": action, "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [*codes]}}

    spec: Dict = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        "backoffLimitPerIndex": limit,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                on_exit("Ignore", 143),  # `kubectl delete pod` sets no DisruptionTarget
                on_exit("FailJob", *POINTLESS),
                on_exit("FailIndex", *hopeless),
            ]
        },
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "template": pod,
    }
    if settings.deadline_seconds:
        spec["activeDeadlineSeconds"] = settings.deadline_seconds
    return spec


def _pod(
    settings: ClusterSettings,
    *,
    image: str,
    command: list[str],
    environment: Mapping[str, str],
    resources: Resources,
    gpu: bool,
    account: str,
) -> Dict:
    pool = settings.gpu_pool if gpu else settings.cpu_pool
    variables, volumes = _variables(settings, environment), _volumes(settings, gpu)
    container: Dict = {
        "name": CONTAINER,
        "image": image,
        "command": command,
        # Kubernetes expands $(NAME) in a value; $$ is a plain $.
        "env": [
            *({"name": key, "value": value.replace("$", "$$")} for key, value in variables.items()),
            {"name": "WM_FAILURES", "valueFrom": FAILURES},
        ],
        "resources": _resources(resources, {settings.gpu_resource: str(settings.gpu_count)} if gpu else {}),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": RESTRICTED,
        "volumeMounts": [mount for mount, _ in volumes],
    }
    if settings.s3_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.s3_secret}}]
    spec: Dict = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            **(dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), settings.run_as) if settings.run_as else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {"kubernetes.io/arch": "amd64", **pool.node_selector},
        "containers": [container],
        "volumes": [volume for _, volume in volumes],
    }
    more = {
        "serviceAccountName": account,
        "tolerations": pool.tolerations,
        "priorityClassName": settings.priority_class,
    }
    spec |= {key: value for key, value in more.items() if value}
    return {"spec": spec} if settings.sidecars else {"metadata": NO_SIDECARS, "spec": spec}


def _variables(settings: ClusterSettings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return a pod's environment variables. Raise ConfigError for one that is too long to start a process with."""
    where = {
        "AWS_ENDPOINT_URL_S3": settings.s3_endpoint, "AWS_REGION": settings.s3_region,
        "WM_S3_ENCRYPTION": settings.s3_encryption,
    }  # fmt: skip
    if settings.ca_bundle:
        where |= dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), f"{CERTIFICATES}/ca.crt")
    variables = {**environment, **{key: value for key, value in where.items() if value}}
    for key, value in variables.items():
        if len(f"{key}={value}\0".encode()) > VARIABLE_BYTES:
            raise ConfigError(
                f"{key} would have {len(value) // 1000} kB, and no process starts with more than 128 KiB in a variable:"
                " fewer iterations, or fewer kubernetes.pod_overrides",
                next="wm config --json",
            )
    return variables


def _volumes(settings: ClusterSettings, gpu: bool) -> list[tuple[Dict, Dict]]:
    """Return a pod's volumes, each as its mount and itself."""
    found: list[tuple[Dict, Dict]] = [({"name": "tmp", "mountPath": "/tmp"}, {"name": "tmp", "emptyDir": {}})]
    if gpu:
        memory = {"medium": "Memory", "sizeLimit": "1Gi"}
        found.append(({"name": "shm", "mountPath": "/dev/shm"}, {"name": "shm", "emptyDir": memory}))
    if settings.ca_bundle:
        mount = {"name": "ca", "mountPath": CERTIFICATES, "readOnly": True}
        found.append((mount, {"name": "ca", "configMap": {"name": settings.ca_bundle}}))
    return found


def _resources(asked: Resources, gpus: Mapping[str, str]) -> Dict:
    requests = {"cpu": asked.cpu, "memory": asked.memory, "ephemeral-storage": asked.disk}
    requests |= gpus
    return {"requests": requests, "limits": requests | {"cpu": asked.cpu_limit or asked.cpu}}


def _merge(base: Any, more: Any) -> Any:
    """Merge `more` over `base`: mappings key by key, lists of named objects by name; other values are replaced."""
    if isinstance(base, dict) and isinstance(more, dict):
        return base | {key: _merge(base.get(key), value) for key, value in more.items()}
    if isinstance(base, list) and isinstance(more, list) and all(map(_named, [*base, *more])):
        found = {each["name"]: each for each in base}
        found |= {each["name"]: _merge(found.get(each["name"]), each) for each in more}
        return list(found.values())
    return more


def _named(each: Any) -> bool:
    return isinstance(each, dict) and "name" in each
