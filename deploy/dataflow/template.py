"""What the Flex Template's launcher runs in the image: the template's parameters become options of `clozemill prepare`.

The launcher gives every parameter and pipeline option as --name=value; ours have dashes, switches and lists.
"""

import os
import shlex
import sys

from clozemill.deploy.dataflow.metadata import FIELDS, KINDS


def arguments(words: list[str]) -> list[str]:
    """The launcher's options as `clozemill prepare` takes them; those that aren't ours are Beam's, and stay as they are."""
    ours = {field.name: field for field in FIELDS}
    command = ["prepare", "--no-progress"]
    for word in words:
        name, _, value = word.removeprefix("--").partition("=")
        flag = "--" + name.replace("_", "-")
        if name not in ours:
            command.append(word)
        elif KINDS.get(ours[name].type) == "BOOLEAN":
            command.append(flag if value.lower() == "true" else "--no-" + flag.removeprefix("--"))
        elif ours[name].type == tuple[str, ...]:
            command += [flag, *shlex.split(value)]
        else:
            command.append(f"{flag}={value}")
    return command


if __name__ == "__main__":
    os.execvp("clozemill", ["clozemill", *arguments(sys.argv[1:])])
