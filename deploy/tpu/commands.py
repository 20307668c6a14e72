"""The gcloud commands to create, use and delete a TPU VM."""

import shlex
from dataclasses import dataclass

from clozemill.deploy import manifests
from clozemill.deploy.config import SubmitConfig
from clozemill.deploy.steps import Step

_TPUS = ("gcloud", "compute", "tpus")


@dataclass(frozen=True)
class Commands:
    """The steps for the TPU named in a configuration."""

    config: SubmitConfig

    @property
    def name(self) -> str:
        return self.config.existing or self.config.name

    @property
    def _where(self) -> tuple[str, ...]:
        return ("--quiet", f"--zone={self.config.zone}", f"--project={self.config.project}")

    def create(self) -> Step:
        """Request the TPU. The command returns at once; the TPU is created when capacity is available."""
        config = self.config
        argv = [
            *_TPUS, "queued-resources", "create", self.name, f"--node-id={self.name}", *self._where,
            *config.slice().request,
            f"--runtime-version={config.runtime_version or config.slice().family.runtime}",
            f"--valid-until-duration={config.valid_until}", "--labels=made-by=clozemill",
        ]  # fmt: skip
        argv += ["--spot"] if config.spot else []
        argv += [] if config.public_ips else ["--internal-ips"]
        argv += [f"--network={config.network}"] if config.network else []
        argv += [f"--subnetwork={config.subnetwork.rsplit('/', 1)[-1]}"] if config.subnetwork else []
        argv += [f"--service-account={config.service_account}"] if config.service_account else []
        return Step(
            f"Ask for a {config.tpu_type}", (*argv, "--scopes=https://www.googleapis.com/auth/cloud-platform", "--async")
        )

    def describe(self) -> Step:
        argv = (*_TPUS, "queued-resources", "describe", self.name, *self._where, "--format=json(state)")
        return Step("Look for its state, again and again until it is ACTIVE", argv)

    def describe_node(self) -> Step:
        return Step(
            "Look whether its machines are READY",
            (*_TPUS, "tpu-vm", "describe", self.name, *self._where, "--format=value(state)"),
        )

    def delete(self) -> Step:
        return Step("Delete the TPU", (*_TPUS, "queued-resources", "delete", self.name, *self._where, "--force"))

    def _ssh(self, title: str, worker: str, *words: str) -> Step:
        direct = () if self.config.public_ips else ("--internal-ip",)
        argv = (*_TPUS, "tpu-vm", "ssh", self.name, *self._where, *direct, f"--worker={worker}")
        return Step(title, (*argv, f"--command={shlex.join(words)}"))

    def install(self) -> list[Step]:
        """Copy the scripts, and pull the image on every host."""
        direct = () if self.config.public_ips else ("--internal-ip",)
        scripts = [manifests.shown(f"tpu/{name}") for name in ("startup.sh", "run.sh")]
        copy = (*_TPUS, "tpu-vm", "scp", *scripts, f"{self.name}:", *self._where, *direct, "--worker=all")
        return [
            Step("Copy the scripts", copy),
            self._ssh("Fetch the image", "all", "bash", "startup.sh", self.config.trainer_image),
        ]

    def start(self, arguments: list[str]) -> list[Step]:
        """Start the training: on every host with JAX; else on one, after TensorFlow's servers on a multi-host slice."""
        image = self.config.trainer_image
        if self.config.engine == "jax":
            return [self._ssh("Start the training on every host", "all", "bash", "run.sh", "worker", image, *arguments)]
        several = self.config.slice().hosts > 1
        servers = (
            [self._ssh("Start TensorFlow's server on every host", "all", "bash", "run.sh", "host", image)] if several else []
        )
        return [*servers, self._ssh("Start the training", "0", "bash", "run.sh", "start", image, *arguments)]

    def follow(self) -> Step:
        return self._ssh("Follow its log", "0", "bash", "run.sh", "follow")

    def ended(self) -> Step:
        """Print `running 0`, or `exited` and the exit code."""
        return self._ssh("Look how the training ended, where its log broke off", "0", "bash", "run.sh", "state")

    def stop(self) -> Step:
        where = "all" if self.config.engine == "jax" else "0"
        return self._ssh("Stop the training; it saves a checkpoint", where, "bash", "run.sh", "stop")
