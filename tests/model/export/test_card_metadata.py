"""The front matter of a model card, as hubs read it: parsed by a YAML reader, and no statement beyond what is recorded."""

from typing import Any

import pytest
import yaml

from clozemill.model.export.card_metadata import front_matter, license_id
from clozemill.model.export.model_card import card
from clozemill.model.task_model import Task
from tests.model import sources

SHEET = {"sources": ["English Wikipedia"], "licenses": ["CC BY-SA 4.0"], "languages": ["en"]}
DATA = {"name": "wiki-128", "digest": "ab" * 32, "documents": 66, "tokens": 34_643, "datasheet": SHEET}
EVAL = {"loss": 7.1, "masked_lm_loss": 2.53456, "masked_lm_accuracy": 0.25, "perplexity": 12.6, "examples": 9, "criterion": 1.0}


def parsed(about: dict[str, Any], architecture: str = "BertForPreTraining") -> dict[str, Any]:
    text = front_matter(about, architecture)
    assert text.startswith("---\n") and text.endswith("\n---") and text.count("---\n") == 1
    return yaml.safe_load(text.strip("-"))


def test_of_a_pretrained_model() -> None:
    assert parsed({"data": [DATA], "eval": EVAL}) == {
        "language": ["en"],
        "license": "cc-by-sa-4.0",
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["bert", "clozemill"],
        "model-index": [{
            "name": "BertForPreTraining",
            "results": [{
                "task": {"type": "fill-mask"},
                "dataset": {"name": "wiki-128, eval split", "type": "wiki-128"},
                "metrics": [
                    {"type": "loss", "value": 2.5346, "name": "masked-LM loss (nats)"},
                    {"type": "accuracy", "value": 0.25, "name": "masked-LM accuracy"},
                    {"type": "perplexity", "value": 12.6, "name": "masked-LM perplexity"},
                ],
            }],
        }],
    }  # fmt: skip


def test_of_a_fine_tuned_model() -> None:
    figures = {"matthews": 0.31, "accuracy": None, "loss": 0.5, "criterion": -0.31}
    found = parsed({"preset": "cola", "eval": figures}, "BertForSequenceClassification")
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"name": "cola, dev examples", "type": "cola"}
    assert result["metrics"] == [{"type": "matthews_correlation", "value": 0.31, "name": "Matthews correlation"}]
    assert found["pipeline_tag"] == "text-classification" and found["license"] == "unknown" and "language" not in found


def test_figures_of_a_generator_are_not_those_of_the_encoder() -> None:
    """Of replaced-token detection, the encoder is exported without the generator, which predicted the masked tokens."""
    about = {"objective": "rtd", "data": [DATA], "eval": EVAL | {"replaced_accuracy": 0.9}}
    (result,) = parsed(about, "BertModel")["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.9, "name": "accuracy of replaced-token detection"}]
    text = card(sources.source("encoder", {"objective": ""} | about | {"objective": ""}), "BertModel", 9)
    assert "masked_lm_loss 2.5346" in text and "generator" not in text
    source = sources.source("encoder")
    source.about.update(about)
    text = card(source, "BertModel", 9)
    assert "On the eval split: the generator's masked_lm_loss 2.5346." in text
    assert "On the eval split: replaced_accuracy 0.9000." in text
    (result,) = parsed({"objective": "causal", "eval": EVAL}, "BertLMHeadModel")["model-index"][0]["results"]
    assert [each["name"] for each in result["metrics"]] == [
        "next-token loss (nats)", "next-token accuracy", "next-token perplexity"
    ]  # fmt: skip


def test_nothing_was_evaluated() -> None:
    assert "model-index" not in parsed({"eval": None}) and "model-index" not in parsed({})


@pytest.mark.parametrize(
    ("names", "found"),
    [([], "unknown"), (["CC-BY-SA 4.0"], "cc-by-sa-4.0"), (["apache 2.0"], "apache-2.0"), (["ours"], "other"),
     (["MIT", "GFDL"], "other")],
)  # fmt: skip
def test_licences(names: list[str], found: str) -> None:
    assert license_id({"data": [{"datasheet": {"licenses": names}}]}) == found


def test_no_text_breaks_out_of_the_front_matter() -> None:
    evil = "x\n---\nlicense: mit\n# \x1b[31m ': {}"
    found = parsed({"data": [{"name": evil, "datasheet": {"languages": [evil], "licenses": [evil]}}], "eval": EVAL})
    assert found["license"] == "other" and "language" not in found
    assert found["model-index"][0]["results"][0]["dataset"]["type"] == evil


def test_the_card_states_use_limits_and_data() -> None:
    index = {"objective": "mlm+nsp", "trained_length": 40, "data": [DATA], "base_model": "first-run"}
    text = card(sources.source(index=index), "BertForPreTraining", 9)
    assert "- Intended use: predicting masked words, and fine-tuning on a task in en.\n" in text
    assert "- It was trained on sequences of at most 40 tokens." in text and "- It ignores case and accents.\n" in text
    assert "- Sources: English Wikipedia.\n- Licences of the data: CC BY-SA 4.0.\n- Languages: en.\n" in text
    assert f"- Dataset wiki-128: 66 documents, 34,643 tokens, digest `{'ab' * 32}`.\n- Base model: first-run.\n" in text
    assert "- Its data has 34,643 tokens, far less than BERT's" in text


def test_the_card_of_a_model_whose_data_is_unknown() -> None:
    text = card(sources.source(index={"task": Task("classify", ("a", "b")).to_dict()}), "BertForSequenceClassification", 9)
    assert "- Sources: not stated.\n- Licences of the data: not stated.\n- Languages: not stated.\n" in text
    assert "- The language of its data is not stated" in text
