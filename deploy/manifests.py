"""Fill in Kubernetes manifests and the Vertex AI job, from the example files in this folder and a configuration."""

import copy
from pathlib import Path
from typing import Any

import yaml

from clozemill.deploy.config import SubmitConfig

FOLDER = Path(__file__).resolve().parent  # in a checkout: deploy/, which clozemill/deploy links to
JOB_SERVER = "clozemill-job-server"
_SLOTS = 2  # per task manager


def shown(name: str) -> str:
    """Return the path of a file in this folder for use in commands, relative if possible."""
    path = FOLDER / name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def load(name: str) -> list[dict[str, Any]]:
    """Return the YAML documents of an example file."""
    return list(yaml.safe_load_all((FOLDER / name).read_text("utf-8")))


def dump(documents: list[dict[str, Any]]) -> str:
    """Return documents as YAML, keeping the order of keys."""
    texts = [yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000) for document in documents]
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


def _on_tpu(pod: dict[str, Any], config: SubmitConfig) -> None:
    """Schedule a pod on the TPU that the configuration names."""
    tpu = config.accelerator()
    pod["nodeSelector"] = {
        "cloud.google.com/gke-tpu-accelerator": tpu.family.gke,
        "cloud.google.com/gke-tpu-topology": tpu.topology,
    }
    if config.spot:
        pod["nodeSelector"]["cloud.google.com/gke-spot"] = "true"
    pod["containers"][0]["resources"]["limits"]["google.com/tpu"] = tpu.chips_per_host


def jobset(config: SubmitConfig, arguments: list[str]) -> str:
    """Return the JobSet for one host, or for a multi-host slice."""
    tpu = config.accelerator()
    (document,) = load("gke/jobset-single-host.yaml" if tpu.hosts == 1 else "gke/jobset-multi-host.yaml")
    document["metadata"] = {"name": config.name, "namespace": config.namespace}
    document["spec"]["failurePolicy"]["maxRestarts"] = config.retries
    jobs = document["spec"]["replicatedJobs"]
    for job in jobs:
        pod = _pod(job)
        pod["containers"][0]["image"] = config.trainer_image
        if config.service_account:
            pod["serviceAccountName"] = config.service_account.split("@")[0]
    _on_tpu(_pod(jobs[0]), config)
    trainer = _pod(jobs[-1])["containers"][0]
    trainer["args"] = copy.copy(arguments)
    if tpu.hosts > 1:
        jobs[0]["template"]["spec"] |= {"parallelism": tpu.hosts, "completions": tpu.hosts}
        hosts = [f"grpc://{config.name}-hosts-0-{number}.{config.name}:8470" for number in range(tpu.hosts)]
        trainer["env"] = [{"name": "TPU_NAME", "value": ",".join(hosts)}]
    return dump([document])


def custom_job(config: SubmitConfig, arguments: list[str]) -> str:
    """Return the custom job of Vertex AI."""
    (document,) = load("vertex/custom-job.yaml")
    tpu = config.accelerator()
    pool = document["workerPoolSpecs"][0]
    pool["machineSpec"] = {"machineType": tpu.machine_type, "tpuTopology": tpu.topology}
    pool["containerSpec"] |= {"imageUri": config.trainer_image, "args": list(arguments)}
    if config.service_account:
        document["serviceAccount"] = config.service_account
    if not config.spot:
        del document["scheduling"]["strategy"]
    return dump([document])
