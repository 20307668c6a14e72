import argparse
import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import TemporaryError, UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase

ROOT = Path(__file__).parents[1]

# Frozen: removing or renaming a flag breaks scripts and saved configurations. Add new flags here, too.
COMMON = "--config --debug --help --quiet --save-config --verbose --version"
TEXT = "--strip-accents --no-strip-accents --tokenize-chinese-chars --no-tokenize-chinese-chars"
INPUT = f"{TEXT} --cased --no-cased --format --headings --no-headings --id-field --input --text-field --title-field"
RUN = "--in-memory --no-in-memory --max-reject-rate --num-workers --progress --no-progress --runner"
DEVICES = "--jit --precision --strategy --tpu"
TRAINING = f"{DEVICES} --attention-kernel --engine --shard-moments --no-shard-moments"
MODEL = "--attention-dropout --batch-size --dropout --hidden-act --objective --optimizer --precision --preset --remat"
COLUMNS = "--header --label-column --label-columns --label-separator --max-reject-rate --pair-column --text-column"
PREPARE = (
    f"{INPUT} {RUN} --compression --dupe-factor --eval-fraction --language --masked-lm-prob --masking --max-predictions "
    "--max-repeated-ngrams --max-repeated-sentences --max-seq-length --max-symbol-ratio --min-chars --min-sentences "
    "--decontaminate --decontaminate-words --exclude-ids "
    "--dedup --eval-by --gate --no-gate --near-threshold --num-groups --output --packing --pairs "
    "--provenance --no-provenance --seed --sentence-language --short-seq-prob --shuffle --splitter --update --no-update "
    "--vocab --sources --licenses --languages --overwrite --no-overwrite"
)
FLAGS = {
    "plan": f"{COMMON} {PREPARE} --batch-size --budget --data --gradient-accumulation-steps --input-rate --objective --preset "
    "--pilot-share --price-chip-hour --price-cpu-hour --price-gb-month --recipe --sample-fraction --sample-max-mb "
    "--sample-min-mb --currency --gpu-type --num-gpus --price-gpu-hour --steps --target --topology --utilisation --vocab-size",
    "vocab": f"{COMMON} {INPUT} {RUN} --add --extend --general --max-alphabet --min-count --output --overwrite "
    "--no-overwrite --vocab-size",
    "prepare": f"{COMMON} {PREPARE}",
    "verify": f"{COMMON} --gate --no-gate --max-lines --num-workers --progress --no-progress DATASET",
    "inspect": f"{COMMON} --copy --group --html --id --limit --offset --overwrite --no-overwrite --report "
    "--no-report --split DATASET",
    "pretrain": f"{COMMON} {TRAINING} {MODEL} --no-remat --attention --average-with-init --branch-from --checkpoint-minutes "
    "--checkpoint-steps --clip-norm --data --decay-steps --eval-data --eval-examples --eval-steps --generator-size "
    "--gradient-accumulation-steps --init --initializer-range --keep-checkpoints --learning-rate "
    "--log-steps --masked-lm-prob-schedule --masks --max-position-embeddings --output --peak-tflops --recipe --schedule "
    "--seed --segment-embeddings --no-segment-embeddings --steps --steps-per-call "
    "--tensorboard --no-tensorboard --track --warmup-steps --weight-decay --overwrite "
    "--no-overwrite",
    "evaluate": f"{COMMON} {DEVICES} {COLUMNS} --engine --batch-size --checkpoint --data --output --overwrite "
    "--attention-kernel --no-overwrite --threshold RUN",
    "compare": f"{COMMON} --output --overwrite --no-overwrite RUNS",
    "doctor": f"{COMMON} --output --overwrite --no-overwrite RUN",
    "export": f"{COMMON} --checkpoint --formats --max-seq-length --output --overwrite --no-overwrite RUN",
    "import": f"{COMMON} {TEXT} --cased --no-cased --output --overwrite --no-overwrite --revision SOURCE",
    "finetune": f"{COMMON} {TRAINING} --attention-dropout --batch-size --checkpoint-minutes --checkpoint-steps --class-weights "
    "--clip-norm --dev --dev-fraction --dev-seed --label-columns --label-separator --min-delta --patience --threshold "
    "--doc-stride --dropout --epochs --eval-steps --from-scratch --frozen --gradient-accumulation-steps --head "
    "--header --init --keep-checkpoints --label-column --labels --layers --learning-rate --log-steps "
    "--max-answer-length --max-reject-rate --max-seq-length --metric --no-from-scratch --no-frozen --no-tensorboard "
    "--optimizer --output "
    "--pair-column --peak-tflops --seed --seeds --steps-per-call --sweep --task --tensorboard --track "
    "--text-column --train --warmup-share --weight-decay --overwrite --no-overwrite",
    "predict": f"{COMMON} {DEVICES} {COLUMNS} --attention-kernel --engine --batch-size --checkpoint --id-column "
    "--input --no-progress --output --progress --text --text-pair --threshold --top-k --overwrite --no-overwrite RUN",
    "embed": f"{COMMON} {DEVICES} --attention-kernel --engine --batch-size --checkpoint --header --input "
    "--layers --max-reject-rate --max-seq-length --no-progress --output --overwrite --no-overwrite --pool --progress --text "
    "--text-column RUN",
    "contrast": f"{COMMON} {TRAINING} --attention-dropout --batch-size --checkpoint-minutes --checkpoint-steps --clip-norm "
    "--dev --dev-columns --dropout --epochs --eval-steps --gradient-accumulation-steps --header --init --input "
    "--keep-checkpoints --learning-rate --log-steps --max-reject-rate --max-seq-length --min-delta --no-overwrite "
    "--no-tensorboard --optimizer --output --overwrite --patience --peak-tflops --pooling --positives --seed --steps-per-call "
    "--temperature --tensorboard --text-column --track --warmup-share --weight-decay",
    "preflight": f"{COMMON} {MODEL} --no-remat --largest-batch --no-largest-batch --max-predictions --max-seq-length "
    "--attention-kernel --examples-per-row --topology --vocab-size",
    "submit": f"{COMMON} --autodelete --no-autodelete --bucket --build --no-build --cluster --dask-scheduler --disk-size-gb "
    "--dry-run --no-dry-run --engine --existing --gpu-machine --image --machine-type --max-workers --name --namespace "
    "--network --num-workers --poll-seconds --project --public-ips --no-public-ips --region --retries --runtime-version "
    "--service-account --service-options --source --spark-master --spot --no-spot --subnetwork --tpu-topology --tpu-type "
    "--trainer-image --valid-until --zone TARGET ACTION",
    "completion": f"{COMMON} SHELL",
    "demo": f"{COMMON} --output --overwrite --no-overwrite --progress --no-progress --seed --text --vocab-size",
}


