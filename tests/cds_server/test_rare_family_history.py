"""Family history from FHIR to `$assess` and the card: named, weighed, explained, in both languages."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rare_bundles import both
from server_helpers import ASSESSMENT, Running, example, start
from test_rare_answers import assess, bundle, parts

from cds_server.state import Knowledge

MARFAN = "OMIM:154700"
SNOMED = "http://snomed.info/sct"


@pytest.fixture(scope="module")
def rare(
    knowledge: Knowledge, tmp_path_factory: pytest.TempPathFactory, _sqlite_template: Path
) -> Iterator[Running]:
    """A server whose bundle carries the rare-disease engine."""
    loaded = knowledge.with_bundle(both())
    with start(loaded, tmp_path_factory.mktemp("family"), _sqlite_template) as running:
        yield running


def relative(relation: str, name: str, *codings: tuple[str, str], text: str | None = None) -> dict[str, Any]:
    coded = [{"system": system, "code": code} for system, code in codings]
    system = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
    return {
        "resourceType": "FamilyMemberHistory",
        "id": name,
        "status": "completed",
        "patient": {"reference": "Patient/rare-1"},
        "relationship": {"coding": [{"system": system, "code": relation}]},
        "condition": [{"code": {**({"coding": coded} if coded else {}), **({"text": text} if text else {})}}],
    }


def with_family(*relatives: dict[str, Any]) -> dict[str, Any]:
    sent = bundle("rare-disease")
    (patient,) = [
        one["resource"]["id"] for one in sent["entry"] if one["resource"]["resourceType"] == "Patient"
    ]
    for one in relatives:
        sent["entry"].append({"resource": one | {"patient": {"reference": f"Patient/{patient}"}}})
    return sent


def marfan(found: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Its probability and its explanation."""
    for prediction in found["rare"]["resource"]["prediction"]:
        if any(one["code"] == "154700" for one in prediction["outcome"]["coding"]):
            for one in parts(found["rare-explanation"], "candidate"):
                if any(code["valueCoding"]["code"] == "154700" for code in parts(one, "code")):
                    return prediction["probabilityDecimal"], one
    raise AssertionError("Marfan syndrome is not among the leading diseases")


def amounts(candidate: dict[str, Any]) -> dict[str, float]:
    return {
        parts(share, "feature")[0]["valueString"]: parts(share, "amount")[0]["valueDecimal"]
        for share in parts(candidate, "share")
    }


@pytest.mark.parametrize(
    "record",
    [
        relative("MTH", "x", text="Marfan's syndrome"),
        relative("MTH", "x", ("https://omim.org", "154700")),
        relative("MTH", "x", ("http://www.orpha.net", "558"), text="what the family calls it"),
        relative("MTH", "x", (SNOMED, "19346006")),
        relative("MTH", "x", ("http://hl7.org/fhir/sid/icd-10-cm", "Q87.40")),
    ],
    ids=["written", "omim", "orpha", "snomed", "icd-10-cm"],
)
def test_a_mothers_marfan_syndrome_counts_and_is_explained(rare: Running, record: dict[str, Any]) -> None:
    before, plain = marfan(assess(rare, bundle("rare-disease")))
    found = assess(rare, with_family(record))
    after, candidate = marfan(found)
    assert after > before and "family-history" not in amounts(plain)
    assert 0 < amounts(candidate)["family-history"] < 4
    score, baseline = (parts(candidate, name)[0]["valueDecimal"] for name in ("score", "baseline"))
    assert baseline + sum(amounts(candidate).values()) == pytest.approx(score, abs=1e-3)
    (told,) = parts(found["rare-explanation"], "relative")
    assert parts(told, "relation")[0]["valueCode"] == "mother"
    assert [one["valueString"] for one in parts(told, "disease")] == [MARFAN]
    assert [one["valueString"] for one in parts(told, "source")] == ["FamilyMemberHistory/x"]
    for name in ("decision", "probability"):
        assert parts(found["rare-alarm"], name) == parts(
            assess(rare, bundle("rare-disease"))["rare-alarm"], name
        ), "relatives ring no alarm"


@pytest.mark.parametrize(
    "record",
    [
        relative("HUSB", "x", text="Marfan syndrome"),
        relative("MTH", "x", text="possible Marfan syndrome"),
        relative("MTH", "x", text="healthy"),
        relative("MTH", "x", ("https://omim.org", "154700")) | {"status": "entered-in-error"},
    ],
    ids=["not-by-blood", "doubtful", "healthy", "in-error"],
)
def test_what_says_nothing_of_the_patients_genes_changes_nothing(
    rare: Running, record: dict[str, Any]
) -> None:
    before, found = (assess(rare, sent) for sent in (bundle("rare-disease"), with_family(record)))
    assert found["rare"] == before["rare"] and found["rare-alarm"] == before["rare-alarm"]
    assert found["rare-explanation"] == before["rare-explanation"]


def test_the_nearer_relative_weighs_more(rare: Running) -> None:
    weights = [
        amounts(marfan(assess(rare, with_family(relative(code, "x", text="Marfan syndrome"))))[1])
        for code in ("SIS", "MUNCLE", "COUSN")
    ]
    shares = [one["family-history"] for one in weights]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == 3


def test_findings_in_common_and_related_parents_are_shown_and_do_not_count(rare: Running) -> None:
    before = assess(rare, bundle("rare-disease"))
    first = parts(before["rare-explanation"], "finding")[0]
    hpo = parts(first, "code")[0]["valueCoding"] if parts(first, "code") else None
    assert hpo is not None, first
    records = (
        relative("FTH", "y", ("http://human-phenotype-ontology.org", hpo["code"])),
        relative("FAMMEMB", "z", text="consanguineous parents"),
    )
    found = assess(rare, with_family(*records))
    assert found["rare"]["resource"]["prediction"] == before["rare"]["resource"]["prediction"]
    (told,) = parts(found["rare-explanation"], "relative")
    assert [one["valueCoding"]["code"] for one in parts(told, "shared")] == [hpo["code"]]
    assert [one["valueString"] for one in parts(found["rare-explanation"], "related-parents")] == [
        "FamilyMemberHistory/z"
    ]


@pytest.mark.parametrize(
    ("language", "line", "mark"),
    [
        ("en", "- mother: Marfan syndrome, recorded in FamilyMemberHistory/x", "in the family: mother"),
        ("es", "- madre: Marfan syndrome, registrado en FamilyMemberHistory/x", "en la familia: madre"),
    ],
)
def test_the_card_names_the_relative_beside_the_candidates(
    rare: Running, language: str, line: str, mark: str
) -> None:
    request = copy.deepcopy(example("rare-disease"))
    patient = request["context"]["patientId"]
    record = relative("MTH", "x", text="Marfan syndrome") | {"patient": {"reference": f"Patient/{patient}"}}
    request["prefetch"]["familyHistory"] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": record}],
    }
    answer = rare.post(ASSESSMENT, json.dumps(request).encode(), headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    (card,) = [one for one in answer.json()["cards"] if one["source"]["topic"]["code"] == "rare-disease"]
    assert line in card["detail"] and mark in card["detail"]
