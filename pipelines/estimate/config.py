"""Configuration of `clozemill plan` beyond the options of `prepare`: the sample, the target and prices.

deploy/plan.py combines it with the training options of trainers/planning/config.py.
"""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, option
from clozemill.pipelines.command_line.overwriting import OverwriteOption, overwrite_option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions, PrepareConfig

TARGETS = ("local", "dataflow", "gpu", "tpu")


@dataclass(frozen=True)
class EstimateConfig(PrepareConfig):
    """Options for estimating `prepare`. Includes all options of `prepare`, so that its saved prepare.yaml can be used."""

    input: tuple[str, ...] = option(
        (), InputOptions.__dataclass_fields__["input"].metadata["help"], group=INPUT, required="unless --budget"
    )
    vocab: str = option(
        "", "a vocabulary file; without one, a vocabulary is learned on the sample", identity=False, group=INPUT
    )
    output: str = option(
        "", "JSON file to write the estimate to as well, e.g. plan.json", identity=False, group=OUTPUT, path=NEW
    )
    overwrite: bool = overwrite_option(OverwriteOption.__dataclass_fields__["overwrite"].metadata["help"])
    target: tuple[str, ...] = option(
        (), f"target platforms: {', '.join(TARGETS)} (default: local)", identity=False, metavar="TARGET"
    )
    vocab_size: int = option(
        30522, "without --vocab: size of the vocabulary that is learned on the sample", low=16, high=1 << 20
    )
    sample_fraction: float = option(
        0.001, "fraction of the corpus to process, within --sample-min-mb and --sample-max-mb", low=0, high=1
    )
    sample_min_mb: float = option(
        4.0, "minimum MB of text in the sample; a corpus of up to twice that size is processed completely", low=0.01
    )
    sample_max_mb: float = option(32.0, "maximum MB of text in the sample", low=0.01, high=4096)
    price_cpu_hour: float = option(
        0.0, "price of one CPU core-hour in the pipeline (0: leave costs out)", low=0, identity=False
    )
    price_gb_month: float = option(
        0.0, "price of storing 1 GB of shards for a month (0: leave costs out)", low=0, identity=False
    )

    currency: str = option("", "currency of the prices, such as EUR, to print beside costs", identity=False)

    def validate(self) -> None:
        """Raise UserError if values contradict each other."""
        super().validate()
        for target in self.target:
            if target not in TARGETS:
                raise UserError(f"unknown target {target!r} in --target; choose from {', '.join(TARGETS)}")
        if self.output and not self.output.endswith(".json"):
            raise UserError(f"--output {self.output} doesn't end in .json: give the name of a JSON file, e.g. plan.json")
        if self.sample_min_mb > self.sample_max_mb:
            raise UserError(
                f"--sample-min-mb {self.sample_min_mb:g} is more than --sample-max-mb {self.sample_max_mb:g}: lower it"
            )
