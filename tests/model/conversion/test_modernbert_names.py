"""ModernBERT's names and layouts, compared with a literal table, old and new configurations, and errors."""

import json

import numpy as np
import pytest

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion.weight_names import config_from_hf, config_to_hf, from_hf, table
from clozemill.model.conversion.weight_table import to_hf

SMALL = EncoderConfig(
    vocab_size=11, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, max_position_embeddings=5,
    architecture="modernbert", type_vocab_size=0, hidden_act="gelu_erf", hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, layer_norm_eps=1e-5,
)  # fmt: skip
SHAPES = {  # Hugging Face's names and shapes for ModernBertForMaskedLM, without the tied decoder.weight
    "model.embeddings.tok_embeddings.weight": (11, 4),
    "model.embeddings.norm.weight": (4,),
    "model.layers.0.attn.Wqkv.weight": (12, 4),
    "model.layers.0.attn.Wo.weight": (4, 4),
    "model.layers.0.mlp_norm.weight": (4,),
    "model.layers.0.mlp.Wi.weight": (12, 4),
    "model.layers.0.mlp.Wo.weight": (4, 6),
    "model.layers.1.attn_norm.weight": (4,),
    "model.layers.1.attn.Wqkv.weight": (12, 4),
    "model.layers.1.attn.Wo.weight": (4, 4),
    "model.layers.1.mlp_norm.weight": (4,),
    "model.layers.1.mlp.Wi.weight": (12, 4),
    "model.layers.1.mlp.Wo.weight": (4, 6),
    "model.final_norm.weight": (4,),
    "head.dense.weight": (4, 4),
    "head.norm.weight": (4,),
    "decoder.bias": (11,),
}


