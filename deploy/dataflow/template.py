"""Entry point of the Flex Template's launcher in the image: convert parameters to options of `clozemill prepare`.

The launcher passes every parameter and pipeline option as --name=value; clozemill's options have dashes, switches and lists.
"""

import os
import shlex
import sys

from clozemill.deploy.dataflow.metadata import FIELDS, KINDS


def arguments(words: list[str]) -> list[str]:
    """Convert the launcher's options to those of `clozemill prepare`; unknown ones belong to Beam and are unchanged."""
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
