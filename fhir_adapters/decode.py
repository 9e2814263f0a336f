"""From bytes to typed FHIR resources, losing nothing that can be read.

A Bundle is decoded in one pass straight into the structs of `fhir_adapters.resources`.  When any
resource in it does not fit, the Bundle is read again entry by entry, so that one bad resource is
reported with its reference and the rest still counts.  It judges nothing: what the resources mean
is the business of `fhir_adapters.chart_builder`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Union

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.chart import ReadIssue

EXCLUDE_EVIDENCE = "urn:exclude-evidence"


class MalformedJSON(ValueError):
    """The text is not JSON, or not the FHIR container that was asked for.

    `path` is the JSON path of the fault (``"$.entry"``), `reason` says what was expected.  Neither
    carries any content of the text.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class _Entry(msgspec.Struct, gc=False):
    fullUrl: str | None = None
    resource: r.AnyResource | None = None


class _RawEntry(msgspec.Struct, gc=False):
    fullUrl: Any = None
    resource: msgspec.Raw = msgspec.Raw()


class _Link(msgspec.Struct, gc=False):
    relation: str | None = None
    url: str | None = None


class _Meta(msgspec.Struct, gc=False):
    tag: list[r.Coding] | None = None


class _Bundle(msgspec.Struct, gc=False, tag="Bundle", tag_field="resourceType"):
    type: str | None = None
    timestamp: str | None = None
    meta: _Meta | None = None
    link: list[_Link] | None = None
    entry: list[_Entry | None] | None = None


class _RawBundle(msgspec.Struct, gc=False):
    resourceType: str | None = None
    type: Any = None
    timestamp: Any = None
    meta: Any = None
    link: Any = None
    entry: list[msgspec.Raw] | None = None


class _Head(msgspec.Struct, gc=False):
    resourceType: Any = None
    id: Any = None


# What one prefetch key may hold, decoded in the same pass as the request around it.
PrefetchValue: Any = Union[(_Bundle, *r.READ_TYPES, *r.IGNORED_TYPES, None)]

_bundle = msgspec.json.Decoder(_Bundle)
_raw_bundle = msgspec.json.Decoder(_RawBundle)
_raw_entry = msgspec.json.Decoder(_RawEntry)
_resource: msgspec.json.Decoder[Any] = msgspec.json.Decoder(r.AnyResource)
_head = msgspec.json.Decoder(_Head)


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

    def _take(self, resource: Any, full_url: str | None, position: str) -> None:
        """Take one resource; `position` says where it stood, for those without an id."""
        self.count += 1
        kind = type(resource)
        name = kind.__name__
        if kind not in _READ:
            self.ignored[name] += 1
            return
        if kind is r.OperationOutcome:
            self.issues.append(_outcome_issue(resource, position))
            return
        reference = f"{name}/{resource.id}" if resource.id else full_url or position
        if full_url and kind in _REFERRED_TO:
            self.full_urls[full_url] = reference
        self.of.setdefault(kind, []).append((reference, resource))

    def _take_bundle(self, bundle: _Bundle, where: str) -> str | None:
        """Take all entries of a decoded Bundle and return its next link."""
        prefix = f"{where}.entry[" if where else "entry["
        of, take, taken = self.of, self._take, 0
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
            self._take_tags(bundle.meta)
        return _next(bundle.link)

    def _take_tags(self, meta: _Meta) -> None:
        self.exclude_evidence += tuple(
            t.code for t in meta.tag or () if t.system == EXCLUDE_EVIDENCE and t.code
        )

    def _settle(self, key: str, held: int, faults: int) -> None:
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


def _outcome_issue(outcome: r.OperationOutcome, position: str) -> ReadIssue:
    codes = ",".join(sorted({issue.code for issue in outcome.issue or () if issue.code}))
    return ReadIssue("operation-outcome", position, "OperationOutcome", codes[:80])


def read_bundle(body: bytes | msgspec.Raw) -> Resources:
    """Decode one Bundle (collection, searchset, batch-response, transaction ...).

    Raises `MalformedJSON` when `body` is not JSON or not a Bundle.  Resources in it that cannot be
    read become issues.
    """
    found = Resources()
    _read_bundle_into(found, body, "")
    return found


def read_page(body: bytes, key: str = "") -> Resources:
    """Decode one answer of a FHIR server: a searchset Bundle, or a single resource of a read."""
    found = Resources()
    _read_value(found, key, body)
    return found


def read_prefetch(prefetch: Mapping[str, msgspec.Raw]) -> Resources:
    """Decode the `prefetch` of a hook request: key to resource, Bundle, null or OperationOutcome.

    Never raises for what a value holds: an unreadable value is an issue and its key not `answered`.
    """
    found = Resources()
    for key, value in prefetch.items():
        _read_value(found, key, value)
    return found


def read_decoded(prefetch: Mapping[str, Any]) -> Resources:
    """Take a `prefetch` that was decoded with its request (each value a `PrefetchValue`).

    The fast way for a request in which everything fits; `read_prefetch` is the one that finds out what
    does not.  Both give the same.
    """
    found = Resources()
    for key, value in prefetch.items():
        where = f"prefetch.{key}"
        if value is None:
            found.answered.add(key)
            continue
        held, faults = found.count, len(found.issues)
        if isinstance(value, _Bundle):
            next_link = found._take_bundle(value, where)
            if next_link:
                found.next_links[key] = next_link
        else:
            found._take(value, None, where)
        found._settle(key, held, faults)
    return found


