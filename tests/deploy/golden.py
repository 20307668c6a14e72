"""The output of a dry run of each target, stored in tests/deploy/golden/.

python -m tests.deploy.golden --write      rewrites the files: review the difference before committing it
"""

import contextlib
import io
import sys
from pathlib import Path

import clozemill

FOLDER = Path(__file__).parent / "golden"
_CONFIG = ["--config", "deploy/config.example.yaml", "--dry-run"]
_PREPARE = ["--", "--input", "gs://my-bucket/corpus/*.parquet", "gs://my-bucket/my notes/*.jsonl", "--vocab"]
_PREPARE += ["gs://my-bucket/vocab.txt", "--output", "gs://my-bucket/dataset", "--max-seq-length", "512", "--provenance"]
_PRETRAIN = ["--", "--data", "gs://my-bucket/dataset", "--preset", "base", "--batch-size", "256", "--steps", "900000"]
_PRETRAIN += ["--precision", "bfloat16", "--output", "gs://my-bucket/run"]
_JAX = [*_CONFIG, "--engine", "jax", "--trainer-image", "europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-tpu:1"]
_GPUS = [*_CONFIG, "--engine", "jax", "--trainer-image", "europe-west4-docker.pkg.dev/my-project/images/clozemill-jax-cuda:1"]
RUNS: dict[str, list[str]] = {
    "dataflow": [*_CONFIG, *_PREPARE],
    "flink": [*_CONFIG, *_PREPARE],
    "spark": [*_CONFIG, *_PREPARE],
    "dask": [*_CONFIG, *_PREPARE],
    "tpu": [*_CONFIG, *_PRETRAIN],
    "tpu-slice": [*_CONFIG, "--tpu-type", "v5litepod-16", "--no-spot", "--public-ips", "--no-build", *_PRETRAIN],
    "tpu-existing": [*_CONFIG, "--existing", "mine", "--no-build", *_PRETRAIN],
    "tpu-status": ["status", *_CONFIG],
    "tpu-stop": ["stop", *_CONFIG],
    "tpu-jax": [*_JAX, *_PRETRAIN],
    "tpu-jax-slice": [*_JAX, "--tpu-type", "v5litepod-16", "--no-build", *_PRETRAIN],
    "tpu-jax-stop": ["stop", *_JAX],
    "gke": [*_CONFIG, *_PRETRAIN],
    "gke-slice": [*_CONFIG, "--tpu-type", "v5litepod-16", *_PRETRAIN],
    "gke-jax": [*_JAX, *_PRETRAIN],
    "gke-jax-slice": [*_JAX, "--tpu-type", "v5litepod-16", *_PRETRAIN],
    "gke-jax-gpus": [*_GPUS, "--gpu-machine", "a2-highgpu-8g", "--no-spot", *_PRETRAIN],
    "vertex": [*_CONFIG, *_PRETRAIN],
    "vertex-jax": [*_JAX, *_PRETRAIN],
    "vertex-jax-gpus": [*_GPUS, "--gpu-machine", "a3-highgpu-8g", *_PRETRAIN],
}


def printed(name: str) -> str:
    """Return the output of `clozemill submit` for a run, in the root of the repository."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = clozemill.main(["submit", name.split("-")[0], *RUNS[name]])
    assert code == 0
    return out.getvalue()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.deploy.golden --write")
    for run in RUNS:
        (FOLDER / f"{run}.sh").write_text(printed(run), "utf-8")
