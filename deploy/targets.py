"""The targets of `clozemill submit`, as lists of commands. To add a target, add a function to TARGETS.

`tpu` is a state machine, in tpu/job.py; --dry-run prints the commands of one uninterrupted run.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from clozemill.deploy import command_options, manifests
from clozemill.deploy.config import SubmitConfig
from clozemill.deploy.steps import Step
from clozemill.deploy.tpu import commands as tpu_commands
from clozemill.pipelines.common.errors import UserError

_SPARK_SERVER = "apache/beam_spark3_job_server:2.77.0"
_DELIMITERS = ("~", ";", "|", "@@", "#~#")


def built(config: SubmitConfig, kind: str, image: str, **more: str) -> list[Step]:
    """Return the step that builds an image with Cloud Build, if requested. Raises UserError if the source is missing.

    more: substitutions of its cloudbuild.yaml besides the image.
    """
    if not config.build:
        return []
    recipe = Path(config.source, "deploy", kind, "cloudbuild.yaml")
    if not recipe.is_file():
        raise UserError(f"{recipe} doesn't exist, so no image can be built: give a checkout as --source, or --no-build")
    argv = ["gcloud", "builds", "submit", config.source, f"--project={config.project}", f"--config={recipe}"]
    substitutions = ",".join(f"{name}={value}" for name, value in {"_IMAGE": image, **more}.items())
    return [Step(f"Build {image}", (*argv, f"--substitutions={substitutions}", "--quiet"))]


def _trainer_built(config: SubmitConfig) -> list[Step]:
    """Return the step that builds the image of the trainer, if requested, for the engine and the device."""
    stack = {"_STACK": config.stack} if config.stack != "tensorflow-tpu" else {}
    return built(config, "gke", config.trainer_image, **stack)


def _listed(values: dict[str, str]) -> str:
    """Format a dictionary for gcloud, with a delimiter that no value contains. Raises UserError if there is none."""
    for delimiter in _DELIMITERS:
        if not any(delimiter in value for value in values.values()):
            return f"^{delimiter}^" + delimiter.join(f"{name}={value}" for name, value in values.items())
    raise UserError(f"a value after -- contains all of {' '.join(_DELIMITERS)}: remove one of them")


def _parameter(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(shlex.quote(item) if re.search(r"""[\s'"\\]""", item) else item for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def dataflow(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Build the image, write the Flex Template, and start the job."""
    values = command_options.prepare(words, cloud=True)
    command_options.check_single_job(values)
    parameters = {name: _parameter(value) for name, value in values.items()} | {"sdk_container_image": config.image}
    template = config.folder(f"templates/{config.name}.json")
    project = f"--project={config.project}"
    build = ("gcloud", "dataflow", "flex-template", "build", template, project, f"--image={config.image}")
    pipeline = {"sdk_location": "container", "disk_size_gb": str(config.disk_size_gb)}
    if config.service_options:
        pipeline["dataflow_service_options"] = ",".join(config.service_options)
    run = [
        "gcloud", "dataflow", "flex-template", "run", config.name, project, f"--region={config.region}",
        f"--template-file-gcs-location={template}", f"--worker-machine-type={config.machine_type}",
        f"--num-workers={config.num_workers}", f"--max-workers={config.max_workers}",
        f"--temp-location={config.folder('tmp')}", f"--staging-location={config.folder('staging')}",
    ]  # fmt: skip
    run += [f"--subnetwork={config.subnetwork}"] if config.subnetwork else []
    run += [] if config.public_ips else ["--disable-public-ips"]
    run += [f"--service-account-email={config.service_account}"] if config.service_account else []
    run += [f"--additional-pipeline-options={_listed(pipeline)}", f"--parameters={_listed(parameters)}"]
    return [
        *built(config, "dataflow", config.image),
        Step(
            "Write the Flex Template",
            (*build, "--sdk-language=PYTHON", f"--metadata-file={manifests.shown('dataflow/metadata.json')}"),
        ),
        Step("Start the job", tuple(run)),
    ]


def flink(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Start a session cluster of the Flink Kubernetes operator, and run a job on it."""
    values = command_options.prepare(words, cloud=True)
    server = manifests.JOB_SERVER
    runner = ["--runner=PortableRunner", f"--job_endpoint={server}:8099", f"--artifact_endpoint={server}:8098"]
    runner += ["--environment_type=EXTERNAL", "--environment_config=localhost:50000", "--no-progress"]
    cluster, job = manifests.flink(config, ["prepare", *command_options.as_words(values), *runner])
    where, name = f"--namespace={config.namespace}", f"job/{config.name}"
    ready = ("--for=condition=available", "--timeout=10m", f"deployment/{server}")
    return [
        Step("Start the cluster and Beam's job server", ("kubectl", "apply", where, "--filename=-"), cluster),
        Step("Wait for the job server", ("kubectl", "wait", where, *ready)),
        Step("Submit the job", ("kubectl", "create", where, "--filename=-"), job, hint=_ended(where, name)),
        Step("Follow its log", ("kubectl", "logs", where, "--follow", "--pod-running-timeout=10m", name)),
        Step("Look whether it completed", ("kubectl", "wait", where, "--for=condition=complete", "--timeout=60s", name)),
    ]


def _ended(where: str, name: str) -> str:
    """Return what to do if `kubectl create` says that a job exists: it stays there when it has ended."""
    return f"if an earlier one has ended, remove it: kubectl delete {where} {name}"


def spark(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Start Beam's Spark job server in a local container, and run `clozemill prepare` against it."""
    values = command_options.prepare(words, cloud=False)
    server = f"{config.name}-job-server"
    start = ("docker", "run", "--detach", "--rm", "--network=host", f"--name={server}", _SPARK_SERVER)
    runner = ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--artifact_endpoint=localhost:8098"]
    runner += ["--environment_type=EXTERNAL", "--environment_config=localhost:50000"]
    return [
        Step("Start Beam's Spark job server", (*start, f"--spark-master-url={config.spark_master}")),
        Step("Run the pipeline", ("clozemill", "prepare", *command_options.as_words(values), *runner)),
        Step("Stop the job server", ("docker", "stop", server), always=True),
    ]


def dask(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Run `clozemill prepare` against a Dask scheduler."""
    values = command_options.prepare(words, cloud=False)
    runner = ["--runner=DaskRunner", f"--dask_client_address={config.dask_scheduler}"]
    return [Step("Run the pipeline", ("clozemill", "prepare", *command_options.as_words(values), *runner))]


def tpu(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Create a TPU, install and start the training, follow its log, and delete the TPU."""
    commands = tpu_commands.Commands(config)
    if config.action == "status":
        return [commands.describe(), commands.describe_node()]
    if config.action == "stop":
        return [commands.stop(), *([] if config.existing else [commands.delete()])]
    arguments = command_options.pretrain(config, words)
    made = [commands.describe_node()] if config.existing else [commands.create(), commands.describe(), commands.describe_node()]
    gone = [commands.delete()] if config.autodelete and not config.existing else []
    trained = [*commands.install(), *commands.start(arguments), commands.follow(), commands.ended()]
    return [*_trainer_built(config), *made, *trained, *gone]


def gke(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Submit a JobSet to a GKE cluster with node pools of this TPU, or of this machine with GPUs."""
    arguments = command_options.pretrain(config, words)
    if not config.accelerator().gke:
        raise UserError(f"GKE doesn't offer {config.tpu_type}: give another tpu_type, such as v5litepod-8")
    cluster = ("gcloud", "container", "clusters", "get-credentials", config.cluster)
    where, name = f"--namespace={config.namespace}", f"jobset/{config.name}"
    wait = ("kubectl", "wait", where)
    return [
        *_trainer_built(config),
        Step("Get access to the cluster", (*cluster, f"--project={config.project}", f"--location={config.region}")),
        Step(
            "Submit the JobSet",
            ("kubectl", "create", where, "--filename=-"),
            manifests.jobset(config, arguments),
            hint=_ended(where, name),
        ),
        Step("Wait for its end", (*wait, "--for=jsonpath={.status.terminalState}", "--timeout=8760h", name)),
        Step("Look whether it completed", (*wait, "--for=condition=Completed", "--timeout=60s", name)),
    ]


def vertex(config: SubmitConfig, words: list[str]) -> list[Step]:
    """Submit a custom job to Vertex AI, on one host of TPUs or GPUs."""
    arguments = command_options.pretrain(config, words)
    accelerator = config.accelerator()
    if not accelerator.machine_type or accelerator.hosts > 1:
        raise UserError(
            f"submit vertex supports a single host only, which {config.tpu_type} isn't: give v5litepod-8, or use submit gke"
        )
    create = ("gcloud", "ai", "custom-jobs", "create", f"--project={config.project}", f"--region={config.region}")
    return [
        *_trainer_built(config),
        Step(
            "Submit the custom job",
            (*create, f"--display-name={config.name}", "--config=/dev/stdin"),
            manifests.custom_job(config, arguments),
        ),
    ]


TARGETS: dict[str, Callable[[SubmitConfig, list[str]], list[Step]]] = {
    "dataflow": dataflow,
    "flink": flink,
    "spark": spark,
    "dask": dask,
    "tpu": tpu,
    "gke": gke,
    "vertex": vertex,
}
