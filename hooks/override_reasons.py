"""The reasons a clinician can give for setting a card aside, from ``data/override_reasons.toml``.

Loads and checks the table once; knows nothing of feedback that comes back.
"""

import tomllib
from functools import cache
from importlib import resources
from typing import Literal

from hooks.cards import OVERRIDE_SYSTEM, Coding
from hooks.errors import DataInvalid
from hooks.texts import LANGUAGES

Audience = Literal["assessment", "order"]


@cache
def override_reasons(audience: Audience, language: str) -> tuple[Coding, ...]:
    """The reasons for one kind of card in one language (``en``, ``es``); raises `DataInvalid`."""
    text = resources.files("hooks").joinpath("data", "override_reasons.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    if table.get("system") != OVERRIDE_SYSTEM:
        raise DataInvalid(f"override_reasons.toml: system must be {OVERRIDE_SYSTEM}")
    codings = []
    for number, row in enumerate(table["reason"], start=1):
        if not row.get("code") or row.get("for") not in {"any", "assessment", "order"}:
            raise DataInvalid(f"override_reasons.toml, entry {number}: needs code and for")
        if not all(row.get(known) for known in LANGUAGES):
            raise DataInvalid(f"override_reasons.toml, entry {number}: a language is missing")
        if row["for"] in {"any", audience}:
            codings.append(Coding(code=row["code"], system=OVERRIDE_SYSTEM, display=row[language]))
    return tuple(codings)
