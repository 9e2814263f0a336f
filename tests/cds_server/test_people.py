"""Names of authorities as a process keeps them, and the pseudonyms a person may have."""

from datetime import UTC, datetime

import pytest

from cds_server import people as module
from cds_server.people import AuthorityNames, People
from cds_server.privacy import Cipher, DecryptionFailed, KeyRing, Pseudonymiser

ONE, TWO = b"1" * 32, b"2" * 32
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NORTH, SOUTH = "https://north.example/fhir", "https://south.example/fhir"


def pseudonymiser(*keys: bytes) -> Pseudonymiser:
    return Pseudonymiser(KeyRing(dict(enumerate(keys or (ONE,), start=1))))


def names() -> AuthorityNames:
    return AuthorityNames(pseudonymiser(), Cipher(KeyRing({1: ONE})), lambda: NOON)


def test_a_name_comes_along_until_it_is_durable() -> None:
    kept = names()
    first, again = kept.keep(NORTH), kept.keep(NORTH)
    assert first.digest == again.digest and len(first.records) == len(again.records) == 1
    kept.confirm(first)
    assert kept.keep(NORTH).records == ()
    assert kept.keep(NORTH).digest == first.digest
    assert len(kept.keep(SOUTH).records) == 1
    assert kept.keep(SOUTH).digest != first.digest


def test_no_name_is_nothing() -> None:
    assert names().keep("") == module.Named()


def test_a_sealed_name_says_nothing_and_opens_in_its_place_only() -> None:
    kept = names()
    [record], [other] = kept.keep(NORTH).records, kept.keep(SOUTH).records
    assert NORTH not in repr(record) and record.first_seen == NOON
    cipher = Cipher(KeyRing({1: ONE, 2: TWO}))
    assert cipher.decrypt(record.sealed, f"assigning-authority/{record.authority}") == NORTH
    with pytest.raises(DecryptionFailed):
        cipher.decrypt(record.sealed, f"assigning-authority/{other.authority}")


def test_a_process_remembers_a_bounded_number_of_names() -> None:
    kept = names()
    for number in range(module._MOST_KEPT * 2):
        kept.confirm(kept.keep(f"https://ehr-{number}.example"))
    assert len(kept._digests) <= module._MOST_KEPT and len(kept._durable) <= module._MOST_KEPT
    # What it forgot is stored once more, under the same digest.
    assert [one.authority for one in kept.keep("https://ehr-0.example").records] == [
        kept.keep("https://ehr-0.example").digest
    ]


def test_a_patient_has_a_pseudonym_under_each_key_and_authority() -> None:
    ring = pseudonymiser(ONE, TWO)
    people = People(ring, (NORTH, SOUTH, NORTH))
    assert people.authorities == ("", NORTH, SOUTH)
    found = people.patient("1")
    assert len(set(found)) == 6 and [one[:3] for one in found] == ["p2-"] * 3 + ["p1-"] * 3
    assert people.current("1") == found[:3]
    assert set(people.patient("1", SOUTH)) == {found[2], found[5]}
    assert people.current("1", SOUTH) == (found[2],)
    # An authority that nothing is known of can be asked for all the same.
    assert not set(people.patient("1", "https://new.example")) & set(found)


def test_a_user_is_found_by_reference_url_and_issuer_and_as_it_was_kept_before() -> None:
    ring = pseudonymiser()
    people = People(ring, (NORTH,))
    now = ring.pseudonym("user", "Practitioner/1", NORTH)
    assert now in people.user("Practitioner/1")
    assert now in people.user(f"{NORTH}/Practitioner/1")
    assert now in people.user("Practitioner/1", "HTTPS://North.example:443/fhir/")
    before = ring.pseudonym("user", f"{NORTH}/Practitioner/1", "")
    assert before in people.user(f"{NORTH}/Practitioner/1")
    assert ring.pseudonym("user", "sub", "https://idp.example/") in people.user("sub", "https://idp.example/")
    assert ring.pseudonym("user", "https://idp.example/|sub", "") in people.user(
        "sub", "https://idp.example/"
    )
