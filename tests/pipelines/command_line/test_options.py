import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest

import clozemill
from clozemill.deploy.demo import DemoConfig
from clozemill.pipelines.command_line import flags, options, yaml_files
from clozemill.pipelines.command_line.options import option, resolve
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig, VocabConfig
from clozemill.pipelines.inspection.config import InspectConfig
from clozemill.pipelines.quality.config import VerifyConfig

CONFIGS = [VocabConfig, PrepareConfig, VerifyConfig, InspectConfig, DemoConfig]


@dataclass(frozen=True)
class Sample:
    """One field of each kind."""

    name: str = option("", "a text")
    way: str = option("up", "a choice", choices=("up", "down"))
    size: int = option(5, "a whole number", low=1, high=10)
    floor: int = option(0, "no upper bound", low=0)
    share: float = option(0.5, "a number", low=0, high=1)
    strict: bool = option(True, "100 % or not", identity=False)
    maybe: bool | None = option(None, "a switch with a third state")
    input: tuple[str, ...] = option((), "globs")
    place: str = option("here", "where", flag=False)


def parse(*words: str) -> Sample:
    parser = flags.Parser(prog="clozemill sample", allow_abbrev=False)
    flags.add_flags(parser, Sample)
    return resolve(Sample, parser.parse_args(words))


def mistake(*flags: str) -> str:
    with pytest.raises(UserError) as error:
        parse(*flags)
    return str(error.value)


def yaml_file(folder: Path, text: str | bytes) -> str:
    path = folder / "c.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_defaults() -> None:
    assert parse() == Sample()


def test_flags() -> None:
    flags = "there --name x --way down --size 10 --floor 99999999999 --share 1e-1 --no-strict --maybe --input a b --input c"
    assert parse(*flags.split()) == Sample("x", "down", 10, 99999999999, 0.1, False, True, ("a", "b", "c"), "there")
    assert parse("--no-maybe").maybe is False
    assert parse("--size", "3", "there") == parse("there", "--size", "3") == Sample(size=3, place="there")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--size x", "--size is 'x': give a whole number"),
        ("--size 1.5", "--size is '1.5': give a whole number"),
        ("--size 0", "--size is 0: give a value between 1 and 10"),
        ("--size 11", "--size is 11: give a value between 1 and 10"),
        ("--floor=-1", "--floor is -1: give a value at least 0"),
        ("--share 1.01", "--share is 1.01: give a value between 0 and 1"),
        ("--share nan", "--share is nan: give a number"),
        ("--share inf", "--share is inf: give a number"),
        ("--share half", "--share is 'half': give a number"),
        ("--way sideways", "--way is 'sideways': give one of up, down"),
        ("--way donw", "--way is 'donw': give one of up, down; did you mean down?"),
    ],
)
def test_values_that_don_t_fit(flags: str, sentence: str) -> None:
    assert mistake(*flags.split()) == sentence


@pytest.mark.parametrize("words", [["--siz", "3"], ["--strict=yes"], ["--unknown"], ["a", "b"], ["--name"]])
def test_what_argparse_refuses(words: list[str]) -> None:
    assert mistake(*words).endswith(": see clozemill sample --help")


def test_underscores_are_understood_as_hyphens() -> None:
    @dataclass(frozen=True)
    class Spelled:
        max_seq_length: int = option(5, "a whole number")
        in_memory: bool = option(True, "a switch")
        text_field: str = option("", "a text")

    parser = flags.Parser(prog="clozemill", allow_abbrev=False)
    flags.add_flags(parser, Spelled)
    words = ["--max_seq_length=7", "--no_in_memory", "--text_field", "a_b", "--beam_option=a_b", "--", "--max_seq_length"]
    arguments, extra = parser.parse_known_args(words)
    assert resolve(Spelled, arguments) == Spelled(7, False, "a_b") and "--beam_option=a_b" in extra


def test_values_that_begin_with_a_minus() -> None:
    assert parse("--name", "-1,-2").name == "-1,-2" and parse("--name", "-.5").name == "-.5"
    assert mistake("--size", "-3") == "--size is -3: give a value between 1 and 10"
    assert mistake("--name", "--way", "up") == "--name: expected one argument: see clozemill sample --help"


