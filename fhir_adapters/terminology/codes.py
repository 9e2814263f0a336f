"""The shapes of codes: SNOMED CT identifiers and ICD-10(-CM) codes.  Says nothing about their meaning."""

import re

# Dihedral group D5 multiplication and the position permutation of Verhoeff's scheme (J. Verhoeff,
# Error Detecting Decimal Codes, 1969), as SNOMED CT's release file specification prescribes.
_MULTIPLY = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
_PERMUTE = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)
_ICD10 = re.compile(r"[A-Z][0-9A][0-9A-Z](?:\.[0-9A-Z]{1,4})?")


def verhoeff_valid(digits: str) -> bool:
    """Whether the last digit is the Verhoeff check digit of the others."""
    check = 0
    for position, digit in enumerate(reversed(digits)):
        check = int(_MULTIPLY[check][int(_PERMUTE[position % 8][int(digit)])])
    return check == 0


def is_sctid(code: str) -> bool:
    """Whether `code` is shaped as a SNOMED CT concept id (digits, partition 00 or 10, check digit)."""
    return (
        6 <= len(code) <= 18
        and code.isascii()
        and code.isdigit()
        and code[0] != "0"
        and code[-3:-1] in ("00", "10")
        and verhoeff_valid(code)
    )


def icd10_form(code: str) -> str | None:
    """`code` as an ICD-10 code in its usual form (capitals, with dot: ``"E11.65"``), `None` if it is none.

    Codes are often sent without the dot (``"E1165"``), in small letters or with a trailing dash.
    """
    text = code.strip().upper().rstrip("-").rstrip(".")
    if len(text) > 3 and text[3] != ".":
        text = f"{text[:3]}.{text[3:]}"
    return text if _ICD10.fullmatch(text) else None
