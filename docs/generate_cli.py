"""Write docs/reference/cli: a page per command, generated from the option dataclasses. A test checks that it is current.

python docs/generate_cli.py
"""

import dataclasses
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from clozemill.deploy.commands import COMMANDS, Command
from clozemill.pipelines.command_line.options import GROUPS, item_type, requirement

FOLDER = Path(__file__).parent / "reference/cli"
NOTICE = "<!-- Written by docs/generate_cli.py from the option dataclasses; do not edit. -->\n"
COMMON = """\
Every command also has `--config FILE` (YAML with any of these options; flags override it) and `--save-config FILE` (write the
resolved configuration to a file), `--quiet` (no progress, and nothing about what is written to files), `--verbose` (also the
options and versions used, and the messages of libraries), `--debug` (the traceback of an error), `--version` and `--help`.
"""
OVERWRITE = """\
One rule holds for all outputs. If the output exists, a command refuses it with exit code 2; `prepare`, `pretrain`, `finetune`
and `contrast` resume their own. With `--overwrite` it is replaced, and these four start over. Only what clozemill wrote is
replaced: in a folder, the files of known names, and only if the folder carries clozemill's marker (`dataset.json` or `.work/`
of a dataset, `run.json`, `.clozemill-export.json`, `checkpoint.json` of an import, `.clozemill-demo`). Other files stay. A
file, an export and an import keep their content until the new one is complete. A dataset and a run are unfinished from the
first removal on: after a kill, run the same command without `--overwrite` to resume the new one. Input is never replaced: an
input file that is the output, or in it, is refused. `--overwrite` isn't saved with the configuration. `--save-config` always
replaces its file.
"""
SAVED = """\
`vocab`, `prepare`, `pretrain`, `finetune` and `contrast` also leave their configuration beside their output: `vocab.txt.yaml`,
`DATASET/prepare.yaml`, and `pretrain.yaml`, `finetune.yaml` or `contrast.yaml` in the folder of the run. An option that neither
clozemill nor Beam knows is an error.
"""
RESUMED = ("prepare", "pretrain", "finetune", "contrast")  # the commands whose work can be resumed
IDENTITY = """\
"Same on resume" marks the options that decide what is written: a second run in the same folder needs the same values.
The other options may change between runs. Input files and datasets are compared by content, not by name.
"""


def _cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def _code(text: str) -> str:
    """Format a text as code in a cell, where only the bar needs an escape."""
    return "`" + text.replace("|", "\\|") + "`"


def _types(field: dataclasses.Field) -> list[Any]:
    """Return the types of a field's annotation, without None."""
    parts = get_args(field.type) if isinstance(field.type, types.UnionType) else (field.type,)
    return [part for part in parts if part is not type(None)]


def _values(field: dataclasses.Field) -> str:
    """Return the values of a field: its choices, or its type and range."""
    meta, (kind, *others) = field.metadata, _types(field)
    if meta["choices"]:
        return ", ".join(_code(choice) for choice in meta["choices"])
    if others:
        return "string, or list in YAML"
    if get_origin(kind) is tuple:
        return "list in YAML" if item_type(field) else "one or more strings"
    name = {bool: "flag", int: "integer", float: "number", str: "string"}[kind]
    low, high = meta["low"], meta["high"]
    bounds = {(True, True): f"{low} to {high}", (True, False): f"at least {low}"}.get((low is not None, high is not None), "")
    return f"{name}, {bounds}" if bounds else name


def _default(field: dataclasses.Field) -> str:
    """Return the default of a field as a flag or YAML would give it."""
    if needed := requirement(field):
        return needed
    if field.default in ("", None, ()):
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return _code(" ".join(field.default) if isinstance(field.default, tuple) else f"{field.default}")


def _name(field: dataclasses.Field) -> str:
    """Return the name of a field on the command line; a list of mappings has only its YAML name."""
    (kind,) = _types(field)
    if item_type(field):
        return _code(f"{field.name}:")
    if not field.metadata["flag"]:
        return _code(field.name.upper())
    flag = field.name.replace("_", "-")
    return f"`--{flag}`, `--no-{flag}`" if kind is bool else f"`--{flag}`"


def _tables(config: type, identity: bool) -> str:
    """Return one table per group of options, in the order of --help."""
    parts = []
    for group in GROUPS:
        listed = [field for field in dataclasses.fields(config) if field.metadata["group"] == group]
        if listed:
            listed.sort(key=lambda field: not field.metadata["required"])
            parts.append(f"## {group[0].upper()}{group[1:]}\n\n{_table(listed, identity)}")
    return "\n".join(parts)


def _table(options: Sequence[dataclasses.Field], identity: bool, flags: bool = True) -> str:
    """Return a table with one row per option. flags: whether the options are also flags, or only YAML keys."""
    names = ["Option", "Value", "Default", *(["Same on resume"] if identity else []), "Meaning"]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for field in options:
        same = [("yes" if field.metadata["identity"] else "")] if identity else []
        name = _name(field) if flags else _code(field.name)
        cells = [name, _values(field), _default(field), *same, _cell(field.metadata["help"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _nested(config: type, within: str = "") -> str:
    """Return tables of the mappings that only YAML can give. within: where the configuration itself is an item of a list."""
    parts = []
    for field in dataclasses.fields(config):
        if item := item_type(field):
            name, table = f"`{field.name}`{within}", _table(dataclasses.fields(item), identity=False, flags=False)
            parts.append(f"\n## Keys of each entry of {name}\n\n{table}{_nested(item, f' in `{field.name}`')}")
    return "".join(parts)


def _page(name: str, command: Command) -> str:
    """Return the page of one command."""
    identity = name in RESUMED
    extra = "Options of the Beam runner (`--runner`) are passed on to it.\n\n" if command.passes_on else ""
    extra += "Everything after `--` is passed to the command that runs remotely.\n\n" if command.after_dashes else ""
    return (
        f"# clozemill {name}\n\n{NOTICE}\n{command.help[0].upper()}{command.help[1:]}.\n\n"
        f"<!-- not run: the example of --help -->\n```sh\n{command.example}\n```\n\n"
        f"{extra}{COMMON}\n{IDENTITY if identity else ''}{chr(10) if identity else ''}"
        f"{_tables(command.config, identity)}{_nested(command.config)}"
    )


def pages() -> dict[str, str]:
    """Return the text of every page, by file name."""
    lines = [f"| [`clozemill {name}`]({name}.md) | {_cell(each.help)} |" for name, each in COMMANDS.items()]
    index = f"# Commands\n\n{NOTICE}\n" + "| Command | What it does |\n|---|---|\n" + "\n".join(lines) + "\n"
    index += f"\n{SAVED}\n{OVERWRITE}\n[Exit codes](../exit-codes.md) are the same for all commands.\n"
    return {"index.md": index} | {f"{name}.md": _page(name, each) for name, each in COMMANDS.items()}


def main() -> None:
    """Write the pages, and remove those of commands that no longer exist."""
    written = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