def test_yaml_then_flags(tmp_path: Path) -> None:
    text = "name: 'no'\nway: down\nsize: 7.0\nshare: 1\nstrict: false\nmaybe: true\ninput: [a, 'b*']\nplace: there\n"
    path = yaml_file(tmp_path, text)
    assert parse("--config", path) == Sample("no", "down", 7, 0, 1.0, False, True, ("a", "b*"), "there")
    overridden = parse("--config", path, "--size", "2", "--strict", "--input", "c", "--no-maybe", "here")
    assert overridden == Sample("no", "down", 2, 0, 1.0, True, False, ("c",), "here")
    assert isinstance(parse("--config", path).size, int)
    assert parse("--config", yaml_file(tmp_path, "input: one*\nmaybe: null\nname: 7\n")) == Sample("7", input=("one*",))
    assert parse("--config", yaml_file(tmp_path, "")) == parse("--config", yaml_file(tmp_path, "# nothing\n")) == Sample()


def test_given_options(tmp_path: Path) -> None:
    """Also at their defaults; not those of a file, because a saved configuration has all."""
    found = parse("--size", "5", "--config", yaml_file(tmp_path, "name: x"))
    assert options.given(found) == {"size"} and options.given(replace(found, name="y")) == options.given(Sample()) == set()
    assert options.given(options.from_values(Sample, {"way": "up"})) == {"way"}


@pytest.mark.parametrize("text", ["on", "'on'", "yes", "true"])
def test_yaml_reads_on_as_true_and_so_does_python(tmp_path: Path, text: str) -> None:
    @dataclass(frozen=True)
    class Switched:
        power: str = option("off", "a switch", choices=("on", "off"))

    arguments = argparse.Namespace(config=yaml_file(tmp_path, f"power: {text}\n"), save_config=None)
    assert resolve(Switched, arguments) == Switched("on")
    assert options.from_values(Switched, {"power": False}) == Switched("off")
    assert "power: 'on'" in options.to_yaml(Switched("on"))


def test_yaml_keys_may_be_spelled_like_flags(tmp_path: Path) -> None:
    values = yaml_files.read(yaml_file(tmp_path, "max-seq-length: 64\n"))
    assert values == {"max_seq_length": 64}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sise: 3", ": unknown option 'sise'; did you mean size?"),
        ("zzzzzz: 3", ": unknown option 'zzzzzz'"),
        ("config: x", ": unknown option 'config'"),
        ("size: [1]", ": size is [1]: give a whole number"),
        ("size: true", ": size is True: give a whole number"),
        ("size: .inf", ": size is inf: give a whole number"),
        ("size: .nan", ": size is nan: give a whole number"),
        ("size: 1.5", ": size is 1.5: give a whole number"),
        ("size:", ": size is None: give a whole number"),
        ("size: 99", ": size is 99: give a value between 1 and 10"),
        ("share: .inf", ": share is inf: give a number"),
        ("strict: 1", ": strict is 1: give true or false"),
        ("strict: null", ": strict is None: give true or false"),
        ("way: on", ": way is True: give a string in quotes"),
        ("way: UP", ": way is 'UP': give one of up, down; did you mean up?"),
        ("name: no", ": name is False: give a string in quotes"),
        ("name:", ": name is None: give a string in quotes"),
        ("size: 1:30", ": size is '1:30': give a whole number"),
        ("size: 1.5e+0", ": size is '1.5e+0': give a whole number"),
        ("floor: 0x10", ": floor is '0x10': give a whole number"),
        ("size: 7\nname: a\nsize: 8", ", line 3: size is given twice: remove one of them"),
        ("max-size: 7\nmax_size: 7", ", line 2: max_size is given twice: remove one of them"),
        ("input: [a, {b: 1, b: 2}]", ", line 1: b is given twice: remove one of them"),
        ("name: [a]", ": name is ['a']: give a string in quotes"),
        ("name: {a: b}", ": name is {'a': 'b'}: give a string in quotes"),
        ("input:", ": input is None: give a string in quotes, or a list of strings"),
        ("input: [a, 3]", ": input is ['a', 3]: give a string in quotes, or a list of strings"),
        ("- a", " is not a mapping of options to values: write lines such as 'seed: 7'"),
        ("3: a", " is not a mapping of options to values: write lines such as 'seed: 7'"),
        ("just text", " is not a mapping of options to values: write lines such as 'seed: 7'"),
        ("name: x\nsize: [1\n", ", line 3 is not valid YAML: correct it"),
        ("a: !!python/object:os.system {}", ", line 1 is not valid YAML: correct it"),
        ("[" * 5000, " is not valid YAML: correct it"),
    ],
)
def test_yaml_that_doesn_t_fit(tmp_path: Path, text: str, sentence: str) -> None:
    path = yaml_file(tmp_path, text)
    assert mistake("--config", path) == path + sentence


