"""Encoder configuration (sizes and switches, with google-research/bert's names) and presets."""

from dataclasses import asdict, dataclass, replace
from typing import Any

ACTIVATIONS = ("gelu_tanh", "gelu_erf", "relu")
ATTENTION = ("bidirectional", "causal")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # name -> Keras's dtype policy
POOLINGS = ("mean", "cls")  # of sentence vectors
POSITIVES = ("dropout", "crop")  # how the two copies of a text differ that have to find each other
TEMPERATURE = 0.05  # of their cosines in the loss; the best of 0.001 to 1 in Gao et al. 2021


_FEWEST_CHUNKS = 12  # with fewer, attention in chunks was measured to cost as much as with all keys, or more
MAX_LAYERS = 1000  # a corrupt configuration must not allocate lists of billions of weights


@dataclass(frozen=True)
class Design:
    """The choices in which architectures differ; everything else is shared.

    pre_norm: LayerNorm before attention and before the feed-forward layers, and once after the last layer; else after each
    residual. rotary: positions rotate queries and keys (RoPE); else they are embedded. gated: the inner layer is multiplied by
    a second projection (GLU). biases: dense layers and LayerNorms have biases. transforms_tokens: heads of tasks per token
    see the transformed outputs that those per text see; else the plain ones. out_scale: the projections back to the
    residual stream begin smaller by the square root of twice the number of layers.
    """

    pre_norm: bool = False
    rotary: bool = False
    gated: bool = False
    biases: bool = True
    transforms_tokens: bool = False
    out_scale: bool = False


ARCHITECTURES = {
    "bert": Design(),  # Devlin et al. 2018
    "modernbert": Design(True, True, True, False, True, True),  # Warner et al. 2024
}


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder; the defaults are those of BERT-base.

    `hidden_act`: google-research/bert and the Model Garden use the tanh form of gelu; Hugging Face's `gelu` is the erf form.
    `attention`: with "causal", a position attends to itself and to positions on its left. `remat`: recompute a layer's
    activations in the backward pass instead of keeping them. `architecture`: a key of ARCHITECTURES. A `type_vocab_size` of 0:
    no segment embeddings. Raises ValueError for inconsistent sizes.

    With rotary positions (Su et al. 2021), every `global_attn_every_n_layers`-th layer, from the first one on, attends to all
    positions, and the others to the nearest ones, `local_attention` // 2 on each side; their bases are `global_rope_theta` and
    `local_rope_theta`. The names are those of transformers.
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
    architecture: str = "bert"
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0

    def __post_init__(self) -> None:
        sizes = (
            self.vocab_size, self.hidden_size, self.num_hidden_layers, self.num_attention_heads, self.intermediate_size,
            self.max_position_embeddings, self.global_attn_every_n_layers,
        )  # fmt: skip
        if not all(map(_is_int, sizes)) or min(sizes) < 1:
            raise ValueError("the sizes of an encoder must be integers of at least 1")
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {self.architecture!r}; choose from {', '.join(ARCHITECTURES)}")
        if not _is_int(self.type_vocab_size) or self.type_vocab_size < (0 if self.design.rotary else 1):
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
        if self.design.rotary:
            self._check_rotary()

    def _check_rotary(self) -> None:
        if self.head_size % 2:
            raise ValueError(f"rotary positions need attention heads of an even size, not {self.head_size}")
        if not _is_int(self.local_attention) or self.local_attention < 2:
            raise ValueError(f"local_attention is {self.local_attention!r}, but must be an integer of at least 2")
        if not all(1 <= theta < float("inf") for theta in (self.global_rope_theta, self.local_rope_theta)):
            raise ValueError("global_rope_theta and local_rope_theta must be finite and at least 1")

    @property
    def design(self) -> Design:
        return ARCHITECTURES[self.architecture]

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def pairs(self) -> bool:
        """Return whether the encoder takes pairs of texts: unless it has segment embeddings, but only one."""
        return self.type_vocab_size != 1

    def window(self, layer: int) -> int:
        """Return how far a layer attends to each side, in positions; 0: to all positions."""
        local = self.design.rotary and layer % self.global_attn_every_n_layers
        return self.local_attention // 2 if local else 0

    def takes_chunks(self, layer: int, length: Any) -> Any:
        """Return whether a layer takes the queries of `length` positions in chunks; a tensor if the length is one.

        In a local layer, each chunk is multiplied with the keys of its own and the neighbouring ones, where that is cheaper.
        """
        window = self.window(layer)
        return length >= _FEWEST_CHUNKS * window if window else False

    def keys_per_query(self, layer: int, length: int, all_queries: bool = True) -> int:
        """Return how many keys each query of a layer is multiplied with; of chunks, if all queries are computed."""
        return 3 * self.window(layer) if all_queries and self.takes_chunks(layer, length) else length

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for JSON; those of rotary positions only if the encoder has them."""
        fields = asdict(self)
        return fields if self.architecture != "bert" else {name: fields[name] for name in fields if name not in _NOT_BERTS}


_NOT_BERTS = ("architecture", "global_attn_every_n_layers", "local_attention", "global_rope_theta", "local_rope_theta")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sizes(layers: int, width: int) -> dict[str, int]:
    """Return the sizes by the rule of the BERT miniatures: heads of size 64, an inner layer four times as wide."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
    }


def _modern(layers: int, width: int, inner: int) -> dict[str, Any]:
    """Return the fields of ModernBERT (transformers' ModernBertConfig) for some sizes: no segments, no dropout."""
    return {
        **_sizes(layers, width),
        "intermediate_size": inner,
        "architecture": "modernbert",
        "type_vocab_size": 0,
        "hidden_act": "gelu_erf",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-5,
    }


# Devlin et al. 2018 (base, large) and Turc et al. 2019, "Well-read students learn better" (the others). Warner et al. 2024
# (modern-base, modern-large); the others have the layers and widths of the miniatures, and with the gate about as many weights
# in the two inner matrices and it: inner sizes of 8/3 widths, rounded to multiples of 64.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": _sizes(2, 128),
    "mini": _sizes(4, 256),
    "small": _sizes(4, 512),
    "medium": _sizes(8, 512),
    "base": _sizes(12, 768),
    "large": _sizes(24, 1024),
    "modern-tiny": _modern(2, 128, 320),
    "modern-mini": _modern(4, 256, 704),
    "modern-small": _modern(4, 512, 1344),
    "modern-medium": _modern(8, 512, 1344),
    "modern-base": _modern(22, 768, 1152),
    "modern-large": _modern(28, 1024, 2624),
}


def preset(name: str, **changes: Any) -> EncoderConfig:
    """Return a preset's configuration with some fields changed. Raises KeyError for an unknown name."""
    return EncoderConfig(**{**PRESETS[name], **changes})


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
