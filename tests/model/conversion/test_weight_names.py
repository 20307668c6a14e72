"""Names and layouts of weights, compared with a literal table, and errors that name mismatched tensors."""

import numpy as np
import pytest

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import bert_names
from clozemill.model.conversion.bert_names import config_from_tf1, from_tf1
from clozemill.model.conversion.weight_names import config_from_hf, config_to_hf, from_hf, table
from clozemill.model.conversion.weight_table import to_hf

SMALL = EncoderConfig(
    vocab_size=11, hidden_size=4, num_hidden_layers=2, num_attention_heads=2, intermediate_size=6, max_position_embeddings=5,
    type_vocab_size=3,
)  # fmt: skip
BLOCK = {  # ours: (Hugging Face's, google-research/bert's, our shape); their matrices are transposed
    "attention/query": ("attention.self.query", "attention/self/query", (4, 4)),
    "attention/key": ("attention.self.key", "attention/self/key", (4, 4)),
    "attention/value": ("attention.self.value", "attention/self/value", (4, 4)),
    "attention/output_dense": ("attention.output.dense", "attention/output/dense", (4, 4)),
    "intermediate": ("intermediate.dense", "intermediate/dense", (4, 6)),
    "output": ("output.dense", "output/dense", (6, 4)),
}
NORMS = {
    "attention_layer_norm": ("attention.output.LayerNorm", "attention/output/LayerNorm"),
    "output_layer_norm": ("output.LayerNorm", "output/LayerNorm"),
}
OTHERS = {  # ours: (Hugging Face's, google-research/bert's, our shape, whether theirs is transposed)
    "encoder/embeddings/word_embeddings": (
        "bert.embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings", (11, 4), ""),
    "encoder/embeddings/position_embeddings": (
        "bert.embeddings.position_embeddings.weight", "bert/embeddings/position_embeddings", (5, 4), ""),
    "encoder/embeddings/segment_embeddings": (
        "bert.embeddings.token_type_embeddings.weight", "bert/embeddings/token_type_embeddings", (3, 4), ""),
    "encoder/embeddings/layer_norm/gamma": ("bert.embeddings.LayerNorm.weight", "bert/embeddings/LayerNorm/gamma", (4,), ""),
    "encoder/embeddings/layer_norm/beta": ("bert.embeddings.LayerNorm.bias", "bert/embeddings/LayerNorm/beta", (4,), ""),
    "encoder/pooler/kernel": ("bert.pooler.dense.weight", "bert/pooler/dense/kernel", (4, 4), "hf"),
    "encoder/pooler/bias": ("bert.pooler.dense.bias", "bert/pooler/dense/bias", (4,), ""),
    "masked_lm/transform/kernel": (
        "cls.predictions.transform.dense.weight", "cls/predictions/transform/dense/kernel", (4, 4), "hf"),
    "masked_lm/transform/bias": ("cls.predictions.transform.dense.bias", "cls/predictions/transform/dense/bias", (4,), ""),
    "masked_lm/layer_norm/gamma": (
        "cls.predictions.transform.LayerNorm.weight", "cls/predictions/transform/LayerNorm/gamma", (4,), ""),
    "masked_lm/layer_norm/beta": (
        "cls.predictions.transform.LayerNorm.bias", "cls/predictions/transform/LayerNorm/beta", (4,), ""),
    "masked_lm/output_bias": ("cls.predictions.bias", "cls/predictions/output_bias", (11,), ""),
    "next_sentence/dense/kernel": ("cls.seq_relationship.weight", "cls/seq_relationship/output_weights", (4, 2), "hf tf1"),
    "next_sentence/dense/bias": ("cls.seq_relationship.bias", "cls/seq_relationship/output_bias", (2,), ""),
}  # fmt: skip


