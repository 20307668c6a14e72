"""A fake `gcloud` for tests of TPU jobs: a program on PATH that stores the state of its cloud in a JSON file.

`install` writes both. `events` lists what happens each time the log of the training is followed: done, preempted, dropped (only
the connection), saved (exit code 75), failed, hang. `create` lists the answers to requests for a TPU: the text of an error, or
"" if granted. `looks` lists the states of a granted TPU, `refusals` is how often ssh isn't ready.
"""

import json
import os
import shlex
import sys
import time
from pathlib import Path

LOOKS = ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]


def install(folder: Path, **cloud: object) -> Path:
    """Write the program and its cloud into a folder, to be put on PATH; return the file of the cloud."""
    program, state = folder / "gcloud", folder / "cloud.json"
    program.write_text(
        f"#!{sys.executable}\nimport runpy\n"
        f"runpy.run_path({__file__!r}, init_globals={{'PLACE': {str(state)!r}}}, run_name='__main__')\n"
    )
    program.chmod(0o755)
    empty = {"resource": "ABSENT", "node": "", "training": "", "events": [], "create": [], "looks": LOOKS}
    empty |= {"refusals": 0, "log": []}
    state.write_text(json.dumps(empty | cloud))
    return state


def log(state: Path) -> list[str]:
    """Return the requests to the cloud, abbreviated: create, look, node, copy, ssh COMMAND, delete."""
    return json.loads(state.read_text())["log"]


def _error(text: str, code: int = 1) -> int:
    print(f"ERROR: (gcloud.compute.tpus) {text}", file=sys.stderr)
    return code


def _create(cloud: dict) -> int:
    answer = cloud["create"].pop(0) if cloud["create"] else ""
    if answer:
        return _error(answer)
    if cloud["resource"] != "ABSENT":
        return _error("ALREADY_EXISTS: Resource already exists")
    cloud |= {"resource": "ACCEPTED", "node": "", "training": "", "left": list(cloud["looks"])}
    return 0


def _look(cloud: dict) -> int:
    if cloud["resource"] == "ABSENT":
        return _error("NOT_FOUND: Resource was not found")
    if cloud.get("left"):
        cloud["resource"] = cloud["left"].pop(0)
        cloud["node"] = "READY" if cloud["resource"] == "ACTIVE" else ""
    state = {"state": cloud["resource"]}
    if cloud["resource"] == "FAILED":
        state["failedData"] = {"error": {"message": "There is no more capacity in the zone"}}
    print(json.dumps({"state": state}))
    return 0


def _node(cloud: dict) -> int:
    if not cloud["node"]:
        return _error("NOT_FOUND: Resource was not found")
    print(cloud["node"])
    return 0


def _follow(cloud: dict, state: Path) -> int:
    print("step 100: loss 5.9")
    event = cloud["events"].pop(0)
    if event == "hang":
        state.write_text(json.dumps(cloud))
        time.sleep(60)
    if event == "preempted":
        cloud |= {"resource": "SUSPENDED", "node": "PREEMPTED"}
    ended = {"done": "exited 0", "saved": "exited 75", "failed": "exited 2"}
    cloud["training"] = ended.get(event, cloud["training"])
    return 0 if event == "done" else 255


def _ssh(cloud: dict, command: str, state: Path) -> int:
    words = shlex.split(command)
    if cloud["node"] != "READY":
        return _error("the TPU is not in state READY", 255)
    if words[:3] in (["bash", "run.sh", "start"], ["bash", "run.sh", "worker"]):
        cloud["training"] = "running 0"
    if words[:3] == ["bash", "run.sh", "state"]:
        print(cloud["training"])
    if words[:3] == ["bash", "run.sh", "follow"]:
        return _follow(cloud, state)
    return 0


def _answer(words: list[str], cloud: dict, state: Path) -> int:
    kind, verb = words[2:4]
    if verb == "ssh":
        command = next(word for word in words if word.startswith("--command=")).removeprefix("--command=")
        cloud["log"].append(f"ssh {' '.join(shlex.split(command)[1:3])}")
        return _ssh(cloud, command, state)
    if verb == "scp":
        cloud["log"].append("copy")
        if cloud["refusals"]:
            cloud["refusals"] -= 1
            return _error("ssh: connection refused", 255)
        return 0 if all(os.path.isfile(word) for word in words[4:6]) else _error("no such file")
    if verb == "create":
        cloud["log"].append("create")
        return _create(cloud)
    if verb == "delete":
        cloud["log"].append("delete")
        cloud |= {"resource": "ABSENT", "node": "", "training": ""}
        return 0
    cloud["log"].append("look" if kind == "queued-resources" else "node")
    return _look(cloud) if kind == "queued-resources" else _node(cloud)


if __name__ == "__main__":
    place = Path(globals()["PLACE"])
    world = json.loads(place.read_text())
    code = _answer(sys.argv[1:], world, place)
    place.write_text(json.dumps(world))
    sys.exit(code)
