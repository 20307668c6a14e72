"""`clozemill completion`: print a script that completes commands, options and choices in bash, zsh or fish.

source <(clozemill completion bash)
"""

import dataclasses
import shlex

from clozemill.deploy.commands import COMMANDS, COMMON_FLAGS
from clozemill.deploy.config import CompletionConfig
from clozemill.pipelines.command_line.options import flag_name, type_of

# zsh runs the same function, through its own emulation of bash's completion.
_BASH = """\
_clozemill() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" words="" place
    for ((place = 1; place < COMP_CWORD; place++)); do
        case "${{COMP_WORDS[place]}}" in
            -*) ;;
            *) command="${{COMP_WORDS[place]}}"; break ;;
        esac
    done
    case "$command:$previous" in
{values}
        *)
            case "$command" in
                "") words="{commands}" ;;
{flags}
            esac
            if [[ -n "$command" && "$current" != -* ]]; then words=""; fi ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _clozemill clozemill
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def flag_words(config: type) -> list[str]:
    """Return the flags of a command, with those that switch something off."""
    words = []
    for field in dataclasses.fields(config):
        if field.metadata["flag"] and not dataclasses.is_dataclass(type_of(field)):
            name = flag_name(field)
            words += [name, f"--no-{name.removeprefix('--')}"] if type_of(field) is bool else [name]
    return [*words, *COMMON_FLAGS]


def _choices(config: type) -> dict[str, tuple[str, ...]]:
    """Return the choices of the options that have them; those of the first positional argument by ""."""
    found: dict[str, tuple[str, ...]] = {}
    for field in dataclasses.fields(config):
        if field.metadata["choices"]:
            found.setdefault(flag_name(field) if field.metadata["flag"] else "", field.metadata["choices"])
    return found


def bash() -> str:
    """Return the script for bash."""
    values, flags = [], []
    for name, command in COMMANDS.items():
        flags.append(f'                {name}) words="{" ".join(flag_words(command.config))}" ;;')
        for flag, choices in _choices(command.config).items():
            values.append(f'        {name}:{flag or name}) words="{" ".join(choices)}" ;;')
    return _BASH.format(values="\n".join(values), flags="\n".join(flags), commands=" ".join(COMMANDS))


def fish() -> str:
    """Return the script for fish."""
    lines = []
    for name, command in COMMANDS.items():
        lines.append(f"complete -c clozemill -n __fish_use_subcommand -f -a {name} -d {shlex.quote(command.help)}")
        seen, choices = shlex.quote(f"__fish_seen_subcommand_from {name}"), _choices(command.config)
        if "" in choices:
            lines.append(f"complete -c clozemill -n {seen} -f -a '{' '.join(choices[''])}'")
        texts = {flag_name(field): field.metadata["help"] for field in dataclasses.fields(command.config)}
        switches = {flag_name(field) for field in dataclasses.fields(command.config) if type_of(field) is bool}
        for flag in flag_words(command.config):
            takes = (
                f" -x -a '{' '.join(choices[flag])}'" if flag in choices else " -r" if flag in texts.keys() - switches else ""
            )
            about = f" -d {shlex.quote(texts[flag])}" if flag in texts else ""
            lines.append(f"complete -c clozemill -n {seen} -l {flag.removeprefix('--')}{takes}{about}")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": bash, "zsh": lambda: _ZSH + bash(), "fish": fish}


def main(config: CompletionConfig) -> int:
    """Print the script."""
    print(SHELLS[config.shell](), end="")
    return 0