def expected() -> dict[str, tuple[str, str, tuple[int, ...], str]]:
    found = dict(OTHERS)
    for index in range(2):
        ours, hf, tf1 = f"encoder/layer_{index}/", f"bert.encoder.layer.{index}.", f"bert/encoder/layer_{index}/"
        for name, (theirs, other, shape) in BLOCK.items():
            found[f"{ours}{name}/kernel"] = (f"{hf}{theirs}.weight", f"{tf1}{other}/kernel", shape, "hf")
            found[f"{ours}{name}/bias"] = (f"{hf}{theirs}.bias", f"{tf1}{other}/bias", shape[1:], "")
        for name, (theirs, other) in NORMS.items():
            found[f"{ours}{name}/gamma"] = (f"{hf}{theirs}.weight", f"{tf1}{other}/gamma", (4,), "")
            found[f"{ours}{name}/beta"] = (f"{hf}{theirs}.bias", f"{tf1}{other}/beta", (4,), "")
    return found


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    stream = np.random.default_rng(seed)
    return {ours: stream.normal(size=about[2]).astype(np.float32) for ours, about in expected().items()}


def theirs(kind: str) -> dict[str, np.ndarray]:
    """Return all weights under the other names, in the layout of the table above."""
    column = {"hf": 0, "tf1": 1}[kind]
    mine = weights()
    return {about[column]: mine[ours].T if kind in about[3] else mine[ours] for ours, about in expected().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and np.array_equal(one[name], other[name]) for name in one
    )


def test_the_table_matches_a_literal_one() -> None:
    found = {entry.ours: (entry.hf, entry.tf1, entry.shape, " ".join(entry.turned)) for entry in table(SMALL)}
    assert found == expected()


def test_the_table_matches_the_model_weights() -> None:
    from clozemill.trainers.engines import train_state

    model = train_state.model_for({"encoder": SMALL.to_dict(), "objective": "mlm+nsp"})
    have = {weight.path.split("/", 1)[1]: tuple(weight.shape) for weight in model.weights}
    assert {entry.ours: entry.shape for entry in table(SMALL)} == have


@pytest.mark.parametrize("kind", ["hf", "tf1"])
def test_weights_are_imported(kind: str) -> None:
    found = {"hf": from_hf, "tf1": from_tf1}[kind](theirs(kind), SMALL)
    assert same(found.weights, weights()) and found.parts == ("pooler", "masked_lm", "next_sentence")
    assert all(value.flags["C_CONTIGUOUS"] for value in found.weights.values())


def test_weights_are_exported() -> None:
    found = to_hf(weights(), table(SMALL))
    assert same(found, theirs("hf")) and all(value.flags["C_CONTIGUOUS"] for value in found.values())
    assert same(from_hf(found, SMALL).weights, weights())


def test_the_head_of_a_task_is_exported() -> None:
    kernel, bias = np.arange(12, dtype=np.float32).reshape(4, 3), np.arange(3, dtype=np.float32)
    mine = weights() | {"head/dense/kernel": kernel, "head/dense/bias": bias}
    found = to_hf(mine, table(SMALL, ("pooler",), ("classifier", 4, 3)))
    assert np.array_equal(found["classifier.weight"], kernel.T) and np.array_equal(found["classifier.bias"], bias)
    assert {name.split(".")[0] for name in found} == {"bert", "classifier"}


def test_older_hugging_face_names() -> None:
    """Without the prefix, LayerNorm with gamma and beta, stored position ids, a separate decoder, other precisions."""
    old = {}
    for name, value in theirs("hf").items():
        name = (
            name.removeprefix("bert.")
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta")
        )
        old[name] = value
    old["embeddings.position_ids"] = np.arange(5)[None]
    old["cls.predictions.decoder.weight"] = old["embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")
    assert same(from_hf(old, SMALL).weights, weights())
    halves = from_hf({name: value.astype(np.float16) for name, value in theirs("hf").items()}, SMALL).weights
    assert same(halves, {name: value.astype(np.float16).astype(np.float32) for name, value in weights().items()})


