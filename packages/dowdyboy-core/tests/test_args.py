"""Options from files: plain merging, and files under a parser."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

import dowdyboy_core
from dowdyboy_core._errors import ConfigError
from dowdyboy_core.args import parse_args, parse_json_args, parse_yaml_args

READERS = [(parse_json_args, "c.json"), (parse_yaml_args, "c.yaml")]


def _write(folder: Path, name: str, content: Any) -> Path:
    """A file of the given text, or of JSON (which YAML reads as well) for anything else."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------------- plain merging


@pytest.mark.parametrize(("read", "name"), READERS)
def test_the_file_replaces_and_extends(read: Any, name: str, tmp_path: Path) -> None:
    content = {"lr": 0.5, "batch-size": 8, "model": {"num-layers": 2, "in_size": [1, {"a-b": "x-y"}]}, "n": None}
    args = argparse.Namespace(lr=0.1, epoch=3)
    out = read(args, _write(tmp_path, name, content))
    assert vars(out) == {
        "lr": 0.5,
        "epoch": 3,
        "batch_size": 8,
        "model": {"num_layers": 2, "in_size": [1, {"a_b": "x-y"}]},
        "n": None,
    }
    assert vars(args) == {"lr": 0.1, "epoch": 3}
    assert type(out) is argparse.Namespace


@pytest.mark.parametrize(("read", "name"), READERS)
def test_the_new_namespace_shares_nothing_that_can_be_copied(read: Any, name: str, tmp_path: Path) -> None:
    args = argparse.Namespace(sizes=[1, [2]], out=sys.stdout)
    out = read(args, str(_write(tmp_path, name, {"a": 1})))
    out.sizes[1].append(3)
    assert args.sizes == [1, [2]]
    assert out.out is sys.stdout
    assert list(vars(out)) == ["sizes", "out", "a"]


