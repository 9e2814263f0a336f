"""From decoded FHIR resources to a `PatientChart`: who, when, and every reader in its order.

`ChartBuilder` is loaded once per process and holds the terminology; `build` is pure and synchronous:
same resources, same moment, same chart.  It fetches nothing and judges nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fhir_adapters import resources as r
from fhir_adapters.building import Build, Tables, drain, merge_findings, merge_past, merge_problems
from fhir_adapters.chart import PatientChart
from fhir_adapters.collected import Resources
from fhir_adapters.conditions import read_conditions, read_family_history, read_reasons
from fhir_adapters.hpo import load_ontology
from fhir_adapters.names import Named, name_of
from fhir_adapters.observations import read_observations
from fhir_adapters.reports import read_reports
from fhir_adapters.subject import (
    PatientMissing,
    SeveralPatients,
    StatusCodes,
    choose_encounter,
    choose_patient,
    moment_of,
    read_subject,
)
from fhir_adapters.terminology.analytes import AnalyteTable
from fhir_adapters.terminology.concepts import ConceptTable
from fhir_adapters.terminology.drugs import DrugTable
from fhir_adapters.text import TextMatcher
from fhir_adapters.times import age_days
from fhir_adapters.treatments import (
    read_allergies,
    read_immunizations,
    read_medications,
    read_orders,
    read_procedures,
)

__all__ = ["ChartBuilder", "PatientMissing", "SeveralPatients", "moment_of"]


class ChartBuilder:
    """Builds charts with one set of terminology tables."""

    def __init__(self, tables: Tables, status_codes: StatusCodes) -> None:
        self.tables = tables
        self._status_codes = status_codes

    @classmethod
    def load(cls) -> "ChartBuilder":
        """Load and validate all terminology; raises `TerminologyInvalid` naming file and row."""
        ontology = load_ontology()
        tables = Tables(
            AnalyteTable.load(),
            ConceptTable.load(ontology),
            DrugTable.load(),
            ontology,
            TextMatcher.load(ontology),
        )
        return cls(tables, StatusCodes.load())

    def name_of(self, fact: Named, language: str) -> str:
        """What a fact is called in ``"en"`` or ``"es"``."""
        return name_of(self.tables, fact, language)

    def build(
        self,
        found: Resources,
        *,
        at: datetime,
        patient_id: str | None,
        encounter_id: str | None = None,
        draft_orders: Resources | None = None,
        selections: Sequence[str] = (),
        sections_missing: Sequence[str] = (),
        retrospective: bool = False,
    ) -> PatientChart:
        """Build the chart of one patient at the moment `at` (aware).

        `draft_orders` are the orders being picked (order-select), `selections` the references chosen
        last.  `found` is used up: its Observations and Conditions are let go as they are read.
        `retrospective` allows a finished encounter to be the one at hand (`$assess` of a stored
        Bundle).  Raises `PatientMissing` or `SeveralPatients`.
        """
        patient_reference, patient = choose_patient(found, patient_id)
        build = Build(
            self.tables,
            at,
            patient_reference,
            {None, patient_reference, f"urn:uuid:{patient.id}"},
            found.full_urls,
            issues=list(found.issues),
            age_days=age_days(patient.birthDate, at)[0],
        )

        def sent(kind: type) -> list[tuple[str, Any]]:
            return found.of.get(kind, [])

        encounter = choose_encounter(build, sent(r.Encounter), encounter_id, newest=retrospective)
        current = encounter.reference if encounter is not None else None
        start = encounter.start if encounter is not None else None
        read_reasons(build, sent(r.Encounter), current)
        read_conditions(build, drain(sent(r.Condition)), encounter_start=start)
        read_observations(build, drain(sent(r.Observation)))
        reported = read_reports(build, sent(r.DiagnosticReport))
        read_family_history(build, sent(r.FamilyMemberHistory))
        medications = dict(sent(r.Medication))
        problems = merge_problems(build.problems)
        taken = read_medications(
            build, [*sent(r.MedicationRequest), *sent(r.MedicationStatement)], medications
        )
        orders = read_orders(build, sent(r.ServiceRequest), draft=False)
        if draft_orders is not None:
            drafts = draft_orders.of
            build.issues.extend(draft_orders.issues)
            orders += read_orders(
                build,
                [*drafts.get(r.ServiceRequest, []), *drafts.get(r.MedicationRequest, [])],
                draft=True,
                selections=selections,
                medications={**medications, **dict(drafts.get(r.Medication, []))},
            )
        return PatientChart(
            subject=read_subject(
                build, patient, self._status_codes, problems, build.measurements, build.coded
            ),
            at=at,
            encounter=encounter,
            findings=merge_findings(build.findings, self.tables.ontology),
            problems=problems,
            measurements=build.measurements,
            coded=build.coded,
            medications=taken,
            allergies=read_allergies(build, sent(r.AllergyIntolerance)),
            family_history=tuple(dict.fromkeys(build.family)),
            procedures=read_procedures(build, sent(r.Procedure)) + reported,
            orders=orders,
            immunizations=read_immunizations(build, sent(r.Immunization)),
            issues=tuple(build.issues),
            unmapped=tuple(build.unmapped),
            sections_missing=tuple(sections_missing),
            resources_read=found.count + (draft_orders.count if draft_orders is not None else 0),
            coded_total=build.coded_total,
            exclude_evidence=found.exclude_evidence,
            past_findings=merge_past(build.past, self.tables.ontology),
        )
