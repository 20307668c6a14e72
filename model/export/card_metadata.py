"""The front matter of a model card: what model hubs index. Pure functions of checkpoint.json."""

import re
from typing import Any

import yaml

PIPELINES = {
    "BertForPreTraining": "fill-mask",
    "BertForMaskedLM": "fill-mask",
    "BertLMHeadModel": "text-generation",
    "BertModel": "feature-extraction",
    "BertForSequenceClassification": "text-classification",
    "BertForTokenClassification": "token-classification",
    "BertForQuestionAnswering": "question-answering",
}


def embeds(about: dict[str, Any]) -> bool:
    """Return whether a checkpoint.json is that of a model that makes sentence vectors."""
    return (about.get("task") or {}).get("kind") == "embed"


def pipeline(about: dict[str, Any], architecture: str) -> str:
    """Return the pipeline of a model card: for sentence vectors, or for a class of transformers, BERT's or ModernBERT's."""
    return "sentence-similarity" if embeds(about) else PIPELINES[architecture.removeprefix("Modern")]


# Hubs' identifiers of licences, by how people write them, without case, spaces and hyphens.
_LICENSES = {
    re.sub(r"[\s-]", "", name): name
    for name in (
        "apache-2.0", "mit", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0", "odc-by", "odbl", "gfdl", "pddl", "gpl-3.0",
    )
}  # fmt: skip
_CODE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,8})?")
# (type that hubs know, name for people) of the metrics that are published.
METRICS = {
    "masked_lm_loss": ("loss", "masked-LM loss (nats)"),
    "masked_lm_accuracy": ("accuracy", "masked-LM accuracy"),
    "next_sentence_accuracy": ("accuracy", "next-sentence accuracy"),
    "replaced_accuracy": ("accuracy", "accuracy of replaced-token detection"),
    "perplexity": ("perplexity", "masked-LM perplexity"),
    "accuracy": ("accuracy", "accuracy"),
    "subset_accuracy": ("accuracy", "accuracy of whole sets of labels"),
    "token_accuracy": ("accuracy", "accuracy of tags"),
    "macro_f1": ("f1", "F1, macro average"),
    "micro_f1": ("f1", "F1, micro average"),
    "binary_f1": ("f1", "F1 of class 1"),
    "entity_f1": ("f1", "F1 of entities"),
    "f1": ("f1", "F1 of words"),
    "exact_match": ("exact_match", "exact match"),
    "matthews": ("matthews_correlation", "Matthews correlation"),
    "pearson": ("pearsonr", "Pearson correlation"),
    "spearman": ("spearmanr", "Spearman correlation"),
}


def stated(about: dict[str, Any], field: str) -> list[str]:
    """Return what the datasheets of a model's data state about a field, each statement once."""
    sheets = [each.get("datasheet") or {} for each in about.get("data") or () if isinstance(each, dict)]
    return list(dict.fromkeys(str(value) for sheet in sheets for value in sheet.get(field) or ()))


def license_id(about: dict[str, Any]) -> str:
    """Return the hub's identifier of the data's licence; "unknown" if none is stated, "other" for several or an unknown one."""
    names = stated(about, "licenses")
    if len(names) != 1:
        return "other" if names else "unknown"
    return _LICENSES.get(re.sub(r"[\s-]", "", names[0].lower()), "other")


def is_generator_s(metric: str, about: dict[str, Any]) -> bool:
    """Return whether a metric is that of the generator of replaced-token detection, which no export has."""
    return about.get("objective") == "rtd" and metric.startswith(("masked_lm_", "perplexity"))


def results(about: dict[str, Any], task: str, name: str) -> list[dict[str, Any]]:
    """Return the evaluation in hubs' `model-index` form; [] if nothing was evaluated."""
    figures = {
        key: value
        for key, value in (about.get("eval") or {}).items()
        if isinstance(value, float) and key in METRICS and not is_generator_s(key, about)
    }
    if not figures:
        return []
    metrics = []
    for key, value in figures.items():
        kind, told = METRICS[key]
        told = told.replace("masked-LM", "next-token") if about.get("objective") == "causal" else told
        metrics.append({"type": kind, "value": round(value, 4), "name": told})
    if preset := about.get("preset"):
        dataset = {"name": f"{preset}, {'held-out examples' if about.get('held_out') else 'dev examples'}", "type": str(preset)}
    else:
        names = [str(each.get("name")) for each in about.get("data") or () if isinstance(each, dict) and each.get("name")]
        own = str(about.get("evaluated_on") or (names[-1] if names else ""))
        dataset = {"name": f"{own or 'dataset'}, eval split", "type": own or "unknown"}
    return [{"name": name, "results": [{"task": {"type": task}, "dataset": dataset, "metrics": metrics}]}]


def front_matter(about: dict[str, Any], architecture: str) -> str:
    """Return the YAML front matter of a model card, with its rulers."""
    task = pipeline(about, architecture)
    languages = [name for name in stated(about, "languages") if _CODE.fullmatch(name)]
    fields: dict[str, Any] = {"language": languages} if languages else {}
    fields |= {"license": license_id(about)}
    if fields["license"] == "other":
        fields["license_name"] = "see-below"
    family = "modernbert" if architecture.startswith("Modern") else "bert"
    library = "sentence-transformers" if embeds(about) else "transformers"
    fields |= {"library_name": library, "pipeline_tag": task, "tags": [family, "clozemill"]}
    if found := results(about, task, architecture):
        fields["model-index"] = found
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)}---"
