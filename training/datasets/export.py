"""Simulated FHIR Bundles as a bulk export: NDJSON by type, with the diagnosis made a day later.

The export is what a hospital would hand over, so that dataset building can be proven on it: built back,
its rows are the simulator's own.
"""

import gzip
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import msgspec

from models.knowledge.schema import Disease
from training.datasets.labels import DISEASE_SYSTEM, LabelMap
from training.simulation.bundles import ICD, LOINC, SNOMED, Resource, condition

LATER = timedelta(days=1)
HISTORY = timedelta(days=30)
"""How long before the visit what is on a problem list or in a family was entered."""
_HISTORIC = ("FamilyMemberHistory", "MedicationStatement")
_TRIAGE = {True: ("LA21752-3", "ESI-2"), False: ("LA21753-1", "ESI-3")}


def export_ndjson(
    visits: Iterable[tuple[Resource, Disease, bool | None]],
    folder: Path,
    *,
    labels: LabelMap,
    compress: bool = False,
) -> dict[str, int]:
    """Write simulated visits as ``<Type>.ndjson`` files in `folder`.

    Args:
        visits: for each patient the Bundle (of `training.simulation.bundles.Writer`, with one Encounter), the
            disease, and whether the patient needed attention within minutes (written as a triage level;
            `None` writes none).
        folder: made if need be; files of the same names are written over.
        labels: decides which coding a disease needs to be told from others of its codes.
        compress: write ``.ndjson.gz``.

    Returns:
        How many resources of each type were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for bundle, disease, immediate in visits:
            for resource in _resources(bundle, disease, labels, immediate):
                kind = resource["resourceType"]
                if kind not in files:
                    files[kind] = _open(folder, kind, compress, stack)
                files[kind].write(msgspec.json.encode(resource) + b"\n")
                counts[kind] = counts.get(kind, 0) + 1
    return counts


def _open(folder: Path, kind: str, compress: bool, stack: ExitStack) -> IO[bytes]:
    if not compress:
        return stack.enter_context((folder / f"{kind}.ndjson").open("wb"))
    raw = stack.enter_context((folder / f"{kind}.ndjson.gz").open("wb"))
    # No name and no time in the header: the same export gives the same bytes.
    packed: Any = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    return stack.enter_context(packed)


def _resources(
    bundle: Resource, disease: Disease, labels: LabelMap, immediate: bool | None
) -> Iterator[Resource]:
    resources: list[Resource] = [entry["resource"] for entry in bundle["entry"]]
    visit = next(resource for resource in resources if resource["resourceType"] == "Encounter")
    start = datetime.fromisoformat(visit["period"]["start"])
    for resource in resources:
        written = start - HISTORY if _is_history(resource) else start
        yield {**resource, "meta": {"lastUpdated": written.isoformat()}}
    about = {"subject": visit["subject"], "encounter": {"reference": f"Encounter/{visit['id']}"}}
    diagnosis = condition({"coding": codings(disease, labels), "text": disease.name.en})
    yield {
        **diagnosis,
        **about,
        "id": f"{bundle['id']}-diagnosis",
        "recordedDate": (start + LATER).isoformat(),
    }
    if immediate is not None:
        code, display = _TRIAGE[immediate]
        yield {
            "resourceType": "Observation",
            "id": f"{bundle['id']}-triage",
            **about,
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "75636-1"}]},
            "effectiveDateTime": start.isoformat(),
            "valueCodeableConcept": {"coding": [{"system": LOINC, "code": code, "display": display}]},
        }


def _is_history(resource: Resource) -> bool:
    if resource["resourceType"] in _HISTORIC:
        return True
    return any(
        coding["code"] == "problem-list-item"
        for category in resource.get("category", ())
        for coding in category["coding"]
    )


def codings(disease: Disease, labels: LabelMap) -> list[Resource]:
    """The codings of a disease: ICD-10-CM and SNOMED CT, and its own id where those do not name it alone."""
    found = [{"system": ICD, "code": disease.icd10cm[0], "display": disease.name.en}]
    if disease.snomed is not None:
        found.append({"system": SNOMED, "code": disease.snomed, "display": disease.name.en})
    # Asked without a patient, hence also right for every patient.
    if labels.meaning([(row["system"], row["code"]) for row in found]).diseases != {disease.id}:
        found.append({"system": DISEASE_SYSTEM, "code": disease.id, "display": disease.name.en})
    return found
