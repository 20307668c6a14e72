"""The printed commands, running them, and errors before anything is run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import clozemill
from clozemill.deploy import command_options, gpu_machines, manifests, steps, targets, tpu_slices
from clozemill.deploy.config import NEEDED, SubmitConfig
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import tpu_generations
from tests.deploy import golden

ROOT = Path(__file__).parents[2]
EXAMPLE = ["--config", "deploy/config.example.yaml"]
PREPARE = ["--", "--input", "gs://my-bucket/a", "--vocab", "gs://my-bucket/v", "--output", "gs://my-bucket/o"]
PRETRAIN = ["--", "--data", "gs://my-bucket/d", "--output", "gs://my-bucket/r"]


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", golden.RUNS)
def test_a_dry_run_is_golden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # nothing can be run
    assert golden.printed(name) == (golden.FOLDER / f"{name}.sh").read_text("utf-8")


def test_golden_runs_match_the_targets() -> None:
    assert {name.split("-")[0] for name in golden.RUNS} == set(targets.TARGETS) == set(NEEDED)
    assert {path.stem for path in golden.FOLDER.iterdir()} == set(golden.RUNS)


@pytest.mark.parametrize("name", golden.RUNS)
def test_printed_commands_can_be_pasted(name: str, tmp_path: Path) -> None:
    """A shell parses each printed command into exactly the words and the input that `submit` would use."""
    words = ["submit", name.split("-")[0], *golden.RUNS[name]]
    config = clozemill.options.resolve(SubmitConfig, clozemill.parser().parse_args(clozemill.commands.split_words(words)[0]))
    planned = targets.TARGETS[config.target](config, clozemill.commands.split_words(words)[1])
    record = (
        f"#!{sys.executable} -SE\nimport json, sys\nseen = [sys.argv, sys.stdin.read()]\n"
        f"print(json.dumps(seen), file=open({str(tmp_path / 'log')!r}, 'a'))\n"
    )
    for program in {step.argv[0] for step in planned}:
        (tmp_path / program).write_text(record)
        (tmp_path / program).chmod(0o755)
    text = "set -eu\n" + golden.printed(name)
    subprocess.run(
        ["bash", "-c", text], env={"PATH": str(tmp_path)}, stdin=subprocess.DEVNULL, check=True, executable="/bin/bash"
    )
    seen = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(Path(argv[0]).name, *argv[1:]) for argv, _ in seen] == [step.argv for step in planned]
    assert [stdin.rstrip() for _, stdin in seen] == [step.stdin.rstrip() for step in planned]


def test_steps_are_run_until_one_fails(capfd: pytest.CaptureFixture) -> None:
    planned = [
        steps.Step("First", ("cat",), "read from a pipe\n"),
        steps.Step("Second", ("python3", "-c", "import sys; sys.exit(3)", "with space")),
        steps.Step("Third", ("echo", "not run")),
        steps.Step("Last", ("echo", "cleaned up"), always=True),
    ]
    with pytest.raises(
        UserError, match=re.escape("Second failed with exit code 3: python3 -c 'import sys; sys.exit(3)' 'with space': ")
    ):
        steps.run(planned)
    told = capfd.readouterr()
    assert told.out == "read from a pipe\ncleaned up\n" and told.err == "[1/4] First\n[2/4] Second\n"


def test_what_a_first_step_did_not_start_is_not_stopped(capfd: pytest.CaptureFixture) -> None:
    """Such as the job server of another submission. A step that cleans up doesn't hide the error."""
    fails = ("python3", "-c", "import sys; sys.exit(3)")
    cleanup = steps.Step("Last", ("echo", "cleaned up"), always=True)
    with pytest.raises(UserError, match=r"^First failed"):
        steps.run([steps.Step("First", fails), cleanup])
    assert capfd.readouterr().out == ""
    planned = [steps.Step("First", ("true",)), steps.Step("Second", fails), replace(cleanup, argv=fails), cleanup]
    with pytest.raises(UserError, match=r"^Second failed"):
        steps.run(planned)
    assert capfd.readouterr().out == "cleaned up\n"


def test_a_job_that_exists_already_is_removed_by_hand() -> None:
    """kubectl create protects one that runs; one that has ended stays there, under the same name."""
    fails = ("python3", "-c", "import sys; sys.exit(1)")
    for name in ("gke", "flink"):
        flags, after = clozemill.commands.split_words(["submit", name, *golden.RUNS[name]])
        config = clozemill.options.resolve(SubmitConfig, clozemill.parser().parse_args(flags))
        (create,) = [step for step in targets.TARGETS[name](config, after) if step.argv[:2] == ("kubectl", "create")]
        kind = {"gke": "jobset", "flink": "job"}[name]
        with pytest.raises(
            UserError, match=rf"if an earlier one has ended, remove it: kubectl delete --namespace=\S+ {kind}/\S+\)"
        ):
            steps.run([replace(create, argv=fails)])


