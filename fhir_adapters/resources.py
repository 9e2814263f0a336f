"""Slim typed views of the FHIR R4 elements that are read, and of nothing else.

Each struct names only what the chart uses: a patient's name, address or telephone never enters
memory as a value because no field asks for it.  Unknown members and extensions are skipped by the
decoder.  Resource types of R4 that carry nothing for the chart are decoded to an empty struct of
their own, so that a mixed Bundle stays on the fast path.  `gc=False` is safe because no struct
refers back to itself, and it keeps ten thousand of them out of the garbage collector's rounds.

Source of names and types: https://hl7.org/fhir/R4/resourcelist.html and the resources' own pages.
"""

from typing import Any, Union

import msgspec


class Coding(msgspec.Struct, gc=False):
    system: str | None = None
    code: str | None = None
    display: str | None = None


class CodeableConcept(msgspec.Struct, gc=False):
    coding: list[Coding] | None = None
    text: str | None = None


class PlainCoding(msgspec.Struct, gc=False):
    """A Coding whose display nobody reads: one string less, thousands of times."""

    system: str | None = None
    code: str | None = None


class ObservationCode(msgspec.Struct, gc=False):
    coding: list[PlainCoding] | None = None
    text: str | None = None


class StatusCode(msgspec.Struct, gc=False):
    code: str | None = None


class Status(msgspec.Struct, gc=False):
    """A CodeableConcept whose system is fixed by FHIR: only its code (or text) is read."""

    coding: list[StatusCode] | None = None
    text: str | None = None


class Reference(msgspec.Struct, gc=False):
    reference: str | None = None


class NamedReference(msgspec.Struct, gc=False):
    reference: str | None = None
    display: str | None = None


class Quantity(msgspec.Struct, gc=False):
    value: float | None = None
    comparator: str | None = None
    unit: str | None = None
    code: str | None = None


class Period(msgspec.Struct, gc=False):
    start: str | None = None
    end: str | None = None


class ReferenceRange(msgspec.Struct, gc=False):
    low: Quantity | None = None
    high: Quantity | None = None
    type: CodeableConcept | None = None


class Resource(msgspec.Struct, gc=False, tag_field="resourceType"):
    """What every resource has.  Subclasses are tagged with their FHIR type name."""

    id: str | None = None


class Patient(Resource, tag="Patient", gc=False):
    gender: str | None = None
    birthDate: str | None = None
    deceasedBoolean: bool | None = None
    deceasedDateTime: str | None = None


class Encounter(Resource, tag="Encounter", gc=False):
    status: str | None = None
    class_: Coding | None = msgspec.field(default=None, name="class")
    subject: Reference | None = None
    period: Period | None = None
    reasonCode: list[CodeableConcept] | None = None


class Condition(Resource, tag="Condition", gc=False):
    clinicalStatus: Status | None = None
    verificationStatus: Status | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    onsetDateTime: str | None = None
    onsetAge: Quantity | None = None
    onsetPeriod: Period | None = None
    abatementDateTime: str | None = None
    abatementAge: Quantity | None = None
    abatementPeriod: Period | None = None
    recordedDate: str | None = None


class ObservationComponent(msgspec.Struct, gc=False):
    code: ObservationCode | None = None
    valueQuantity: Quantity | None = None
    valueCodeableConcept: CodeableConcept | None = None
    valueString: str | None = None
    valueBoolean: bool | None = None
    valueInteger: int | None = None
    dataAbsentReason: CodeableConcept | None = None
    interpretation: list[CodeableConcept] | None = None
    referenceRange: list[ReferenceRange] | None = None


class Observation(Resource, tag="Observation", gc=False):
    status: str | None = None
    code: ObservationCode | None = None
    subject: Reference | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    effectiveInstant: str | None = None
    issued: str | None = None
    valueQuantity: Quantity | None = None
    valueCodeableConcept: CodeableConcept | None = None
    valueString: str | None = None
    valueBoolean: bool | None = None
    valueInteger: int | None = None
    dataAbsentReason: CodeableConcept | None = None
    interpretation: list[CodeableConcept] | None = None
    referenceRange: list[ReferenceRange] | None = None
    component: list[ObservationComponent] | None = None


class DiagnosticReport(Resource, tag="DiagnosticReport", gc=False):
    status: str | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    issued: str | None = None
    conclusionCode: list[CodeableConcept] | None = None


class AllergyIntolerance(Resource, tag="AllergyIntolerance", gc=False):
    clinicalStatus: Status | None = None
    verificationStatus: Status | None = None
    criticality: str | None = None
    code: CodeableConcept | None = None
    patient: Reference | None = None


