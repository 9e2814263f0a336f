"""Codes to pivot concepts: real codes only, back-off, absence, coverage of the development data."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import simple_icd_10_cm as icd
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.hpo import load_ontology
from fhir_adapters.terminology import concepts
from fhir_adapters.terminology.codes import icd10_form, is_sctid, verhoeff_valid
from fhir_adapters.terminology.concepts import ConceptTable
from fhir_adapters.terminology.errors import TerminologyInvalid

SCT = "http://snomed.info/sct"
CM = "http://hl7.org/fhir/sid/icd-10-cm"
WHO = "http://hl7.org/fhir/sid/icd-10"
HPO = "http://human-phenotype-ontology.org"
DATA = Path(concepts.__file__).parent / "data"
CLINICAL = Path(__file__).parents[3] / "shared" / "clinical"
ONTOLOGY = load_ontology()
TABLE = ConceptTable.load(ONTOLOGY)


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_verhoeff_accepts_real_codes_and_refuses_every_single_digit_error() -> None:
    for code in ("29857009", "22298006", "1121000119107"):
        assert is_sctid(code)
        for place in range(len(code)):
            for digit in "0123456789":
                if digit != code[place]:
                    assert not verhoeff_valid(code[:place] + digit + code[place + 1 :])


@pytest.mark.parametrize("code", ["", "0", "abc", "29857008", "2985700", "29857009 ", "²9857009", "1" * 19])
def test_what_is_no_snomed_concept_identifier_is_refused(code: str) -> None:
    assert not is_sctid(code)


def test_the_tables_are_as_broad_as_promised() -> None:
    assert len(rows("snomed_concepts.csv")) >= 900
    assert len(rows("icd10cm_concepts.csv")) >= 500


def test_every_snomed_row_is_well_formed_and_says_where_it_was_verified() -> None:
    for row in rows("snomed_concepts.csv"):
        assert is_sctid(row["code"]), row
        assert row["source"], row


def test_rows_citing_hpo_are_among_its_cross_references() -> None:
    with gzip.open(DATA / "hpo_snomed.tsv.gz", "rt", encoding="utf-8") as lines:
        known = {line.split("\t")[0] for line in lines}
    assert all(
        row["code"] in known for row in rows("snomed_concepts.csv") if row["source"].startswith("hp.obo")
    )


def test_every_icd_code_in_the_tables_exists_in_icd10cm() -> None:
    for name in ("snomed_concepts.csv", "icd10cm_concepts.csv", "icd10_who.csv"):
        for row in rows(name):
            assert not row["icd10cm"] or icd.is_valid_item(row["icd10cm"]), row
    for row in rows("icd10cm_categories.csv"):
        assert icd.is_category(row["category"]), row


def test_icd_labels_are_the_official_titles() -> None:
    for row in rows("icd10cm_concepts.csv"):
        assert row["label"] == icd.get_description(row["icd10cm"]), row


def test_every_symptom_category_of_chapter_r_is_known() -> None:
    for category in (c for c in icd.get_all_codes(True) if icd.is_category(c) and c[0] == "R"):
        found = TABLE.lookup(CM, category)
        assert found is not None and found.kind == "finding", category


def test_every_hpo_term_in_the_tables_is_a_current_phenotype() -> None:
    for name in ("snomed_concepts.csv", "icd10cm_concepts.csv"):
        for row in rows(name):
            assert not row["hpo"] or ONTOLOGY.is_phenotype(row["hpo"]), row


def test_our_own_row_goes_before_the_cross_reference_of_hpo() -> None:
    chest_pain = TABLE.lookup(SCT, "29857009")
    assert chest_pain is not None
    assert (chest_pain.hpo, chest_pain.icd10cm, chest_pain.label_es) == (
        "HP:0100749",
        "R07.9",
        "Dolor torácico",
    )


@pytest.mark.parametrize(
    ("system", "code"),
    [
        (SCT, "29857009"),
        (SCT + "/", "29857009"),
        (SCT + "/900000000000207008/version/20240101", "29857009"),
        ("urn:oid:2.16.840.1.113883.6.96", "29857009"),
        (CM, "R07.9"),
        (CM, "R079"),
        ("urn:oid:2.16.840.1.113883.6.90", "r07.9"),
        (WHO, "R07.4"),
        ("urn:oid:2.16.840.1.113883.6.3", "R07.4"),
        (HPO, "HP:0100749"),
        (HPO, "HP_0100749"),
        ("http://purl.obolibrary.org/obo/hp.owl", "http://purl.obolibrary.org/obo/HP_0100749"),
        ("https://hpo.jax.org", "hp:0100749"),
    ],
)
def test_the_ways_systems_and_codes_are_written_are_understood(system: str, code: str) -> None:
    assert TABLE.lookup(system, code) is not None


@pytest.mark.parametrize(
    ("system", "code"),
    [
        (SCT, "404684004"),
        (SCT, ""),
        (CM, "E11.999999"),
        (CM, "nonsense"),
        (CM, "J99X99X99"),
        (HPO, "HP:9999999"),
        ("urn:example", "29857009"),
        (CM, "A" * 100_000),
        (HPO, "H" * 100_000),
    ],
)
def test_what_no_table_knows_is_none(system: str, code: str) -> None:
    assert TABLE.lookup(system, code) is None


def test_an_icd_code_backs_off_to_its_ancestor_and_stays_the_code_sent() -> None:
    diabetes = TABLE.lookup(CM, "E11.65")
    assert diabetes is not None
    assert (diabetes.icd10cm, diabetes.hpo) == ("E11.65", "HP:0005978")
    sprain = TABLE.lookup(CM, "S93.401A")
    assert sprain is not None and sprain.icd10cm == "S93.401A"


def test_any_code_of_a_known_category_is_at_least_that_category() -> None:
    found = TABLE.lookup(CM, "Q99.9")
    assert found is not None
    assert (found.icd10cm, found.hpo, found.kind) == ("Q99.9", None, "disease")
    assert TABLE.lookup(CM, "W99.9XXA") is not None
    assert TABLE.lookup(CM, "I64") is None  # only the WHO edition has it
    stroke = TABLE.lookup(WHO, "I64")
    assert stroke is not None and stroke.icd10cm == "I63.9"


def test_a_negative_code_is_absent_and_an_administrative_one_is_ignored() -> None:
    allergy = TABLE.lookup(SCT, "716186003")
    assert allergy is not None and allergy.state == "absent"
    employed = TABLE.lookup(SCT, "160903007")
    assert employed is not None
    assert (employed.kind, employed.hpo, employed.icd10cm) == ("ignored", None, None)


def test_former_hpo_codes_are_read_as_their_successor_and_modifiers_are_ignored() -> None:
    former = TABLE.lookup(HPO, "HP:0004715")
    assert former is not None and former.hpo == "HP:0000003"
    onset = TABLE.lookup(HPO, "HP:0003577")
    assert onset is not None and onset.kind == "ignored"


@given(st.text(max_size=12))
def test_no_code_breaks_the_lookup(code: str) -> None:
    for system in (SCT, CM, WHO, HPO):
        found = TABLE.lookup(system, code)
        assert found is None or found.label
    form = icd10_form(code)
    assert form is None or icd10_form(form) == form


def test_an_answer_does_not_depend_on_what_was_asked_before() -> None:
    before = TABLE.lookup(CM, "E11.65")
    for number in range(5000):
        TABLE.lookup(CM, f"Z{number % 100:02}.{number // 100}")
    assert TABLE.lookup(CM, "E11.65") == before


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("code", "29857008", "identifier"),
        ("hpo", "HP:9999999", "phenotype"),
        ("icd10cm", "R7.9", "ICD-10-CM"),
        ("kind", "symptom", "kind"),
        ("label_es", "", "label_es"),
        ("source", "", "source"),
        ("state", "maybe", "state"),
    ],
)
def test_a_wrong_row_is_refused_naming_file_and_row(
    column: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = next(row for row in rows("snomed_concepts.csv") if row["code"] == "29857009")
    monkeypatch.setattr(concepts, "read_rows", lambda file, columns: iter([(2, good | {column: value})]))
    with pytest.raises(TerminologyInvalid, match=reason) as refused:
        list(concepts._snomed_rows(ONTOLOGY, {"R07": "Pain in throat and chest"}))
    assert concepts.SNOMED_FILE in str(refused.value)


def test_a_repeated_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    good = next(row for row in rows("snomed_concepts.csv") if row["code"] == "29857009")
    monkeypatch.setattr(concepts, "read_rows", lambda file, columns: iter([(2, good), (3, good)]))
    with pytest.raises(TerminologyInvalid, match="repeated"):
        list(concepts._snomed_rows(ONTOLOGY, {"R07": "Pain in throat and chest"}))


def bundles(pattern: str) -> Iterator[dict[str, Any]]:
    for path in sorted(CLINICAL.glob(pattern)):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            if path.name.endswith(".ndjson.gz"):
                yield from map(json.loads, lines)
            else:
                yield json.load(lines)


def coded(bundle: dict[str, Any]) -> Iterator[list[dict[str, str]]]:
    for entry in bundle.get("entry", ()):
        resource = entry["resource"]
        if resource["resourceType"] == "Condition":
            sent = [resource.get("code")]
        elif resource["resourceType"] == "Encounter":
            sent = resource.get("reasonCode", [])
        elif resource["resourceType"] == "FamilyMemberHistory":
            sent = [condition.get("code") for condition in resource.get("condition", ())]
        else:
            continue
        yield from (concept["coding"] for concept in sent if concept and concept.get("coding"))


@pytest.mark.parametrize("pattern", ["ktas_bundles*", "ddxplus_bundles*", "synthea/*.json.gz"])
def test_development_charts_are_understood(pattern: str) -> None:
    if not CLINICAL.is_dir():
        pytest.skip("the shared clinical development data are not beside this repository")
    seen: Counter[bool] = Counter()
    unknown: Counter[str] = Counter()
    for bundle in bundles(pattern):
        for codings in coded(bundle):
            found = any(TABLE.lookup(c.get("system", ""), c.get("code", "")) for c in codings)
            seen[found] += 1
            if not found:
                unknown[codings[0].get("code", "")] += 1
    assert seen[True] > 0
    assert seen[False] / seen.total() < 0.01, unknown.most_common(10)