def stages() -> dict[str, argparse.ArgumentParser]:
    return next(action.choices for action in clozemill.parser()._actions if isinstance(action, argparse._SubParsersAction))


def test_the_command_line_is_frozen() -> None:
    found = {
        name: {flag for action in stage._actions for flag in action.option_strings or [action.dest.upper()]} - {"-h"}
        for name, stage in stages().items()
    }
    assert found == {name: set(flags.split()) for name, flags in FLAGS.items()}


def test_the_choices_are_frozen() -> None:
    """An option has the same choices in every command that has it, besides `auto`, which some have for a preset."""
    found = {}
    for command in clozemill.COMMANDS.values():
        for field in dataclasses.fields(command.config):
            if choices := field.metadata["choices"]:
                if (command.config is PretrainConfig and field.name == "precision") or field.name == "preset":
                    choices = tuple(choice for choice in choices if choice != "auto")
                assert found.setdefault(field.name, choices) == choices, field.name
    assert found == {
        "format": ("auto", "wikixml", "jsonl", "parquet", "bert", "document"),
        "splitter": ("sentencex", "none"),
        "packing": ("on", "off"),
            "pairs": ("nsp", "sop", "single"),
        "dedup": ("exact", "near", "none"),
        "eval_by": ("document", "cluster"),
        "masking": ("subword", "whole_word", "span"),
        "compression": ("none", "gzip"),
        "shuffle": ("auto", "files", "beam"),
        "split": ("train", "eval"),
        "strategy": ("default", "mirrored", "multiworker", "tpu"),
        "precision": ("float32", "bfloat16"),
        "jit": ("auto", "on", "off"),
        "engine": ("tensorflow", "jax"),
        "attention_kernel": ("auto", "plain"),
        "recipe": ("bert-base", "lamb-large", "budget-24h", "modern", "continue", "demo"),
        "preset": (
            "tiny", "mini", "small", "medium", "base", "large",
            "modern-tiny", "modern-mini", "modern-small", "modern-medium", "modern-base", "modern-large",
        ),
        "objective": ("mlm+nsp", "mlm+sop", "mlm", "causal", "rtd"),
        "attention": ("auto", "bidirectional", "causal"),
        "hidden_act": ("auto", "gelu_tanh", "gelu_erf", "relu"),
        "optimizer": ("adamw", "lamb", "muon", "stable-adamw"),
        "schedule": ("linear", "cosine", "wsd"),
        "checkpoint": ("latest", "best"),
        "header": ("auto", "yes", "no"),
        "task": (
            "classify", "multilabel", "regress", "tags", "spans", "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte",
            "conll", "squad", "squad2",
        ),
        "head": ("linear", "bilstm"),
        "gpu_type": (
            "B200", "H200", "H100 PCIe", "H100", "A100", "L40S", "L4", "A10G", "A10", "V100", "T4", "RTX 4090", "RTX 3090",
        ),
        "track": ("wandb", "mlflow"),
        "masks": ("static", "fresh"),
        "pool": ("none", "cls", "mean", "sentence"),
        "pooling": ("mean", "cls"),
        "positives": ("dropout", "crop"),
        "target": ("dataflow", "flink", "spark", "dask", "tpu", "gke", "vertex"),
        "action": ("run", "status", "stop"),
        "shell": ("bash", "zsh", "fish"),
    }  # fmt: skip


