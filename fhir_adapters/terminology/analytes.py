"""What is measured: every LOINC code (and a few SNOMED CT and MDC ones) folded into canonical analytes.

Responsible for the analyte a code means, its canonical unit and plausible range, the key of a coded
answer, and the conversion of a sent unit.  It does not read FHIR and judges no value clinically: the
plausible range says what a living patient can have, not what is normal.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

import msgspec

from fhir_adapters.terminology.codes import is_sctid
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import LOINC, SNOMED, loinc_is_valid, read_rows, real, required
from fhir_adapters.units import Conversion, conversion

_KINDS = frozenset({"quantity", "coded", "panel", "note", "complaint"})
_COLUMNS = (
    "loinc",
    "name",
    "name_es",
    "kind",
    "unit",
    "molar_mass_g_per_mol",
    "charge_per_mol",
    "plausible_low",
    "plausible_high",
    "unitless_ok",
    "source",
)
_KEY = re.compile(r"[a-z0-9]+[a-z0-9+-]*")
_MAX_TEXT = 80
ANY = "*"


class Analyte(msgspec.Struct, frozen=True, gc=False):
    """One canonical analyte; `loinc` is its canonical code (SNOMED CT where LOINC has none: oxygen therapy).

    `kind`: ``quantity`` (a number in `unit`), ``coded`` (an answer with a key), ``panel`` (its components
    count), ``complaint`` (its text or code is the presenting complaint) or ``note`` (known, and carries
    nothing that is read).  `unit` is UCUM; `low`/`high` bound what is physiologically possible, in
    `unit`.  `molar_mass` is in g/mol, `charge` in mol of charge per mol.
    `unitless_ok`: a value without a unit is in `unit` all the same (pH, INR, scores).
    """

    loinc: str
    name: str
    name_es: str
    kind: str
    unit: str
    molar_mass: float | None
    charge: float | None
    low: float
    high: float
    unitless_ok: bool


class AnalyteTable:
    """The lookups of all analytes: plain dicts, filled once.

    `by_code` is keyed by (system, code); `by_loinc` by any known LOINC code and is the hot path.
    """

    def __init__(
        self,
        by_code: dict[tuple[str, str], Analyte],
        answers: Mapping[tuple[str, str, str], str],
        texts: Mapping[tuple[str, str], str],
        special: Mapping[tuple[str, str], Conversion],
    ) -> None:
        self.by_code = by_code
        self.by_loinc = {code: analyte for (system, code), analyte in by_code.items() if system == LOINC}
        self._answers = answers
        self._texts = texts
        self._special = special
        self._conversions: dict[tuple[str, str], Conversion | None] = {}

    @classmethod
    def load(cls) -> "AnalyteTable":
        """Read and check the packaged tables; raises `TerminologyInvalid` naming file and row."""
        analytes = _read_analytes()
        by_code = _read_codes(analytes)
        answers, texts = _read_answers(analytes), _read_texts(analytes)
        return cls(by_code, answers, texts, _read_special(analytes))

    def answer(self, loinc: str, system: str, code: str) -> str | None:
        """The key of a coded answer to a canonical LOINC (``"*"`` for any), `None` when nobody knows it."""
        found = self._answers.get((loinc, system, code))
        return found if found is not None else self._answers.get((ANY, system, code))

    def answer_text(self, loinc: str, text: str) -> str | None:
        """The key of an answer given as text, English or Spanish, whatever its case and accents."""
        folded = fold(text)
        found = self._texts.get((loinc, folded))
        return found if found is not None else self._texts.get((ANY, folded))

    def unit_conversion(self, analyte: Analyte, unit: str) -> Conversion | None:
        """From `unit` as sent to the canonical unit; `None` when it is unknown or of another kind."""
        key = (analyte.loinc, unit)
        try:
            return self._conversions[key]
        except KeyError:
            found = self._special.get((analyte.loinc, unit.strip().split("{")[0].split(" ")[0]))
            if found is None:
                found = conversion(unit, analyte.unit, analyte.molar_mass, analyte.charge)
            if len(self._conversions) < 16_384:  # units are free text: remember many, never all
                self._conversions[key] = found
            return found


@lru_cache(maxsize=2048)
def fold(text: str) -> str:
    """Small letters, no accents, single blanks, no full stop at the end: how answer texts are compared."""
    plain = unicodedata.normalize("NFKD", text[:_MAX_TEXT]).encode("ascii", "ignore").decode()
    return " ".join(plain.casefold().replace("-", " ").replace("_", " ").split()).strip(" .:;,()")


def _read_analytes() -> dict[str, Analyte]:
    file = "analytes.csv"
    analytes: dict[str, Analyte] = {}
    for number, row in read_rows(file, _COLUMNS):
        required(file, number, row, "loinc", "name", "name_es", "kind", "source")
        loinc, kind, unit = row["loinc"], row["kind"], row["unit"]
        if not loinc_is_valid(loinc) and not is_sctid(loinc):
            raise TerminologyInvalid(file, number, f"{loinc} has no valid LOINC or SNOMED CT check digit")
        if loinc in analytes:
            raise TerminologyInvalid(file, number, f"{loinc} is there twice")
        if kind not in _KINDS:
            raise TerminologyInvalid(file, number, f"kind {kind!r} is not one of {', '.join(sorted(_KINDS))}")
        low, high = real(file, number, row, "plausible_low"), real(file, number, row, "plausible_high")
        molar_mass, charge = (
            real(file, number, row, "molar_mass_g_per_mol"),
            real(file, number, row, "charge_per_mol"),
        )
        if kind == "quantity":
            required(file, number, row, "unit", "plausible_low", "plausible_high")
            if low is None or high is None or low >= high:
                raise TerminologyInvalid(file, number, "plausible_low is not below plausible_high")
        elif unit or low is not None or high is not None:
            raise TerminologyInvalid(file, number, f"a {kind} has neither unit nor range")
        if (molar_mass is not None and molar_mass <= 0) or (charge is not None and charge <= 0):
            raise TerminologyInvalid(file, number, "molar mass and charge are positive numbers")
        if row["unitless_ok"] not in ("", "yes"):
            raise TerminologyInvalid(file, number, "column unitless_ok is neither yes nor empty")
        analytes[loinc] = Analyte(
            loinc,
            row["name"],
            row["name_es"],
            kind,
            unit,
            molar_mass,
            charge,
            low if low is not None else 0.0,
            high if high is not None else 0.0,
            row["unitless_ok"] == "yes",
        )
    return analytes


def _read_codes(analytes: dict[str, Analyte]) -> dict[tuple[str, str], Analyte]:
    file = "analyte_codes.csv"
    by_code: dict[tuple[str, str], Analyte] = {}
    for number, row in read_rows(file, ("system", "code", "loinc", "source")):
        required(file, number, row, "system", "code", "loinc", "source")
        system, code = row["system"], row["code"]
        _check_code(file, number, system, code)
        if row["loinc"] not in analytes:
            raise TerminologyInvalid(file, number, f"{row['loinc']} is not in analytes.csv")
        if (system, code) in by_code:
            raise TerminologyInvalid(file, number, f"{system}|{code} is there twice")
        by_code[system, code] = analytes[row["loinc"]]
    for loinc, analyte in analytes.items():
        if by_code.get((LOINC if "-" in loinc else SNOMED, loinc)) is not analyte:
            raise TerminologyInvalid(file, 0, f"the canonical code {loinc} does not mean itself")
    return by_code


def _read_answers(analytes: dict[str, Analyte]) -> dict[tuple[str, str, str], str]:
    file = "coded_answers.csv"
    answers: dict[tuple[str, str, str], str] = {}
    for number, row in read_rows(file, ("loinc", "system", "code", "key", "label", "source")):
        required(file, number, row, "loinc", "system", "code", "key", "label", "source")
        _check_question(file, number, row, analytes)
        _check_code(file, number, row["system"], row["code"])
        triple = (row["loinc"], row["system"], row["code"])
        if triple in answers:
            raise TerminologyInvalid(file, number, f"{'|'.join(triple)} is there twice")
        answers[triple] = row["key"]
    return answers


def _read_texts(analytes: dict[str, Analyte]) -> dict[tuple[str, str], str]:
    file = "answer_texts.csv"
    texts: dict[tuple[str, str], str] = {}
    for number, row in read_rows(file, ("loinc", "text", "key", "source")):
        required(file, number, row, "loinc", "text", "key", "source")
        _check_question(file, number, row, analytes)
        pair = (row["loinc"], fold(row["text"]))
        if pair in texts:
            raise TerminologyInvalid(file, number, f"the text {row['text']} is there twice")
        texts[pair] = row["key"]
    return texts


def _read_special(analytes: dict[str, Analyte]) -> dict[tuple[str, str], Conversion]:
    """Conversions that hold for one analyte only (HbA1c between the IFCC and NGSP systems)."""
    file = "analyte_conversions.csv"
    special: dict[tuple[str, str], Conversion] = {}
    for number, row in read_rows(file, ("loinc", "unit", "factor", "offset", "source")):
        required(file, number, row, "loinc", "unit", "factor", "offset", "source")
        factor, offset = real(file, number, row, "factor"), real(file, number, row, "offset")
        if row["loinc"] not in analytes or not factor or factor < 0 or offset is None:
            raise TerminologyInvalid(file, number, "unknown analyte, or a factor that is not positive")
        special[row["loinc"], row["unit"]] = Conversion(factor, offset)
    return special


def _check_question(file: str, number: int, row: dict[str, str], analytes: dict[str, Analyte]) -> None:
    if row["loinc"] != ANY and (row["loinc"] not in analytes or analytes[row["loinc"]].kind != "coded"):
        raise TerminologyInvalid(file, number, f"{row['loinc']} is no coded analyte")
    if not _KEY.fullmatch(row["key"]):
        raise TerminologyInvalid(file, number, f"{row['key']!r} is no key")


def _check_code(file: str, number: int, system: str, code: str) -> None:
    if (system == LOINC and not loinc_is_valid(code)) or (system == SNOMED and not is_sctid(code)):
        raise TerminologyInvalid(file, number, f"{code} has no valid check digit")
