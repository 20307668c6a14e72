"""The options after --: those of `clozemill prepare` or `clozemill pretrain`, checked here so that no cloud has to."""

import dataclasses
from typing import Any

from clozemill.deploy.config import unknown
from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.trainers.pretraining.config import PretrainConfig

# What a target decides by itself.
_OURS = {"prepare": ("runner", "num_workers", "in_memory", "shuffle"), "pretrain": ("strategy", "tpu")}
_NEEDED = {"prepare": ("input", "vocab", "output"), "pretrain": ("data", "output")}


def _resolved(command: str, config: type, words: list[str]) -> Any:
    """The options as the command would resolve them. Raises UserError for a mistake, as it would there."""
    parser = options.Parser(prog=f"clozemill {command}", allow_abbrev=False, add_help=False)
    options.add_flags(parser, config)
    arguments, extra = parser.parse_known_args(words)
    if extra:
        known = [name for action in parser._actions for name in action.option_strings]
        raise unknown(extra[0], known, f"after --: clozemill {command} doesn't have it")
    for name in _OURS[command]:
        if hasattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')} after --: the target decides that: leave it out")
    if arguments.save_config:
        raise UserError("--save-config after --: nothing is run here: leave it out")
    resolved = options.resolve(config, arguments)
    for name in _NEEDED[command]:
        if not getattr(resolved, name):
            text = config.__dataclass_fields__[name].metadata["help"]
            raise UserError(f"--{name} is missing after --: clozemill {command} needs {text}")
    return resolved


def _seen_by_all(name: str, path: str, in_image: bool = False) -> None:
    if not path.startswith("gs://") and not (in_image and path.startswith("/")):
        raise UserError(
            f"--{name} {path} is no gs:// path, and the machines there don't see the disk of this one: give a gs:// path"
        )


def prepare(words: list[str], cloud: bool) -> dict[str, Any]:
    """The options of `clozemill prepare` that differ from the defaults. `cloud`: all paths must be in a bucket."""
    resolved = _resolved("prepare", PrepareConfig, words)
    if cloud:
        for path in (*resolved.input, resolved.output):
            _seen_by_all("input" if path != resolved.output else "output", path)
        _seen_by_all("vocab", resolved.vocab, in_image=True)
    fields = dataclasses.fields(resolved)
    return {field.name: getattr(resolved, field.name) for field in fields if getattr(resolved, field.name) != field.default}


def flags(values: dict[str, Any]) -> list[str]:
    """Options as words of a command line."""
    words = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else "--no-" + flag.removeprefix("--"))
        elif isinstance(value, tuple):
            words += [flag, *value]
        else:
            words.append(f"{flag}={value}")
    return words


def pretrain(words: list[str]) -> list[str]:
    """`clozemill`'s arguments for training on a TPU, the user's options as they were given."""
    if any(word.split("=")[0] == "--config" for word in words):
        raise UserError("--config after -- names a file that the machines there don't have: give its options as flags")
    resolved = _resolved("pretrain", PretrainConfig, words)
    for path in resolved.data:
        _seen_by_all("data", path)
    _seen_by_all("output", resolved.output)
    return ["pretrain", "--strategy", "tpu", *words]
