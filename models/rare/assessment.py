"""What the rare-disease engine answers: immutable values, ids instead of texts for people."""

import msgspec


class Reported(msgspec.Struct, frozen=True):
    """A finding as the knowledge reports it of a disease.

    `frequency` is pooled; `seen` of `of` patients where it was counted (0 of 0 where it was not),
    `references` the papers and entries it was read in, enrolled cases included.
    """

    hpo: str
    frequency: float
    seen: float
    of: float
    references: tuple[str, ...]


class Matched(msgspec.Struct, frozen=True):
    """A finding of the patient that fits a disease: `hpo` as the patient has it, `reported` what it fits.

    `exact` says that the disease has the finding itself or a kind of it; `gain` is its log likelihood
    ratio (nats, negative where it does not fit); those of all findings add up to the feature ``likelihood``.
    """

    hpo: str
    exact: bool
    gain: float
    reported: Reported | None


class Share(msgspec.Struct, frozen=True):
    """How much one feature adds to a score."""

    feature: str
    amount: float


class RareCandidate(msgspec.Struct, frozen=True):
    """One ranked disease.  `ids` are OMIM first, then ORPHA (an enrolled disease has the site's own).

    `baseline` plus all `shares` is `score`; `likelihood_share` is the part of the score that follows the
    findings' likelihood ratios.  Reasons (`shares`, `matched`, `missing`, `contradicting`) are worked out
    for the leading candidates only; `explained` says whether they were.  `missing` are frequent findings
    of the disease of which nothing is known in the patient, `contradicting` those that are denied.
    """

    ids: tuple[str, ...]
    name: str
    genes: tuple[str, ...]
    family: str
    probability: float
    score: float
    enrolled: int = 0
    explained: bool = False
    baseline: float = 0.0
    shares: tuple[Share, ...] = ()
    matched: tuple[Matched, ...] = ()
    missing: tuple[Reported, ...] = ()
    contradicting: tuple[Reported, ...] = ()


class Family(msgspec.Struct, frozen=True):
    """Types of one syndrome side by side: `members` are places in the list of candidates."""

    name: str
    probability: float
    members: tuple[int, ...]


class Question(msgspec.Struct, frozen=True):
    """A finding to look for: expected information in bits about which of the leading diseases it is.

    `present` and `absent` are the places of the candidates that would gain most either way.
    """

    hpo: str
    gain: float
    present: int
    absent: int


class Resemblance(msgspec.Struct, frozen=True):
    """The nearest single profiles: an enrolled case or what one paper reports.

    `similarity` is shared over joint information content; `shares` are findings in common (as the profile
    has them), `differs` the profile's other findings, `beyond` the patient's that the profile lacks.
    """

    reference: str
    disease: str
    similarity: float
    shares: tuple[str, ...]
    differs: tuple[str, ...]
    beyond: tuple[str, ...]


class Relative(msgspec.Struct, frozen=True):
    """What the record says of a relative by blood that matters here.

    `relation` is the key of its words (``"mother"``), `name` what the record calls the condition, `diseases`
    the first ids of the diseases it names, `shared` HPO ids of the patient that the relative has too (the
    same finding, or one a kind of the other).  `sources` are FHIR references.
    """

    relation: str
    name: str
    sources: tuple[str, ...]
    diseases: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


class RareAlarm(msgspec.Struct, frozen=True):
    """Whether to suspect a rare disease.  `baseline` plus `shares` are the log odds of `probability`.

    `none_known` says that the alarm rings and what the knowledge holds explains it less probably than not.
    """

    decision: bool
    probability: float
    threshold: float
    none_known: bool
    baseline: float
    shares: tuple[Share, ...]


class RareAssessment(msgspec.Struct, frozen=True):
    """The whole answer.  `candidates` by falling probability; with `none_probability` and the candidates
    not listed (`rest_probability`) they sum to 1.  `unknown` are ids that are no abnormality of this HPO,
    `diseases` how many diseases were ranked."""

    candidates: tuple[RareCandidate, ...]
    none_probability: float
    rest_probability: float
    families: tuple[Family, ...]
    questions: tuple[Question, ...]
    resembles: tuple[Resemblance, ...]
    alarm: RareAlarm
    unknown: tuple[str, ...]
    release: str
    attribution: str
    diseases: int = 0
