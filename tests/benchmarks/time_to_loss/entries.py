"""The contenders: what each trains, on which datasets, and the learning rates to choose from.

Sizes are those of the presets `tiny` and `mini`, for all sides. Batches have 4,096 positions, and 2,048 in a phase of short
sequences, as docs/how-to/two-phases.md says. Everything that isn't named here is the default of its library.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clozemill.model import config as encoders
from clozemill.pipelines.command_line import options as command_options
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES

MAIN, SHORT, DENSE, PACKED = "data", "short-data", "dense-data", "packed-data"  # the options that name the datasets
TOKENS_PER_BATCH, SHORT_TOKENS = 4096, 2048
_RATE_SCALE = {"tiny": 1.0, "mini": 0.5}  # narrow encoders need higher rates
SIZES = tuple(_RATE_SCALE)


@dataclass(frozen=True)
class EntryPhase:
    """A part of an entry's steps. data: which dataset. weight: its share of the steps. settings: of a phase of `pretrain`."""

    data: str = MAIN
    weight: float = 1.0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A contender, or a row of the ablation.

    Args:
        about: what it is, for the report.
        library: clozemill or torch.
        settings: of its program; alternatives of `forms` are merged into them.
        phases: how its steps are divided.
        rates: learning rates to begin the search with, for `tiny`; none: that of the entry `modern`.
        forms: alternatives that compute the same; the fastest one is used.
        comparable: whether its masked-LM loss can be compared with that of others.
        base: the entry that a row of the ablation is compared with.
    """

    about: str
    library: str
    settings: dict[str, Any]
    phases: tuple[EntryPhase, ...] = (EntryPhase(),)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    forms: Mapping[str, dict[str, Any]] = field(default_factory=lambda: {"": {}})
    comparable: bool = True
    base: str = "modern"

    def rates_for(self, size: str) -> list[float]:
        """Return the learning rates for a size."""
        return [rate * _RATE_SCALE[size] for rate in self.rates]

    def changed(self, about: str, phases: tuple[EntryPhase, ...] = (), **options: Any) -> "Entry":
        """Return a copy with other options of `pretrain`; None removes one."""
        merged = {**self.settings["options"], **options}
        kept = {name: value for name, value in merged.items() if value is not None}
        return replace(self, about=about, settings={**self.settings, "options": kept}, phases=phases or self.phases)


_FORMS = {
    "sdpa": {"attention": "sdpa", "compiled": False},
    "eager": {"attention": "eager", "compiled": False},
    "compiled": {"attention": "sdpa", "compiled": True},
}
_ADAMW = {"weight_decay": 0.01, "betas": (0.9, 0.999)}


def torch_sizes(size: str) -> dict[str, int]:
    """Return the sizes of a preset by transformers' names, with the inner size of a gated layer of as many weights."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    found: dict[str, int] = {name: encoders.PRESETS[size][name] for name in names}
    return {**found, "modern_inner_size": {"tiny": 320, "mini": 704}[size], "max_position_embeddings": 512}


def modern_options(size: str, mask_schedule: bool) -> dict[str, Any]:
    """Return the options of the modern recipe: those of `--recipe modern` where it exists, in the given size.

    mask_schedule: whether there is a dataset with 30 % of the tokens masked.
    """
    found = {
        "objective": "mlm",
        "optimizer": "muon",
        "schedule": "wsd",
        "masks": "fresh",
        "masked_lm_prob_schedule": "0.3:0.15",
    }
    if "modern" in RECIPES:
        run_dependent = ("steps", "batch_size", "learning_rate", "phases", "warmup_steps", "decay_steps")
        found = {name: value for name, value in RECIPES["modern"].options.items() if name not in run_dependent}
    if not mask_schedule:
        found.pop("masked_lm_prob_schedule", None)
    return {**found, "preset": f"modern-{size}"}


def contenders(size: str, mask_schedule: bool = False, compiled: bool = False) -> dict[str, Entry]:
    """Return the contenders by name.

    mask_schedule: whether there is a dataset with 30 % of the tokens masked. compiled: whether to try torch.compile.
    """
    forms = {name: form for name, form in _FORMS.items() if compiled or not form["compiled"]}
    paper = {"preset": size, "objective": "mlm+nsp", "optimizer": "adamw", "dropout": 0.1, "attention_dropout": 0.1,
             "initializer_range": 0.02, "weight_decay": 0.01}  # fmt: skip
    best = {"preset": size, "max_position_embeddings": 128}
    sizes = torch_sizes(size)
    modern = modern_options(size, mask_schedule)
    modern_data = (EntryPhase(DENSE if "masked_lm_prob_schedule" in modern else MAIN),)
    return {
        "bert-paper": Entry(
            "clozemill, recipe of the BERT paper: AdamW, linear decay, masked LM and next sentence, dropout 0.1",
            "clozemill", {"options": paper}, rates=(5e-4, 1e-3, 2e-3),
        ),
        "bert-best": Entry(
            "clozemill, BERT with the defaults for its size, a first phase on short sequences",
            "clozemill", {"options": best}, (EntryPhase(SHORT, 2), EntryPhase(MAIN, 7)), (7.5e-4, 1.5e-3, 3e-3),
        ),
        "modern": Entry(
            "clozemill, modern recipe", "clozemill", {"options": modern}, modern_data,
            (2e-3, 4e-3, 8e-3),
        ),
        "hf-bert": Entry(
            "transformers' BertForPreTraining on torch, AdamW, linear decay, logits at masked positions only",
            "torch", {"model": "bert", "sizes": sizes, "schedule": "linear", **_ADAMW}, rates=(5e-4, 1e-3, 2e-3), forms=forms,
        ),
        "hf-modernbert": Entry(
            "transformers' ModernBertForMaskedLM on torch, AdamW, warm-up, stable, decay; logits at masked positions only",
            "torch", {"model": "modernbert", "sizes": sizes, "schedule": "wsd", "weight_decay": 0.01, "betas": (0.9, 0.98)},
            forms=forms,
        ),
    }  # fmt: skip


def unsupported(entry: Entry) -> str:
    """Return why the options of an entry can't be used with this version, or ""."""
    if entry.library == "torch":
        return ""
    values = dict(entry.settings["options"])
    if variant := entry.settings.get("variant"):
        known = getattr(encoders, "Design", None)
        missing = [name for name in variant["design"] if name not in getattr(known, "__dataclass_fields__", {})]
        if missing or variant["preset"] not in encoders.PRESETS:
            return f"no {', '.join(missing) or variant['preset']} in model/config.py"
        values["preset"] = variant["preset"]
    phases = [{"data": "DATASET", "steps": 1, "batch_size": 1, **phase.settings} for phase in entry.phases]
    try:
        command_options.from_values(PretrainConfig, {**values, "phases": phases, "output": "RUN"})
    except UserError as error:
        return str(error)
    return ""
