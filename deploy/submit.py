"""`clozemill submit`: run a pipeline or a training on a cluster or a cloud, or print the commands.

clozemill submit dataflow --config deploy/config.example.yaml --dry-run -- --input 'gs://…' --vocab gs://… --output gs://…
"""

import sys

from clozemill.deploy import config as configs
from clozemill.deploy import steps
from clozemill.deploy.config import SubmitConfig
from clozemill.deploy.targets import TARGETS
from clozemill.deploy.tpu import job


def main(config: SubmitConfig, words: list[str]) -> int:
    """Submit or print the job of `words`, the options after --. Raises UserError before anything is created."""
    configs.check(config)
    planned = TARGETS[config.target](config, words)
    if config.target in configs.TRAINERS and config.stack == "tensorflow-tpu" and config.tpu_type.startswith("v6e"):
        print("warning: TensorFlow on v6e is experimental, and some users report failures", file=sys.stderr)
    if config.dry_run:
        print("\n".join(map(steps.printed, planned)), end="")
        return 0
    if config.target == "tpu":
        return job.main(config, planned, words)
    steps.run(planned)
    return 0
