"""The options after --, for `clozemill prepare` or `clozemill pretrain`. They are validated here, before submission."""

import dataclasses
from typing import Any

from clozemill.deploy.config import SubmitConfig, unknown
from clozemill.pipelines.command_line import flags, options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.trainers.pretraining.config import PretrainConfig

# Options that the target sets, and what to do instead.
_OURS = {
    "prepare": dict.fromkeys(("runner", "num_workers", "in_memory", "shuffle"), "leave it out"),
    "pretrain": {
        "strategy": "leave it out",
        "tpu": "leave it out",
        "engine": "give it before --, because it also chooses the image",
    },
}
_NEEDED = {"prepare": ("input", "vocab", "output"), "pretrain": ("data", "output")}


def _resolved(command: str, config: type[options.Dataclass], words: list[str], **ours: str) -> Any:
    """Resolve the options as the command would. Raises UserError for a mistake, as the command would.

    ours: values of options that the target sets.
    """
    parser = flags.Parser(prog=f"clozemill {command}", allow_abbrev=False, add_help=False)
    flags.add_flags(parser, config)
    arguments, extra = parser.parse_known_args(words)
    if extra:
        known = [name for action in parser._actions for name in action.option_strings]
        raise unknown(extra[0], known, f"after --: clozemill {command} doesn't have it")
    for name, instead in _OURS[command].items():
        if hasattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')} after -- is set by the target: {instead}")
        if name in ours:
            setattr(arguments, name, ours[name])
    if arguments.save_config:
        raise UserError("--save-config after -- has no effect: leave it out")
    resolved = options.resolve(config, arguments)
    for name, instead in _OURS[command].items():
        if name not in ours and getattr(resolved, name) != config.__dataclass_fields__[name].default:
            raise UserError(f"{name} in the --config after -- is set by the target: {instead}")
    for name in _NEEDED[command]:
        if name == "data" and vars(resolved).get("branch_from"):  # a branch reads the data of its trunk
            continue
        if not getattr(resolved, name):
            text = config.__dataclass_fields__[name].metadata["help"]
            raise UserError(f"--{name} is missing after --: give {text}")
    return resolved


def _seen_by_all(name: str, path: str, in_image: bool = False) -> None:
    if not path.startswith("gs://") and not (in_image and path.startswith("/")):
        raise UserError(
            f"--{name} {path} is not a gs:// path, and the remote machines can't read this machine's disk: give a gs:// path"
        )


def prepare(words: list[str], cloud: bool) -> dict[str, Any]:
    """Return the options of `clozemill prepare` that differ from the defaults. `cloud`: all paths must be in a bucket."""
    resolved = _resolved("prepare", PrepareConfig, words)
    if cloud:
        for name in ("input", "vocab", "output", "decontaminate", "exclude_ids"):
            value = getattr(resolved, name)
            for path in value if isinstance(value, tuple) else (value,) if value else ():
                _seen_by_all(name.replace("_", "-"), path, in_image=name == "vocab")
    fields = [field for field in dataclasses.fields(resolved) if not (cloud and field.name == "progress")]  # no terminal there
    return {field.name: getattr(resolved, field.name) for field in fields if getattr(resolved, field.name) != field.default}


def check_single_job(values: dict[str, Any]) -> None:
    """Raise UserError for options of prepare that need two jobs, one after the other, which a Flex Template can't start."""
    for name, value in (("dedup", "near"), ("eval_by", "cluster")):
        if values.get(name) == value:
            raise UserError(
                f"--{name.replace('_', '-')} {value} needs two jobs, but a template starts only one: "
                "run clozemill prepare --runner DataflowRunner from a machine that stays up, or leave it out"
            )


def as_words(values: dict[str, Any]) -> list[str]:
    """Return options as words of a command line."""
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


def pretrain(submit: SubmitConfig, words: list[str]) -> list[str]:
    """Return the arguments of `clozemill` for training on the requested device, with the user's options unchanged."""
    if any(word.split("=")[0] == "--config" for word in words):
        raise UserError("--config after -- names a file that the remote machines don't have: give its options as flags")
    strategy = submit.accelerator().strategy
    resolved = _resolved("pretrain", PretrainConfig, words, engine=submit.engine, strategy=strategy)
    resolved.check_engine()
    if resolved.overwrite:
        raise UserError("--overwrite after -- would start over after every preemption: leave it out, and give a new --output")
    for path in resolved.data:
        _seen_by_all("data", path)
    for path in resolved.eval_sets().values():
        _seen_by_all("eval-data", path)
    _seen_by_all("output", resolved.output)
    for name in ("init", "branch_from"):
        if path := getattr(resolved, name):
            _seen_by_all(name.replace("_", "-"), path)
    if resolved.track:
        raise UserError(
            f"--track {resolved.track} after -- needs its library and a key, which the image of the trainer doesn't have: "
            "leave it out, and read metrics.jsonl or TensorBoard's events in --output"
        )
    engine = [] if submit.engine == PretrainConfig.engine else ["--engine", submit.engine]
    return ["pretrain", *engine, "--strategy", strategy, *words]
