"""docs/errors.md has every message of the library, and both languages have the same ones."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest


def load() -> Any:
    """What writes the pages."""
    spec = importlib.util.spec_from_file_location("errors_page", Path(__file__).with_name("errors_page.py"))
    assert spec is not None and spec.loader is not None
    sys.modules["errors_page"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


errors_page = load()


def test_every_message_has_a_cause_and_a_cure() -> None:
    families = errors_page.read_families()
    _, problems = errors_page.sort_messages(errors_page.read_messages(), families)
    assert problems == [], "put them into docs/errors.toml; `python tests/errors_page.py --adopt` begins with that"
    for family in families:
        assert all(len(text[language]) > 20 for text in (family.cause, family.cure) for language in ("en", "zh"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_what_the_code_says(language: str) -> None:
    page = errors_page.PAGES[language].read_text(encoding="utf-8")
    assert page == errors_page.write_page(language), "write it anew: python tests/errors_page.py"


def test_a_message_without_a_family_and_a_family_without_its_message_are_noticed() -> None:
    families = errors_page.read_families()
    messages = errors_page.read_messages()
    new = errors_page.Message(
        "ConfigError", "A wholly new message that nobody has thought about.", "dowdyboy_core/x.py"
    )
    _, problems = errors_page.sort_messages([*messages, new], families)
    assert len(problems) == 1 and "is in no family" in problems[0]
    _, problems = errors_page.sort_messages(
        [item for item in messages if item.place != "dowdyboy_core/rand.py"], families
    )
    assert problems and all("no message begins with" in problem for problem in problems)


def test_messages_are_found_wherever_they_are_made() -> None:
    texts = {message.text for message in errors_page.read_messages()}
    assert "There is no model. Call set_model or set_models first." in texts  # given to the exception
    assert any("which yields batches" not in text and "is not among the records" in text for text in texts)  # returned
    assert any("Give a scheduler that was made for the optimizer" in text for text in texts)  # said once for several
    assert any("is in use: " in text for text in texts)  # made by the lock, raised by the run


def test_a_run_meets_what_the_page_says() -> None:
    from dowdyboy_core import ConfigError, TrainerConfig

    page = errors_page.PAGES["en"].read_text(encoding="utf-8")
    texts = [re.escape(text) for text in re.findall(r"^- `ConfigError`: `(.+)`$", page, re.MULTILINE)]
    patterns = [re.sub(r"\\{.*?\\}", ".*", text) for text in texts]
    for settings in ({"epoch": 0}, {"seed": True}, {"mixed_precision": "int3"}, {"epochs": 3}, {"stop_after": "soon"}):
        with pytest.raises(ConfigError) as caught:
            TrainerConfig(**settings)
        assert any(re.fullmatch(pattern, " ".join(str(caught.value).split())) for pattern in patterns), caught.value