@pytest.mark.parametrize(
    ("without", "parts"),
    [
        ((), ("pooler", "masked_lm", "next_sentence")),
        (("cls.seq_relationship",), ("pooler", "masked_lm")),
        (("cls.seq_relationship", "bert.pooler"), ("masked_lm",)),
        (("cls.predictions",), ("pooler", "next_sentence")),
        (("cls.",), ("pooler",)),
        (("cls.", "bert.pooler"), ()),
    ],
)
def test_missing_heads_are_allowed(without: tuple[str, ...], parts: tuple[str, ...]) -> None:
    found = from_hf({name: value for name, value in theirs("hf").items() if not (without and name.startswith(without))}, SMALL)
    assert found.parts == parts and found.passed_over == ()
    lacking = {"pooler": "encoder/pooler/", "masked_lm": "masked_lm/", "next_sentence": "next_sentence/"}
    gone = tuple(start for part, start in lacking.items() if part not in parts)
    assert same(found.weights, {name: value for name, value in weights().items() if not (gone and name.startswith(gone))})


def test_heads_of_fine_tuned_models_are_skipped() -> None:
    found = from_hf(theirs("hf") | {"classifier.weight": np.ones((3, 4)), "classifier.bias": np.ones(3)}, SMALL)
    assert same(found.weights, weights()) and found.passed_over == ("classifier.bias", "classifier.weight")
    found = from_tf1(theirs("tf1") | {"output_weights": np.ones((3, 4)), "output_bias": np.ones(3)}, SMALL)
    assert same(found.weights, weights()) and found.passed_over == ("output_bias", "output_weights")


def test_optimizer_variables_are_skipped() -> None:
    more = {
        "global_step": np.array(7),
        "bert/pooler/dense/bias/adam_m": np.ones(4),
        "cls/predictions/output_bias/adam_v": np.ones(11),
    }
    assert same(from_tf1(theirs("tf1") | more, SMALL).weights, weights())
    wanted = bert_names.tf1_wanted(SMALL)
    assert not any(wanted(name) for name in more) and all(wanted(name) for name in theirs("tf1"))


QUERY = "bert.encoder.layer.1.attention.self.query.weight"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({QUERY: None}, f"the tensor {QUERY} is missing"),
        ({"cls.predictions.bias": None}, "the tensor cls.predictions.bias is missing"),
        ({"bert.pooler.dense.bias": None}, "the tensor bert.pooler.dense.bias is missing"),
        ({"bert.pooler.dense.bias": None, "bert.pooler.dense.weight": None}, "the tensor bert.pooler.dense.weight is missing"),
        ({QUERY: np.ones((4, 5))}, rf"the tensor {QUERY} has the shape \[4, 5\], and its configuration asks for \[4, 4\]"),
        (
            {"bert.encoder.layer.0.intermediate.dense.weight": np.ones((4, 6))},
            r"intermediate.dense.weight has the shape \[4, 6\], and its configuration asks for \[6, 4\]",
        ),
        (
            {"bert.encoder.layer.2.output.dense.bias": np.ones(4)},
            "the tensor bert.encoder.layer.2.output.dense.bias has no place in a BERT encoder of these sizes",
        ),
        ({"bert.a": np.ones(1), "cls.b": np.ones(1)}, r"the tensor bert.a \(and 1 more\) has no place"),
        ({"cls.predictions.decoder.weight": np.ones((11, 4))}, "cls.predictions.decoder.weight is not the word embeddings"),
        ({"cls.predictions.decoder.bias": np.ones(11)}, "decoder.bias differs from cls.predictions.bias"),
        ({"pooler.dense.bias": np.ones(4)}, "the tensor pooler.dense.bias is there twice"),
    ],
)
def test_errors_name_the_mismatched_tensor(changes: dict, sentence: str) -> None:
    tensors = theirs("hf") | changes
    with pytest.raises(ValueError, match=sentence):
        from_hf({name: value for name, value in tensors.items() if value is not None}, SMALL)