def test_the_keys_of_a_phase_are_frozen() -> None:
    keys = [field.name for field in dataclasses.fields(Phase)]
    assert keys == ["data", "steps", "batch_size", "learning_rate", "warmup_steps", "decay_steps", "objective"]


def pasted(help_text: str) -> list[str]:
    """The words of the example in a --help text, as a shell reads them."""
    return shlex.split(re.search(r"^example:\n((?:.*\\\n)*.*)$", help_text, re.MULTILINE).group(1).replace("\\\n", " "))


@pytest.mark.parametrize("width", ["60", "80", "200"])
@pytest.mark.parametrize("name", FLAGS)
def test_the_example_in_help_can_be_pasted(name: str, width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", width)
    words = pasted(stages()[name].format_help())
    assert words == shlex.split(clozemill.COMMANDS[name].example) and words[:2] == ["clozemill", name]
    monkeypatch.chdir(ROOT)  # an example may name a file of the repository
    arguments, extra = clozemill.parser().parse_known_args(clozemill.commands.split_words(words[1:])[0])
    assert extra == []
    options.require(options.resolve(clozemill.COMMANDS[name].config, arguments))


@pytest.mark.parametrize("name", FLAGS)
def test_help_fits_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, stages()[name].format_help().splitlines())) <= 80
    assert max(map(len, clozemill.parser().format_help().splitlines())) <= 80


def test_options_are_listed_in_groups_required_ones_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = stages()["export"].format_help()
    titles = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert titles == ["input", "output", "what it does", "options of all commands", "example"]
    assert text.startswith("usage: clozemill export RUN --output OUTPUT [OPTIONS]\n")
    start = text.index("output:")
    assert text[start : text.index("  --overwrite")].split("\n") == [
        "output:",
        "  --output OUTPUT       an output folder; each format is written to its own",
        "                        subfolder (required)",
        "",
    ]


@pytest.mark.parametrize("name", FLAGS)
def test_help_lists_every_flag_with_default_and_choices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    text = stages()[name].format_help()
    assert all(f"  {flag}" in text or f", {flag}" in text for flag in FLAGS[name].split() if flag.startswith("--"))
    for field in dataclasses.fields(clozemill.COMMANDS[name].config):
        if field.name == "phases":  # a list of mappings: only for --config
            continue
        assert field.metadata["help"] in text
        if field.default not in ("", None, ()) and not isinstance(field.default, bool):
            assert f"default: {field.default})" in text
        if field.metadata["choices"]:
            assert f"one of {', '.join(field.metadata['choices'])}" in text


