"""Fetches a model folder from the Hugging Face hub, with the optional library huggingface_hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from clozemill.pipelines.common.errors import UserError

# The files that import reads; never pickled weights, nor code.
FILES = (
    "config.json", "model*.safetensors", "model.safetensors.index.json", "vocab.txt", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
HOW = "pip install huggingface_hub, then hf download google-bert/bert-base-uncased --local-dir FOLDER"
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Source:
    """A local model folder. name: its name, or the id on the hub. commit: the hub's commit, "" for a local folder."""

    folder: str
    name: str
    commit: str = ""


def find_source(source: str, revision: str) -> Source:
    """Return a local folder as it is, or the folder of a model on the hub, downloaded. Raises UserError."""
    if Path(source).is_dir():
        if revision:
            raise UserError(f"--revision is for models of the hub, and {source} is a folder: leave it out")
        return Source(source, Path(source).resolve().name)
    if Path(source).exists() or not _ID.fullmatch(source):
        raise UserError(
            f"{source} is not a folder: give a folder of a Hugging Face or google-research/bert model (to fetch one: {HOW}), "
            "or a model's id on the hub, such as google-bert/bert-base-uncased"
        )
    folder = _fetched(source, revision)
    return Source(folder, source, Path(folder).name)  # the library names the folder after the commit


def _fetched(name: str, revision: str) -> str:
    """Return the folder of a downloaded model. Raises UserError."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise UserError(
            f"{name} is not a folder, and fetching it from the hub needs huggingface_hub: pip install 'clozemill[hub]', or "
            "give a folder with its files"
        ) from None
    try:
        return huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(FILES))
    except errors.GatedRepoError:
        problem, hint = "needs its authors' consent", "ask for it on the model's page, then run hf auth login"
    except errors.RevisionNotFoundError:
        problem, hint = f"has no revision {revision!r}", "give a branch, a tag or a commit of the model"
    except errors.RepositoryNotFoundError:
        problem, hint = "is neither a folder nor a public model of the hub", "check the name, or run hf auth login"
    except Exception as error:
        problem = f"can't be fetched from the hub ({' '.join(str(error).split())[:200] or type(error).__name__})"
        hint = f"check the network, or give a folder that was fetched elsewhere ({HOW})"
    raise UserError(f"{name} {problem}: {hint}")
