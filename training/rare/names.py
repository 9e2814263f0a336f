"""Disease names: what two spellings have in common, and the family a type number divides.

Responsible for words only; whether two entries are one disease is `training.rare.merge`'s decision.
"""

import re
from functools import cache

_ROMAN = {
    "i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5", "vi": "6", "vii": "7", "viii": "8", "ix": "9",
    "x": "10", "xi": "11", "xii": "12", "xiii": "13", "xiv": "14", "xv": "15",
}  # fmt: skip
_SYNONYMS = {
    "tumour": "tumor", "anaemia": "anemia", "oedema": "edema", "haemophilia": "hemophilia", "foetal": "fetal",
    "syndromes": "syndrome", "deafness": "deafness", "disorder": "disease", "retardation": "disability",
    "dystrophies": "dystrophy", "oesophageal": "esophageal", "paralysis": "paralysis", "linked": "linked",
    "neonatal": "neonatal", "defect": "deficiency", "mental": "intellectual", "impairment": "disability",
}  # fmt: skip
_FILLERS = frozenset(
    {
        "of",
        "the",
        "and",
        "with",
        "without",
        "due",
        "to",
        "in",
        "type",
        "form",
        "a",
        "an",
        "or",
        "by",
        "disease",
        "syndrome",
        "autosomal",
        "dominant",
        "recessive",
        "susceptibility",
        "hereditary",
        "familial",
        "related",
        "congenital",
    }
)
_WORD = re.compile(r"[a-z]+|[0-9]+[a-z]?")
_TYPE = re.compile(r"^(?:[0-9]+[a-z]{0,2}|[a-z])$")


@cache
def words(name: str) -> frozenset[str]:
    """The words of a name that tell diseases apart, spelled one way."""
    return frozenset(word for word in _spelled(name) if word not in _FILLERS)


@cache
def numbers(name: str) -> frozenset[str]:
    """Type numbers and letters in a name: ``1``, ``2b``, ``a``."""
    return frozenset(word for word in _spelled(name) if _TYPE.match(word) and word not in _FILLERS)


@cache
def family(name: str) -> str:
    """The name without its type: subtypes of one syndrome share it."""
    plain = re.sub(r"[\[{(?].*?[\])}]", " ", name.lower().split(";")[0])
    kept = []
    for word in re.findall(r"[a-z0-9'-]+", plain):
        bare = _ROMAN.get(word, word)
        if _TYPE.match(bare) or bare in (
            "type",
            "susceptibility",
            "to",
            "autosomal",
            "dominant",
            "recessive",
        ):
            continue
        kept.append(word)
    return " ".join(kept) or name.lower()


def _spelled(name: str) -> list[str]:
    plain = name.lower().replace("'s", "").replace("-", " ")
    found = []
    for word in _WORD.findall(plain):
        spelled = _SYNONYMS.get(word, word)
        found.append(_ROMAN.get(spelled, spelled) if spelled != "v" or "type v" in plain else spelled)
    return found
