"""What was decoded of one request or Bundle: resources by type, what was wrong, what is still to come.

Holds the shape of a Bundle and takes decoded ones apart; reading bytes is `fhir_adapters.decode`'s business,
and what the resources mean `fhir_adapters.chart_builder`'s.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Union

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.chart import ReadIssue

EXCLUDE_EVIDENCE = "urn:exclude-evidence"


class Entry(msgspec.Struct, gc=False):
    fullUrl: str | None = None
    resource: r.AnyResource | None = None


class Link(msgspec.Struct, gc=False):
    relation: str | None = None
    url: str | None = None


class Meta(msgspec.Struct, gc=False):
    tag: list[r.Coding] | None = None


class Bundle(msgspec.Struct, gc=False, tag="Bundle", tag_field="resourceType"):
    type: str | None = None
    timestamp: str | None = None
    meta: Meta | None = None
    link: list[Link] | None = None
    entry: list[Entry | None] | None = None


# What one prefetch key may hold, decoded in the same pass as the request around it.
PrefetchValue: Any = Union[(Bundle, *r.READ_TYPES, *r.IGNORED_TYPES, None)]


class Resources:
    """What was decoded, by type, with what could not be.

    `of` maps a resource struct type to ``(reference, resource)`` pairs in the order sent; `reference`
    is ``"Type/id"``, or the entry's fullUrl, or ``"entry[n]"``.  `full_urls` maps a fullUrl to that
    reference (of the types that others refer to).  `answered` holds the prefetch keys that brought data
    or an explicit null, `failed` those that brought an OperationOutcome, `next_links` the URL of the next
    page per key, `sent` how many resources came under each key.
    """

    __slots__ = (
        "answered",
        "count",
        "exclude_evidence",
        "failed",
        "full_urls",
        "ignored",
        "issues",
        "next_links",
        "of",
        "sent",
        "timestamp",
    )

    def __init__(self) -> None:
        self.of: dict[type, list[tuple[str, Any]]] = {}
        self.full_urls: dict[str, str] = {}
        self.issues: list[ReadIssue] = []
        self.answered: set[str] = set()
        self.failed: set[str] = set()
        self.next_links: dict[str, str] = {}
        self.sent: dict[str, int] = {}
        self.ignored: Counter[str] = Counter()
        self.timestamp: str | None = None
        self.exclude_evidence: tuple[str, ...] = ()
        self.count = 0

    @property
    def patients(self) -> list[r.Patient]:
        """The Patient resources that were sent."""
        return [patient for _, patient in self.of.get(r.Patient, ())]

    def merge(self, other: "Resources") -> None:
        """Take over everything `other` holds (a fetched page beside what the prefetch brought)."""
        for kind, pairs in other.of.items():
            self.of.setdefault(kind, []).extend(pairs)
        self.full_urls.update(other.full_urls)
        self.issues.extend(other.issues)
        self.answered |= other.answered
        self.failed |= other.failed
        self.next_links.update(other.next_links)
        self.sent.update(other.sent)
        self.ignored.update(other.ignored)
        self.count += other.count
        self.timestamp = self.timestamp or other.timestamp
        self.exclude_evidence += other.exclude_evidence

    def take(self, resource: Any, full_url: str | None, position: str) -> None:
        """Take one resource; `position` says where it stood, for those without an id."""
        self.count += 1
        kind = type(resource)
        name = kind.__name__
        if kind not in _READ:
            self.ignored[name] += 1
            return
        if kind is r.OperationOutcome:
            self.issues.append(outcome_issue(resource, position))
            return
        reference = f"{name}/{resource.id}" if resource.id else full_url or position
        if full_url and kind in _REFERRED_TO:
            self.full_urls[full_url] = reference
        self.of.setdefault(kind, []).append((reference, resource))

    def take_bundle(self, bundle: Bundle, where: str) -> str | None:
        """Take all entries of a decoded Bundle and return its next link.  The Bundle is used up."""
        prefix = f"{where}.entry[" if where else "entry["
        of, take, taken = self.of, self.take, 0
        kind: type = type(None)
        pairs: list[tuple[str, Any]] = []
        start = ""
        entries = bundle.entry or []
        for position, entry in enumerate(entries):
            if entry is None:
                continue
            entries[position] = None  # freed here, while it is still in the cache
            resource: Any = entry.resource
            if resource is None:
                continue
            if type(resource) is not kind:
                # A searchset holds one type: what depends on the type is looked up when it changes.
                kind = type(resource)
                plain = kind in _PLAIN
                if plain:
                    pairs = of.setdefault(kind, [])
                    start = kind.__name__ + "/"
            if plain and resource.id:
                taken += 1
                pairs.append((start + resource.id, resource))
            else:
                take(resource, entry.fullUrl, f"{prefix}{position}]")
        self.count += taken
        self.timestamp = self.timestamp or bundle.timestamp
        if bundle.meta is not None:
            self.take_tags(bundle.meta)
        return next_link_of(bundle.link)

    def take_tags(self, meta: Meta) -> None:
        """Take the tags that name evidence to leave out."""
        self.exclude_evidence += tuple(
            t.code for t in meta.tag or () if t.system == EXCLUDE_EVIDENCE and t.code
        )

    def settle(self, key: str, held: int, faults: int) -> None:
        """Note whether what has just been taken under `key` answers it.

        A value of which nothing but faults came is a refusal, not an answer.
        """
        brought, wrong = self.count - held, len(self.issues) - faults
        self.sent[key] = brought
        (self.failed if wrong and wrong >= brought else self.answered).add(key)


_READ = frozenset(r.READ_TYPES)
# Types that other resources refer to by fullUrl (transaction Bundles, urn:uuid references).
_REFERRED_TO = frozenset({r.Patient, r.Medication, r.Encounter})
_PLAIN = _READ - _REFERRED_TO - {r.OperationOutcome}


def outcome_issue(outcome: r.OperationOutcome, position: str) -> ReadIssue:
    codes = ",".join(sorted({issue.code for issue in outcome.issue or () if issue.code}))
    return ReadIssue("operation-outcome", position, "OperationOutcome", codes[:80])


def next_link_of(links: Sequence[Link] | None) -> str | None:
    """The URL of the next page, if a Bundle names one."""
    return next((link.url for link in links or () if link.relation == "next" and link.url), None)
