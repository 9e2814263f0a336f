"""The words of the cards in English and Spanish, loaded from ``hooks/texts/<language>/*.toml``.

Responsible for the completeness of the pair (same keys, same placeholders, nothing empty) and for
writing numbers, units and times the way people of that language write them.  Decides nothing about
what a card says.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from importlib import resources
from string import Formatter
from typing import Any, Literal, cast

Language = Literal["en", "es"]
LANGUAGES: tuple[Language, ...] = ("en", "es")

# RAE, Ortografía: "padres e hijos" but "agua y hielo"; "siete u ocho".
_SOUNDS = {
    "and": re.compile(r"h?[ií](?![aáeéoó])", re.IGNORECASE),
    "or": re.compile(r"h?[oó]", re.IGNORECASE),
}


class TextsInvalid(ValueError):
    """A text is missing, empty, doubled, or does not match its counterpart; names file and key."""


def _flatten(tree: Mapping[str, Any], prefix: str, where: str) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict):
            yield from _flatten(value, key, where)
        elif isinstance(value, str) and value.strip() == value and value:
            yield key, value
        else:
            raise TextsInvalid(f"{where}: {key} must be a text without spaces around it")


def _read(language: str) -> dict[str, str]:
    folder = resources.files("hooks").joinpath("texts", language)
    texts: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        where = f"texts/{language}/{file.name}"
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as problem:
            raise TextsInvalid(f"{where}: {problem}") from problem
        for key, value in _flatten(tree, "", where):
            if key in texts:
                raise TextsInvalid(f"{where}: {key} occurs twice")
            texts[key] = value
    return texts


def placeholders(text: str) -> frozenset[str]:
    """The names of the ``{placeholders}`` of a text."""
    return frozenset(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def compare(first: Mapping[str, str], second: Mapping[str, str]) -> None:
    """Check that two languages hold the same keys with the same placeholders; raises `TextsInvalid`."""
    for key in first.keys() ^ second.keys():
        raise TextsInvalid(f"{key}: there is no such text in one of the languages")
    for key, text in first.items():
        if placeholders(text) != placeholders(second[key]):
            raise TextsInvalid(f"{key}: the placeholders differ between the languages")


class Texts:
    """The texts of one language; immutable."""

    __slots__ = ("_decimal_comma", "_texts", "_units", "language")

    def __init__(self, language: Language, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = dict(texts)
        self._units = {
            key.removeprefix("unit."): text for key, text in texts.items() if key.startswith("unit.")
        }
        self._decimal_comma = language == "es"

    def __getitem__(self, key: str) -> str:
        """The text of a key; raises `KeyError` for a key that no file holds."""
        return self._texts[key]

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    def get(self, key: str, default: str) -> str:
        """The text of a key, or `default` (ids of a newer knowledge release than the texts)."""
        return self._texts.get(key, default)

    def maybe(self, key: str) -> str | None:
        """The text of a key, or `None`."""
        return self._texts.get(key)

    def nearest(self, prefix: str, name: str) -> str | None:
        """The text of ``prefix.name`` or, failing that, of the name with its last parts cut off; or `None`.

        ``sodium-low-severe`` falls back to ``sodium-low``.
        """
        while name:
            text = self._texts.get(f"{prefix}.{name}")
            if text is not None:
                return text
            name = name.rpartition("-")[0]
        return None

    def link(self, word: Literal["and", "or"], following: str) -> str:
        """``and`` or ``or`` before what follows; Spanish says ``e`` before the sound i and ``u`` before o."""
        changes = self.language == "es" and _SOUNDS[word].match(following) is not None
        return self._texts[f"list.{word}_changed" if changes else f"list.{word}"]

    def keys(self) -> frozenset[str]:
        """Every key."""
        return frozenset(self._texts)

    def number(self, value: float) -> str:
        """A number with at most four significant digits and this language's decimal mark."""
        if not -1e15 < value < 1e15:  # also NaN, which no comparison holds for
            return "?"
        size = abs(value)
        if size >= 1000 or value == int(value):
            text = f"{value:.0f}"
        elif size >= 100:
            text = f"{value:.1f}"
        elif size >= 1:
            text = f"{value:.2f}"
        else:
            text = f"{value:.4g}"
            if "e" in text:
                text = f"{value:.9f}"
        if "." in text:
            text = text.rstrip("0").rstrip(".")
            if self._decimal_comma:
                text = text.replace(".", ",")
        return "0" if text == "-0" else text

    def unit(self, ucum: str) -> str:
        """A UCUM unit as people write it (``mm[Hg]`` as mmHg), itself when the table does not know it."""
        return self._units.get(ucum, ucum)

    def quantity(self, value: float, ucum: str | None) -> str:
        """A value with its unit, for example ``4.2 mmol/L`` or, in Spanish, ``4,2 mmol/L``."""
        # A temperature from Fahrenheit is no more exact than the thermometer.
        text = self.number(round(value, 1) if ucum == "Cel" else value)
        unit = self._units.get(ucum, ucum) if ucum else ""
        if not unit:
            return text
        return text + unit if unit[0] == "/" else f"{text} {unit}"

    def ago(self, time: datetime, at: datetime) -> str:
        """How long before `at` something was, in the largest sensible unit."""
        minutes = int((at - time).total_seconds() // 60)
        if minutes < 1:
            return self._texts["time.now"]
        if minutes < 120:
            return self._texts["time.minutes"].format(n=minutes)
        if minutes < 48 * 60:
            return self._texts["time.hours"].format(n=minutes // 60)
        days = minutes // 1440
        if days < 60:
            return self._texts["time.days"].format(n=days)
        if days < 730:
            return self._texts["time.months"].format(n=days * 12 // 365)
        return self._texts["time.years"].format(n=days * 4 // 1461)

    def date(self, time: datetime) -> str:
        """A date: ``2026-03-12``, in Spanish ``12/03/2026``."""
        if self._decimal_comma:
            return f"{time.day:02}/{time.month:02}/{time.year}"
        return f"{time.year}-{time.month:02}-{time.day:02}"

    def month(self, time: datetime) -> str:
        """A month: ``2026-03``, in Spanish ``03/2026``."""
        if self._decimal_comma:
            return f"{time.month:02}/{time.year}"
        return f"{time.year}-{time.month:02}"

    def moment(self, time: datetime) -> str:
        """A date with its time in UTC: ``2026-03-12 05:10 UTC``, in Spanish ``12/03/2026 05:10 UTC``."""
        return f"{self.date(time)} {time.hour:02}:{time.minute:02} UTC"


@cache
def load() -> Mapping[str, Texts]:
    """All languages, checked against each other; raises `TextsInvalid`.  Read once per process."""
    read = {language: _read(language) for language in LANGUAGES}
    for language in LANGUAGES[1:]:
        compare(read[LANGUAGES[0]], read[language])
    return {language: Texts(language, texts) for language, texts in read.items()}


def texts_for(language: str) -> Texts:
    """The texts for a language tag (``es``, ``es-MX``), English when there are none."""
    all_texts = load()
    return all_texts.get(cast(Language, language[:2].lower()), all_texts["en"])
