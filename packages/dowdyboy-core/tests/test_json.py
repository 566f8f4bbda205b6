"""JSON as checkpoints have it: what readers take differently is neither written nor read."""

from __future__ import annotations

import pytest

from dowdyboy_core._disk.json import dump_json, parse_json


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_what_json_has_no_word_for_is_not_written(number: str) -> None:
    with pytest.raises(ValueError):
        dump_json({"value": float(number)})


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_json_is_not_read(word: str) -> None:
    with pytest.raises(ValueError, match=f"^{word} is no JSON$"):
        parse_json(f'{{"value": {word}}}'.encode())


def test_the_key_that_is_there_twice_is_named() -> None:
    with pytest.raises(ValueError, match=r"^the key 'b' is there twice$"):
        parse_json(b'{"a": 1, "b": 2, "b": 2}')


def test_what_is_written_is_read() -> None:
    value = {"ä": [1, 0.1, None, True, "\u2028"], "": {}}
    assert parse_json(dump_json(value)) == value
    assert dump_json(value).endswith(b"}\n")
