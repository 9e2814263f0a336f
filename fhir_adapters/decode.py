"""From bytes to typed FHIR resources, losing nothing that can be read.

A Bundle is decoded in one pass straight into the structs of `fhir_adapters.resources`.  When any
resource in it does not fit, the Bundle is read again entry by entry, so that one bad resource is
reported with its reference and the rest still counts.  It judges nothing: what the resources mean
is the business of `fhir_adapters.chart_builder`.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from fhir_adapters import resources as r
from fhir_adapters.chart import ReadIssue
from fhir_adapters.collected import Bundle, Link, Meta, Resources, next_link_of


class MalformedJSON(ValueError):
    """The text is not JSON, or not the FHIR container that was asked for.

    `path` is the JSON path of the fault (``"$.entry"``), `reason` says what was expected.  Neither
    carries any content of the text.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class _RawEntry(msgspec.Struct, gc=False):
    fullUrl: Any = None
    resource: msgspec.Raw = msgspec.Raw()


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


_bundle = msgspec.json.Decoder(Bundle)
_raw_bundle = msgspec.json.Decoder(_RawBundle)
_raw_entry = msgspec.json.Decoder(_RawEntry)
_resource: msgspec.json.Decoder[Any] = msgspec.json.Decoder(r.AnyResource)
_head = msgspec.json.Decoder(_Head)


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
        if isinstance(value, Bundle):
            next_link = found.take_bundle(value, where)
            if next_link:
                found.next_links[key] = next_link
        else:
            found.take(value, None, where)
        found.settle(key, held, faults)
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
                found.take(resource, None, where)
    except MalformedJSON as fault:
        found.issues.append(ReadIssue("unreadable-resource", where, fault.path, fault.reason))
        found.failed.add(key)
        return
    found.settle(key, held, faults)


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
    return found.take_bundle(bundle, where)


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
            found.take(resource, entry.fullUrl if isinstance(entry.fullUrl, str) else None, position)
    try:
        meta = msgspec.convert(bundle.meta, Meta | None)
        links = msgspec.convert(bundle.link, list[Link] | None)
        found.timestamp = found.timestamp or msgspec.convert(bundle.timestamp, str | None)
    except msgspec.ValidationError as fault:
        found.issues.append(_unreadable(fault, where or "Bundle", None))
        return None
    if meta is not None:
        found.take_tags(meta)
    return next_link_of(links)


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