def test_errors_name_the_mismatched_variable() -> None:
    for changes, sentence in (
        ({"bert/pooler/dense/kernel": np.ones((4, 5))}, r"bert/pooler/dense/kernel has the shape \[4, 5\], .* \[4, 4\]"),
        ({"bert/encoder/layer_2/output/dense/bias": np.ones(4)}, "bert/encoder/layer_2/output/dense/bias has no place"),
        ({"cls/seq_relationship/output_weights": np.ones((4, 2))}, r"output_weights has the shape \[4, 2\], .* \[2, 4\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            from_tf1(theirs("tf1") | changes, SMALL)


def test_errors_name_our_missing_weight() -> None:
    mine = weights()
    del mine["encoder/layer_1/output/bias"]
    with pytest.raises(ValueError, match="the tensor encoder/layer_1/output/bias is missing"):
        to_hf(mine, table(SMALL))


HF = {
    "model_type": "bert", "vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 6, "max_position_embeddings": 5, "type_vocab_size": 3, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3, "initializer_range": 0.04, "layer_norm_eps": 1e-5,
}  # fmt: skip


def test_a_configuration_from_hugging_face() -> None:
    found = config_from_hf(HF | {"transformers_version": "4", "architectures": ["BertModel"]})
    assert found == EncoderConfig(11, 4, 2, 2, 6, 5, 3, "gelu_erf", 0.2, 0.3, 0.04, 1e-5)
    assert config_from_hf({name: value for name, value in HF.items() if name != "model_type"}) == found
    assert config_from_hf(HF | {"is_decoder": True}).attention == "causal"


def test_activations() -> None:
    names = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu")
    found = [config_from_hf(HF | {"hidden_act": name}).hidden_act for name in names]
    assert found == ["gelu_erf", "gelu_tanh", "gelu_tanh", "gelu_tanh", "relu"]
    back = {name: config_to_hf(EncoderConfig(hidden_act=name))["hidden_act"] for name in ("gelu_erf", "gelu_tanh", "relu")}
    assert back == {"gelu_erf": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
    assert config_from_tf1(HF).hidden_act == "gelu_tanh"  # the activation that google-research/bert computes under that name


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_a_configuration_round_trips(attention: str) -> None:
    config = EncoderConfig(**SMALL.to_dict() | {"attention": attention, "hidden_dropout_prob": 0.25, "layer_norm_eps": 1e-6})
    assert config_from_hf(config_to_hf(config)) == config
    assert ("is_decoder" in config_to_hf(config)) == (attention == "causal")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "roberta"}, "its model_type is 'roberta', but clozemill knows only bert and modernbert"),
        ({"model_type": "distilbert"}, "its model_type is 'distilbert'"),
        ({"position_embedding_type": "relative_key"}, "its position_embedding_type is 'relative_key'"),
        ({"hidden_act": "silu"}, r"hidden_act 'silu' is unknown to clozemill \(gelu, "),
        ({"hidden_act": ["gelu"]}, "hidden_act .* is unknown to clozemill"),
        ({"is_decoder": True, "add_cross_attention": True}, "it has cross attention"),
        ({"embedding_size": 2}, "its embedding_size differs from hidden_size"),
        ({"hidden_size": None}, "hidden_size is None, and a BERT encoder has a whole number there"),
        ({"vocab_size": "11"}, "vocab_size is '11'"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3}, "hidden_size 4 is not a multiple of 3 attention heads"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small', and a BERT encoder has a number there"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob and attention_probs_dropout_prob must be at least 0 and below 1"),
    ],
)
def test_configurations_of_other_models_are_rejected(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config_from_hf(HF | changes)


def test_tf1_configurations_of_other_models_are_rejected() -> None:
    with pytest.raises(ValueError, match="hidden_act 'gelu_new' is unknown to clozemill"):
        config_from_tf1(HF | {"hidden_act": "gelu_new"})
    with pytest.raises(ValueError, match="hidden_size is None"):
        config_from_tf1({"hidden_act": "gelu", "vocab_size": 3})
