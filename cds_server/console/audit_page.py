"""The HTML of `/audit`: the form, the table, one event.  Pure: values in, text out."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import msgspec

from cds_server.audit.activities import ACTIVITIES
from cds_server.audit.events import Access, CardFeedback, Decision, Record, identity, patient_of, to_utc
from cds_server.audit.fhir import activity_of
from cds_server.audit.question import outcome_of
from cds_server.audit.reader import ChainStatus, Page
from cds_server.console.texts import text

_OUTCOMES = {"0": "success", "4": "minor", "8": "serious"}
_FIELDS = ("from", "to", "patient", "agent", "entity")


class Line(msgspec.Struct, frozen=True):
    """An event as a line of the table and of the CSV: what is known of it, in words and codes."""

    recorded: str
    id: str
    activity: str
    action: str
    outcome: str
    status: int
    client: str
    user: str
    roles: str
    patient: str
    service: str
    trace: str
    about: str
    severity: str
    escalation: str
    rule: str
    model: str


def line_of(record: Record) -> Line:
    """The line of a record."""
    activity = activity_of(record)
    status = record.status if isinstance(record, Decision | Access) else 200
    decision = record if isinstance(record, Decision) else None
    return Line(
        recorded=to_utc(record.recorded).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
        id=identity(record),
        activity=activity.code,
        action=activity.action,
        outcome=outcome_of(status),
        status=status,
        client=getattr(record, "client", None) or "",
        user=getattr(record, "user", None) or "",
        roles=" ".join(getattr(record, "roles", ())),
        patient=patient_of(record) or "",
        service=getattr(record, "service", "audit"),
        trace=getattr(record, "hook_instance", None) or getattr(record, "request", None) or "",
        about=_about(record),
        severity=(decision.severity or "") if decision else "",
        escalation=(decision.escalation or "") if decision else "",
        rule=(decision.rule or "") if decision else "",
        model=decision.model if decision else "",
    )


def _about(record: Record) -> str:
    if isinstance(record, Access):
        return " ".join(entity.what for entity in record.entities)
    return f"urn:uuid:{record.card} {record.outcome}" if isinstance(record, CardFeedback) else ""


def search_page(
    language: str,
    fields: Mapping[str, str],
    page: Page | None,
    chain: ChainStatus,
    *,
    cursor: str | None = None,
    fault: str | None = None,
) -> str:
    """The whole page.

    Args:
        fields: what the form shows as filled in; ids of patients are pseudonyms by now.
        page: the events, `None` when the question was not understood (`fault` says why).
        cursor: where the next page begins.
    """
    body = [
        f"<h1>{_t('title', language)}</h1>",
        f"<p>{_t('about', language)}</p>",
        _chain(language, chain),
        _form(language, fields),
        (
            f'<div id="export-progress" hidden data-begun="{_t("export-begun", language)}" '
            f'data-done="{_t("export-done", language)}" data-failed="{_t("export-failed", language)}">'
            f'<progress aria-label="{_t("progress", language)}" value="0" max="1"></progress> '
            '<output role="status"></output></div>'
        ),
    ]
    if fault is not None:
        body.append(
            f'<p class="fault" role="alert"><strong>{_t("fault", language)}:</strong> {escape(fault)}</p>'
        )
    if page is not None:
        body.append(_table(language, page))
        if cursor is not None:
            body.append(_older(language, fields, cursor))
    return document(language, _t("title", language), "\n".join(body), script=True)


def event_page(language: str, record: Record | None, resource: Mapping[str, Any] | None) -> str:
    """One event: what is known, and its FHIR form."""
    back = f'<p><a href="/audit">{_t("back", language)}</a></p>'
    if record is None or resource is None:
        heading = f"<h1>{_t('event', language)}</h1>"
        return document(language, _t("event", language), f"{heading}<p>{_t('not-found', language)}</p>{back}")
    activity = activity_of(record)
    named = activity.spanish if language == "es" else activity.english
    line = line_of(record)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>\n'
        for name, value in msgspec.structs.asdict(line).items()
        if value not in ("", None)
    )
    pretty = json.dumps(resource, indent=2, ensure_ascii=False)
    body = (
        f"<h1>{_t('event', language)}: {escape(named)}</h1>{back}"
        f'<div class="wide"><table><caption>{_t("details", language)}</caption>\n{rows}</table></div>'
        f'<h2>{_t("resource", language)}</h2><pre tabindex="0">{escape(pretty)}</pre>'
    )
    return document(language, _t("event", language), body)


def document(language: str, title: str, body: str, *, script: bool = False) -> str:
    """The frame of every page."""
    more = '<script src="/audit/export.js" defer></script>' if script else ""
    return (
        f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title} – cds-server</title><link rel="stylesheet" href="/audit/style.css">{more}</head>\n'
        f'<body><a class="skip" href="#events">{_t("skip", language)}</a>\n'
        f"<main>\n{body}\n</main></body></html>\n"
    )


def _chain(language: str, chain: ChainStatus) -> str:
    waiting = chain.events_after_checkpoint
    key = "chain-none" if not chain.checkpoints else "chain-waiting" if waiting else "chain-sealed"
    made = f"{chain.newest_checkpoint:%Y-%m-%d %H:%M:%S}" if chain.newest_checkpoint else ""
    words = escape(text(key, language).format(number=chain.checkpoints, made=made, waiting=waiting))
    return (
        f'<section class="status{" waiting" if waiting else ""}" aria-label="{_t("chain", language)}">'
        f"<p><strong>{_t('chain', language)}.</strong> {words} {_t('chain-verify', language)}</p></section>"
    )


def _form(language: str, fields: Mapping[str, str]) -> str:
    inputs = [
        f'<div><label for="{name}">{_t(name, language)}</label><input id="{name}" name="{name}" '
        f'type="{"date" if name in ("from", "to") else "text"}" autocomplete="off" '
        f'value="{escape(fields.get(name, ""))}"></div>'
        for name in _FIELDS
    ]
    chosen = fields.get("activity", "")
    activities = "".join(
        f'<option value="{code}"{" selected" if code == chosen else ""}>'
        f"{escape(row.spanish if language == 'es' else row.english)}</option>"
        for code, row in ACTIVITIES.items()
    )
    outcomes = "".join(
        f'<option value="{code}"{" selected" if code == fields.get("outcome", "") else ""}>'
        f"{_t(key, language)}</option>"
        for code, key in _OUTCOMES.items()
    )
    any_ = f'<option value="">{_t("any", language)}</option>'
    selects = (
        f'<div><label for="activity">{_t("activity", language)}</label>'
        f'<select id="activity" name="activity">{any_}{activities}</select></div>'
        f'<div><label for="outcome">{_t("outcome", language)}</label>'
        f'<select id="outcome" name="outcome">{any_}{outcomes}</select></div>'
    )
    # By POST: an id that somebody types must not get into an address, a history or a proxy's log.
    buttons = (
        f'<div class="buttons"><button type="submit">{_t("search", language)}</button>'
        '<button type="submit" formaction="/audit/export" name="format" value="ndjson" '
        f'data-export="audit.ndjson">{_t("export-ndjson", language)}</button>'
        '<button type="submit" formaction="/audit/export" name="format" value="csv" '
        f'data-export="audit.csv">{_t("export-csv", language)}</button></div>'
    )
    return f'<form class="filter" method="post" action="/audit">{"".join(inputs)}{selects}{buttons}</form>'


def _table(language: str, page: Page) -> str:
    if not page.records and not page.unreadable:
        return f'<p id="events" role="status">{_t("none", language)}</p>'
    head = "".join(
        f'<th scope="col">{_t(key, language)}</th>'
        for key in ("recorded", "activity", "outcome", "client", "user", "who", "what", "read")
    )
    rows = "".join(_row(language, record) for record in page.records)
    rows += "".join(
        f'<tr><td colspan="8">{escape(event_id)}: {_t("unreadable", language)}</td></tr>\n'
        for event_id in page.unreadable
    )
    return (
        f'<div class="wide"><table id="events"><caption>{_t("events", language)}</caption>\n'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>"
    )


def _row(language: str, record: Record) -> str:
    activity = activity_of(record)
    line = line_of(record)
    named = activity.spanish if language == "es" else activity.english
    about = " ".join(part for part in (line.service, line.escalation, line.rule, line.about) if part)
    cells: Sequence[str] = (
        line.recorded,
        named,
        f"{text(_OUTCOMES[line.outcome], language)} ({line.status})",
        line.client,
        " ".join(part for part in (line.user, line.roles) if part),
        line.patient,
        about,
    )
    label = escape(f"{text('read', language)}: {named}, {line.recorded}")
    link = f'<a href="/audit/event/{escape(line.id)}" aria-label="{label}">{_t("read", language)}</a>'
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + f"<td>{link}</td></tr>\n"


def _older(language: str, fields: Mapping[str, str], cursor: str) -> str:
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in {**fields, "after": cursor}.items()
        if value
    )
    return (
        f'<form method="post" action="/audit">{hidden}<p class="buttons"><button type="submit">'
        f"{_t('older', language)}</button></p></form>"
    )


def _t(key: str, language: str) -> str:
    return escape(text(key, language))