def _read_value(found: Resources, key: str, body: bytes | msgspec.Raw) -> None:
    if _is_null(body):
        found.answered.add(key)
        return
    where = f"prefetch.{key}" if key else "response"
    held, faults = found.count, len(found.issues)
    try:
        if _is_bundle(body):
            next_link = _read_bundle_into(found, body, where)
            if next_link:
                found.next_links[key] = next_link
        else:
            resource = _decode_resource(body, found, where)
            if resource is not None:
                found._take(resource, None, where)
    except MalformedJSON as fault:
        found.issues.append(ReadIssue("unreadable-resource", where, fault.path, fault.reason))
        found.failed.add(key)
        return
    found._settle(key, held, faults)


def _is_null(body: bytes | msgspec.Raw) -> bool:
    view = memoryview(body)
    return view.nbytes == 4 and view.tobytes() == b"null"


def _is_bundle(body: bytes | msgspec.Raw) -> bool:
    if memoryview(body)[:24].tobytes().replace(b" ", b"").startswith(b'{"resourceType":"Bundle'):
        return True
    try:
        return bool(_head.decode(body).resourceType == "Bundle")
    except (msgspec.DecodeError, RecursionError) as fault:
        raise _malformed(fault) from None


def _read_bundle_into(found: Resources, body: bytes | msgspec.Raw, where: str) -> str | None:
    try:
        bundle = _bundle.decode(body)
    except (msgspec.ValidationError, RecursionError):
        return _read_bundle_by_entry(found, body, where)
    except msgspec.DecodeError as fault:
        raise _malformed(fault) from None
    return found._take_bundle(bundle, where)


def _next(links: Sequence[_Link] | None) -> str | None:
    return next((link.url for link in links or () if link.relation == "next" and link.url), None)


def _read_bundle_by_entry(found: Resources, body: bytes | msgspec.Raw, where: str) -> str | None:
    """The slow path: at least one entry does not fit; find out which, and keep the others."""
    try:
        bundle = _raw_bundle.decode(body)
    except (msgspec.DecodeError, RecursionError) as fault:
        raise _malformed(fault) from None
    if bundle.resourceType != "Bundle":
        raise MalformedJSON("$.resourceType", "expected `Bundle`")
    prefix = f"{where}.entry[" if where else "entry["
    for number, raw in enumerate(bundle.entry or ()):
        position = f"{prefix}{number}]"
        try:
            entry = _raw_entry.decode(raw)
        except (msgspec.DecodeError, RecursionError) as fault:
            found.count += 1
            found.issues.append(_unreadable(fault, position, None))
            continue
        if not entry.resource or _is_null(entry.resource):
            continue
        resource = _decode_resource(entry.resource, found, position)
        if resource is not None:
            found._take(resource, entry.fullUrl if isinstance(entry.fullUrl, str) else None, position)
    try:
        meta = msgspec.convert(bundle.meta, _Meta | None)
        links = msgspec.convert(bundle.link, list[_Link] | None)
        found.timestamp = found.timestamp or msgspec.convert(bundle.timestamp, str | None)
    except msgspec.ValidationError as fault:
        found.issues.append(_unreadable(fault, where or "Bundle", None))
        return None
    if meta is not None and meta.tag:
        found.exclude_evidence += tuple(t.code for t in meta.tag if t.system == EXCLUDE_EVIDENCE and t.code)
    return _next(links)


def _decode_resource(body: bytes | msgspec.Raw, found: Resources, position: str) -> Any:
    """One resource, or `None` with an issue (an unknown resource type is counted, not an issue)."""
    try:
        return _resource.decode(body)
    except (msgspec.DecodeError, RecursionError) as fault:
        found.count += 1
        try:
            head = _head.decode(body)
        except (msgspec.DecodeError, RecursionError):
            head = _Head()
        name, identity = head.resourceType, head.id
        if isinstance(name, str) and name.isalpha() and name not in _KNOWN_NAMES:
            found.ignored[name[:40]] += 1
            return None
        known = name if isinstance(name, str) and name in _KNOWN_NAMES else None
        reference = f"{known}/{identity}" if known and isinstance(identity, str) else None
        found.issues.append(_unreadable(fault, position, reference))
        return None


_KNOWN_NAMES = frozenset(t.__name__ for t in (*r.READ_TYPES, *r.IGNORED_TYPES))


def _unreadable(fault: Exception, position: str, reference: str | None) -> ReadIssue:
    malformed = _malformed(fault)
    return ReadIssue("unreadable-resource", reference or position, malformed.path, malformed.reason)


def _malformed(fault: Exception) -> MalformedJSON:
    """The decoder's message names types and a path, never content; keep exactly that."""
    if isinstance(fault, RecursionError):
        return MalformedJSON("$", "nested too deeply")
    text = str(fault)
    reason, _, path = text.partition(" - at `")
    if isinstance(fault, msgspec.ValidationError):
        if reason.startswith("Invalid value"):
            reason = "resource type not of FHIR R4"
        return MalformedJSON(path.rstrip("`") or "$", reason)
    return MalformedJSON("$", reason.partition(":")[0] or "not JSON")
