"""What can be configured of `clozemill submit`; to add an option, add a field (deploy/config.example.yaml has them all)."""

import re
from dataclasses import dataclass

from clozemill.deploy import tpu_slices
from clozemill.pipelines.command_line.options import option, suggest
from clozemill.pipelines.common.errors import UserError

PIPELINES, TRAINERS = ("dataflow", "flink", "spark", "dask"), ("tpu", "gke", "vertex")
ACTIONS = ("run", "status", "stop")
CLOUD = ("project", "region", "bucket", "image")

# What each target can't do without.
NEEDED: dict[str, tuple[str, ...]] = {
    "dataflow": CLOUD,
    "flink": ("image",),
    "spark": ("spark_master",),
    "dask": ("dask_scheduler",),
    "tpu": ("project", "zone", "bucket", "trainer_image"),
    "gke": ("project", "region", "bucket", "trainer_image", "cluster"),
    "vertex": ("project", "region", "bucket", "trainer_image"),
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

    target: str = option("", "where it runs", choices=(*PIPELINES, *TRAINERS), flag=False)
    action: str = option("run", "of a TPU: status or stop", choices=ACTIONS, flag=False)
    dry_run: bool = option(False, "print the commands and manifests, and do nothing")
    build: bool = option(True, "build the image with Cloud Build first (dataflow, tpu, gke, vertex)")
    source: str = option(".", "a checkout of clozemill, to build the image from")
    name: str = option("clozemill", "of the job, and of the TPU")
    project: str = option("", "the Google Cloud project's id")
    region: str = option("", "a region, such as europe-west4")
    zone: str = option("", "the TPU's zone, such as europe-west4-b")
    bucket: str = option("", "gs://BUCKET, or a folder in it: for templates and temporary files")
    image: str = option("", "of the pipelines: what is built, and what workers run")
    trainer_image: str = option("", "of the trainer: what is built, and what TPU hosts run")
    service_account: str = option("", "the workers' service account; default: the project's")
    network: str = option("", "the TPU's network; default: default")
    subnetwork: str = option("", "of workers; Dataflow: regions/REGION/subnetworks/NAME")
    public_ips: bool = option(False, "give workers addresses of the internet")
    machine_type: str = option("n2-standard-4", "of Dataflow's workers")
    num_workers: int = option(2, "workers that Dataflow begins with", low=1, high=1000)
    max_workers: int = option(20, "workers at most; on Flink, task managers' slots in all", low=1, high=1000)
    disk_size_gb: int = option(100, "of a Dataflow worker", low=30, high=10_000)
    service_options: tuple[str, ...] = option((), "Dataflow's service options", metavar="OPTION")
    namespace: str = option("default", "Kubernetes' namespace (flink, gke)")
    spark_master: str = option("", "the Spark master's address, such as spark://host:7077")
    dask_scheduler: str = option("", "the Dask scheduler's address, such as tcp://host:8786")
    tpu_type: str = option("v5litepod-8", "the TPU's type; of a slice with several hosts, too")
    tpu_topology: str = option("", "its shape, such as 2x4; default: the type's usual one")
    runtime_version: str = option("", "the TPU VM's image; default: the type's")
    spot: bool = option(True, "spot capacity: cheaper, and can be taken away at any moment")
    valid_until: str = option("24h", "how long to wait for capacity")
    retries: int = option(10, "how often a TPU that was taken away is made again", low=0, high=1000)
    autodelete: bool = option(True, "delete the TPU at the end, after a failure, and after Ctrl-C")
    existing: str = option("", "a TPU VM that is there already; it is never deleted", metavar="NAME")
    poll_seconds: float = option(15.0, "between looks at a TPU that is being made", low=0, high=3600)
    cluster: str = option("", "the GKE cluster's name")

    def validate(self) -> None:
        """Raises UserError for values that can't be right, before anything is created."""
        if self.target and self.action != "run" and self.target != "tpu":
            raise UserError(f"submit {self.target} has no {self.action}: only submit tpu has status and stop")
        for field, pattern, example in (
            ("name", _NAME, "a name of small letters, digits and dashes, such as clozemill-1"),
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
        if self.target in TRAINERS:
            self.accelerator()

    def accelerator(self) -> tpu_slices.Slice:
        """The TPU that was asked for. Raises UserError for an unknown one, or a shape that isn't its."""
        return tpu_slices.find(self.tpu_type, self.tpu_topology)

    def folder(self, name: str) -> str:
        """A folder below the bucket."""
        return f"{self.bucket.rstrip('/')}/{name}"


def check(config: SubmitConfig) -> None:
    """Raises UserError when the target needs an option that was not given."""
    if not config.target:
        raise UserError(f"TARGET is missing: give one of {', '.join(NEEDED)}")
    for name in NEEDED[config.target]:
        if not getattr(config, name) and not (config.existing and name == "bucket"):
            text = SubmitConfig.__dataclass_fields__[name].metadata["help"]
            raise UserError(
                f"{name} is missing: submit {config.target} needs {text}: give --{name.replace('_', '-')}, or put it into "
                "--config"
            )


def unknown(word: str, known: list[str], where: str) -> UserError:
    """The error for a word that isn't known."""
    return UserError(f"unknown option {word} {where}{suggest(word.split('=')[0], known)}")
