"""The printed commands with the real gcloud, if installed, against a fake of the cloud's APIs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from tests.deploy import golden

pytestmark = pytest.mark.skipif(
    not shutil.which("gcloud"), reason="gcloud isn't on this machine, so no printed command was run with it"
)
ROOT = Path(__file__).parents[2]
DATASET = {"vocab": "gs://my-bucket/vocab.txt", "output": "gs://my-bucket/dataset"}
IMAGES = "europe-west4-docker.pkg.dev/my-project/images"


class Apis(HTTPServer):
    """Records what is posted; every operation is done at once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.posted: list[tuple[str, dict]] = []


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.posted.append((self.path, json.loads(text)))
        data = json.dumps({"name": "projects/my-project/locations/europe-west4/customJobs/1", "job": {"id": "1"}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def apis() -> Iterator[Apis]:
    with Apis() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def posted(apis: Apis, folder: Path, name: str, command: str) -> tuple[str, dict]:
    """Return what gcloud posts for a command of a golden dry run, passed to a shell as printed."""
    text = (golden.FOLDER / f"{name}.sh").read_text()
    (block,) = [block for block in re.split(r"^# ", text, flags=re.MULTILINE) if f"\n{command} " in block]
    (folder / "token").write_text("fake")
    address = f"http://127.0.0.1:{apis.server_port}/"
    own = {"CLOUDSDK_CONFIG": str(folder), "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1", "HOME": str(folder)}
    own |= {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{api}": address for api in ("TPU", "DATAFLOW", "AIPLATFORM")}
    own |= {"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": str(folder / "token"), "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
    script = block.split("\n", 1)[1]
    done = subprocess.run(
        ["bash", "-c", script], env={"PATH": os.environ["PATH"]} | own, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert apis.posted, done.stderr
    return apis.posted[0]


def test_dataflow(apis: Apis, tmp_path: Path) -> None:
    path, body = posted(apis, tmp_path, "dataflow", "gcloud dataflow flex-template run")
    assert path.startswith("/v1b3/projects/my-project/locations/europe-west4/flexTemplates:launch")
    launch = body["launchParameter"]
    assert launch["parameters"] == DATASET | {
        "input": "gs://my-bucket/corpus/*.parquet 'gs://my-bucket/my notes/*.jsonl'", "max_seq_length": "512",
        "provenance": "true", "sdk_container_image": f"{IMAGES}/clozemill:1",
    }  # fmt: skip
    wanted = {"machineType": "n2-standard-4", "numWorkers": 2, "maxWorkers": 20, "ipConfiguration": "WORKER_IP_PRIVATE",
              "subnetwork": "regions/europe-west4/subnetworks/default", "tempLocation": "gs://my-bucket/clozemill/tmp",
              "additionalPipelineOptions": ["sdk_location=container", "disk_size_gb=100"],
              "serviceAccountEmail": "clozemill@my-project.iam.gserviceaccount.com"}  # fmt: skip
    assert {name: launch["environment"].get(name) for name in wanted} == wanted


def test_tpu(apis: Apis, tmp_path: Path) -> None:
    path, body = posted(apis, tmp_path, "tpu", "gcloud compute tpus queued-resources create")
    assert "/projects/my-project/locations/europe-west4-b/queuedResources" in path and "queuedResourceId=clozemill" in path
    assert "spot" in body and body["queueingPolicy"] == {"validUntilDuration": "86400s"}
    (spec,) = body["tpu"]["nodeSpec"]
    assert (spec["nodeId"], spec["node"]["acceleratorType"]) == ("clozemill", "v5litepod-8")
    node = spec["node"]
    assert node["runtimeVersion"] == "v2-alpha-tpuv5-lite" and not node["networkConfig"].get("enableExternalIps")
    assert node["serviceAccount"]["scope"] == ["https://www.googleapis.com/auth/cloud-platform"]


@pytest.mark.parametrize("name", ["vertex", "vertex-jax-gpus"])
def test_vertex(name: str, apis: Apis, tmp_path: Path) -> None:
    path, body = posted(apis, tmp_path, name, "gcloud ai custom-jobs create")
    assert path.startswith("/v1/projects/my-project/locations/europe-west4/customJobs")
    text = (golden.FOLDER / f"{name}.sh").read_text().split("END-OF-INPUT")[1].removeprefix("'\n")
    spec = yaml.safe_load(text)
    pool, wanted = body["jobSpec"]["workerPoolSpecs"][0], spec["workerPoolSpecs"][0]
    assert body["displayName"] == "clozemill" and pool["containerSpec"] == wanted["containerSpec"]
    assert pool["machineSpec"] == wanted["machineSpec"] and body["jobSpec"]["scheduling"] == spec["scheduling"]


def test_the_flex_template(tmp_path: Path) -> None:
    """gcloud puts metadata.json into the specification of the template and prints it, without uploading anything."""
    text = (golden.FOLDER / "dataflow.sh").read_text().replace(" \\\n", "")
    (line,) = [line for line in text.splitlines() if line.startswith("gcloud dataflow flex-template build")]
    environment = {"PATH": os.environ["PATH"], "CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [*shlex.split(line), "--print-only"], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    spec = json.loads(done.stdout[done.stdout.index("{") : done.stdout.rindex("}") + 1])
    assert spec["image"] == f"{IMAGES}/clozemill:1" and spec["sdkInfo"] == {"language": "PYTHON"}
    there = json.loads((ROOT / "deploy/dataflow/metadata.json").read_text())
    assert [each["name"] for each in spec["metadata"]["parameters"]] == [each["name"] for each in there["parameters"]]
