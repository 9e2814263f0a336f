"""The values of a phenotype profile: what a chart says of a patient in HPO terms, for life and not only now.

Holds no rule and reads no chart; `fhir_adapters.phenotype` makes these values.  Every term keeps the
references of the FHIR resources behind it, and no clinical value.
"""

from typing import Literal

import msgspec

from fhir_adapters.chart import Sex

TermState = Literal["present", "excluded"]
Derivation = Literal["coded", "text", "problem", "measurement", "growth"]


class PhenotypeTerm(msgspec.Struct, frozen=True, gc=False):
    """One HPO term that is present or excluded.

    `hpo` is a current id, `sources` are relative FHIR references, sorted.  `derivation` says how it was
    found: stated by a code (``coded``), matched in free text (``text``), implied by an ICD-10-CM code
    (``problem``), by measured values (``measurement``) or by growth for age and sex (``growth``).
    `basis` names the code behind the last three (``"LOINC 777-3"``, ``"ICD-10-CM Q21.1"``).
    `onset_age_days` is the earliest age known for it; `resolved` that it is over (it still counts for
    life); `congenital` that the chart codes it as a malformation, present at birth by definition.
    """

    hpo: str
    label: str
    state: TermState
    sources: tuple[str, ...]
    derivation: Derivation
    basis: str = ""
    onset_age_days: int | None = None
    resolved: bool = False
    congenital: bool = False


class FamilyTerm(msgspec.Struct, frozen=True, gc=False):
    """A condition of a relative; never part of the patient's own terms.

    `relationship` is the v3-RoleCode (``"FTH"``), ``"FAMMEMB"`` when none was sent; `text` and `codes`
    are what the record calls it (`fhir_adapters.chart.FamilyCondition`).
    """

    relationship: str
    label: str
    sources: tuple[str, ...]
    hpo: str | None = None
    icd10cm: str | None = None
    text: str = ""
    codes: tuple[str, ...] = ()


class PhenotypeIssue(msgspec.Struct, frozen=True, gc=False):
    """Something that was not used, and why.  `detail` names codes only, never a value or text.

    ``unknown-hpo``: no current term has this id.  ``not-a-phenotype``: a term of another branch of HPO.
    ``uncertain``: stated as provisional or differential.  ``unconfirmed``: abnormal once, neither clear nor
    repeated.  ``contradiction``: refuted or normal in one place and present in another.
    ``pregnancy``: laboratory values of a pregnancy are not judged.  ``treated``: the patient takes a drug
    that makes the value uninterpretable.  ``age-unknown`` / ``sex-unknown``: growth was not judged.
    ``implausible-growth``: further than eight standard deviations from the median.
    """

    code: Literal[
        "unknown-hpo",
        "not-a-phenotype",
        "uncertain",
        "unconfirmed",
        "contradiction",
        "pregnancy",
        "treated",
        "age-unknown",
        "sex-unknown",
        "implausible-growth",
    ]
    sources: tuple[str, ...]
    detail: str = ""


class PhenotypeProfile(msgspec.Struct, frozen=True):
    """All HPO terms of a patient with what they rest on.

    `present` and `excluded` are in order of id and hold no id twice, nor one id both.  `age_years` is
    the age at the chart's moment; `onset_years` the earliest onset among the terms present, not over,
    that are congenital or have lasted three months (`None` when nothing says).
    `consanguinity` is `True` when the chart states it (in `consanguinity_sources`), `None` otherwise.
    """

    present: tuple[PhenotypeTerm, ...]
    excluded: tuple[PhenotypeTerm, ...]
    sex: Sex
    age_years: float | None
    onset_years: float | None
    family: tuple[FamilyTerm, ...] = ()
    consanguinity: bool | None = None
    issues: tuple[PhenotypeIssue, ...] = ()
    consanguinity_sources: tuple[str, ...] = ()

    @property
    def observed_ids(self) -> tuple[str, ...]:
        """The HPO ids present."""
        return tuple([term.hpo for term in self.present])

    @property
    def excluded_ids(self) -> tuple[str, ...]:
        """The HPO ids excluded."""
        return tuple([term.hpo for term in self.excluded])