def test_yaml_numbers_in_unusual_forms(tmp_path: Path) -> None:
    """They are what was typed: text for an option that is text, and otherwise the decimal number."""
    path = yaml_file(tmp_path, "name: 010\nplace: 2024-01-02\nsize: 07\nfloor: 1_000\nshare: 1.0e-1\n")
    assert parse("--config", path) == Sample("010", size=7, floor=1000, share=0.1, place="2024-01-02")
    assert parse("--config", yaml_file(tmp_path, "size: 7.0\nfloor: 1.0e+5")) == Sample(size=7, floor=100_000)
    assert parse("--floor", "1e5") == Sample(floor=100_000)
    assert parse("--floor", "18446744073709551615") == Sample(floor=18446744073709551615)  # no float
    for name in ("0123", "1:30", "1_0", "+5", "0x1F", ".5", "1.50", "2024-01-02 10:00:00"):
        assert parse("--config", yaml_file(tmp_path, f"name: {name}")).name == name


def test_yaml_that_can_t_be_read(tmp_path: Path) -> None:
    assert mistake("--config", str(tmp_path / "none")).startswith(f"{tmp_path / 'none'} can't be read (No such file")
    assert "can't be read (Is a directory)" in mistake("--config", str(tmp_path))
    assert "can't be read" in mistake("--config", yaml_file(tmp_path, b"name: \xff"))


def test_saved_configuration_gives_itself_back(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "saved.yaml")
    odd = parse("--name", "no: ‘é’ # 1\n", "--input", "a b", "*.x", "--share", "1e-07", "--no-strict", "--save-config", path)
    assert parse("--config", path) == odd
    assert [name.name for name in (tmp_path / "new").iterdir()] == ["saved.yaml"]
    parse("--save-config", path)
    assert parse("--config", path) == Sample()


def test_a_configuration_that_can_t_be_saved(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can't be written" in mistake("--save-config", str(tmp_path / "file" / "c.yaml"))
    assert "can't be written" in mistake("--save-config", str(tmp_path))


@pytest.mark.parametrize("config", CONFIGS)
def test_every_configuration_round_trips(config: type, tmp_path: Path) -> None:
    name = next(name for name, command in clozemill.COMMANDS.items() if command.config is config)
    path = str(tmp_path / "c.yaml")
    parser = clozemill.parser()
    saved = resolve(config, parser.parse_args([name, "--save-config", path]))
    assert saved == config() == resolve(config, parser.parse_args([name, "--config", path]))


@pytest.mark.parametrize("config", CONFIGS)
def test_every_default_passes_its_own_check(config: type) -> None:
    for field in fields(config):
        if field.default is not None:
            assert options.value_of(field, field.default, field.name) == field.default
        assert field.metadata["help"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--max-seq-length 16 --max-predictions 20", "--max-predictions 20 is more than the 13 tokens"),
        ("--masked-lm-prob 0", "--masked-lm-prob is 0, but at least one token"),
        ("--seed 9223372036854775808", "--seed is 9223372036854775808: give a value between 0 and 9223372036854775807"),
        ("--seed=-1", "--seed is -1"),
        ("--eval-fraction 0.6", "--eval-fraction is 0.6: give a value between 0 and 0.5"),
    ],
)
def test_prepare_s_own_checks(flags: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        resolve(PrepareConfig, clozemill.parser().parse_args(["prepare", *flags.split()]))
    assert str(error.value).startswith(sentence)


def test_require() -> None:
    options.require(PrepareConfig(input=("a",), vocab="v"), "input", "vocab")
    options.require(PrepareConfig(input=("a",), vocab="v", output="o"))
    missing = r"^--input and --output are missing: give input files or globs and the folder of the dataset to write$"
    with pytest.raises(UserError, match=missing):
        options.require(PrepareConfig(vocab="v"))
    with pytest.raises(UserError, match=r"^--vocab is missing: give a vocabulary file"):
        options.require(PrepareConfig(), "vocab")
    with pytest.raises(UserError, match=r"^DATASET is missing: give the folder of the dataset"):
        options.require(VerifyConfig(), "dataset")


def test_identity_leaves_out_what_changes_no_byte() -> None:
    assert options.identity(Sample(input=("a",))) == {
        "name": "",
        "way": "up",
        "size": 5,
        "floor": 0,
        "share": 0.5,
        "maybe": None,
        "place": "here",
    }
    left_out = {field.name for field in fields(PrepareConfig)} - options.identity(PrepareConfig()).keys()
    run = {"runner", "num_workers", "in_memory", "progress", "max_reject_rate"}
    assert left_out == run | {"input", "vocab", "output", "shuffle", "sources", "licenses", "languages"} | {
        "decontaminate",
        "exclude_ids",
        "gate",
        "update",
        "overwrite",
    }


def test_suggest() -> None:
    assert options.suggest("seeds", ["seed", "size"]) == "; did you mean seed?"
    assert options.suggest("qqq", ["seed", "size"]) == ""
