"""Which drug is meant: RxNorm, ATC and SNOMED CT codes, then ingredient and brand names in the text.

Responsible for the label and ATC codes of a drug or drug class, and for the few allergens that are no
drugs.  It reads no FHIR and knows no interaction, dose or contraindication.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import msgspec

from fhir_adapters.terminology.codes import is_sctid
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.terminology.tables import SNOMED, read_rows, required

RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
ATC = "http://www.whocc.no/atc"
_ATC_FORM = re.compile(r"[A-Z](?:\d\d(?:[A-Z](?:[A-Z](?:\d\d)?)?)?)?")
_TOKEN = re.compile(r"[a-z0-9]+")
_MAX_TEXT = 300
_CACHE = 4096


class Drug(msgspec.Struct, frozen=True, gc=False):
    """A drug, a combination or a drug class; `atc` is empty for an allergen that is no drug.

    `rxnorm` is the RxNorm ingredient when there is exactly one and it is known.
    """

    label: str
    label_es: str
    atc: tuple[str, ...]
    rxnorm: str | None


class DrugTable:
    """Lookups of drugs, filled once; results for a text are remembered in a bounded cache."""

    def __init__(
        self,
        names: dict[tuple[str, ...], Drug],
        codes: dict[tuple[str, str], Drug],
        classes: dict[str, tuple[str, str]],
    ) -> None:
        self._names = names
        self._codes = codes
        self._classes = classes
        # By first token, the lengths of the names that start with it, longest first.
        lengths: dict[str, set[int]] = {}
        for name in names:
            lengths.setdefault(name[0], set()).add(len(name))
        self._lengths = {first: tuple(sorted(found, reverse=True)) for first, found in lengths.items()}
        self._by_text = lru_cache(maxsize=_CACHE)(self._match)

    @classmethod
    def load(cls) -> "DrugTable":
        """Read and check the packaged tables; raises `TerminologyInvalid` naming file and row."""
        names: dict[tuple[str, ...], Drug] = {}
        codes: dict[tuple[str, str], Drug] = {}
        _read_drugs(names, codes)
        _read_allergens(names)
        _read_allergen_codes(names, codes)
        return cls(names, codes, _read_classes())

    def lookup(self, codings: Iterable[tuple[str, str]], text: str | None) -> Drug | None:
        """The drug of ``(system, code)`` pairs, else of a text (display or dose form); `None` if unknown.

        An RxNorm or SNOMED CT code must be in the table (products are known by their text); any
        well-formed ATC code of a known main group stands for itself, classes included.
        """
        for system, code in codings:
            found = self._codes.get((system, code))
            if found is None and system == ATC:
                found = self._class(code)
            if found is not None:
                return found
        return self._by_text(text[:_MAX_TEXT]) if text else None

    def _class(self, code: str) -> Drug | None:
        if not _ATC_FORM.fullmatch(code):
            return None
        for end in (7, 5, 4, 3, 1):
            names = self._classes.get(code[:end])
            if names is not None and end <= len(code):
                return Drug(names[0], names[1], (code,), None)
        return None

    def _match(self, text: str) -> Drug | None:
        tokens = _tokens(text)
        names, lengths = self._names, self._lengths
        found: list[Drug] = []
        place = 0
        while place < len(tokens):
            step = 1
            for length in lengths.get(tokens[place], ()):
                drug = names.get(tokens[place : place + length])
                if drug is not None:
                    if drug not in found:
                        found.append(drug)
                    step = length
                    break
            place += step
        if len(found) < 2:
            return found[0] if found else None
        atc = tuple(dict.fromkeys(code for drug in found for code in drug.atc))
        return Drug(" / ".join(d.label for d in found), " / ".join(d.label_es for d in found), atc, None)


def _tokens(text: str) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return tuple(_TOKEN.findall(plain.casefold()))


def _add_names(
    file: str, number: int, names: dict[tuple[str, ...], Drug], drug: Drug, texts: Iterable[str]
) -> None:
    for text in texts:
        tokens = _tokens(text)
        if not tokens or names.get(tokens, drug) != drug:
            raise TerminologyInvalid(file, number, f"the name {text!r} is empty or belongs to another row")
        names[tokens] = drug


def _aliases(cell: str) -> list[str]:
    return [alias.strip() for alias in cell.split(";") if alias.strip()]


def _read_drugs(names: dict[tuple[str, ...], Drug], codes: dict[tuple[str, str], Drug]) -> None:
    file = "drugs.csv"
    for number, row in read_rows(file, ("name", "name_es", "atc", "rxnorm", "aliases", "source")):
        required(file, number, row, "name", "name_es", "atc", "source")
        atc, rxnorm = tuple(row["atc"].split()), row["rxnorm"] or None
        if not all(_ATC_FORM.fullmatch(code) for code in atc):
            raise TerminologyInvalid(file, number, f"{row['atc']} are no ATC codes")
        if rxnorm is not None and not rxnorm.isdecimal():
            raise TerminologyInvalid(file, number, f"{rxnorm} is no RXCUI")
        drug = Drug(row["name"], row["name_es"], atc, rxnorm)
        _add_names(file, number, names, drug, (row["name"], row["name_es"], *_aliases(row["aliases"])))
        if rxnorm is not None and codes.setdefault((RXNORM, rxnorm), drug) is not drug:
            raise TerminologyInvalid(file, number, f"RXCUI {rxnorm} is there twice")
        for code in atc:
            if len(code) == 7:
                codes.setdefault((ATC, code), Drug(drug.label, drug.label_es, (code,), rxnorm))


def _read_allergens(names: dict[tuple[str, ...], Drug]) -> None:
    file = "allergens.csv"
    for number, row in read_rows(file, ("name", "name_es", "aliases", "source")):
        required(file, number, row, "name", "name_es", "source")
        allergen = Drug(row["name"], row["name_es"], (), None)
        _add_names(file, number, names, allergen, (row["name"], row["name_es"], *_aliases(row["aliases"])))


def _read_allergen_codes(names: dict[tuple[str, ...], Drug], codes: dict[tuple[str, str], Drug]) -> None:
    file = "allergen_codes.csv"
    for number, row in read_rows(file, ("sctid", "drug", "allergen", "source")):
        required(file, number, row, "sctid", "source")
        if not is_sctid(row["sctid"]):
            raise TerminologyInvalid(file, number, f"{row['sctid']} has no valid SNOMED CT check digit")
        found = names.get(_tokens(row["drug"] or row["allergen"]))
        if found is None or bool(found.atc) != bool(row["drug"]):
            raise TerminologyInvalid(file, number, "the drug or allergen is in no table")
        codes[SNOMED, row["sctid"]] = found


def _read_classes() -> dict[str, tuple[str, str]]:
    file = "atc_classes.csv"
    classes: dict[str, tuple[str, str]] = {}
    for number, row in read_rows(file, ("atc", "name", "name_es", "source")):
        required(file, number, row, "atc", "name", "name_es", "source")
        if not _ATC_FORM.fullmatch(row["atc"]) or row["atc"] in classes:
            raise TerminologyInvalid(file, number, f"{row['atc']} is no ATC class or is there twice")
        classes[row["atc"]] = (row["name"], row["name_es"])
    return classes