@pytest.mark.parametrize(("read", "name"), READERS)
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a-b": 1, "a_b": 2}', "'a-b' and 'a_b' both mean 'a_b'"),
        ('{"x": [{"a-b": 1, "a_b": 2}]}', "'a-b' and 'a_b' both mean 'a_b'"),
        ('{"a": 1, "a": 2}', "'a' and 'a' both mean 'a'"),
        ("[1, 2]", "holds a list, not a mapping"),
        ('"text"', "holds a str, not a mapping"),
        ("3", "holds a int, not a mapping"),
        ("{", "c."),
        ('{"a": [1, 2}', "c."),
    ],
)
def test_bad_files_are_refused(read: Any, name: str, content: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(argparse.Namespace(), _write(tmp_path, name, content))
    assert name in str(caught.value)


@pytest.mark.parametrize(("read", "name"), READERS)
def test_files_that_cannot_be_read_are_refused(read: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json can't be read"):
        read(argparse.Namespace(), tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="can't be read"):
        read(argparse.Namespace(), tmp_path)
    (tmp_path / name).write_bytes('{"a": "ä"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match="can't be read as utf-8 text"):
        read(argparse.Namespace(), tmp_path / name)
    assert read(argparse.Namespace(), tmp_path / name, "latin-1").a == "ä"
    assert read(argparse.Namespace(), tmp_path / name, encoding="latin-1").a == "ä"
    with pytest.raises(ConfigError, match="no-such-encoding"):
        read(argparse.Namespace(), tmp_path / name, "no-such-encoding")
    with pytest.raises(ConfigError, match=r"args=\{\} is not an argparse.Namespace"):
        read({}, _write(tmp_path, name, "{}"))


@pytest.mark.parametrize(("read", "name"), READERS)
def test_a_byte_order_mark_is_no_part_of_the_file(read: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read(argparse.Namespace(), tmp_path / name).a == 1


def test_empty_files(tmp_path: Path) -> None:
    args = argparse.Namespace(a=1)
    for content in ("", "# only a comment\n", "---\n"):
        assert parse_yaml_args(args, _write(tmp_path, "c.yaml", content)) == args
    assert parse_json_args(args, _write(tmp_path, "c.json", "{}")) == args
    with pytest.raises(ConfigError, match="not a JSON file"):
        parse_json_args(args, _write(tmp_path, "c.json", ""))


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/name:os.system",
        "!!python/object/new:pathlib.Path [x]",
        "!!python/tuple [1, 2]",
        "!made-up {{a: 1}}",
    ],
)
def test_yaml_tags_build_no_objects(value: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(ConfigError, match="tags that build Python objects are not read"):
        parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", "a: " + value.format(made)))
    assert not made.exists()


def test_yaml_of_everyday_use_reads_as_safe_load_does(tmp_path: Path) -> None:
    text = """
base: &base {lr: 0.1, steps: [1, 2]}
fine: {<<: *base, lr: 0.2, name: run 1, day: 2024-01-02, on: true, none: ~, 3: three, hex: 0x10, f: 1.5e+3}
word: &word left-right
again: *word
"""
    assert vars(parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yml", text))) == yaml.safe_load(text)


def test_yaml_keys_behind_merges_and_aliases_are_renamed_too(tmp_path: Path) -> None:
    text = """
base: &b {weight-decay: 1, a-b: 0}
use: &u {<<: *b, weight_decay: 2}
again: {<<: *u, a-b: 3}
w: &w x-y
*w : 5
"""
    out = parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", text))
    assert vars(out) == {
        "base": {"weight_decay": 1, "a_b": 0},
        "use": {"weight_decay": 2, "a_b": 0},
        "again": {"weight_decay": 2, "a_b": 3},
        "w": "x-y",
        "x_y": 5,
    }


@pytest.mark.parametrize("text", ["1e-3", "1E5", "+2.5e3", "-.5e-2", "3.e2"])
def test_yaml_numbers_with_an_exponent_are_numbers(text: str, tmp_path: Path) -> None:
    assert parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", f"a: {text}")).a == float(text)


@pytest.mark.parametrize("text", ["e3", "1e", "12e4f", "'1e-3'", "1.2.3e4"])
def test_yaml_texts_stay_texts(text: str, tmp_path: Path) -> None:
    out = parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", f"a: {text}"))
    assert out.a == text.strip("'")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("010", "010 is read as 8 (a leading 0 means base 8) in YAML 1.1, and as 10 in YAML 1.2. Write 10, 8 or 0o10"),
        (
            "-0_17",
            "-0_17 is read as -15 (a leading 0 means base 8) in YAML 1.1, and as -17 in YAML 1.2.",
        ),
        ("!!int '010'", "Write 10, 8 or 0o10 for that number, or '010' in quotes for a text."),
        ("[1, {b: 0755}]", "0755 is read as 493"),
        ("08", "08 is read as no number in YAML 1.1, and as 8 in YAML 1.2. Write 8, or '08' in quotes for a text."),
        (
            "12:30",
            "12:30 is read as the number 750 (base 60) in YAML 1.1. Write 750 for that number, or '12:30' in",
        ),
        ("1:02:03.5", "1:02:03.5 is read as the number 3723.5 (base 60)"),
        ("!!int ten", "ten is no number. Write 'ten' in quotes for a text."),
        ("!!float ''", " is no number."),
        ("1e400", "the number 1e400 is too large for a float."),
        ("{1: a, on: b}", "two of the keys 1, on are one and the same. Put them in quotes."),
    ],
)
def test_yaml_that_means_something_else_than_it_looks_is_refused(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", f"ok: 1\na: {text}"))
    assert says in str(caught.value)
    assert "key" in says or "c.yaml: line 2: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0o10", 8),
        ("-0o17", -15),
        ("1_000", 1000),
        ("007", 7),
        ("00", 0),
        ("-0", 0),
        ("0x1F", 31),
        ("0b101", 5),
        ("0.5", 0.5),
        ("00.5", 0.5),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("1_0.5e+1", 105.0),
        ("'010'", "010"),
        ("'12:30'", "12:30"),
        ("1:60", "1:60"),
        ("0o8", "0o8"),
        ("!!str 010", "010"),
        ("{1: a, 2: b, c: 1}", {1: "a", 2: "b", "c": 1}),
    ],
)
def test_yaml_that_means_what_it_looks_is_read(text: str, value: Any, tmp_path: Path) -> None:
    found = parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", f"a: {text}")).a
    assert found == value and type(found) is type(value)


def test_a_number_that_is_not_one_is_nan(tmp_path: Path) -> None:
    for read, name, text in ((parse_yaml_args, "c.yaml", "a: .NaN"), (parse_json_args, "c.json", '{"a": NaN}')):
        assert math.isnan(read(argparse.Namespace(), _write(tmp_path, name, text)).a)
    with pytest.raises(ConfigError, match="the number 1e999 is too large for a float"):
        parse_json_args(argparse.Namespace(), _write(tmp_path, "c.json", '{"a": 1e999}'))
    assert parse_json_args(argparse.Namespace(), _write(tmp_path, "c.json", '{"a": -Infinity}')).a == float("-inf")


