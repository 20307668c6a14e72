"""Write Hugging Face folders that `transformers` can load; model/conversion/huggingface.py reads them.

    config.json  model.safetensors  tokenizer.json  vocab.txt  tokenizer_config.json  README.md

The tokenizer is written by model/conversion/tokenizer_json.py, the card by model_card.py, and what sentence-transformers needs
of a model that makes sentence vectors by sentence_transformers.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from clozemill.model.conversion import tokenizer_file, tokenizer_json, weight_names
from clozemill.model.conversion.huggingface import CONFIG, WEIGHTS, read
from clozemill.model.conversion.weight_table import to_hf
from clozemill.model.export import hf_process, sentence_transformers
from clozemill.model.export.base import Source
from clozemill.model.export.model_card import card
from clozemill.model.inputs import TOKENS, assemble
from clozemill.model.task_heads import TASK_HEADS

__all__ = ["architecture", "checked_with", "outputs", "write"]


def architecture(source: Source) -> str:
    """Return transformers' class for a source. Raises ValueError if there is none."""
    task, causal, prefix = source.task, source.config.attention == "causal", weight_names.family(source.config).CLASS
    if task is None:
        if "masked_lm" not in source.parts:
            return f"{prefix}Model"
        if "next_sentence" in source.parts and prefix == "Bert":
            return "BertForPreTraining"
        return "BertLMHeadModel" if causal else f"{prefix}ForMaskedLM"
    if task.head == "bilstm":
        raise ValueError(f"transformers has no class for the head {task.head}: export to keras or savedmodel")
    if task.layers != (-1,):
        layers = ",".join(map(str, task.layers))
        raise ValueError(f"transformers has no class for a head on the layers {layers}: export to keras or savedmodel")
    return prefix + TASK_HEADS[task.kind].transformers[0]


def _configuration(source: Source) -> dict[str, Any]:
    """config.json"""
    task = source.task
    more: dict[str, Any] = {}
    if task is not None and not source.model.pools and task.kind != "spans":
        names = task.labels or ("LABEL_0",)
        more = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
        if problem := TASK_HEADS[task.kind].transformers[2]:
            more["problem_type"] = problem
    ids = {token: index for index, token in enumerate(source.vocabulary)}
    return {
        "architectures": [architecture(source)],
        **weight_names.config_to_hf(source.config),
        "pad_token_id": ids["[PAD]"],
        **_special_ids(source, ids),
        "torch_dtype": "float32",
        **more,
    }


def _special_ids(source: Source, ids: dict[str, int]) -> dict[str, int]:
    """Return the ids of [CLS] and [SEP] if the architecture has defaults for them, which are those of another vocabulary."""
    if source.config.architecture == "bert":
        return {}
    cls, sep = ids["[CLS]"], ids["[SEP]"]
    return {"cls_token_id": cls, "sep_token_id": sep, "bos_token_id": cls, "eos_token_id": sep}


def write(source: Source, folder: str) -> None:
    """Write a source as a Hugging Face folder. Raises ValueError for a head that transformers has no class for."""
    there, settings = Path(folder), _configuration(source)
    head = None
    if source.task is not None and not source.model.pools:
        head = (TASK_HEADS[source.task.kind].transformers[1], source.config.hidden_size, source.task.outputs)
    parts = weight_names.family(source.config).written(source.parts, head is not None)
    tensors = to_hf(source.weights(), weight_names.table(source.config, parts, head))
    save_file(tensors, there / WEIGHTS, metadata={"format": "pt"})
    (there / CONFIG).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")
    write_tokenizer(source, there)
    size = sum(tensor.size for tensor in tensors.values())
    (there / "README.md").write_text(card(source, settings["architectures"][0], size), "utf-8")
    if source.task is not None and source.model.pools:
        sentence_transformers.write(source, there)


def checked_with() -> str:
    """Return the name of the library that `outputs` uses."""
    if not (absent := hf_process.missing()):
        return "transformers"
    return (
        f"clozemill's own reader, not by transformers, for {' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not "
        "installed: pip install 'clozemill[hf]'"
    )


def outputs(folder: str, texts: list[tuple[str, str]], features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the folder's outputs, from transformers or, if it isn't installed, from our model with the folder's weights.

    Raises ValueError if tokenizer.json gives other ids than the features, hf_process.ProcessDied if transformers fails.
    """
    _check_tokenizer(Path(folder), texts, features)
    found = _own_outputs(Path(folder), features) if hf_process.missing() else hf_process.outputs(folder, features)
    return found | sentence_transformers.outputs(Path(folder), found["sequence_output"], features["input_mask"])


def _own_outputs(folder: Path, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of the encoder, read from the files."""
    import keras

    from clozemill.model.pretraining_model import EncoderModel

    found = read(folder)
    model = EncoderModel(found.config)
    model.build()
    for weight in model.weights:
        name = weight.path.split("/", 1)[1]
        if name in found.converted.weights:
            weight.assign(found.converted.weights[name])
    encoded = model({name: features[name] for name in TOKENS})
    names = ("sequence_output", *(("pooled_output",) if "pooler" in found.converted.parts else ()))
    return {name: keras.ops.convert_to_numpy(encoded[name]) for name in names}


def _check_tokenizer(folder: Path, texts: list[tuple[str, str]], features: dict[str, np.ndarray]) -> None:
    tokenizer = tokenizer_file.for_texts(Tokenizer.from_file(str(folder / tokenizer_json.TOKENIZER)))
    firsts, seconds = (
        [np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32) for text in side]
        for side in zip(*texts, strict=True)
    )
    known = tokenizer.get_vocab()
    pad, cls, sep = (known[token] for token in ("[PAD]", "[CLS]", "[SEP]"))
    found = assemble(firsts, seconds, (pad, cls, sep), features["input_ids"].shape[1])
    for row, (text, _) in enumerate(texts):
        if not all(np.array_equal(found[name][row], features[name][row]) for name in found):
            raise ValueError(f"{tokenizer_json.TOKENIZER} gives other ids for the text {text[:60]!r}")


def write_tokenizer(source: Source, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, and vocab.txt for WordPiece."""
    flags: dict[str, bool] = {}
    if source.tokenizer:
        (folder / tokenizer_json.TOKENIZER).write_bytes(source.tokenizer)
    else:
        built = tokenizer_json.build(source.vocabulary, source.cased, source.rules).to_str(pretty=True)
        (folder / tokenizer_json.TOKENIZER).write_text(built, "utf-8")  # its `save` raises a bare Exception on a full disk
        (folder / tokenizer_json.VOCAB).write_bytes(("\n".join(source.vocabulary) + "\n").encode())
        flags = {
            "do_lower_case": not source.cased,
            "strip_accents": source.rules.strips(source.cased),
            "tokenize_chinese_chars": source.rules.tokenize_chinese_chars,
        }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # uses tokenizer.json unchanged; BertTokenizer would rebuild its own
        **flags,
        "model_max_length": source.max_seq_length,
        "model_input_names": ["input_ids", *(["token_type_ids"] if source.config.type_vocab_size else []), "attention_mask"],
        "clean_up_tokenization_spaces": not source.tokenizer,
        "split_special_tokens": True,  # as in tokenizer.json: transformers would add them, and match them in texts
        **tokenizer_json.SPECIAL,
    }
    (folder / tokenizer_json.SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
