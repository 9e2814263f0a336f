"""Why a past decision is not computed again, or not the same: words for programs and people."""

from typing import Literal

Reason = Literal[
    "not-found",
    "refused-call",
    "off",
    "consent",
    "erased",
    "expired",
    "lost",
    "altered",
    "unreadable",
    "bundle-missing",
    "bundle-refused",
    "cases-missing",
    "cases-erased",
    "cases-sealed",
    "fails",
]

REASONS: dict[Reason, str] = {
    "not-found": "no decision of that id is in this database",
    "refused-call": "the call was refused: there is nothing to compute",
    "off": "its inputs were not kept (CDS_STORE_DECISIONS was off, or the event is older than that setting)",
    "consent": "its inputs were not kept: the patient's denial came with them",
    "erased": "the patient's data was erased",
    "expired": "the retention time is over and its inputs were destroyed",
    "lost": "the event says its inputs were kept, nothing is there, and nothing ordered their destruction",
    "altered": "what is there is not what was kept",
    "unreadable": "kept in a form that this version does not read: use the version of that day",
    "bundle-missing": "the model bundle of that day is not in CDS_BUNDLE_ARCHIVE",
    "bundle-refused": "this software cannot use the model bundle of that day",
    "cases-missing": "the record of enrolled cases does not show which counted then: restore it from a copy",
    "cases-erased": "an enrolled case that counted that day was erased",
    "cases-sealed": "enrolled cases that counted that day do not open with this site's keys",
    "fails": "this software refuses, or fails at, what was answered then",
}
"""Each reason in a sentence's words."""
