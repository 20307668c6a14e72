"""Published sizes, and inconsistent sizes."""

import json
from dataclasses import FrozenInstanceError

import pytest

from clozemill.model.config import PRESETS, EncoderConfig, preset


def test_preset_values() -> None:
    """Layers, width, heads, inner width: Devlin et al. 2018, Turc et al. 2019, Warner et al. 2024."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    sizes = {preset: tuple(fields[name] for name in names) for preset, fields in PRESETS.items()}
    assert sizes == {
        "tiny": (2, 128, 2, 512),
        "mini": (4, 256, 4, 1024),
        "small": (4, 512, 8, 2048),
        "medium": (8, 512, 8, 2048),
        "base": (12, 768, 12, 3072),
        "large": (24, 1024, 16, 4096),
        "modern-tiny": (2, 128, 2, 320),
        "modern-mini": (4, 256, 4, 704),
        "modern-small": (4, 512, 8, 1344),
        "modern-medium": (8, 512, 8, 1344),
        "modern-base": (22, 768, 12, 1152),
        "modern-large": (28, 1024, 16, 2624),
    }
    assert all(tuple(fields) == names for preset, fields in PRESETS.items() if not preset.startswith("modern-"))
    assert {preset(name).head_size for name in PRESETS} == {64}
    details = ("hidden_act", "layer_norm_eps", "local_attention", "global_attn_every_n_layers", "type_vocab_size")
    for name in PRESETS:
        found = tuple(getattr(preset(name), field) for field in details)
        assert found == (("gelu_erf", 1e-5, 128, 3, 0) if "modern" in name else ("gelu_tanh", 1e-12, 128, 3, 2)), name


def test_the_defaults_are_berts() -> None:
    assert preset("base") == EncoderConfig()
    assert EncoderConfig().to_dict() == {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu_tanh",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "attention": "bidirectional",
        "remat": False,
    }


def test_a_preset_with_changes() -> None:
    config = preset("tiny", vocab_size=100, attention="causal")
    assert (config.vocab_size, config.attention, config.num_hidden_layers) == (100, "causal", 2)
    assert preset("tiny").vocab_size == 30522
    with pytest.raises(KeyError, match="huge"):
        preset("huge")


def test_json_round_trip() -> None:
    config = preset("mini", hidden_act="relu", remat=True)
    assert EncoderConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(FrozenInstanceError):
        EncoderConfig().hidden_size = 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 100}, "hidden_size 100 is not a multiple of 12 attention heads"),
        ({"hidden_act": "gelu"}, "unknown hidden_act 'gelu'; choose from gelu_tanh, gelu_erf, relu"),
        ({"attention": "both"}, "unknown attention 'both'; choose from bidirectional, causal"),
        ({"num_hidden_layers": 0}, "of at least 1"),
        ({"hidden_size": 0}, "of at least 1"),
        ({"vocab_size": -1}, "of at least 1"),
    ],
)
def test_inconsistent_sizes_are_rejected(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**changes)
