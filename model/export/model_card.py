"""Write the README.md of an exported Hugging Face folder: sizes, training and a runnable example."""

import re
from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.model.conversion import weight_names
from clozemill.model.export import card_metadata
from clozemill.model.export.base import Source
from clozemill.model.export.card_metadata import embeds, front_matter, pipeline, stated
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, described

_MARKUP = re.compile(r"([\\`*{}\[\]#!|~$<>&])")
_LITTLE_TEXT = 100_000_000  # tokens
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

folder = "."  # the folder of this file
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loader}.from_pretrained(folder)
batch = tokenizer(["A sentence.", "Another one."], padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    print(model(**batch).{output}.shape)
"""

_SENTENCES = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")  # the folder of this file
vectors = model.encode(["A sentence.", "Another one."])
print(model.similarity(vectors, vectors))
"""

_TOKENIZER = """\
`AutoTokenizer` (or `tokenizer.json` with the tokenizers library) produces exactly the ids that the model was trained on.
`BertTokenizer` applies its own rules to `vocab.txt`: it differs on rare characters, such as private-use characters and newer
punctuation.

Special tokens in a text, such as `[SEP]`, are treated as text. To match them, pass `split_special_tokens=False`.
"""
_OWN_TOKENIZER = """\
`tokenizer.json` is that of the model this one was made from, unchanged. In the formats SavedModel and Keras, this model takes
ids, no texts: tokenize with this file.

clozemill treats special tokens in a text, such as `[SEP]`, as text, and so does `AutoTokenizer` here. To match them, pass
`split_special_tokens=False`.
"""
_FILL_MASK = """\
from transformers import pipeline

fill_mask = pipeline("fill-mask", model=".")
print(fill_mask("A [MASK].", tokenizer_kwargs={"split_special_tokens": False}))
"""


def _text(value: Any) -> str:
    """Escape a name or label for Markdown, on one line without control characters."""
    text = _MARKUP.sub(r"\\\1", " ".join(str(value).split()))
    return "".join(char if char.isprintable() else f"<U+{ord(char):04X}>".replace("<", "\\<") for char in text)


def _rows(source: Source, weights: int) -> list[tuple[str, Any]]:
    config: EncoderConfig = source.config
    casing = described(source.cased, source.rules)
    casing = "uncased: lowercased, accents stripped" if casing == "uncased" else casing
    return [
        ("layers", config.num_hidden_layers),
        ("hidden size", config.hidden_size),
        ("attention heads", config.num_attention_heads),
        ("inner size", config.intermediate_size),
        ("longest training sequence", config.max_position_embeddings),
        ("attention", config.attention),
        ("activation", config.hidden_act),
        ("weights", f"{weights:,}"),
        ("vocabulary", f"{config.vocab_size:,} {'tokens' if source.tokenizer else f'WordPieces, {casing}'}"),
    ]


def _training(about: dict[str, Any]) -> list[str]:
    """Return what checkpoint.json records of the training."""
    lines, imported = [], about.get("imported")
    if imported:
        lines.append(f"Weights imported from the format {imported['format']} ({_text(imported['from'])}).")
    if task := about.get("task"):
        answers = f", labels {', '.join(map(_text, task['labels']))}" if task.get("labels") else ""
        truncated = f"texts were truncated to {task['max_seq_length']} tokens."
        if task["kind"] == "embed":
            copies = "two random spans of each text" if task.get("positives") == "crop" else "dropout"
            how = f"in-batch negatives, {copies}, temperature {task['temperature']:g}"
            lines.append(f"Trained on texts without labels, as in SimCSE ({how}), with {task['head']} pooling; {truncated}")
        else:
            lines.append(f"Fine-tuned for {task['kind']}{answers}; {truncated}")
        if task["kind"] == "multilabel":
            threshold = task.get("threshold", 0.5)
            lines.append(f"Each label has its own sigmoid; a label is assigned at a probability of {threshold:g} or above.")
    elif objective := about.get("objective"):
        lines.append(f"Pretraining objective: {', then '.join(about.get('objectives') or [objective])}.")
    if share := about.get("average_with_init"):
        lines.append(f"The weights are an average with those before this training, whose share is {share:g}.")
    if about.get("step"):
        lines.append(f"Steps: {about['step']:,}.")
    recorded = about.get("vocabulary") or {}
    if digest := recorded.get("tokenizer") or recorded.get("sha256"):
        what = "tokenizer.json" if recorded.get("tokenizer") else "the training vocabulary"
        lines.append(f"SHA-256 of {what}: {digest}.")
    for dataset in about.get("datasets") or ():
        lines.append(f"Dataset: {_text(dataset)}.")
    if base := about.get("baseline"):
        scores = [f"{name} {value:.4f}" for name, value in base.items() if isinstance(value, float)]
        what = f"Baseline {base.get('how', 'that ignores the text')} ({_text(base['answer'])})"
        lines.append(f"{what}: {', '.join(scores) or 'no metric defined'}.")
    figures = {name: value for name, value in (about.get("eval") or {}).items() if isinstance(value, float)}
    figures.pop("criterion", None)  # duplicates the metric that selected the checkpoint
    own = "dev examples" if task else "eval split"
    for name, value in figures.items():  # those of further eval sets are `wiki/masked_lm_loss`
        where, _, metric = name.rpartition("/")
        if about.get("objective") == "causal":
            metric = metric.replace("masked_lm", "next_token")
        metric = f"the generator's {metric}" if card_metadata.is_generator_s(metric, about) else metric
        lines.append(f"On the {f'eval set {_text(where)}' if where else own}: {metric} {value:.4f}.")
    lines += [f"Note: {_text(remark)}." for remark in (about.get("eval") or {}).get("remarks", ())]
    return lines or ["No training details were recorded."]


_USES = {
    "fill-mask": "predicting masked words, and fine-tuning on a task",
    "text-generation": "estimating the next word, and fine-tuning on a task",
    "sentence-similarity": "vectors of sentences and short texts, for search, clustering and comparison by cosine",
    "feature-extraction": "features of texts, and fine-tuning on a task",
    "text-classification": "answering for texts that resemble its training examples",
    "token-classification": "tagging the words of texts that resemble its training examples",
    "question-answering": "finding answers in contexts that resemble its training examples",
}


def _data(about: dict[str, Any]) -> list[str]:
    """Return what is known of the data and of the model that training started from."""
    lines = []
    for name, field in (("Sources", "sources"), ("Licences of the data", "licenses"), ("Languages", "languages")):
        values = stated(about, field)
        lines.append(f"{name}: {'; '.join(map(_text, values)) if values else 'not stated'}.")
    for each in about.get("data") or ():
        counts = [f"{each[key]:,} {key}" for key in ("documents", "tokens") if isinstance(each.get(key), int)]
        digest = f", digest `{_text(each['digest'])}`" if each.get("digest") else ""
        epochs = f", read {each['epochs']:,.2f} times" if isinstance(each.get("epochs"), float) else ""
        lines.append(f"Dataset {_text(each.get('name', '-'))}: {', '.join(counts) or 'size not recorded'}{digest}{epochs}.")
    if base := about.get("base_model"):
        lines.append(f"Base model: {_text(base)}.")
    return lines


def checked_length(recorded: Any, longest: int) -> int:
    """Return the recorded length that a model was trained on, if it is one, at most that of its positions."""
    return min(recorded, longest) if isinstance(recorded, int) and recorded > 0 else longest


def _limits(source: Source, task: str) -> list[str]:
    """Return intended use and limits that follow from the configuration and the data."""
    about, languages = source.about, stated(source.about, "languages")
    longest = checked_length(about.get("trained_length"), source.config.max_position_embeddings)
    where = f" in {', '.join(map(_text, languages))}" if languages else ""
    lines = [
        f"Intended use: {_USES[task]}{where}.",
        f"It was trained on sequences of at most {longest:,} tokens. Longer texts have to be cut or split.",
    ]
    if not source.cased:
        lines.append("It ignores case" + (" and accents." if source.rules == REFERENCE else "; see the vocabulary below."))
    if not languages:
        lines.append("The language of its data is not stated; it knows no other than that of its data.")
    tokens = [each["tokens"] for each in about.get("data") or () if isinstance(each.get("tokens"), int)]
    if tokens and sum(tokens) < _LITTLE_TEXT:
        lines.append(f"Its data has {sum(tokens):,} tokens, far less than BERT's 3.3 billion words: expect much less of it.")
    if about.get("imported"):
        lines.append("Its weights come from another project, whose card says more about its data.")
    lines.append("It repeats the errors and prejudices of its data. Nobody has tested it for bias or for private content.")
    return lines


def card(source: Source, architecture: str, weights: int) -> str:
    """Return the text of README.md, with the front matter for model pages.

    weights: how many numbers the folder has; a source may have others that its class in transformers leaves out.
    """
    loader, output = _LOADING[architecture.removeprefix("Modern")]
    lines = [
        front_matter(source.about, architecture), "",
        f"# {architecture}", "",
        f"A {weight_names.family(source.config).CLASS.replace('Bert', 'BERT')} encoder, exported by clozemill.", "",
        "## Intended use and limits", "", *(f"- {line}" for line in _limits(source, pipeline(source.about, architecture))), "",
        "## Data", "", *(f"- {line}" for line in _data(source.about)), "",
        "The licence at the top is that of the data where a single one is stated. Set the one that you give the model.", "",
        "## Model", "",
        "| | |", "|---|---|",
        *(f"| {name} | {value} |" for name, value in _rows(source, weights)), "",
        "## Training", "", *(f"- {line}" for line in _training(source.about)), "",
        "## Usage", "", *(["```python", _SENTENCES + "```", ""] if embeds(source.about) else []),
        "```python", _EXAMPLE.format(loader=loader, output=output) + "```", "",
        _OWN_TOKENIZER if source.tokenizer else _TOKENIZER,
    ]  # fmt: skip
    if architecture in ("BertForPreTraining", "BertForMaskedLM", "ModernBertForMaskedLM"):
        lines += ["```python", _FILL_MASK + "```", ""]
    return "\n".join(lines)
