"""The `[kubernetes]` settings: the Jobs' cluster, resources and prices. None of them changes a result."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import BeforeValidator, Field, create_model, field_validator

from ..stages import STAGES
from .base import MOST, Count, Section

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and …/reference/kubernetes-api/…/quantity
LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
MAYBE_NAME = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"
QUANTITY = r"^[0-9]{1,12}(\.[0-9]{1,9})?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
Quantity = Annotated[
    str, BeforeValidator(lambda v: f"{v:g}" if type(v) in (int, float) else v), Field(pattern=QUANTITY)
]
Price = Annotated[float, Field(ge=0, le=MOST)]


class Pool(Section):
    """The nodes that a stage may run on."""

    node_selector: dict[str, str] = Field({}, description="labels that a node must have")
    tolerations: list[dict[str, Any]] = Field([], description="taints that are accepted, as in a pod's spec")


class Resources(Section):
    """The resources that one pod requests, and its limits."""

    cpu: Quantity = Field("1", description="cores; a pod drives in one process per whole core")
    cpu_limit: Quantity | Literal[""] = Field("", description="cores at most; empty: as many as it asks for")
    memory: Quantity = Field("2Gi", description="memory; a pod that needs more is killed")
    disk: Quantity = Field("4Gi", description="ephemeral storage, /tmp included")

    @property
    def cores(self) -> float:
        """Return `cpu` as a number."""
        return float(self.cpu[:-1]) / 1000 if self.cpu.endswith("m") else float(self.cpu)


RESOURCES = {name: Resources(**stage.resources) for name, stage in STAGES.items()}
RESOURCES["pipeline"] = Resources(cpu="100m", memory="512Mi", disk="1Gi")
PODS: dict[str, Any] = {
    name: (Annotated[int, Field(ge=1, le=10_000)], Field(stage.pods, description=stage.pods_are))
    for name, stage in STAGES.items()
    if stage.pods > 1
}
if TYPE_CHECKING:
    StageResources = Section
    Pods = Section
else:
    StageResources = create_model(
        "StageResources", __base__=Section, **{name: (Resources, each) for name, each in RESOURCES.items()}
    )
    Pods = create_model("Pods", __base__=Section, **PODS)


class Prices(Section):
    """Prices per hour, in the currency of the user's bill."""

    cpu_hour: Price = Field(0.0, description="price of a core for an hour")
    gpu_hour: Price = Field(0.0, description="price of a GPU pod for an hour, its cores included")


NVIDIA = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


SUBMITTERS = ("context", "pending_seconds", "prices", "notify_secret")
"""Settings of the command that submits, not of a stage's Job."""


class ClusterSettings(Section):
    """The cluster of the Jobs, and the variable parts of their Job specs."""

    context: str = Field("", description="the kubeconfig's context; empty: its current one")
    namespace: str = Field("wm", pattern=LABEL, description="namespace of every object")
    image_cpu: str = Field("wm-cpu:dev", min_length=1, description="image that drives; by digest when known")
    image_gpu: str = Field("wm-gpu:dev", min_length=1, description="image that trains V and M; by digest when known")
    service_account: str = Field(
        "wm-worker",
        pattern=MAYBE_NAME,
        description="account of the workers' pods, which gives them access to the bucket",
    )
    pipeline_service_account: str = Field(
        "wm-pipeline", pattern=MAYBE_NAME, description="account of the pipeline's pod, which may create Jobs"
    )
    s3_secret: str = Field(
        "", pattern=MAYBE_NAME, description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; empty: none"
    )
    notify_secret: str = Field(
        "", pattern=MAYBE_NAME, description="Secret with WM_NOTIFY, the URL that the pipeline posts to; empty: none"
    )
    s3_endpoint: str = Field("", description="the bucket's endpoint as pods reach it; empty: AWS")
    s3_region: str = Field("", description="the bucket's region; empty: the pods' own")
    s3_encryption: str = Field(
        "",
        pattern=r"^(AES256|aws:kms(:dsse)?( \S+)?)?$",
        description="what the bucket demands of writers: AES256, aws:kms, or aws:kms and a key; empty: nothing",
    )
    gpus: bool = Field(True, description="false: the training stages run on the CPU pool and ask for no GPU")
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1, description="what a GPU is called by its device plugin")
    gpu_count: Count = Field(1, description="GPUs of each training's pod")
    queue: str = Field("", pattern=MAYBE_NAME, description="Kueue's local queue; empty: none")
    sidecars: bool = Field(True, description="false: service meshes are told to add no container to the pods")
    priority_class: str = Field("", pattern=MAYBE_NAME, description="PriorityClass of the pods; empty: none")
    ttl_seconds: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        604_800, description="a finished Job is removed after so long"
    )
    deadline_seconds: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="a Job is ended after so long, time without a node included; 0: never"
    )
    pending_seconds: Count = Field(900, description="how long `--wait` waits for pods that find no node")
    labels: dict[str, str] = Field({}, description="more labels, of Jobs and their pods")
    annotations: dict[str, str] = Field({}, description="more annotations, of Jobs and their pods")
    run_as: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        65532, description="user and group of the pods; 0: the cluster chooses, as OpenShift wants to"
    )
    ca_bundle: str = Field(
        "",
        pattern=MAYBE_NAME,
        description="ConfigMap with every certificate that pods trust, as ca.crt; empty: none",
    )
    pod_overrides: dict[str, Any] = Field({}, description="merged into every pod's template")
    job_overrides: dict[str, Any] = Field({}, description="merged into every Job, after pod_overrides")
    removed_fields: list[str] = Field(
        [], description="fields that no Job shall have, last: spec.template.spec.containers.worker.envFrom"
    )
    cpu_pool: Pool = Pool()
    gpu_pool: Pool = Pool(tolerations=[NVIDIA])
    pods: Pods = Pods()
    resources: StageResources = StageResources()
    prices: Prices = Prices()

    def pods_of(self, stage: str) -> int:
        """Return the number of pods that share the stage's work."""
        return cast(int, getattr(self.pods, stage, 1))

    def resources_of(self, what: str) -> Resources:
        """Return the resources of one pod of a stage, or of the pipeline."""
        return cast(Resources, getattr(self.resources, what))

    @field_validator("s3_endpoint")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        if value and ("://" not in value or "@" in value):
            raise ValueError("must be a URL like http://s3.wm.svc:8333, without user or password")
        return value