def test_top_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert clozemill.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        re.search(rf"^    {name}\s+{re.escape(command.help)}$", text, re.M) for name, command in clozemill.COMMANDS.items()
    )
    assert clozemill.parser().parse_args(pasted(text)[1:]).command == "demo"


@pytest.mark.parametrize("name", FLAGS)
def test_every_command_has_a_function(name: str) -> None:
    runs = clozemill.COMMANDS[name].run
    assert all(callable(clozemill.lazy_import.function(path)) for path in ([runs] if isinstance(runs, str) else runs))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["--quiet"],
        ["vocab", "--input"],
        ["prepare", "--headings=yes"],
    ],
)
def test_argparse_errors_are_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(arguments) == 2
    told = capsys.readouterr().err.strip().split("\n")
    assert len(told) == 1 and told[0].startswith("clozemill: ") and told[0].endswith("--help")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["preprae"], "unknown command 'preprae'; did you mean prepare? See clozemill --help"),
        (["demo", "--sead", "3"], "unknown option --sead; did you mean --seed? See clozemill demo --help"),
        (["demo", "--max_sead=3"], "unknown option --max_sead=3; did you mean --seed? See clozemill demo --help"),
        (["pretrain", "--warmup", "3"], "unknown option --warmup; did you mean --warmup-steps? See clozemill pretrain"),
        (["verify", "d", "--quite"], "unknown option --quite; did you mean --quiet? See clozemill verify --help"),
        (["prepare", "--masking", "whole-word"], "--masking is 'whole-word': give one of subword, whole_word, span; did you "),
        (
            ["submit", "dataflo"],
            "TARGET is 'dataflo': give one of dataflow, flink, spark, dask, tpu, gke, vertex; did you mean ",
        ),
        (["verify", "d", "--quiet", "--verbose"], "--quiet and --verbose contradict each other: leave out one of them"),
        (
            ["prepare"],
            "--input, --vocab and --output are missing: give input files or globs, a vocabulary file such as vocab.txt",
        ),
        (["--nonsense", "demo"], "unknown option --nonsense"),
        (["verify", "a", "b"], "unexpected argument 'b'"),
        (["inspect", "DS", "--lim", "3"], "unknown option --lim"),  # no abbreviations
        (["vocab", "--output", "v"], "--input is missing: give input files or globs"),
        (["plan"], "--input is missing: give input files or globs"),
        (["plan", "--target", "moon"], "unknown target 'moon' in --target; choose from local, dataflow, gpu, tpu"),
        (["prepare", "--input", "a", "--output", "b"], "--vocab is missing: give a vocabulary file"),
        (["verify"], "DATASET is missing"),
        (["inspect"], "DATASET is missing"),
        (["pretrain", "--data", "a"], "--output is missing: give the folder of the run"),
        (["pretrain", "--output", "a"], "--data is missing: give datasets of clozemill prepare, one per phase"),
        (["pretrain", "--data", "a", "--output", "b", "--warmup", "3"], "unknown option --warmup"),
        (["evaluate"], "RUN and --data are missing: give the folder of a run and a dataset of clozemill prepare"),
        (["export"], "RUN and --output are missing: give the folder of a run and an output folder"),
        (["export", "no/such/run"], "--output is missing"),
        (["export", "a", "--output", "b", "--formats", "hf,kears"], "unknown format 'kears' in --formats; choose from "),
        (["export", "a", "--output", "b", "--formats", ","], "--formats is empty: choose from savedmodel, hf, keras"),
        (["export", "a", "--output", "b", "--max-seq-length", "5"], "--max-seq-length is 5: give a value between 8 and 65536"),
        (["import"], "SOURCE and --output are missing: give the folder of a Hugging Face BERT and a folder for"),
        (["import", "no/such/folder", "--output", "b"], "no/such/folder is not a folder: give a folder of"),
        (["evaluate", "no/such/run"], "--data is missing"),
        (["prepare", "--max-seq-length", "x"], "--max-seq-length is 'x': give a whole number"),
        (["prepare", "--config", "no/such.yaml"], "no/such.yaml can't be read (No such file or directory): give a YAML file"),
        (["vocab", "--input", "no/*.such", "--output", "v.txt"], "no file matches no/*.such: check the path"),
    ],
)
def test_errors_are_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"clozemill: {sentence}") and told.err.count("\n") == 1
    assert "Traceback" not in told.err and told.out == ""


