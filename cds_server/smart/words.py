"""The words of the app's pages in English and Spanish, complete in both or not loaded at all."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources

from hooks.texts import LANGUAGES, TextsInvalid, compare

Words = Mapping[str, str]


@cache
def _all() -> Mapping[str, Words]:
    file = resources.files("cds_server.smart").joinpath("texts.toml")
    found: dict[str, dict[str, str]] = tomllib.loads(file.read_text(encoding="utf-8"))
    if set(found) != set(LANGUAGES):
        raise TextsInvalid("smart/texts.toml: expected one table a language")
    first, second = (found[language] for language in LANGUAGES)
    compare(first, second)
    return found


def words(language: str) -> Words:
    """The words of a language.

    Raises:
        TextsInvalid: the file does not hold the same words in both languages.
        KeyError: no such language.
    """
    return _all()[language]
