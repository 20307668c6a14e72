"""The README.md of an exported Hugging Face folder: what the encoder is, what it was trained on, and an example that runs."""

import re
from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.model.export.base import Source
from clozemill.pipelines.common.tokenizer_rules import described

_MARKUP = re.compile(r"([\\`*{}\[\]#!|~$<>&])")
_LOADING = {
    "BertForPreTraining": ("AutoModelForPreTraining", "prediction_logits"),
    "BertForMaskedLM": ("AutoModelForMaskedLM", "logits"),
    "BertLMHeadModel": ("AutoModelForCausalLM", "logits"),
    "BertModel": ("AutoModel", "last_hidden_state"),
    "BertForSequenceClassification": ("AutoModelForSequenceClassification", "logits"),
    "BertForTokenClassification": ("AutoModelForTokenClassification", "logits"),
    "BertForQuestionAnswering": ("AutoModelForQuestionAnswering", "start_logits"),
}
_EXAMPLE = """\
import torch
from transformers import {loader}, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loader}.from_pretrained(folder)
batch = tokenizer(["A sentence.", "Another one."], padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    print(model(**batch).{output}.shape)
"""

_TOKENIZER = """\
`AutoTokenizer` (or `tokenizer.json` through the library tokenizers) gives the ids that the model was trained on, for any text.
`BertTokenizer` applies rules of its own to `vocab.txt`: it differs on rare characters, such as those of private use and newer
punctuation.

Special tokens that are written in a text, such as `[SEP]`, are text. To have them found, give `split_special_tokens=False`.
"""
_FILL_MASK = """\
from transformers import pipeline

fill_mask = pipeline("fill-mask", model=".")
print(fill_mask("A [MASK].", tokenizer_kwargs={"split_special_tokens": False}))
"""


def _text(value: Any) -> str:
    """A name or label as Markdown shows it: in one line, no character of it read as markup or as a control character."""
    text = _MARKUP.sub(r"\\\1", " ".join(str(value).split()))
    return "".join(char if char.isprintable() else f"<U+{ord(char):04X}>".replace("<", "\\<") for char in text)


def _rows(source: Source) -> list[tuple[str, Any]]:
    config: EncoderConfig = source.config
    casing = described(source.cased, source.rules)
    casing = "uncased: lower case, accents stripped" if casing == "uncased" else casing
    weights = sum(value.size for value in source.weights().values())
    return [
        ("layers", config.num_hidden_layers),
        ("hidden size", config.hidden_size),
        ("attention heads", config.num_attention_heads),
        ("inner size", config.intermediate_size),
        ("longest sequence it was trained on", config.max_position_embeddings),
        ("attention", config.attention),
        ("activation", config.hidden_act),
        ("weights", f"{weights:,}"),
        ("vocabulary", f"{config.vocab_size:,} WordPieces, {casing}"),
    ]


def _training(about: dict[str, Any]) -> list[str]:
    """What checkpoint.json says of the training."""
    lines, imported = [], about.get("imported")
    if imported:
        lines.append(f"Weights imported from a folder of the format {imported['format']} ({_text(imported['from'])}).")
    if task := about.get("task"):
        answers = f", labels {', '.join(map(_text, task['labels']))}" if task.get("labels") else ""
        lines.append(f"Fine-tuned for the task {task['kind']}{answers}; texts were cut to {task['max_seq_length']} tokens.")
        if task["kind"] == "multilabel":
            threshold = task.get("threshold", 0.5)
            lines.append(f"Each label has a sigmoid of its own; a label is given from a probability of {threshold:g}.")
    elif objective := about.get("objective"):
        lines.append(f"Pretraining objective: {objective}.")
    if about.get("step"):
        lines.append(f"Steps: {about['step']:,}.")
    if digest := (about.get("vocabulary") or {}).get("sha256"):
        lines.append(f"SHA-256 of the vocabulary it was trained with: {digest}.")
    for dataset in about.get("datasets") or ():
        lines.append(f"Dataset: {_text(dataset)}.")
    if base := about.get("baseline"):
        scores = [f"{name} {value:.4f}" for name, value in base.items() if isinstance(value, float)]
        lines.append(f"Without looking at the text ({_text(base['answer'])}): {', '.join(scores) or 'no metric is defined'}.")
    figures = {name: value for name, value in (about.get("eval") or {}).items() if isinstance(value, float)}
    figures.pop("criterion", None)  # the metric that chose the checkpoint, again
    lines += [f"On the {'dev examples' if task else 'eval split'}: {name} {value:.4f}." for name, value in figures.items()]
    lines += [f"Note: {_text(remark)}." for remark in (about.get("eval") or {}).get("remarks", ())]
    return lines or ["Nothing is recorded of its training."]


def card(source: Source, architecture: str) -> str:
    """The text of README.md, with the front matter that model pages read."""
    loader, output = _LOADING[architecture]
    lines = [
        "---", "library_name: transformers", "tags:", "- bert", "- clozemill", "---", "",
        f"# {architecture}", "",
        "A BERT encoder, exported by clozemill.", "",
        "| | |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in _rows(source)), "",
        "## Training", "", *(f"- {line}" for line in _training(source.about)), "",
        "## Usage", "", "```python", _EXAMPLE.format(loader=loader, output=output) + "```", "",
        _TOKENIZER,
    ]  # fmt: skip
    if architecture in ("BertForPreTraining", "BertForMaskedLM"):
        lines += ["```python", _FILL_MASK + "```", ""]
    return "\n".join(lines)
