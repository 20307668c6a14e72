"""What can be configured of `clozemill plan` besides the options of `prepare`: the sample, where it will run, prices.

clozemill.py joins it with what trainers/tpu/config.py says of training.
"""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig

TARGETS = ("local", "dataflow", "tpu")


@dataclass(frozen=True)
class MillPlan(PrepareConfig):
    """How the mill's part is estimated; all options of `prepare` are taken, so that its saved prepare.yaml serves too."""

    output: str = option("", "write the estimate there too, as JSON, e.g. plan.json", identity=False)
    target: tuple[str, ...] = option(
        (), f"where it will run: {', '.join(TARGETS)} (none: local)", identity=False, metavar="TARGET"
    )
    vocab_size: int = option(30522, "without --vocab: entries to learn on the sample", low=16, high=1 << 20)
    sample_fraction: float = option(0.001, "share of the corpus that is milled, within the two bounds", low=0, high=1)
    sample_min_mb: float = option(4.0, "MB of text milled at least; a corpus of up to twice that is read whole", low=0.01)
    sample_max_mb: float = option(32.0, "MB of text milled at most", low=0.01, high=4096)
    price_cpu_hour: float = option(0.0, "of a core of the mill's machines; 0: not told", low=0, identity=False)
    price_gb_month: float = option(0.0, "of keeping a GB of shards; 0: not told", low=0, identity=False)

    def validate(self) -> None:
        """Raises UserError for values that don't fit each other."""
        super().validate()
        for target in self.target:
            if target not in TARGETS:
                raise UserError(f"--target names {target!r}, which is none: give some of {', '.join(TARGETS)}")
        if self.output and not self.output.endswith(".json"):
            raise UserError(f"--output {self.output} doesn't end in .json: the estimate is written there; give e.g. plan.json")
        if self.sample_min_mb > self.sample_max_mb:
            raise UserError(f"--sample-min-mb {self.sample_min_mb:g} is more than --sample-max-mb {self.sample_max_mb:g}")