def theirs() -> dict[str, np.ndarray]:
    stream = np.random.default_rng(0)
    return {name: stream.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_weights_are_imported_and_exported() -> None:
    tensors = theirs()
    found = from_hf(tensors | {"decoder.weight": tensors["model.embeddings.tok_embeddings.weight"]}, SMALL)
    assert found.parts == ("masked_lm",) and found.passed_over == ()
    first, mine = tensors["model.layers.1.attn.Wqkv.weight"], found.weights
    for place, name in enumerate(("query", "key", "value")):
        assert np.array_equal(mine[f"encoder/layer_1/attention/{name}/kernel"], first[4 * place : 4 * place + 4].T)
    assert np.array_equal(mine["encoder/layer_0/intermediate/kernel"], tensors["model.layers.0.mlp.Wi.weight"][:6].T)
    assert np.array_equal(mine["encoder/layer_0/gate/kernel"], tensors["model.layers.0.mlp.Wi.weight"][6:].T)
    assert np.array_equal(mine["masked_lm/output_bias"], tensors["decoder.bias"])
    assert all(value.dtype == np.float32 and value.flags["C_CONTIGUOUS"] for value in mine.values())
    assert same(to_hf(mine, table(SMALL, ("masked_lm",))), tensors)


def test_the_table_matches_the_model_weights() -> None:
    from clozemill.trainers.engines import train_state

    model = train_state.model_for({"encoder": SMALL.to_dict(), "objective": "mlm"})
    have = {weight.path.split("/", 1)[1]: tuple(weight.shape) for weight in model.weights}
    pooler = {name: have.pop(name) for name in list(have) if "/pooler/" in name}
    assert {entry.ours: entry.shape for entry in table(SMALL, ("masked_lm",))} == have
    entries = {entry.ours: entry for entry in table(SMALL, ("pooler",), ("qa_outputs", 4, 2))}
    assert {name: entries[name].shape for name in pooler} == pooler
    assert entries["head/dense/kernel"].hf == "classifier.weight"


def test_the_transform_of_a_classifier_becomes_the_pooler() -> None:
    tensors = theirs()
    del tensors["decoder.bias"]
    found = from_hf(tensors | {"classifier.weight": np.ones((2, 4)), "classifier.bias": np.ones(2)}, SMALL)
    assert found.parts == ("pooler",) and found.passed_over == ("classifier.bias", "classifier.weight")
    assert np.array_equal(found.weights["encoder/pooler/transform/kernel"], tensors["head.dense.weight"].T)


def test_a_bare_encoder_has_no_prefix() -> None:
    tensors = {name.removeprefix("model."): value for name, value in theirs().items() if name.startswith("model.")}
    found = from_hf(tensors | {"rotary_emb.full_attention_inv_freq": np.ones(1)}, SMALL)
    assert found.parts == () and np.array_equal(found.weights["encoder/final_layer_norm/gamma"], tensors["final_norm.weight"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.final_norm.weight": None}, "the tensor model.final_norm.weight is missing"),
        ({"model.layers.0.attn.Wqkv.weight": np.ones((4, 4))},
         r"Wqkv.weight has the shape \[4, 4\], and its configuration asks for \[12, 4\]"),
        ({"model.layers.0.attn_norm.weight": np.ones(4)}, "attn_norm.weight has no place in a ModernBert encoder"),
        ({"model.layers.0.attn.Wo.bias": np.ones(4)}, "attn.Wo.bias has no place in a ModernBert encoder of these sizes"),
        ({"decoder.weight": np.ones((11, 4))}, "the tensor decoder.weight is not the word embeddings"),
        ({"final_norm.weight": np.ones(4)}, "the tensor final_norm.weight is there twice"),
        ({"model.embeddings.norm.weight": np.full(4, np.nan)}, "holds NaN or infinite values"),
    ],
)  # fmt: skip
def test_errors_name_the_mismatched_tensor(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_hf({name: value for name, value in (theirs() | changes).items() if value is not None}, SMALL)


OLD = {  # as transformers 4.48 wrote it
    "model_type": "modernbert", "vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 6, "max_position_embeddings": 5, "hidden_activation": "gelu", "norm_eps": 1e-6, "norm_bias": False,
    "attention_bias": False, "mlp_bias": False, "decoder_bias": True, "classifier_bias": False, "classifier_activation": "gelu",
    "classifier_pooling": "mean", "global_attn_every_n_layers": 2, "global_rope_theta": 80000.0, "local_rope_theta": 5000.0,
    "local_attention": 64, "attention_dropout": 0.25, "mlp_dropout": 0.5, "initializer_range": 0.03, "sparse_prediction": True,
}  # fmt: skip


def test_configurations_old_and_new() -> None:
    found = config_from_hf(OLD)
    assert found == EncoderConfig(
        11, 4, 4, 2, 6, 5, 0, "gelu_erf", 0.5, 0.25, 0.03, 1e-6, architecture="modernbert", global_attn_every_n_layers=2,
        local_attention=64, global_rope_theta=80000.0, local_rope_theta=5000.0,
    )  # fmt: skip
    names = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    new = {name: value for name, value in OLD.items() if name not in names} | {
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 80000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
        },
    }
    assert config_from_hf(new) == found
    fields = {name: OLD[name] for name in ("model_type", "vocab_size", "hidden_size", "num_hidden_layers",
              "num_attention_heads", "intermediate_size")}  # fmt: skip
    defaults = config_from_hf(fields)
    assert (defaults.global_rope_theta, defaults.local_rope_theta, defaults.local_attention) == (160_000, 10_000, 128)
    assert (defaults.max_position_embeddings, defaults.global_attn_every_n_layers, defaults.layer_norm_eps) == (8192, 3, 1e-5)


@pytest.mark.parametrize(
    ("changes", "bases"),
    [
        ({"local_rope_theta": None}, (80_000, 80_000)),  # ModernBertAttention of transformers 4: as the global layers
        ({"local_rope_theta": None, "global_rope_theta": None}, (160_000, 160_000)),
        ({"local_rope_theta": None, "rope_parameters": {"sliding_attention": {"rope_theta": 5.0}}}, (80_000, 5)),
    ],
)
def test_local_layers_without_a_base_of_their_own(changes: dict, bases: tuple[float, float]) -> None:
    found = config_from_hf(OLD | changes)
    assert (found.global_rope_theta, found.local_rope_theta) == bases


def test_a_configuration_round_trips() -> None:
    told = json.loads(json.dumps(config_to_hf(config_from_hf(OLD))))
    assert config_from_hf(told) == config_from_hf(OLD)
    assert told["layer_types"] == ["full_attention", "sliding_attention"] * 2 and told["mlp_dropout"] == 0.5
    for name in ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"):
        assert told[name] == OLD[name]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"attention_bias": True}, "attention_bias is True, and clozemill supports false there only"),
        ({"decoder_bias": False}, "decoder_bias is False, and clozemill supports true there only"),
        ({"hidden_activation": "silu"}, "hidden_activation 'silu' is unknown"),
        ({"classifier_activation": "relu"}, "hidden_activation 'gelu' is unknown to clozemill .*, or not its heads'"),
        ({"layer_types": ["sliding_attention"] * 4}, "its layer_types are irregular"),
        ({"layer_types": 3}, "its layer_types are irregular"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "its positions are scaled"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "supports the rope_type default only"),
        ({"rope_parameters": 3}, "its positions are scaled"),
        ({"global_rope_theta": "big"}, "global_rope_theta is 'big'"),
        ({"local_attention": 0}, "local_attention is 0"),
        ({"local_attention": 1}, "local_attention is 1, but must be an integer of at least 2"),
        ({"intermediate_size": None}, "intermediate_size is None, and a ModernBert encoder has a whole number there"),
    ],
)
def test_configurations_that_differ_are_rejected(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config_from_hf(OLD | changes)