@pytest.mark.parametrize("text", ["1: a", "yes: a", "a: !!timestamp b", "a: {[1]: 2}", "a: 1\n---\nb: 2", "a: \x01"])
def test_odd_yaml_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", text))


def test_deep_and_repeated_nesting_does_no_harm(tmp_path: Path) -> None:
    lists = "".join(f"l{i + 1}: &l{i + 1} [{', '.join([f'*l{i}'] * 9)}]\n" for i in range(40))
    out = parse_yaml_args(argparse.Namespace(), _write(tmp_path, "c.yaml", "l0: &l0 [x]\n" + lists))
    assert out.l40[0] is out.l40[8]
    for read, name in READERS:
        with pytest.raises(ConfigError):
            read(argparse.Namespace(), _write(tmp_path, name, '{"a":' + "[" * 100_000))


# ------------------------------------------------------------------------------- a file under a parser


def _parser(**more: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train", **more)
    parser.add_argument("--lr", "-l", type=float, default=0.1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--optimizer", choices=["sgd", "adam"], default="sgd")
    parser.add_argument("--name", default="run")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--no-cuda", dest="cuda", action="store_false")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--pair", type=float, nargs=2)
    parser.add_argument("--tag", action="append")
    parser.add_argument("-v", "--verbose", action="count", default=0)
    parser.add_argument("--seed", type=int)
    return parser


def _parse(folder: Path, content: Any, *typed: str, parser: argparse.ArgumentParser | None = None) -> Any:
    path = _write(folder, "c.yaml", content)
    return parse_args(parser or _parser(), ["--config", str(path), *typed])


def _refused(capsys: pytest.CaptureFixture[str], *arguments: Any, **more: Any) -> str:
    """What is printed when the program ends as for a wrong typed value."""
    with pytest.raises(SystemExit) as caught:
        _parse(*arguments, **more)
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert "usage: train" in printed
    return " ".join(printed.split())


def test_without_a_file_it_is_parse_args() -> None:
    for typed in ([], ["--lr", "1", "--fast", "-vv", "--tag", "a", "--tag", "b"]):
        expected = {**vars(_parser().parse_args(typed)), "config": None}
        assert vars(parse_args(_parser(), typed)) == expected


def test_typed_wins_over_the_file_and_that_over_the_default(tmp_path: Path) -> None:
    out = _parse(tmp_path, {"lr": 0.5, "batch-size": 8}, "--lr", "0.25")
    assert (out.lr, out.batch_size, out.optimizer) == (0.25, 8, "sgd")
    assert out.config == str(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        (["--lr", "0.1"], "lr", 0.1),
        (["--lr=0.1"], "lr", 0.1),
        (["-l0.1"], "lr", 0.1),
        (["--bat", "4"], "batch_size", 4),
        (["--optimizer", "sgd"], "optimizer", "sgd"),
        (["--no-cuda"], "cuda", False),
        (["--fast"], "fast", True),
        (["--sizes", "1"], "sizes", [1]),
        (["--tag", "typed"], "tag", ["typed"]),
        (["-v"], "verbose", 1),
    ],
)
def test_a_typed_value_wins_even_if_it_equals_the_default(
    typed: list[str], name: str, value: Any, tmp_path: Path
) -> None:
    content = {
        "lr": 0.5,
        "batch_size": 8,
        "optimizer": "adam",
        "cuda": True,
        "fast": False,
        "sizes": [7, 8],
        "tag": ["a"],
        "verbose": 3,
    }
    assert getattr(_parse(tmp_path, content, *typed), name) == value
    assert getattr(_parse(tmp_path, content), name) == content[name]


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ({"lr": 1}, "lr", 1.0),
        ("lr: 1e-3", "lr", 0.001),
        ({"lr": "0.5"}, "lr", 0.5),
        ({"l": 2.5}, "lr", 2.5),
        ({"--lr": 2.5}, "lr", 2.5),
        ({"--batch-size": 2}, "batch_size", 2),
        ({"batch_size": 2}, "batch_size", 2),
        ({"name": "other"}, "name", "other"),
        ({"name": "--lr"}, "name", "--lr"),
        ({"name": "--"}, "name", "--"),
        ({"fast": True}, "fast", True),
        ({"cuda": False}, "cuda", False),
        ({"cuda": True}, "cuda", True),
        ({"no-cuda": True}, "cuda", False),
        ({"no-cuda": False}, "cuda", True),
        ({"sizes": [2, 3]}, "sizes", [2, 3]),
        ({"sizes": 2}, "sizes", [2]),
        ({"pair": [1, 2.5]}, "pair", [1.0, 2.5]),
        ({"pair": None}, "pair", None),
        ({"tag": ["a", "b"]}, "tag", ["a", "b"]),
        ({"tag": "a"}, "tag", ["a"]),
        ({"tag": []}, "tag", []),
        ({"verbose": 2}, "verbose", 2),
        ({"verbose": 0}, "verbose", 0),
        ({"seed": None}, "seed", None),
        ({"seed": -3}, "seed", -3),
    ],
)
def test_values_of_the_file_are_those_of_typed_ones(content: Any, name: str, value: Any, tmp_path: Path) -> None:
    out = _parse(tmp_path, content)
    assert getattr(out, name) == value
    assert type(getattr(out, name)) is type(value)
    expected = {**vars(_parser().parse_args([])), "config": out.config, name: value}
    assert vars(out) == expected


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"batch_size": 2.5}, "batch_size=2.5 is not accepted (invalid int value: '2.5'). batch_size takes int."),
        ({"batch_size": True}, "batch_size=True is not accepted"),
        ({"batch-size": "many"}, "batch_size='many' is not accepted"),
        ({"batch_size": None}, "batch_size=None is not accepted. batch_size takes int."),
        ({"batch_size": [1]}, "batch_size=[1] is not accepted. batch_size takes int."),
        ({"lr": "fast"}, "lr='fast' is not accepted (invalid float value: 'fast'). lr takes float."),
        ({"lr": False}, "lr=False is not accepted"),
        ({"lr": {"a": 1}}, "lr={'a': 1} is not accepted"),
        ({"name": 7}, "name=7 is not accepted. name takes a text."),
        ({"name": ["a"]}, "name=['a'] is not accepted. name takes a text."),
        ({"optimizer": "rmsprop"}, "optimizer takes one of 'sgd', 'adam'."),
        ({"fast": 1}, "fast=1 is not accepted. fast takes true or false."),
        ({"fast": "yes"}, "fast='yes' is not accepted. fast takes true or false."),
        ({"no-cuda": "x"}, "no_cuda='x' is not accepted. no_cuda takes true or false."),
        ({"sizes": []}, "sizes=[] is not accepted"),
        ({"sizes": [1, "b"]}, "sizes takes a list of values, each int."),
        ({"sizes": [1, None]}, "sizes=[1, None] is not accepted"),
        ({"pair": [1]}, "pair takes a list of 2, each float."),
        ({"pair": [1, 2, 3]}, "pair takes a list of 2, each float."),
        ({"tag": [1]}, "tag takes a text, or a list of such."),
        ({"verbose": -1}, "verbose takes an integer of at least 0."),
        ({"verbose": True}, "verbose takes an integer of at least 0."),
        ("name: no", "name=False is not accepted. name takes a text. Write 'no' in quotes for a text."),
        ("optimizer: off", "optimizer takes one of 'sgd', 'adam'."),
        ("tag: 2024-01-02", "or a list of such. Write '2024-01-02' in quotes for a text."),
        ("name: null", "name=None is not accepted. name takes a text. Write 'null' in quotes for a text."),
        ("lr: yes", "lr=True is not accepted"),
        ("batch_size: 010", "c.yaml: line 1: 010 is read as 8"),
        ({"lr": 1, "l": 2}, "the keys 'lr' and 'l' both set 'lr'. Keep one."),
        ({"cuda": True, "no-cuda": True}, "the keys 'cuda' and 'no_cuda' both set 'cuda'."),
        ({"batchsize": 3}, "no option is called 'batchsize' (did you mean 'batch_size'?)"),
        ({"optimiser": "sgd", "xyzzy": 1}, "'optimiser' (did you mean 'optimizer'?), 'xyzzy'. The options: batch_s"),
        ({"--lrx": 1}, "no option is called '__lrx' (did you mean 'lr'?). The options: batch_size, cuda, fast, l, lr,"),
        ({"X_lr_X": 1}, "no option is called 'X_lr_X'. The options:"),
        ({"help": True}, "no option is called 'help'"),
        ({"config": "x.json"}, "no option is called 'config'"),
        ({"a-b": 1, "a_b": 1}, "both mean 'a_b'"),
        ([1], "holds a list, not a mapping"),
        ("a: !!python/name:os.system", "not plain YAML"),
    ],
)
def test_what_is_wrong_in_the_file_ends_the_program(
    content: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = _refused(capsys, tmp_path, content)
    assert " ".join(says.split()) in printed
    assert f"train: error: argument --config: {tmp_path / 'c.yaml'}" in printed


def test_a_wrong_value_of_the_file_is_refused_even_if_a_typed_one_replaces_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "lr='x' is not accepted" in _refused(capsys, tmp_path, {"lr": "x"}, "--lr", "1")


def test_the_kind_of_file_goes_by_its_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.json", "a.yaml", "a.yml", "A.JSON"):
        assert parse_args(_parser(), ["--config", str(_write(tmp_path, name, '{"lr": 2}'))]).lr == 2.0
    for name, says in (("a.toml", "does not end in .json, .yaml or .yml"), ("absent.json", "can't be read")):
        (tmp_path / "a.toml").touch()
        with pytest.raises(SystemExit):
            parse_args(_parser(), ["--config", str(tmp_path / name)])
        assert says in capsys.readouterr().err
    _write(tmp_path, "b.json", "lr: 2")
    with pytest.raises(SystemExit):
        parse_args(_parser(), ["--config", str(tmp_path / "b.json")])
    assert "not a JSON file" in capsys.readouterr().err
    (tmp_path / "c.yaml").write_bytes("name: ä".encode("latin-1"))
    with pytest.raises(SystemExit):
        parse_args(_parser(), ["--config", str(tmp_path / "c.yaml")])
    assert "c.yaml can't be read as utf-8 text" in capsys.readouterr().err


def test_with_exit_on_error_off_it_raises(tmp_path: Path) -> None:
    parser = _parser(exit_on_error=False)
    with pytest.raises(argparse.ArgumentError, match="lr='x' is not accepted"):
        _parse(tmp_path, {"lr": "x"}, parser=parser)
    with pytest.raises(argparse.ArgumentError, match="invalid float"):
        parse_args(parser, ["--lr", "y"])
    assert _parse(tmp_path, {"lr": 3}, parser=parser).lr == 3.0
    # as without it, what is wrong in the file comes first
    with pytest.raises(argparse.ArgumentError, match="lr='x' is not accepted"):
        _parse(tmp_path, {"lr": "x"}, "--lr", "y", parser=parser)
    parser.add_argument("--data", required=True)
    assert _parse(tmp_path, {"data": "d"}, parser=parser).data == "d"


def test_a_required_option_may_stand_in_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = _parser()
    parser.add_argument("--data", required=True)
    parser.add_argument("source")
    parser.add_argument("--out-dir", required=True)
    content = {"data": "d", "out-dir": "o", "source": "s"}
    out = _parse(tmp_path, content, parser=parser)
    assert (out.data, out.out_dir, out.source) == ("d", "o", "s")
    assert _parse(tmp_path, content, "typed", parser=parser).source == "typed"
    assert "are required: --out-dir" in _refused(capsys, tmp_path, {"data": "d", "source": "s"}, parser=parser)
    # and is required again without the file
    with pytest.raises(SystemExit):
        parse_args(parser, [])
    assert "required: --data, source, --out-dir" in capsys.readouterr().err


def test_the_parser_can_be_used_again(tmp_path: Path) -> None:
    parser = _parser()
    before = vars(parse_args(parser, []))
    state = [dict(vars(action)) for action in parser._actions]
    own = dict(vars(parser))
    for _ in range(2):
        out = _parse(tmp_path, {"lr": 3, "sizes": [5], "tag": ["x"]}, "--tag", "y", parser=parser)
        out.sizes.append(6)
        assert (out.lr, out.tag) == (3.0, ["y"])
        with pytest.raises(SystemExit):
            _parse(tmp_path, {"lr": "x"}, parser=parser)
        with pytest.raises(SystemExit):
            _parse(tmp_path, {"lr": 3}, "--lr", "x", parser=parser)
        assert vars(parse_args(parser, [])) == before
    assert [dict(vars(action)) for action in parser._actions] == state
    assert dict(vars(parser)) == own
    assert parser.format_help().count("--config FILE") == 2  # in the usage line, and in the list


def test_a_parser_with_a_config_of_its_own(tmp_path: Path) -> None:
    path = _write(tmp_path, "base.json", {"lr": 7})
    parser = _parser()
    parser.add_argument("-c", "--config", dest="settings", type=Path, default=path)
    assert parse_args(parser, []).lr == 7.0
    other = _write(tmp_path, "other.json", {"lr": 8})
    out = parse_args(parser, ["-c", str(other)])
    assert (out.lr, out.settings) == (8.0, other)


@pytest.mark.parametrize(
    ("option", "values"), [({"action": "store_true"}, []), ({"nargs": 2}, ["a", "b"]), ({"type": len}, ["a"])]
)
def test_a_config_of_its_own_that_takes_no_path_is_refused(option: dict[str, Any], values: list[str]) -> None:
    parser = _parser()
    parser.add_argument("--config", **option)
    with pytest.raises(ConfigError, match="not a path"):
        parse_args(parser, ["--config", *values])


def test_another_option_with_the_dest_config_is_refused() -> None:
    parser = _parser()
    parser.add_argument("-c", "--c", dest="config")
    with pytest.raises(ConfigError) as caught:
        parse_args(parser, [])
    assert str(caught.value) == "-c/--c stores into 'config', which --config FILE needs. Give it another dest."
    with pytest.raises(ConfigError, match=r"^a positional argument stores into 'config', which --config FILE needs\."):
        parse_args(_one("config"), [])


def test_help_shows_the_parser_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="train", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--lr", default=0.1, help="rate")
    parser.add_argument("--data", required=True, help="where")
    with pytest.raises(SystemExit) as caught:
        parse_args(parser, ["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "(default: 0.1)" in shown
    assert "[--data DATA]" not in shown
    assert "--config FILE JSON or YAML file of option values; what is typed wins over it" in " ".join(shown.split())


def test_wrong_typed_values_are_reported_as_ever(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --lr/-l: invalid float value: 'x'" in _refused(capsys, tmp_path, {"seed": 1}, "--lr", "x")
    assert "unrecognized arguments: --nope" in _refused(capsys, tmp_path, {"seed": 1}, "--nope")
    with pytest.raises(SystemExit):
        parse_args(_parser(), ["--config"])
    assert "argument --config: expected one argument" in capsys.readouterr().err


def test_a_config_typed_after_a_mistake_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path, "c.json", {"lr": "wrong too"})
    with pytest.raises(SystemExit):
        parse_args(_parser(), ["--lr", "x", "--config", str(path)])
    assert "invalid float value: 'x'" in capsys.readouterr().err


def test_the_command_line_of_the_process_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, "c.json", {"lr": 5})
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", str(path), "--name", "n"])
    out = parse_args(_parser())
    assert (out.lr, out.name) == (5.0, "n")


# --------------------------------------------------------------------------------- less common options


def _one(*names: str, **more: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument(*names, **more)
    return parser


class _Noting(argparse.Action):
    """Stores what it is called with, after what was there."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), parser.prog, values, option_string])


def _str2bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither true nor false")
    return text.lower() == "true"


class _KeyValue(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        name, _, value = values.partition("=")
        if getattr(namespace, self.dest) is None:
            setattr(namespace, self.dest, {})
        getattr(namespace, self.dest)[name] = value
        namespace.last = name


@pytest.mark.parametrize(
    ("option", "content", "expected"),
    [
        ({"type": bool}, {"x": False}, False),
        ({"type": bool}, {"x": True}, True),
        ({"type": _str2bool}, {"x": False}, False),
        ({"type": _str2bool}, {"x": "TRUE"}, True),
        ({"type": Path}, {"x": "a/b"}, Path("a/b")),
        ({"type": str.upper}, {"x": "a"}, "A"),
        ({"type": lambda s: s + "!"}, {"x": "a"}, "a!"),
        ({"type": lambda s: [int(n) for n in s.split(",")]}, {"x": "1,2"}, [1, 2]),
        ({"type": dict}, {"x": {"a-b": 1}}, {"a_b": 1}),
        ({"type": int, "choices": range(3)}, {"x": 2}, 2),
        ({"type": int, "nargs": "*"}, {"x": []}, []),
        ({"type": int, "nargs": "?", "const": 9}, {"x": True}, 9),
        ({"type": int, "nargs": "?", "const": 9}, {"x": 3}, 3),
        ({"nargs": 1}, {"x": "a"}, ["a"]),
        ({"action": "append", "nargs": 2, "type": int}, {"x": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]]),
        ({"action": "append", "default": ["d"]}, {"x": ["a"]}, ["a"]),
        ({"action": "extend", "nargs": "+", "type": int}, {"x": [1, 2]}, [1, 2]),
        ({"nargs": 2}, {"x": ["a", "b"]}, ["a", "b"]),
        ({"action": argparse.BooleanOptionalAction}, {"x": False}, False),
        ({"action": argparse.BooleanOptionalAction}, {"no-x": True}, False),
        ({"action": argparse.BooleanOptionalAction}, {"no-x": False}, True),
        ({"action": "store_const", "const": 5}, {"x": 5}, 5),
        ({"action": "append_const", "const": 1, "default": [0]}, {"x": False}, [0]),
        ({"action": _KeyValue}, {"x": "a=b"}, {"a": "b"}),
        ({"action": _KeyValue, "default": {"c": "d"}}, {"x": "a=b"}, {"c": "d", "a": "b"}),
    ],
)
def test_options_of_all_sorts(option: dict[str, Any], content: Any, expected: Any, tmp_path: Path) -> None:
    assert _parse(tmp_path, content, parser=_one("--x", **option)).x == expected


@pytest.mark.parametrize(
    ("option", "content", "says"),
    [
        ({"type": bool}, {"x": "False"}, "x='False' is not accepted. x takes true or false."),
        ({"type": _str2bool}, {"x": 3}, "(3 is neither true nor false). x takes _str2bool."),
        ({"type": int, "choices": [1, 2]}, {"x": 3}, "x takes one of 1, 2."),
        ({"type": int, "nargs": "+", "choices": [1, 2]}, {"x": [1, 3]}, "x takes a list of values, each one of 1, 2."),
        ({"action": "append", "nargs": 2}, {"x": [["a"]]}, "x takes a list of 2, each a text."),
        ({"action": "store_const", "const": 5}, {"x": 6}, "x takes 5."),
        ({"action": "store_const", "const": 1}, {"x": True}, "x takes 1."),
        ({"type": int, "nargs": "?"}, {"x": "a"}, "(invalid int value: 'a'). x takes int."),
        ({"type": partial(int, base=2)}, {"x": "2"}, "x takes functools.partial(<class 'int'>, base=2)."),
        ({"action": "version", "version": "1"}, {"x": True}, "no option is called 'x'"),
    ],
)
def test_options_of_all_sorts_refuse(
    option: dict[str, Any], content: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in _refused(capsys, tmp_path, content, parser=_one("--x", **option))


def test_an_action_may_set_several_names(tmp_path: Path) -> None:
    parser = _one("--x", action=_KeyValue, default={})
    assert vars(_parse(tmp_path, {"x": "a=b"}, parser=parser))["last"] == "a"
    assert parser.get_default("x") == {}


@pytest.mark.parametrize(("nargs", "typed", "noted"), [(0, True, []), (None, "a", "a"), (2, ["a", "b"], ["a", "b"])])
def test_an_action_is_called_as_for_a_typed_value(nargs: int | None, typed: Any, noted: Any, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument("--first", "--x", "-y", dest="x", action=_Noting, nargs=nargs, default=["before"])
    before = [] if nargs == 0 else ["before"]
    for key, option in (("x", "--first"), ("first", "--first"), ("y", "-y")):
        assert _parse(tmp_path, {key: typed}, parser=parser).x == [*before, "train", noted, option]
    assert parser.get_default("x") == ["before"]


def test_a_positional_that_takes_no_value_has_no_option(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(prog="train")
    try:
        parser.add_argument("x", action=_Noting, nargs=0)
    except ValueError:
        pytest.skip("this version of argparse refuses it itself")
    assert _parse(tmp_path, {"x": True}, parser=parser).x == ["train", [], None]


def test_constants_that_share_a_dest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument("--slow", dest="mode", action="store_const", const="s")
    parser.add_argument("--quick", dest="mode", action="store_const", const="q")
    parser.add_argument("--a", dest="list", action="append_const", const=1)
    assert _parse(tmp_path, {"mode": "q"}, parser=parser).mode == "q"
    assert _parse(tmp_path, {"slow": True}, parser=parser).mode == "s"
    assert _parse(tmp_path, {"slow": False}, parser=parser).mode is None
    assert _parse(tmp_path, {"mode": "q"}, "--slow", parser=parser).mode == "s"
    assert _parse(tmp_path, {"a": True}, parser=parser).list == [1]
    assert "mode takes 's' or 'q'." in _refused(capsys, tmp_path, {"mode": "x"}, parser=parser)
    assert "slow takes true or false." in _refused(capsys, tmp_path, {"slow": "s"}, parser=parser)


def test_options_that_exclude_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="train")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--a", action="store_true")
    group.add_argument("--b", type=int)
    assert _parse(tmp_path, {"b": 3}, parser=parser).b == 3
    assert vars(_parse(tmp_path, {"b": 3}, "--a", parser=parser)).items() >= {"a": True, "b": None}.items()
    assert _parse(tmp_path, {"b": 3, "a": False}, parser=parser).b == 3
    assert "'a' and 'b' exclude each other" in _refused(capsys, tmp_path, {"b": 3, "a": True}, parser=parser)
    assert "one of the arguments --a --b is required" in _refused(capsys, tmp_path, {}, parser=parser)


def test_positionals_that_may_be_left_out(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument("in-file", nargs="?", default="d", choices=["d", "e", "f"])
    parser.add_argument("rest", nargs="*", type=int)
    out = vars(_parse(tmp_path, {"in-file": "e", "rest": [1, 2]}, parser=parser))
    assert (out["in-file"], out["rest"]) == ("e", [1, 2])
    path = str(tmp_path / "c.yaml")
    out = vars(parse_args(parser, ["f", "--config", path]))
    assert (out["in-file"], out["rest"]) == ("f", [1, 2])
    out = vars(parse_args(parser, ["--config", path, "--"]))
    assert (out["in-file"], out["rest"]) == ("e", [1, 2])


@pytest.mark.parametrize(("prefixes", "prefix"), [("+", "++"), ("+-", "--"), ("c", "cc")])
def test_another_prefix_than_a_dash(prefixes: str, prefix: str, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(prog="train", prefix_chars=prefixes)
    parser.add_argument(f"{prefix}lr", type=float)
    path = _write(tmp_path, "c.json", {"lr": 2})
    out = parse_args(parser, [f"{prefix}config", str(path)])
    assert vars(out) == {"lr": 2.0, "config": str(path)}


# ------------------------------------------------------------------------------------------ subcommands


def _commands() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="train")
    parser.add_argument("--seed", type=int, default=0)
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("fit", aliases=["f"])
    fit.add_argument("--lr", type=float, default=0.1)
    fit.add_argument("--data", required=True)
    test = commands.add_parser("test")
    test.add_argument("--lr", type=int, default=1)
    test.add_argument("--weights")
    return parser


def test_one_file_serves_all_subcommands(tmp_path: Path) -> None:
    path = str(_write(tmp_path, "c.json", {"seed": 3, "lr": 2, "data": "d", "weights": "w"}))
    fit = parse_args(_commands(), ["--config", path, "fit"])
    assert vars(fit) == {"config": path, "seed": 3, "command": "fit", "lr": 2.0, "data": "d"}
    assert type(fit.lr) is float
    test = parse_args(_commands(), ["--config", path, "test", "--weights", "typed"])
    assert vars(test) == {"config": path, "seed": 3, "command": "test", "lr": 2, "weights": "typed"}
    assert type(test.lr) is int


def test_the_file_may_be_named_after_the_subcommand(tmp_path: Path) -> None:
    path = str(_write(tmp_path, "c.json", {"seed": 3, "data": "d"}))
    out = parse_args(_commands(), ["--seed", "9", "f", "--lr", "5", "--config", path])
    assert vars(out) == {"config": path, "seed": 9, "command": "f", "lr": 5.0, "data": "d"}
    parser = _commands()
    for _ in range(2):
        with pytest.raises(SystemExit):
            parse_args(parser, ["fit"])
        assert parse_args(parser, ["test"]).config is None


def test_subcommands_may_have_subcommands(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser(prog="train")
    outer = parser.add_subparsers(dest="command").add_parser("outer")
    outer.add_argument("--a", type=int)
    inner = outer.add_subparsers(dest="part").add_parser("inner")
    inner.add_argument("--b", type=int)
    path = str(_write(tmp_path, "c.json", {"a": 1, "b": 2}))
    found = parse_args(parser, ["--config", path, "outer", "inner"])
    assert vars(found) == {"config": path, "command": "outer", "a": 1, "part": "inner", "b": 2}
    assert parse_args(parser, ["--config", path, "outer", "--a", "3"]).a == 3


def test_the_subcommand_itself_is_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no option is called 'command'" in _refused(capsys, tmp_path, {"command": "fit"}, "test", parser=_commands())
    assert "required: command" in _refused(capsys, tmp_path, {"data": "d"}, parser=_commands())
    assert "lr=1.5 is not accepted" in _refused(capsys, tmp_path, {"lr": 1.5}, "test", parser=_commands())


# ---------------------------------------------------------------------------------------------- imports


@pytest.mark.parametrize("module", ["args", "assist", "rand", "dataset_util"])
def test_the_module_itself_needs_nothing_heavy(module: str) -> None:
    folder = Path(dowdyboy_core.__file__).parent
    # The package's own __init__ is left out: what the module imports is looked at alone.
    code = (
        "import sys, types, importlib; p = types.ModuleType('dowdyboy_core'); p.__path__ = [sys.argv[1]]; "
        "sys.modules['dowdyboy_core'] = p; importlib.import_module('dowdyboy_core.' + sys.argv[2]); "
        "print(sorted({'numpy', 'yaml', 'tarfile', 'urllib.request', 'torch', 'paddle'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(folder), module]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