@pytest.mark.parametrize("command", ["vocab", "prepare"])
@pytest.mark.parametrize("extra", [["--regoin", "x"], ["--max-sequence-length", "64"], ["loose"]])
def test_unknown_options_are_rejected(command: str, extra: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("One sentence.\nAnother.\n")
    (tmp_path / "v.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    vocab = ["--vocab", str(tmp_path / "v.txt")] if command == "prepare" else []
    paths = ["--input", str(tmp_path / "a.txt"), "--output", str(tmp_path / "out")]
    assert clozemill.main([command, *paths, *vocab, "--num-workers", "1", *extra]) == 2
    assert f"unknown option {extra[0]}: neither clozemill nor Beam has it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def run_stage(monkeypatch: pytest.MonkeyPatch, result: object, *arguments: str) -> int:
    def stage(config: object) -> object:
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr(clozemill.lazy_import, "function", lambda path: stage)
    return clozemill.main(["verify", "d", *arguments])


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, result: object, code: int) -> None:
    assert run_stage(monkeypatch, result) == code


def test_errors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert run_stage(monkeypatch, UserError("two\n  lines")) == 2
    assert capsys.readouterr().err == "clozemill: two lines\n"
    assert run_stage(monkeypatch, ValueError("odd\nthing")) == 70
    told = capsys.readouterr().err
    assert run_stage(monkeypatch, TemporaryError("later")) == 75
    assert told.startswith("clozemill: unexpected ValueError: odd thing: this is a bug") and told.count("\n") == 1


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(before: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(clozemill.lazy_import, "function", lambda path: lambda config: 1 / 0)
    assert clozemill.main(["--debug", "verify", "d"] if before else ["verify", "d", "--debug"]) == 70
    told = capsys.readouterr().err
    assert "Traceback" in told and "ZeroDivisionError: division by zero" in told


@pytest.mark.parametrize("words", [["--version"], ["prepare", "--version"], ["verify", "--version", "nonsense"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(words) == 0
    assert re.fullmatch(r"clozemill \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_quiet_prints_results_and_not_what_is_written_to_files(
    tmp_path: Path, demo_dataset: Path, capfd: pytest.CaptureFixture
) -> None:
    page = str(tmp_path / "page.html")
    assert clozemill.main(["inspect", str(demo_dataset), "--html", page]) == 0
    assert capfd.readouterr().out == f"wrote {page}\n"
    assert clozemill.main(["--quiet", "inspect", str(demo_dataset), "--html", page, "--overwrite"]) == 0
    assert capfd.readouterr() == ("", "")
    assert clozemill.main(["inspect", "--quiet", str(demo_dataset), "--limit", "1"]) == 0
    assert "record 0" in capfd.readouterr().out
    assert clozemill.main(["verify", str(demo_dataset), "--quiet", "--num-workers", "1"]) == 0
    told = capfd.readouterr()
    assert told.err == "" and "complete and consistent" in told.out
    assert clozemill.main(["verify", str(tmp_path), "--quiet"]) == 2
    assert capfd.readouterr().err.startswith(f"clozemill: {tmp_path} contains no dataset.json")


def test_quiet_keeps_warnings(capfd: pytest.CaptureFixture) -> None:
    with clozemill.verbosity.applied(clozemill.verbosity.Level.QUIET, "pretrain", PretrainConfig(output="RUN")) as config:
        print("step 1\nwarning: the loss", "is high")
        print("done")
    assert config == PretrainConfig(output="RUN") and capfd.readouterr() == ("", "warning: the loss is high\n")


def test_verbose_prints_the_versions_and_the_options(demo_dataset: Path, capfd: pytest.CaptureFixture) -> None:
    assert clozemill.main(["inspect", str(demo_dataset), "--limit", "1", "--verbose"]) == 0
    told = capfd.readouterr().err
    assert re.match(r"clozemill \d+\.\d+\.\d+ inspect, Python 3\.\d+\.\d+ on \w+ \w+; options:\n", told)
    assert "\nlimit: 1\n" in told and not clozemill.verbosity.is_verbose()


def test_beam_options_reach_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(clozemill.lazy_import, "function", lambda path: lambda config, extra: seen.append((config.seed, extra)))
    assert (
        clozemill.main(["prepare", "--region", "r", "--seed", "3", "--input", "a", "b", "--experiments=x", "--streaming"]) == 0
    )
    assert seen == [(3, ["--region", "r", "--experiments=x", "--streaming"])]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("pretrain", "--data and --output are missing: give datasets of clozemill prepare and the folder of the run"),
        ("pretrain --data nowhere --output run", "--data nowhere doesn't exist: give datasets of clozemill prepare"),
        ("pretrain --data . --output .", ". exists and is not a run: give a new folder as --output"),
        ("pretrain --data . . --steps 3 --output run", "phase 1 has no steps: give phases in --config"),
        ("evaluate nowhere --data .", "RUN nowhere doesn't exist: give the folder of a run, or one of its checkpoints"),
        ("finetune --init . --task cola --output run", "--train is missing: give a file of training examples"),
        ("finetune --init . --task cola --train no.tsv --output run", "--train no.tsv doesn't exist: give a file of training"),
        ("finetune --init . --task cola --train a.tsv --output .", ". exists and is not a run: give a new folder as --output"),
        ("predict .", "--input and --text: give exactly one of them"),
        ("predict . --input a.tsv", "--output is missing: give an output file for the answers"),
        (
            "predict . --input a.tsv --output a.xyz",
            "--output a.xyz: give a name that ends in .jsonl, .csv, .tsv or .parquet",
        ),
        (
            "predict . --input a.tsv --output a.jsonl",
            "a.jsonl already exists: give --overwrite to replace it, or another --output",
        ),
        ("embed . --input a.tsv --output f.parquet --layers one", "--layers 'one' is not a list of layers: give numbers, "),
        ("export nowhere --output out", "RUN nowhere doesn't exist: give the folder of a run, or a checkpoint written by"),
    ],
)
def test_mistakes_of_trainer_commands_are_found_without_tensorflow(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.tsv", "a.jsonl"):
        (tmp_path / name).touch()
    monkeypatch.setattr(clozemill.lazy_import, "function", lambda path: pytest.fail(f"{path} was imported"))
    assert clozemill.main(words.split()) == 2
    assert capsys.readouterr().err.startswith(f"clozemill: {sentence}")


def test_a_mistake_loads_no_tensorflow() -> None:
    code = "import sys, clozemill\nassert clozemill.main(['pretrain', '--data', 'no', '--output', 'o']) == 2\n"
    code += "assert not {'tensorflow', 'keras', 'apache_beam', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_as_a_program() -> None:
    done = subprocess.run([sys.executable, "clozemill.py", "verify"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("clozemill: DATASET is missing") and done.stderr.count("\n") == 1


def test_choices_match_the_dicts() -> None:
    from clozemill.pipelines.examples import masking, pairs
    from clozemill.pipelines.readers import formats
    from clozemill.pipelines.shuffle import shuffles
    from clozemill.pipelines.text import sentences

    held = {
        "format": ["auto", *formats.READERS],
        "splitter": list(sentences.SPLITTERS),
        "pairs": list(pairs.PAIRS),
        "masking": list(masking.MASKERS),
        "shuffle": ["auto", *shuffles.SHUFFLES],
    }
    for field in dataclasses.fields(PrepareConfig):
        if field.name in held:
            assert list(field.metadata["choices"]) == held[field.name], field.name


def test_choices_of_training_match_the_dicts() -> None:
    from clozemill.model import config as model_config
    from clozemill.model import pretraining_model
    from clozemill.trainers.common import distribution
    from clozemill.trainers.engines import optimizer
    from clozemill.trainers.pretraining import recipes

    held = {
        "strategy": list(distribution.STRATEGIES),
        "precision": ["auto", *model_config.PRECISIONS],
        "recipe": list(recipes.RECIPES),
        "preset": ["auto", *model_config.PRESETS],
        "objective": list(pretraining_model.OBJECTIVES),
        "optimizer": list(optimizer.OPTIMIZERS),
        "schedule": list(optimizer.SCHEDULES),
    }
    for field in dataclasses.fields(PretrainConfig):
        if field.name in held:
            assert list(field.metadata["choices"]) == held.pop(field.name), field.name
    assert held == {}
