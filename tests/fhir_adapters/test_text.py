"""What the free-text matcher promises whatever is typed: no failure, negation, case and accents read."""

import csv
import unicodedata
from importlib.resources import files

import pytest
import simple_icd_10_cm
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_adapters.hpo import load_ontology
from fhir_adapters.terminology.errors import TerminologyInvalid
from fhir_adapters.text import LONGEST_TEXT, TextMatch, TextMatcher
from fhir_adapters.text_tables import CUES_FILE, PHRASE_FILES, SITES_FILE, load_phrases

MATCHER = TextMatcher.load(load_ontology())
DATA = files("fhir_adapters.terminology") / "data"
COMPLAINTS = [
    "chest pain",
    "fever",
    "SOB",
    "dolor abdominal",
    "vómitos",
    "leg pain",
    "cefalea",
    "pneumonia",
    "tos",
]
WORDS = [
    *COMPLAINTS,
    "no",
    "denies",
    "sin",
    "h/o",
    "madre con",
    ",",
    ".",
    "and",
    "pero",
    "left",
    "pain in",
    "?",
    "x 3d",
]
mixed = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def rows(file: str) -> list[dict[str, str]]:
    return list(csv.DictReader((DATA / file).read_text(encoding="utf-8").splitlines()))


def meanings(matches: tuple[TextMatch, ...]) -> list[tuple[str | None, str | None, str, str, bool]]:
    return [(m.hpo, m.icd10cm, m.state, m.experiencer, m.historical) for m in matches]


@given(st.one_of(st.text(), mixed, st.text(alphabet="aeo.,;?'&/-ñí \n\u0301İßﬁ½")))
def test_any_text_is_read_without_failing_and_places_lie_in_it_without_overlap(text: str) -> None:
    end = 0
    for match in MATCHER.match(text):
        assert end <= match.start < match.end <= len(text)
        assert match.hpo is not None or match.icd10cm is not None
        end = match.end


@given(mixed)
def test_capitals_and_accents_make_no_difference(text: str) -> None:
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    expected = meanings(MATCHER.match(text))
    assert meanings(MATCHER.match(text.upper())) == expected
    assert meanings(MATCHER.match(plain)) == expected
    assert meanings(MATCHER.match(unicodedata.normalize("NFD", text))) == expected


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("fever: no, cough: yes", ["absent", "present"]),
        ("Fever - no; chest pain - no", ["absent", "absent"]),
        ("chest pain (no), cough", ["absent", "present"]),
        ("fiebre: no. tos", ["absent", "present"]),
        ("cough, no, fever", ["present", "absent"]),
        ("cough no fever", ["present", "absent"]),
        ("no, fever", ["absent"]),
    ],
)
def test_a_no_that_answers_denies_what_was_asked(text: str, states: list[str]) -> None:
    assert [found.state for found in MATCHER.match(text)] == states


@pytest.mark.parametrize("cue", ["denies", "no", "without", "negative for", "sin", "niega", "no presenta"])
@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_a_denied_complaint_is_absent(cue: str, complaint: str) -> None:
    (present,) = MATCHER.match(complaint)
    (denied,) = MATCHER.match(f"{cue} {complaint}")
    assert (present.state, denied.state) == ("present", "absent")
    assert (present.hpo, present.icd10cm) == (denied.hpo, denied.icd10cm)


@given(mixed, st.sampled_from(["Walks to work", "No fever", "Family history of stroke", "Sin tos"]))
@settings(max_examples=200)
def test_a_further_sentence_changes_nothing_in_the_first(text: str, further: str) -> None:
    before = MATCHER.match(text + " stable.")
    after = MATCHER.match(f"{text} stable. {further}.")
    assert after[: len(before)] == before


def test_several_meanings_of_one_abbreviation_have_places_of_their_own() -> None:
    assert [(m.label, m.start, m.end) for m in MATCHER.match("N/V/D")] == [
        ("Nausea", 0, 1),
        ("Vomiting", 1, 2),
        ("Diarrhea", 2, 5),
    ]


def test_english_abbreviations_are_not_read_into_spanish_sentences() -> None:
    assert [m.label for m in MATCHER.match("ha tenido fiebre")] == ["Fever"]
    assert [m.label for m in MATCHER.match("mi hijo tiene tos")] == ["Cough"]


def test_a_text_beyond_the_longest_is_read_up_to_there() -> None:
    assert MATCHER.match("a " * LONGEST_TEXT + "fever") == ()
    assert len(MATCHER.match("fever. " + "a " * LONGEST_TEXT)) == 1


def test_the_tables_have_the_promised_size_real_codes_and_a_source_on_every_row() -> None:
    assert len({row["phrase"] for row in rows(PHRASE_FILES[0])}) >= 350
    assert len({row["phrase"] for row in rows(PHRASE_FILES[1])}) >= 450
    ontology = load_ontology()
    for file in (*PHRASE_FILES, SITES_FILE):
        for row in rows(file):
            assert not row["icd10cm"] or simple_icd_10_cm.is_valid_item(row["icd10cm"]), row
            assert not row["hpo"] or row["hpo"] in ontology, row
            assert row["source"], row
    assert all(row["source"] for row in rows(CUES_FILE))


@pytest.mark.parametrize(
    "row",
    [
        "x,HP:9999999,,X,,s",
        "x,,nonsense,X,,s",
        "x,,,X,,s",
        "x,HP:0001945,,X,maybe,s",
        "x,HP:0001945,,X,,",
        "x,y",
    ],
)
def test_a_wrong_row_is_named_by_file_and_number(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = f"phrase,hpo,icd10cm,label,guard,source\nok,HP:0001945,R50.9,Fever,,s\n{row}\n"

    class Packaged:
        def joinpath(self, *_: str) -> "Packaged":
            return self

        def read_text(self, encoding: str) -> str:
            return table

    monkeypatch.setattr("fhir_adapters.terminology.tables.resources.files", lambda _: Packaged())
    with pytest.raises(TerminologyInvalid, match=r"text_abbreviations.csv, row 3"):
        list(load_phrases(load_ontology()))