def test_a_missing_program_is_reported() -> None:
    with pytest.raises(UserError, match="no-such-program isn't installed here: install it, or use --dry-run"):
        steps.run([steps.Step("First", ("no-such-program",))])


# Target and flags, flags after -- besides the required ones, and the start of the error message.
MISTAKES = [
    ("dataflow --bucket s3://b", "", "bucket is 's3://b': give gs://BUCKET"),
    ("dataflow --bucket my-bucket", "", "bucket is 'my-bucket': give gs://BUCKET"),
    ("dataflow --project 'My Project'", "", "project is 'My Project': give the project's id"),
    ("dataflow --region europe-west4-b", "", "region is 'europe-west4-b': give a region"),
    ("dataflow --source no/where", "", "no/where/deploy/dataflow/cloudbuild.yaml doesn't exist, so no image"),
    ("dataflow --bukcet x", "", "unknown option --bukcet; did you mean --bucket? See clozemill submit --help"),
    ("dataflow", "--seeed 3", "unknown option --seeed after --: clozemill prepare doesn't have it; did you mean --seed?"),
    ("dataflow", "--runner x", "--runner after -- is set by the target: leave it out"),
    ("dataflow", "--masking x", "--masking is 'x': give one of subword"),
    ("dataflow", "--input a", "--input a is not a gs:// path, and the remote machines can't read"),
    ("dataflow", "--decontaminate gs://b/a.csv eval.csv", "--decontaminate eval.csv is not a gs:// path"),
    ("dataflow", "--id-field id --exclude-ids ids.txt", "--exclude-ids ids.txt is not a gs:// path"),
    ("dataflow", "--dedup near", "--dedup near needs two jobs, but a template starts only one: run clozemill prepare --runner"),
    ("dataflow", "--dedup near --eval-by cluster", "--dedup near needs two jobs"),
    ("dataflow", "--title-field '~ ; | @@ #~#'", "a value after -- contains all of"),
    ("tpu --zone europe-west4", "", "zone is 'europe-west4': give a zone"),
    ("tpu --name My_TPU", "", "name is 'My_TPU': give a name of lowercase letters"),
    ("tpu --image 'an image'", "", "image is 'an image': give an image"),
    ("tpu --tpu-type v5e-8", "", "unknown tpu_type 'v5e-8'; did you mean v5litepod-8?"),
    ("tpu", "--data d", "--data d is not a gs:// path"),
    ("tpu", "--output r", "--output r is not a gs:// path"),
    ("tpu", "--init run", "--init run is not a gs:// path"),
    ("tpu", "--branch-from run", "--branch-from run is not a gs:// path"),
    ("gke", "--track wandb", "--track wandb after -- needs its library and a key"),
    ("tpu", "--strategy tpu", "--strategy after -- is set by the target: leave it out"),
    ("tpu", "--config f.yaml", "--config after -- names a file that the remote machines don't have"),
    ("tpu", "--steps many", "--steps is 'many': give a whole number"),
    ("gke stop", "", "submit gke doesn't support stop: use status and stop with submit tpu only"),
    ("gke --tpu-type v2-8", "", "GKE doesn't offer v2-8: give another tpu_type"),
    ("gke --tpu-type v5litepod-3", "", "unknown tpu_type 'v5litepod-3'"),
    ("gke --tpu-topology 2x2", "", "tpu_topology 2x2 has 4 chips, but tpu_type v5litepod-8 has 8: give 2x4"),
    ("gke --tpu-topology 2x2x2", "", "tpu_topology is '2x2x2': give a shape of v5litepod-8 with 2 axes, such as 2x4"),
    ("vertex --tpu-type v5litepod-16", "", "submit vertex supports a single host only"),
    ("dataflow --engine jax", "", "submit dataflow prepares datasets and trains nothing, so it has no --engine jax: leave it "
     "out, or use submit tpu, gke or vertex"),
    ("tpu --engine torch", "", "--engine is 'torch': give one of tensorflow, jax"),
    ("tpu", "--engine jax", "--engine after -- is set by the target: give it before --, because it also chooses the image"),
    ("tpu --engine jax", "--engine jax", "--engine after -- is set by the target: give it before --"),
    ("gke --engine jax", "--jit off", "--jit off contradicts --engine jax, which always compiles: leave it out"),
    ("gke", "--shard-moments", "--shard-moments needs --engine jax: give both, or leave it out"),
    ("tpu --engine jax --runtime-version tpu-vm-tf-2.18.0-pjrt", "", "runtime_version tpu-vm-tf-2.18.0-pjrt is for TensorFlow, "
     "whose server would hold the TPU, but --engine is jax: leave it out, or give v2-alpha-tpuv5-lite"),
    ("tpu --engine jax --gpu-machine a2-highgpu-1g", "", "submit tpu creates TPUs, not gpu_machine a2-highgpu-1g: leave"),
    ("gke --gpu-machine a2-highgpu-1g", "", "gpu_machine a2-highgpu-1g needs --engine jax, whose image alone has CUDA: "
     "give both, or leave it out"),
    ("vertex --engine jax --gpu-machine a2-highgpu-3g", "", "unknown gpu_machine 'a2-highgpu-3g'; did you mean a2-highgpu-"),
]  # fmt: skip
BARE = [
    ("", "TARGET is missing: give one of dataflow, flink, spark, dask, tpu, gke, vertex"),
    ("-- --input x", "TARGET is missing: give one of dataflow, flink, spark, dask, tpu, gke, vertex"),
    ("dataflw", "TARGET is 'dataflw': give one of dataflow, flink"),
    ("dataflow", "project, region, bucket and image are missing: submit dataflow needs --project --region --bucket --image"),
    ("tpu --project my-project --zone europe-west4-b", "bucket and trainer_image are missing: submit tpu needs --bucket"),
    ("tpu --project my-project --zone europe-west4-b --trainer-image i", "bucket is missing: submit tpu needs gs://BUCKET"),
    ("dataflow --config deploy/config.example.yaml", "--input is missing after --: give input files or globs"),
    ("tpu --config deploy/config.example.yaml", "--data is missing after --: give datasets"),
]