class Medication(Resource, tag="Medication", gc=False):
    code: CodeableConcept | None = None


class MedicationRequest(Resource, tag="MedicationRequest", gc=False):
    status: str | None = None
    doNotPerform: bool | None = None
    medicationCodeableConcept: CodeableConcept | None = None
    medicationReference: NamedReference | None = None
    subject: Reference | None = None
    authoredOn: str | None = None
    contained: list[msgspec.Raw] | None = None


class MedicationStatement(Resource, tag="MedicationStatement", gc=False):
    status: str | None = None
    medicationCodeableConcept: CodeableConcept | None = None
    medicationReference: NamedReference | None = None
    subject: Reference | None = None
    effectiveDateTime: str | None = None
    effectivePeriod: Period | None = None
    contained: list[msgspec.Raw] | None = None


class Procedure(Resource, tag="Procedure", gc=False):
    status: str | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    performedDateTime: str | None = None
    performedPeriod: Period | None = None


class FamilyMemberCondition(msgspec.Struct, gc=False):
    code: CodeableConcept | None = None


class FamilyMemberHistory(Resource, tag="FamilyMemberHistory", gc=False):
    status: str | None = None
    patient: Reference | None = None
    relationship: Status | None = None
    condition: list[FamilyMemberCondition] | None = None


class ServiceRequest(Resource, tag="ServiceRequest", gc=False):
    status: str | None = None
    doNotPerform: bool | None = None
    code: CodeableConcept | None = None
    subject: Reference | None = None
    authoredOn: str | None = None


class Immunization(Resource, tag="Immunization", gc=False):
    status: str | None = None
    vaccineCode: CodeableConcept | None = None
    patient: Reference | None = None
    occurrenceDateTime: str | None = None


class OutcomeIssue(msgspec.Struct, gc=False):
    severity: str | None = None
    code: str | None = None


class OperationOutcome(Resource, tag="OperationOutcome", gc=False):
    issue: list[OutcomeIssue] | None = None


READ_TYPES: tuple[type[Resource], ...] = (
    Patient,
    Encounter,
    Condition,
    Observation,
    DiagnosticReport,
    AllergyIntolerance,
    Medication,
    MedicationRequest,
    MedicationStatement,
    Procedure,
    FamilyMemberHistory,
    ServiceRequest,
    Immunization,
    OperationOutcome,
)

# Every other resource type of R4 (https://hl7.org/fhir/R4/resourcelist.html), Bundle excepted.
_OTHER_TYPES = """
Account ActivityDefinition AdverseEvent Appointment AppointmentResponse AuditEvent Basic Binary
BiologicallyDerivedProduct BodyStructure CapabilityStatement CarePlan CareTeam CatalogEntry ChargeItem
ChargeItemDefinition Claim ClaimResponse ClinicalImpression CodeSystem Communication CommunicationRequest
CompartmentDefinition Composition ConceptMap Consent Contract Coverage CoverageEligibilityRequest
CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest
DeviceUseStatement DocumentManifest DocumentReference EffectEvidenceSynthesis Endpoint EnrollmentRequest
EnrollmentResponse EpisodeOfCare EventDefinition Evidence EvidenceVariable ExampleScenario
ExplanationOfBenefit Flag Goal GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy
ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice Library Linkage
List Location Measure MeasureReport Media MedicationAdministration MedicationDispense MedicationKnowledge
MedicinalProduct MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect
MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder ObservationDefinition
OperationDefinition Organization OrganizationAffiliation Parameters PaymentNotice PaymentReconciliation
Person PlanDefinition Practitioner PractitionerRole Provenance Questionnaire QuestionnaireResponse
RelatedPerson RequestGroup ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject
RiskAssessment RiskEvidenceSynthesis Schedule SearchParameter Slot Specimen SpecimenDefinition
StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer
SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification
SupplyDelivery SupplyRequest Task TerminologyCapabilities TestReport TestScript ValueSet
VerificationResult VisionPrescription
""".split()  # noqa: SIM905 - a list of 130 literals would hide the names

IGNORED_TYPES: tuple[type[msgspec.Struct], ...] = tuple(
    msgspec.defstruct(name, [], tag=name, tag_field="resourceType", gc=False) for name in _OTHER_TYPES
)

# mypy cannot see a union built at run time; the decoder can.
AnyResource: Any = Union[(*READ_TYPES, *IGNORED_TYPES)]
