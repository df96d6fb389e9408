import json
import re

import pytest

from worldmodels.config import resolve
from worldmodels.errors import ConfigError
from worldmodels.executors.kubernetes import job_spec
from worldmodels.planning import Task
from worldmodels.stages import STAGES

STORE = "s3://bucket/prefix"


def job(stage="rollouts", *overrides, run="demo", iteration=1, store=STORE):
    config, _ = resolve("demo", (), overrides, iteration=iteration)
    return job_spec.job(Task(run, iteration, stage, config), store)


def container(job):
    return job["spec"]["template"]["spec"]["containers"][0]


def environment(job):
    return {each["name"]: each["value"] for each in container(job)["env"] if "value" in each}


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_carries_its_whole_task(stage):
    made = job(stage, "seed=7")
    task = Task.from_json(environment(made)["WM_TASK"].replace("$$", "$"))
    assert (task.stage, task.config.seed) == (stage, 7)
    assert made["spec"]["completionMode"] == "Indexed"


def test_dollars_are_not_expanded_by_kubernetes():
    made = job("rollouts", 'kubernetes.pod_overrides={metadata={annotations={a="$(HOME)"}}}')
    assert "$$(HOME)" in environment(made)["WM_TASK"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_name_leaves_room_for_an_index(stage):
    made = job(stage, run="a" * 20 + ".b_c" + "d" * 24)
    assert len(made["metadata"]["name"]) <= 57
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", made["metadata"]["name"])


def test_a_name_follows_from_store_run_iteration_stage_and_results():
    names = [
        job(), job("vae"), job(run="other"), job(iteration=2), job(store="s3://bucket"),
        job("rollouts", "rollouts.steps=5"), job("rollouts", "rollouts.episodes=1024"),
    ]  # fmt: skip
    assert len({each["metadata"]["name"] for each in names}) == len(names)
    same = job("rollouts", "execution.lanes=3", "kubernetes.pods.rollouts=9")
    assert same["metadata"]["name"] == job()["metadata"]["name"]
    assert job_spec.spec_digest(same) != job_spec.spec_digest(job())
    assert job_spec.spec_digest(job()) == job_spec.spec_digest(job())


def test_exit_codes_decide_who_tries_again():
    rules = job()["spec"]["podFailurePolicy"]["rules"]
    codes = [(rule["action"], rule.get("onExitCodes", {}).get("values")) for rule in rules]
    assert codes == [("Ignore", None), ("Ignore", [143]), ("FailJob", [10, 11, 43]), ("FailIndex", [42])]
    assert not any(137 in (values or ()) for _, values in codes)


def test_the_evolution_ends_with_its_first_success_and_is_restarted_for_a_night():
    spec = job("controller")["spec"]
    assert spec["successPolicy"] == {"rules": [{"succeededCount": 1}]}
    assert spec["backoffLimitPerIndex"] == job_spec.NIGHT
    assert "successPolicy" not in job("rollouts")["spec"]


def test_training_asks_for_a_gpu_unless_the_cluster_has_none():
    made = job("vae")
    assert container(made)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "/dev/shm" in [mount["mountPath"] for mount in container(made)["volumeMounts"]]
    without = job("vae", "kubernetes.gpus=false", 'kubernetes.cpu_pool.node_selector={pool="cpu"}')
    assert "nvidia.com/gpu" not in container(without)["resources"]["limits"]
    assert without["spec"]["template"]["spec"]["nodeSelector"]["pool"] == "cpu"
    assert container(without)["image"] == "wm-gpu:dev"


def test_gpus_by_name_and_number():
    made = job("vae", "kubernetes.gpu_resource=amd.com/gpu", "kubernetes.gpu_count=2")
    for amounts in container(made)["resources"].values():
        assert amounts["amd.com/gpu"] == "2"


def test_overrides_come_last_and_merge_by_name():
    pod = '{spec={imagePullSecrets=[{name="pull"}], containers=[{name="worker", env=[{name="WM_PODS", value="1"}]}]}}'
    made = job("rollouts", f"kubernetes.pod_overrides={pod}")
    assert made["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert environment(made)["WM_PODS"] == "1"
    assert container(made)["securityContext"]["readOnlyRootFilesystem"]


@pytest.mark.parametrize("what", ["rollouts", "pipeline"])
def test_one_setting_keeps_meshes_out(what):
    def template(*overrides):
        config, _ = resolve("demo", (), overrides)
        if what == "pipeline":
            return job_spec.pipeline_job(job_spec.Pipeline("demo", (config,)), STORE)["spec"]["template"]
        return job_spec.job(Task("demo", 1, what, config), STORE)["spec"]["template"]

    metadata = template("kubernetes.sidecars=false")["metadata"]
    assert metadata["labels"]["sidecar.istio.io/inject"] == "false"
    assert metadata["annotations"]["linkerd.io/inject"] == "disabled"
    plain = template()["metadata"]["labels"]
    assert plain.items() < metadata["labels"].items()
    assert "sidecar.istio.io/inject" not in plain


def test_labels_and_annotations_are_the_jobs_and_the_pods():
    made = job(
        "rollouts", 'kubernetes.labels={team="cars", "app.kubernetes.io/name"="mine"}', 'kubernetes.annotations={a="b"}'
    )
    for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
        assert metadata["labels"]["team"] == "cars"
        assert metadata["labels"]["app.kubernetes.io/name"] == "wm"
        assert metadata["annotations"]["a"] == "b"


def test_overrides_reach_the_whole_job_and_can_remove_what_a_cluster_refuses():
    made = job(
        "rollouts",
        'kubernetes.job_overrides={metadata={labels={team="cars"}, name="mine"}, spec={backoffLimitPerIndex=7}}',
        'kubernetes.removed_fields=["spec.template.spec.securityContext.runAsUser", "spec.ttlSecondsAfterFinished",'
        ' "spec.template.spec.containers.worker.resources.limits.ephemeral-storage", "spec.template.spec.volumes.tmp",'
        ' "metadata.labels"]',
    )
    assert made["spec"]["backoffLimitPerIndex"] == 7
    pod = made["spec"]["template"]["spec"]
    assert "runAsUser" not in pod["securityContext"] and "runAsGroup" in pod["securityContext"]
    assert "ttlSecondsAfterFinished" not in made["spec"]
    assert [*container(made)["resources"]["limits"]] == ["cpu", "memory"]
    assert pod["volumes"] == []
    plain = job()
    assert made["metadata"]["name"] == plain["metadata"]["name"]  # by these it is found again
    assert made["metadata"]["labels"] == plain["metadata"]["labels"]
    assert job_spec.spec_digest(made) != job_spec.spec_digest(plain)


def test_labels_alone_make_another_job():
    labelled = job("rollouts", 'kubernetes.job_overrides={metadata={labels={team="cars"}}}')
    assert labelled["metadata"]["labels"]["team"] == "cars"
    assert job_spec.spec_digest(labelled) != job_spec.spec_digest(job())


@pytest.mark.parametrize("field", ["spec.pods", "spec.template.spec.containers.proxy.env", "spec.a.b"])
def test_a_field_that_is_not_there_cannot_be_removed(field):
    with pytest.raises(ConfigError, match=f"a Job has no {field}; in place of .* there is: ") as caught:
        job("rollouts", f'kubernetes.removed_fields=["{field}"]')
    assert caught.value.next.startswith("wm render")


def test_settings_for_what_many_clusters_want():
    made = job("rollouts", "kubernetes.run_as=0", "kubernetes.ca_bundle=company-ca", "kubernetes.s3_encryption=aws:kms")
    context = made["spec"]["template"]["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert {"name": "ca", "configMap": {"name": "company-ca"}} in made["spec"]["template"]["spec"]["volumes"]
    assert environment(made)["AWS_CA_BUNDLE"] == environment(made)["SSL_CERT_FILE"] == "/etc/wm-ca/ca.crt"
    assert environment(made)["WM_S3_ENCRYPTION"] == "aws:kms"


def test_a_credential_comes_by_reference():
    made = job("rollouts", "kubernetes.s3_secret=wm-s3", 'kubernetes.s3_endpoint="http://s3.wm.svc:8333"')
    assert container(made)["envFrom"] == [{"secretRef": {"name": "wm-s3"}}]
    assert environment(made)["AWS_ENDPOINT_URL_S3"] == "http://s3.wm.svc:8333"
    with pytest.raises(ConfigError, match="without user or password"):
        job("rollouts", 'kubernetes.s3_endpoint="http://key:secret@s3.wm.svc"')


def test_a_queue_suspends_the_job_and_a_deadline_is_opt_in():
    made = job("rollouts", "kubernetes.queue=research", "kubernetes.deadline_seconds=60")
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert made["spec"]["suspend"]
    assert made["spec"]["activeDeadlineSeconds"] == 60
    assert "activeDeadlineSeconds" not in job()["spec"]


@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("./runs", "cannot reach a folder"),
        ("gs://a", "s3://bucket/prefix"),
        ("s3://", "no bucket's name"),
        ("s3://k:s@a", "no bucket's name"),
    ],
)
def test_pods_meet_in_a_bucket(store, words):
    with pytest.raises(ConfigError, match=words):
        job(store=store)


def test_the_pipeline_carries_every_iterations_config():
    configs = tuple(resolve("demo", iteration=i)[0] for i in (1, 2))
    made = job_spec.pipeline_job(job_spec.Pipeline("demo", configs), STORE)
    back = job_spec.Pipeline.from_json(environment(made)["WM_PIPELINE"].replace("$$", "$"))
    assert [config.rollouts.controller for config in back.configs] == ["random", "mean"]
    spec = made["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "wm-pipeline"
    assert spec["automountServiceAccountToken"]


def test_no_job_has_a_variable_that_linux_refuses():
    config, _ = resolve("demo")
    assert job_spec.pipeline_job(job_spec.Pipeline("demo", (config,) * 20), STORE)
    with pytest.raises(ConfigError, match="WM_PIPELINE would have 2"):
        job_spec.pipeline_job(job_spec.Pipeline("demo", (config,) * 99), STORE)


def test_a_pipelines_run_has_a_name_too():
    with pytest.raises(ConfigError, match="run name 'Bad Name'"):
        job_spec.Pipeline("Bad Name", (resolve("demo")[0],))


def test_a_pod_of_another_version_says_so():
    with pytest.raises(ConfigError, match="another version"):
        Task.from_json(json.dumps({"run": "a", "iteration": 1, "stage": "vae", "config": {"vae": {"new": 1}}}))
    with pytest.raises(ConfigError, match="another version"):
        job_spec.Pipeline.from_json(json.dumps({"run": "a", "configs": [{"vae": {"new": 1}}]}))


def test_the_pipeline_does_not_go_on_when_a_stage_gave_up():
    made = job_spec.pipeline_job(job_spec.Pipeline("demo", (resolve("demo")[0],)), STORE)
    rules = made["spec"]["podFailurePolicy"]["rules"]
    assert [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailIndex"] == [
        [14, 16, 42, 44, 45, 46]
    ]


def test_prices_and_contexts_make_no_other_pipeline():
    def made(*overrides):
        return job_spec.pipeline_job(job_spec.Pipeline("demo", (resolve("demo", (), overrides)[0],)), STORE)

    assert made("kubernetes.context=mine", "kubernetes.prices.gpu_hour=2.5") == made()
    assert job_spec.spec_digest(made("kubernetes.pending_seconds=5")) != job_spec.spec_digest(made())


def test_a_trailing_slash_is_no_other_store():
    assert job(store=STORE + "/") == job()
