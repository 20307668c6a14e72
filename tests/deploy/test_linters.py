"""Linters and schemas for every file in deploy/, and for the output of the dry runs. `make lint` runs this module, too."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

import clozemill
from clozemill.deploy.config import SubmitConfig
from tests.deploy import golden

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
RULES = "{extends: default, rules: {line-length: {max: 128}, document-start: disable, comments: {min-spaces-from-content: 1}}}"
SCHEMAS = {"JobSet": "jobset", "FlinkDeployment": "flinkdeployment", None: "customjobspec"}
NOT_KUBERNETES = {"config.example.yaml", "cloudbuild.yaml"}
FILES = sorted(
    path.relative_to(ROOT / "deploy")
    for path in (ROOT / "deploy").rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
# How to check each file, by the end of its name or by its name.
CHECKS = {
    ".py": "ruff",
    ".sh": "shellcheck",
    ".yaml": "yamllint and a schema",
    ".md": "commands, links and names",
    ".dockerignore": "what the Dockerfile copies",
    "Dockerfile": "hadolint",
    "metadata.json": "test_dataflow",
    "jobset.json": "used here", "flinkdeployment.json": "used here", "customjobspec.json": "used here",
    ".txt": "pins, in test_requirements",
}  # fmt: skip


def lint(*words: str | Path) -> None:
    done = subprocess.run([BIN / words[0], *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def named(end: str) -> list[Path]:
    return [ROOT / "deploy" / path for path in FILES if path.name.endswith(end)]


def test_every_file_has_a_linter() -> None:
    assert [str(path) for path in FILES if path.suffix not in CHECKS and path.name not in CHECKS] == []


def test_shellcheck() -> None:
    lint("shellcheck", *named(".sh"), *golden.FOLDER.glob("*.sh"), "--shell=bash")


def test_hadolint() -> None:
    lint("hadolint", *named("Dockerfile"))


def test_yamllint() -> None:
    lint("yamllint", "--strict", "--config-data", RULES, "deploy")


def test_cloud_build_schema() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.cloudbuild", *named("cloudbuild.yaml"))


def as_job(template: dict[str, Any]) -> dict[str, Any]:
    """Wrap a pod template in a kind that the validator knows."""
    spec = {"restartPolicy": "Never"} | template["spec"]
    for container in spec["containers"]:
        container.setdefault("image", "the-operator-s")
    return job({"template": template | {"spec": spec}})


def job(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": spec}


def check(document: dict[str, Any]) -> None:
    """Check built-in Kubernetes kinds against their schemas; others against ours, and their pods against Kubernetes'."""
    kind = document.get("kind")
    if kind in SCHEMAS:
        schema = json.loads((ROOT / f"deploy/schemas/{SCHEMAS[kind]}.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(document, schema)
    if kind == "JobSet":
        for each in document["spec"]["replicatedJobs"]:
            kubernetes_validate.validate(job(each["template"]["spec"]), "1.34", strict=True)
    elif kind == "FlinkDeployment":
        kubernetes_validate.validate(as_job(document["spec"]["taskManager"]["podTemplate"]), "1.34", strict=True)
    elif kind not in (None, "Kustomization"):
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize(
    "path", [path for path in named(".yaml") if path.name not in NOT_KUBERNETES], ids=lambda path: path.name
)
def test_manifests(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        check(document)


@pytest.mark.parametrize("name", golden.RUNS)
def test_printed_manifests(name: str) -> None:
    text = (golden.FOLDER / f"{name}.sh").read_text()
    found = re.findall(r"<<'END-OF-INPUT'\n(.*?)\nEND-OF-INPUT\n", text, re.DOTALL)
    assert bool(found) == (name.split("-")[0] in ("flink", "gke", "vertex"))
    for manifest in found:
        for document in yaml.safe_load_all(manifest):
            check(document)


def test_the_checks_find_errors() -> None:
    (document,) = yaml.safe_load_all((ROOT / "deploy/gke/jobset-single-host.yaml").read_text())
    document["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containres"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        check(document)
    document["spec"]["failurePolicy"]["maxRestart"] = 3
    with pytest.raises(jsonschema.ValidationError):
        check(document)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl isn't on this machine")
def test_kustomize() -> None:
    done = subprocess.run(["kubectl", "kustomize", "deploy/gke"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [document["kind"] for document in yaml.safe_load_all(done.stdout)] == ["JobSet", "JobSet"]


def test_a_dockerfile_copies_only_existing_files_that_are_not_ignored() -> None:
    for path in named("Dockerfile"):
        kept = {line[1:] for line in Path(f"{path}.dockerignore").read_text().splitlines() if line.startswith("!")}
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.MULTILINE):
            for name in line.split():
                assert ("*" in name or (ROOT / name).exists()) and name.split("/")[0] in kept, name


def test_the_example_configuration_is_valid_and_anonymous() -> None:
    text = (ROOT / "deploy/config.example.yaml").read_text()
    values = yaml.safe_load(text)
    arguments = clozemill.parser().parse_args(["submit", "tpu", "--config", str(ROOT / "deploy/config.example.yaml")])
    config = clozemill.options.resolve(SubmitConfig, arguments)
    assert {name: getattr(config, name) for name in values if name != "service_options"} == {
        name: value for name, value in values.items() if name != "service_options"
    }
    assert values["project"] == "my-project" and values["bucket"].startswith("gs://my-bucket")


@pytest.mark.parametrize("path", named(".md"), ids=lambda path: path.parent.name)
def test_readmes(path: Path) -> None:
    """Their commands parse, and the files that they name exist."""
    text = path.read_text("utf-8")
    for line in re.findall(r"^clozemill submit .*$", text.replace("\\\n", ""), re.MULTILINE):
        words, _ = clozemill.commands.split_words(shlex.split(line, comments=True)[1:])
        clozemill.options.resolve(SubmitConfig, clozemill.parser().parse_args(words))
    for name in re.findall(r"`((?:deploy|tests|pipelines|trainers)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
