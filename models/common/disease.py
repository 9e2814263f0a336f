"""What the product says about each disease it can name: names, codes, severity, first recommendations.

Responsible for the rows of a bundle's ``diseases.json``; compiled from the knowledge base by training,
so that serving reads no disease file.
"""

import msgspec


class DiseaseInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One disease of a bundle, in the order of the ensemble's columns.

    `icd10` is the main three-character category of ICD-10, `icd10cm` the main ICD-10-CM code, `also` the
    further categories it is coded under.  `severity` follows `SEVERITIES`; `immediate` is the chance that
    such a patient needs attention within minutes.  `tests` are ``(action or finding key, LR+, LR-)``.
    `priority` is ``"critical"`` when missing it is dangerous (immediate at least 0.3 in its gravest grade).
    """

    id: str
    en: str
    es: str
    group: str
    icd10: str
    icd10cm: str
    also: tuple[str, ...]
    snomed: str | None
    severity: tuple[float, float, float, float, float]
    immediate: float
    critical: bool
    recommend: tuple[str, ...]
    tests: tuple[tuple[str, float, float], ...]
    mimics: tuple[str, ...]

    @property
    def codings(self) -> tuple[tuple[str, str, str], ...]:
        """``(system, code, display)``: ICD-10, ICD-10-CM and, where known, SNOMED CT."""
        found = [
            ("http://hl7.org/fhir/sid/icd-10", self.icd10, self.en),
            ("http://hl7.org/fhir/sid/icd-10-cm", self.icd10cm, self.en),
        ]
        if self.snomed is not None:
            found.append(("http://snomed.info/sct", self.snomed, self.en))
        return tuple(found)
