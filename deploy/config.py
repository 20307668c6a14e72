"""The options of `clozemill submit`. To add an option, add a field, and list it in deploy/config.example.yaml."""

import re
from dataclasses import dataclass

from clozemill.deploy import gpu_machines, tpu_slices
from clozemill.pipelines.command_line.options import INPUT, RUNNING, option, suggest
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import enumerated
from clozemill.trainers.common.config import ENGINE_NAMES

PIPELINES, TRAINERS = ("dataflow", "flink", "spark", "dask"), ("tpu", "gke", "vertex")
ACTIONS = ("run", "status", "stop")
CLOUD = ("project", "region", "bucket", "image")

# Required options of each target.
NEEDED: dict[str, tuple[str, ...]] = {
    "dataflow": CLOUD,
    "flink": ("image",),
    "spark": ("spark_master",),
    "dask": ("dask_scheduler",),
    "tpu": ("project", "zone", "bucket", "trainer_image"),
    "gke": ("project", "region", "bucket", "trainer_image", "cluster"),
    "vertex": ("project", "region", "bucket", "trainer_image"),
}
# What each target runs, for --help.
_RUNS = {
    "dataflow": "prepare on Google Cloud Dataflow",
    "flink": "prepare on a Flink cluster in Kubernetes",
    "spark": "prepare on a Spark cluster",
    "dask": "prepare on a Dask cluster",
    "tpu": "pretrain on a Cloud TPU VM or slice",
    "gke": "pretrain on TPUs or GPUs of a Kubernetes cluster",
    "vertex": "pretrain on TPUs or GPUs of Vertex AI",
}
_NAME = re.compile("[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_PROJECT = re.compile("([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_BUCKET = re.compile("gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^\\s]*)?")
_ZONE = re.compile("[a-z]+-[a-z]+[0-9]+-[a-z]")
_REGION = re.compile("[a-z]+-[a-z]+[0-9]+")
_IMAGE = re.compile("[a-z0-9][a-z0-9._:-]*(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]*)?(@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True)
class SubmitConfig:
    """`clozemill submit`"""

    target: str = option("", "service or cluster to run on", choices=(*PIPELINES, *TRAINERS), flag=False, required=True)
    action: str = option("run", "tpu only: status or stop instead of a new run", choices=ACTIONS, flag=False)
    dry_run: bool = option(False, "print the commands and manifests without running them")
    build: bool = option(True, "first build the image with Cloud Build (dataflow, tpu, gke, vertex)")
    source: str = option(".", "checkout of clozemill to build the image from", group=INPUT)
    name: str = option("clozemill", "name of the job and of the TPU")
    project: str = option("", "the Google Cloud project's id")
    region: str = option("", "a region, such as europe-west4")
    zone: str = option("", "the TPU's zone, such as europe-west4-b")
    bucket: str = option("", "gs://BUCKET, or a folder in it, for templates and temporary files")
    image: str = option("", "the container image of the pipelines, to build and to run on workers")
    trainer_image: str = option("", "the container image of the trainer, to build and to run on hosts of TPUs or GPUs")
    engine: str = option(
        "tensorflow", "framework that trains, which the image of the trainer contains (tpu, gke, vertex)", choices=ENGINE_NAMES
    )
    service_account: str = option("", "service account of the workers; default: the project's default account")
    network: str = option("", "network of the TPU (default: the network named default)")
    subnetwork: str = option("", "subnetwork of the workers; Dataflow: regions/REGION/subnetworks/NAME")
    public_ips: bool = option(False, "give workers public IP addresses")
    machine_type: str = option("n2-standard-4", "machine type of Dataflow workers")
    num_workers: int = option(2, "initial number of Dataflow workers", low=1, high=1000)
    max_workers: int = option(20, "maximum number of workers; Flink: total slots of the task managers", low=1, high=1000)
    disk_size_gb: int = option(100, "disk size of a Dataflow worker, in GB", low=30, high=10_000)
    service_options: tuple[str, ...] = option((), "Dataflow service options", metavar="OPTION")
    namespace: str = option("default", "Kubernetes namespace (flink, gke)")
    spark_master: str = option("", "the Spark master's address, such as spark://host:7077")
    dask_scheduler: str = option("", "the Dask scheduler's address, such as tcp://host:8786")
    tpu_type: str = option("v5litepod-8", "TPU type, of one host or of a multi-host slice")
    tpu_topology: str = option("", "shape of the TPU, such as 2x4; default: the usual one of the type")
    gpu_machine: str = option(
        "", "machine type with NVIDIA GPUs to use instead of a TPU, such as a2-highgpu-1g (gke, vertex; needs --engine jax)"
    )
    runtime_version: str = option("", "runtime version (image) of the TPU VM; default: the usual one of the type")
    spot: bool = option(True, "use spot capacity: cheaper, but can be preempted at any time")
    valid_until: str = option("24h", "how long to wait for capacity", group=RUNNING)
    retries: int = option(10, "how often to recreate a preempted TPU", low=0, high=1000, group=RUNNING)
    autodelete: bool = option(True, "delete the TPU at the end, after a failure, and after Ctrl-C", group=RUNNING)
    existing: str = option("", "name of an existing TPU VM to use; it is never deleted", metavar="NAME")
    poll_seconds: float = option(15.0, "seconds between checks of a TPU that is being created", low=0, high=3600, group=RUNNING)
    cluster: str = option("", "the GKE cluster's name")

    def validate(self) -> None:
        """Raise UserError for invalid values, before anything is created."""
        if self.target and self.action != "run" and self.target != "tpu":
            raise UserError(f"submit {self.target} doesn't support {self.action}: use status and stop with submit tpu only")
        for field, pattern, example in (
            ("name", _NAME, "a name of lowercase letters, digits and dashes, such as clozemill-1"),
            ("existing", _NAME, "a TPU VM's name, such as clozemill-1"),
            ("namespace", _NAME, "a Kubernetes namespace, such as default"),
            ("project", _PROJECT, "the project's id, such as my-project"),
            ("region", _REGION, "a region, such as europe-west4"),
            ("zone", _ZONE, "a zone, such as europe-west4-b"),
            ("bucket", _BUCKET, "gs://BUCKET, or a folder in it"),
            ("image", _IMAGE, "an image, such as europe-west4-docker.pkg.dev/my-project/images/clozemill:1"),
            ("trainer_image", _IMAGE, "an image, such as europe-west4-docker.pkg.dev/my-project/images/clozemill-tpu:1"),
            ("spark_master", re.compile("(spark|yarn|k8s|mesos|local)\\S*"), "an address, such as spark://host:7077"),
            ("dask_scheduler", re.compile("(tcp|tls|ws|wss|ucx)://\\S+"), "an address, such as tcp://host:8786"),
            ("valid_until", re.compile("[1-9][0-9]*[smhd]"), "a duration, such as 24h"),
        ):
            value = getattr(self, field)
            if value and not pattern.fullmatch(value):
                raise UserError(f"{field} is {value!r}: give {example}")
        self._check_engine()
        if self.target in TRAINERS:
            self.accelerator()

    def _check_engine(self) -> None:
        """Raise UserError for an engine that the target, its machines or their software don't have."""
        jax = self.engine == "jax"
        if jax and self.target in PIPELINES:
            raise UserError(
                f"submit {self.target} prepares datasets and trains nothing, so it has no --engine jax: leave it out, or use "
                f"submit {', '.join(TRAINERS[:-1])} or {TRAINERS[-1]}"
            )
        if self.target == "tpu" and self.gpu_machine:
            raise UserError(
                f"submit tpu creates TPUs, not gpu_machine {self.gpu_machine}: leave it out, or use submit gke or vertex"
            )
        if self.target in TRAINERS and self.gpu_machine and not jax:
            raise UserError(
                f"gpu_machine {self.gpu_machine} needs --engine jax, whose image alone has CUDA: give both, or leave it out"
            )
        if self.target == "tpu" and jax and self.runtime_version.startswith("tpu-vm-tf-"):
            raise UserError(
                f"runtime_version {self.runtime_version} is for TensorFlow, whose server would hold the TPU, but --engine is "
                f"jax: leave it out, or give {self.slice().family.runtime}"
            )

    def slice(self) -> tpu_slices.Slice:
        """Return the requested TPU slice. Raises UserError for an unknown type, or a shape that the type doesn't have."""
        return tpu_slices.find(self.tpu_type, self.tpu_topology)

    def accelerator(self) -> tpu_slices.Slice | gpu_machines.Machine:
        """Return the machine with GPUs, if one is requested, else the TPU slice. Raises UserError for an unknown one."""
        return gpu_machines.find(self.gpu_machine) if self.gpu_machine else self.slice()

    @property
    def stack(self) -> str:
        """Return the stage of deploy/gke/Dockerfile that has the engine for the device."""
        return f"{self.engine}-{'cuda' if self.gpu_machine else 'tpu'}"

    def folder(self, name: str) -> str:
        """Return the path of a folder in the bucket."""
        return f"{self.bucket.rstrip('/')}/{name}"


@dataclass(frozen=True)
class CompletionConfig:
    """`clozemill completion`"""

    shell: str = option("", "the shell", choices=("bash", "zsh", "fish"), flag=False, required=True)


def targets_help() -> str:
    """Return the targets with what they run and which options they require, for --help."""
    lines = ["targets, and the options that they require:"]
    for target, names in NEEDED.items():
        lines += [f"  {target:<9} {_RUNS[target]}", f"            --{' --'.join(names).replace('_', '-')}"]
    return "\n".join(lines)


def check(config: SubmitConfig) -> None:
    """Raise UserError if an option that the target requires is missing."""
    needed = NEEDED[config.target]
    missing = [name for name in needed if not getattr(config, name) and not (config.existing and name == "bucket")]
    if len(missing) == 1:
        text, flag = SubmitConfig.__dataclass_fields__[missing[0]].metadata["help"], missing[0].replace("_", "-")
        raise UserError(
            f"{missing[0]} is missing: submit {config.target} needs {text}; give --{flag}, or add it to the file of --config"
        )
    if missing:
        raise UserError(
            f"{enumerated(missing)} are missing: submit {config.target} needs "
            f"--{' --'.join(missing).replace('_', '-')}; give them, or add them to the file of --config"
        )


def unknown(word: str, known: list[str], where: str) -> UserError:
    """Return the error for an unknown option."""
    return UserError(f"unknown option {word} {where}{suggest(word.split('=')[0], known)}")