def refused(words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("PATH", "")
    assert clozemill.main(["submit", *words]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"clozemill: {sentence}") and told.err.count("\n") == 1 and told.out == ""


@pytest.mark.parametrize(("words", "after", "sentence"), MISTAKES)
def test_errors_are_one_sentence_before_anything_is_created(
    words: str, after: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    needed = PREPARE if words.startswith("dataflow") else PRETRAIN
    refused([*shlex.split(words), *EXAMPLE, *needed, *shlex.split(after)], sentence, monkeypatch, capsys)


@pytest.mark.parametrize(("words", "sentence"), BARE)
def test_missing_options_are_reported(
    words: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    refused(shlex.split(words), sentence, monkeypatch, capsys)


def test_options_of_a_file_that_the_target_sets(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Such as the prepare.yaml of a local run. The progress bar is for terminals."""
    (tmp_path / "c.yaml").write_text("shuffle: files\n")
    command = ["submit", "dataflow", *EXAMPLE, "--dry-run", *PREPARE]
    assert clozemill.main([*command, "--config", str(tmp_path / "c.yaml")]) == 2
    assert "shuffle in the --config after -- is set by the target: leave it out" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_text("progress: false\nseed: 8\n")
    assert clozemill.main([*command, "--config", str(tmp_path / "c.yaml")]) == 0
    told = capsys.readouterr().out
    assert "seed=8" in told and "progress" not in told
    assert clozemill.main(["submit", "dask", *EXAMPLE, "--dry-run", *PREPARE, "--no-progress"]) == 0
    assert "--no-progress" in capsys.readouterr().out  # it runs in this terminal


def test_v6e_is_experimental(capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["submit", "tpu", *EXAMPLE, "--dry-run", "--tpu-type", "v6e-8", *PRETRAIN]) == 0
    assert "TensorFlow on v6e is experimental" in capsys.readouterr().err
    assert clozemill.main(["submit", "tpu", *EXAMPLE, "--engine", "jax", "--dry-run", "--tpu-type", "v6e-8", *PRETRAIN]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", tpu_slices.TYPES)
def test_shapes_of_types_are_known_to_the_compiler(name: str) -> None:
    found = tpu_slices.find(name)
    assert tpu_generations.parse_topology(f"{found.family.generation}:{found.topology}").chips == found.chips
    assert found.hosts * found.chips_per_host == found.chips


@pytest.mark.parametrize(
    ("name", "chips", "hosts", "machine"),
    [
        ("v5litepod-1", 1, 1, "ct5lp-hightpu-1t"),
        ("v5litepod-8", 8, 1, "ct5lp-hightpu-8t"),
        ("v5litepod-16", 16, 4, "ct5lp-hightpu-4t"),
        ("v6e-256", 256, 64, "ct6e-standard-4t"),
        ("v4-8", 4, 1, "ct4p-hightpu-4t"),
        ("v5p-16", 8, 2, "ct5p-hightpu-4t"),
        ("v3-8", 4, 1, ""),
        ("v2-32", 16, 4, ""),
    ],
)
def test_known_types(name: str, chips: int, hosts: int, machine: str) -> None:
    found = tpu_slices.find(name)
    assert (found.chips, found.hosts, found.machine_type) == (chips, hosts, machine)


@pytest.mark.parametrize(
    ("name", "gpus", "kind"),
    [
        ("g2-standard-8", 1, "NVIDIA_L4"),
        ("a2-highgpu-4g", 4, "NVIDIA_TESLA_A100"),
        ("a2-ultragpu-8g", 8, "NVIDIA_A100_80GB"),
        ("a3-highgpu-8g", 8, "NVIDIA_H100_80GB"),
        ("a3-megagpu-8g", 8, "NVIDIA_H100_MEGA_80GB"),
        ("a3-ultragpu-8g", 8, "NVIDIA_H200_141GB"),
    ],
)
def test_machines_with_gpus(name: str, gpus: int, kind: str) -> None:
    found = gpu_machines.find(name)
    assert found.machine_spec == {"machineType": name, "acceleratorType": kind, "acceleratorCount": gpus}
    assert found.node_selector["cloud.google.com/gke-accelerator"] == kind.lower().replace("_", "-")


@pytest.mark.skipif(
    not shutil.which("gcloud"), reason="gcloud isn't on this machine, so no printed command was held against it"
)
def test_gcloud_knows_every_printed_command(tmp_path: Path) -> None:
    text = "\n".join((golden.FOLDER / f"{name}.sh").read_text("utf-8") for name in golden.RUNS).replace(" \\\n", "")
    commands = sorted({line.split(" <<")[0] for line in text.splitlines() if line.startswith("gcloud ")})
    assert len(commands) > 20
    strings = [{"command_string": shlex.join(shlex.split(command))} for command in commands]
    (tmp_path / "commands.json").write_text(json.dumps(strings))
    lint = ["gcloud", "meta", "lint-gcloud-commands", f"--commands-file={tmp_path / 'commands.json'}"]
    environment = {
        "CLOUDSDK_CONFIG": str(tmp_path),
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(lint, capture_output=True, text=True, check=True, env=environment)
    results = json.loads(done.stdout)
    assert len(results) == len({found["command_string"] for found in strings})
    assert [(found["command_string"], found["error_message"]) for found in results if not found["success"]] == []


def test_arguments_that_yaml_1_2_reads_as_numbers_are_quoted() -> None:
    """PyYAML, which reads YAML 1.1, takes 1e-3 for a string without quotes; kubectl and gcloud don't."""
    words = ["--learning-rate", "1e-3", "2E5", "-.5e1", "5.", "0.15", "12", "-1", "1e-3x", "e5", "0.3:0.15", "gs://b/1e5"]
    text = manifests.dump([{"args": words, "limit": 0.5, "count": 3}])
    quoted = ["1e-3", "2E5", "-.5e1", "5.", "0.15", "12", "-1"]
    assert [line[2:] for line in text.splitlines() if line.startswith("- ")] == [
        f"'{word}'" if word in quoted else word for word in words
    ]
    assert text.endswith("limit: 0.5\ncount: 3\n") and yaml.safe_load(text)["args"] == words


def test_a_branch_needs_no_data() -> None:
    """It reads that of its trunk, which may be a mixture."""
    words = ["--branch-from", "gs://b/trunk", "--steps", "20000", "--output", "gs://b/branch"]
    assert command_options.pretrain(SubmitConfig(target="tpu"), words)[-len(words) :] == words
    with pytest.raises(UserError, match="--data is missing after --"):
        command_options.pretrain(SubmitConfig(target="tpu"), words[2:])


def test_the_shape_of_a_tpu() -> None:
    """The type alone means the usual one; gcloud takes another with the generation."""
    assert tpu_slices.find("v4-32").request == tpu_slices.find("v4-32", "2x2x4").request == ("--accelerator-type=v4-32",)
    assert tpu_slices.find("v4-32", "1x4x4").request == ("--type=v4", "--topology=1x4x4")
