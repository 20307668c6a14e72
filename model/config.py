"""Encoder configuration (sizes and switches, with google-research/bert's names) and presets."""

from dataclasses import asdict, dataclass, replace
from typing import Any

ACTIVATIONS = ("gelu_tanh", "gelu_erf", "relu")
ATTENTION = ("bidirectional", "causal")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # name -> Keras's dtype policy


MAX_LAYERS = 1000  # a corrupt configuration must not allocate lists of billions of weights


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder; the defaults are those of BERT-base.

    `hidden_act`: google-research/bert and the Model Garden use the tanh form of gelu; Hugging Face's `gelu` is the erf form.
    `attention`: with "causal", a position attends to itself and to positions on its left. `remat`: recompute a layer's
    activations in the backward pass instead of keeping them. Raises ValueError for inconsistent sizes.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: str = "gelu_tanh"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    attention: str = "bidirectional"
    remat: bool = False

    def __post_init__(self) -> None:
        sizes = (
            self.vocab_size, self.hidden_size, self.num_hidden_layers, self.num_attention_heads, self.intermediate_size,
            self.max_position_embeddings, self.type_vocab_size,
        )  # fmt: skip
        if not all(isinstance(size, int) and not isinstance(size, bool) for size in sizes) or min(sizes) < 1:
            raise ValueError("the sizes of an encoder must be integers of at least 1")
        if not 0 < self.layer_norm_eps < 1:
            raise ValueError(f"layer_norm_eps is {self.layer_norm_eps}, but must be above 0 and below 1")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} attention heads")
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"unknown hidden_act {self.hidden_act!r}; choose from {', '.join(ACTIVATIONS)}")
        if self.attention not in ATTENTION:
            raise ValueError(f"unknown attention {self.attention!r}; choose from {', '.join(ATTENTION)}")
        if not all(0 <= rate < 1 for rate in (self.hidden_dropout_prob, self.attention_probs_dropout_prob)):
            raise ValueError("hidden_dropout_prob and attention_probs_dropout_prob must be at least 0 and below 1")
        if self.num_hidden_layers > MAX_LAYERS:
            raise ValueError(f"num_hidden_layers is {self.num_hidden_layers}, but must be at most {MAX_LAYERS:,}")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON."""
        return asdict(self)


def _sizes(layers: int, width: int) -> dict[str, int]:
    """Return the sizes by the rule of the BERT miniatures: heads of size 64, an inner layer four times as wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }


# Devlin et al. 2018 (base, large) and Turc et al. 2019, "Well-read students learn better" (the others).
PRESETS: dict[str, dict[str, int]] = {
    "tiny": _sizes(2, 128),
    "mini": _sizes(4, 256),
    "small": _sizes(4, 512),
    "medium": _sizes(8, 512),
    "base": _sizes(12, 768),
    "large": _sizes(24, 1024),
}


def preset(name: str, **changes: Any) -> EncoderConfig:
    """Return a preset's configuration with some fields changed. Raises KeyError for an unknown name."""
    sizes: dict[str, Any] = PRESETS[name]
    return replace(EncoderConfig(**sizes), **changes)


GENERATOR_SIZE = 0.25  # of the encoder's width; the best of Clark et al. 2020 are 1/4 to 1/2


def generator_config(config: EncoderConfig, size: float) -> EncoderConfig:
    """Return the encoder of a generator: as many layers, and a fraction of the width, in whole attention heads.

    Raises ValueError for a fraction that isn't one.
    """
    if not 0 < size <= 1:
        raise ValueError(f"the size of the generator is {size}, but must be above 0 and at most 1")
    heads = max(1, round(size * config.num_attention_heads))
    inner = max(1, round(config.intermediate_size * heads / config.num_attention_heads))
    sizes: dict[str, Any] = {"num_attention_heads": heads, "hidden_size": heads * config.head_size, "intermediate_size": inner}
    return replace(config, **sizes)
