"""Fill in Kubernetes manifests and the Vertex AI job, from the example files in this folder and a configuration."""

import copy
import re
from pathlib import Path
from typing import Any

import yaml

from clozemill.deploy.config import SubmitConfig
from clozemill.trainers.common.config import JAX_PROCESS

FOLDER = Path(__file__).resolve().parent  # in a checkout: deploy/, which clozemill/deploy links to
JOB_SERVER = "clozemill-job-server"
_SLOTS = 2  # per task manager
_JAX_PORT = 8482  # of process 0, as JAX itself chooses it on TPUs
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"  # of a pod in its job


def shown(name: str) -> str:
    """Return the path of a file in this folder for use in commands, relative if possible."""
    path = FOLDER / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def load(name: str) -> list[dict[str, Any]]:
    """Return the YAML documents of an example file."""
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


class _Dumper(yaml.SafeDumper):
    """Also quotes strings that YAML 1.2 reads as numbers, such as 1e-3: kubectl and gcloud would refuse them as arguments."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$"), list("-+.0123456789")
)


def dump(documents: list[dict[str, Any]]) -> str:
    """Return documents as YAML, keeping the order of keys."""
    options: dict[str, Any] = {"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, "width": 1000}
    texts = [yaml.dump(document, **options) for document in documents]
    return "---\n".join(texts)


def flink(config: SubmitConfig, arguments: list[str]) -> tuple[str, str]:
    """Return the session cluster with the job server, and the job that submits the pipeline."""
    cluster, server, service, job = load("flink/flink.yaml")
    for document in (cluster, server, service, job):
        document["metadata"]["namespace"] = config.namespace
    spec = cluster["spec"]
    managers = -(-config.max_workers // _SLOTS)
    spec["flinkConfiguration"] |= {"taskmanager.numberOfTaskSlots": str(_SLOTS), "parallelism.default": str(managers * _SLOTS)}
    spec["taskManager"]["replicas"] = managers
    spec["taskManager"]["podTemplate"]["spec"]["containers"][1]["image"] = config.image
    job["metadata"]["name"] = config.name
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["image"], container["args"] = config.image, arguments
    return dump([cluster, server, service]), dump([job])


def _pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["template"]["spec"]["template"]["spec"]


def _place(pod: dict[str, Any], config: SubmitConfig) -> None:
    """Schedule a pod on the TPU or the machine with GPUs that the configuration names."""
    accelerator, container = config.accelerator(), pod["containers"][0]
    pod["nodeSelector"] = dict(accelerator.node_selector)
    if config.spot:
        pod["nodeSelector"]["cloud.google.com/gke-spot"] = "true"
    container["resources"]["limits"] = dict(accelerator.limits)
    if config.gpu_machine:  # NCCL needs more shared memory than the 64 MiB of a container
        pod["volumes"] = [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
        container["volumeMounts"] = [{"name": "shared-memory", "mountPath": "/dev/shm"}]


def _join_tensorflow(config: SubmitConfig, trainer: dict[str, Any]) -> None:
    """Let the trainer, a coordinator, use TensorFlow's server in a pod on every host."""
    hosts = [f"grpc://{config.name}-hosts-0-{number}.{config.name}:8470" for number in range(config.accelerator().hosts)]
    chips = {"name": "TPU_ACCELERATOR_TYPE", "value": config.tpu_type}  # GKE sets it where the TPU is
    trainer["env"] = [{"name": "TPU_NAME", "value": ",".join(hosts)}, chips]


def _join_jax(config: SubmitConfig, trainer: dict[str, Any]) -> None:
    """Let the trainers, one in a pod on every host, find the first one."""
    first = {"value": f"{config.name}-trainer-0-0.{config.name}:{_JAX_PORT}"}
    count = {"value": str(config.accelerator().hosts)}
    number: dict[str, Any] = {"valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
    trainer["env"] = [{"name": name} | value for name, value in zip(JAX_PROCESS, (first, count, number), strict=True)]
    trainer["ports"] = [{"name": "coordinator", "containerPort": _JAX_PORT}, {"name": "mesh", "containerPort": 8471}]


def jobset(config: SubmitConfig, arguments: list[str]) -> str:
    """Return the JobSet for one host, or for a multi-host slice."""
    jax, hosts = config.engine == "jax", config.accelerator().hosts
    (document,) = load("gke/jobset-single-host.yaml" if jax or hosts == 1 else "gke/jobset-multi-host.yaml")
    document["metadata"] = {"name": config.name, "namespace": config.namespace}
    document["spec"]["failurePolicy"]["maxRestarts"] = config.retries
    jobs = document["spec"]["replicatedJobs"]
    for job in jobs:
        pod = _pod(job)
        pod["containers"][0]["image"] = config.trainer_image
        if config.service_account:
            pod["serviceAccountName"] = config.service_account.split("@")[0]
    _place(_pod(jobs[0]), config)
    trainer = _pod(jobs[-1])["containers"][0]
    trainer["args"] = copy.copy(arguments)
    if jax:
        del trainer["env"]  # TensorFlow's
    if hosts > 1:
        jobs[0]["template"]["spec"] |= {"parallelism": hosts, "completions": hosts, "completionMode": "Indexed"}
        (_join_jax if jax else _join_tensorflow)(config, trainer)
    return dump([document])


def custom_job(config: SubmitConfig, arguments: list[str]) -> str:
    """Return the custom job of Vertex AI."""
    (document,) = load("vertex/custom-job.yaml")
    pool = document["workerPoolSpecs"][0]
    pool["machineSpec"] = dict(config.accelerator().machine_spec)
    pool["containerSpec"] |= {"imageUri": config.trainer_image, "args": list(arguments)}
    if config.engine == "jax":
        del pool["containerSpec"]["env"]  # TensorFlow's
    if config.service_account:
        document["serviceAccount"] = config.service_account
    if not config.spot:
        del document["scheduling"]["strategy"]
    return dump([document])
