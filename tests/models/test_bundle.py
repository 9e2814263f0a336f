"""A model bundle is used only as it was signed: whoever changes one byte of it, on the way or on the disk."""

import io
import json
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from bundle_helpers import (
    KEY,
    STRANGER,
    TRUSTED,
    tiny_arrays,
    tiny_bundle,
    tiny_diseases,
    tiny_schema,
    trusted_file,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fhir_adapters.hpo import load_ontology
from models import bundle_files
from models.bundle import (
    ARRAYS,
    FEATURES,
    BundleDigestMismatch,
    BundleInvalid,
    BundleSchemaMismatch,
    BundleSignatureInvalid,
    BundleUnreadable,
    load_bundle,
    pack_bundle,
)
from models.bundle_seal import (
    KeysInvalid,
    Manifest,
    canonical,
    key_id,
    read_private_key,
    read_trusted_keys,
    seal,
    sha256,
    trusted_keys_json,
)

FILES = (
    "manifest.json", "signature.json", "features.json", "diseases.json", "stack.json", "arrays.npz",
    "model_card.md",
)  # fmt: skip


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    path = tmp_path_factory.mktemp("bundles") / "tiny"
    tiny_bundle(path)
    return path


@pytest.fixture(scope="session")
def packed(written: Path) -> Path:
    """The same as an archive."""
    path = written.with_name("tiny.zip")
    pack_bundle(written, path, TRUSTED)
    return path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """A bundle to be changed."""
    return shutil.copytree(written, tmp_path / "copy")


def resign(directory: Path, **changes: object) -> None:
    """Sign what lies there now, as a trainer with a defect would."""
    state = json.loads((directory / "manifest.json").read_bytes())
    names = [n.name for n in directory.iterdir() if n.name not in ("manifest.json", "signature.json")]
    state["files"] = {name: sha256((directory / name).read_bytes()) for name in names}
    for name, data in seal(Manifest(**(state | changes)), KEY).items():
        (directory / name).write_bytes(data)


def archive(path: Path, members: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    """An archive of exactly these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, data in members:
            file.writestr(member, data)
    return path


def test_what_was_written_is_loaded_whole(written: Path) -> None:
    bundle = load_bundle(written, TRUSTED, ontology=load_ontology().version)
    assert bundle.schema == tiny_schema()
    assert bundle.diseases == tiny_diseases()
    assert bundle.stack["coverage"] == 0.9
    assert bundle.model_card.startswith("# Tiny")
    expected = tiny_arrays(tiny_schema())
    assert bundle.arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(bundle.arrays[name], array)
        assert bundle.arrays[name].dtype == array.dtype
    assert bundle.manifest.metrics == {"macro_f1": 0.5}
    assert bundle.manifest.feature_digest == sha256((written / FEATURES).read_bytes())


def test_the_id_names_bundle_version_and_content(written: Path, tmp_path: Path) -> None:
    bundle = load_bundle(written, TRUSTED)
    assert bundle.id == f"tiny-1.0.0+{sha256((written / 'manifest.json').read_bytes())[:12]}"
    other = tiny_bundle(tmp_path / "other", model_card="another")
    assert other.id != bundle.id


def test_the_same_training_gives_the_same_bytes(written: Path, packed: Path, tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes(), name
    pack_bundle(written, tmp_path / "again.zip", TRUSTED)
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_nobody_changes_a_loaded_bundle(written: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        load_bundle(written, TRUSTED).arrays["network.b1"][0] = 1


def test_an_archive_holds_the_same_bundle(written: Path, packed: Path) -> None:
    assert load_bundle(packed, TRUSTED).id == load_bundle(written, TRUSTED).id


def test_writing_again_replaces_the_bundle_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    first = tiny_bundle(tmp_path / "models" / "b")
    second = tiny_bundle(tmp_path / "models" / "b", "2.0.0")
    assert load_bundle(tmp_path / "models" / "b", TRUSTED).id == second.id != first.id
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == ["b"]


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_noticed(name: str, written: Path, data: st.DataObject) -> None:
    content = (written / name).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    flip = data.draw(st.integers(1, 255))
    changed = written.with_name(f"changed-{name}")
    shutil.copytree(written, changed, dirs_exist_ok=True)
    (changed / name).write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
    kind = BundleSignatureInvalid if name in ("manifest.json", "signature.json") else BundleDigestMismatch
    with pytest.raises(kind):
        load_bundle(changed, TRUSTED)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_still_the_same(packed: Path, data: st.DataObject) -> None:
    content = bytearray(packed.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    changed = packed.with_name("changed.zip")
    changed.write_bytes(content)
    try:
        found = load_bundle(changed, TRUSTED)
    except BundleInvalid:
        return
    assert found.id == load_bundle(packed, TRUSTED).id


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleInvalid, match=name.replace(".", r"\.")):
        load_bundle(copy, TRUSTED)


def test_a_file_that_was_not_signed_is_named(copy: Path) -> None:
    (copy / "extra.pkl").write_bytes(b"x")
    with pytest.raises(BundleDigestMismatch, match=r"extra\.pkl"):
        load_bundle(copy, TRUSTED)


def test_hidden_files_of_a_mounted_volume_do_not_matter(copy: Path) -> None:
    (copy / "..data").mkdir()
    (copy / ".DS_Store").write_bytes(b"x")
    assert load_bundle(copy, TRUSTED).manifest.name == "tiny"


def test_a_stranger_cannot_sign(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "b", private_key=STRANGER)
    with pytest.raises(BundleSignatureInvalid, match=key_id(STRANGER.public_key())):
        load_bundle(tmp_path / "b", TRUSTED)
    with pytest.raises(BundleSignatureInvalid, match="CDS_TRUSTED_MODEL_KEYS"):
        load_bundle(tmp_path / "b", ())
    assert load_bundle(tmp_path / "b", (*TRUSTED, STRANGER.public_key())).manifest.name == "tiny"


def test_a_trusted_name_on_a_strangers_signature_does_not_help(copy: Path) -> None:
    manifest = (copy / "manifest.json").read_bytes()
    forged = json.loads((copy / "signature.json").read_bytes()) | {"signature": STRANGER.sign(manifest).hex()}
    (copy / "signature.json").write_bytes(canonical(forged))
    with pytest.raises(BundleSignatureInvalid, match="not what was signed"):
        load_bundle(copy, TRUSTED)


def test_nothing_is_unpickled_or_parsed_before_the_signature_holds(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("numpy was asked to read what nobody vouched for")

    monkeypatch.setattr(np, "load", never)
    (copy / ARRAYS).write_bytes(b"\x80\x04anything")
    with pytest.raises(BundleDigestMismatch):
        load_bundle(copy, TRUSTED)


def test_objects_are_no_arrays_even_when_signed(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleUnreadable, match="numbers"):
        tiny_bundle(tmp_path / "b", arrays={"a": np.array([{}], dtype=object)})
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([{}], dtype=object))
    (copy / ARRAYS).write_bytes(buffer.getvalue())
    resign(copy)
    with pytest.raises(BundleUnreadable, match=r"arrays\.npz"):
        load_bundle(copy, TRUSTED)


def test_a_schema_of_another_terminology_release_is_refused(written: Path) -> None:
    with pytest.raises(BundleSchemaMismatch, match="HPO"):
        load_bundle(written, TRUSTED, ontology="1999-01-01")


def test_a_manifest_that_states_another_schema_or_ontology_is_refused(copy: Path) -> None:
    resign(copy, feature_digest="0" * 64)
    with pytest.raises(BundleSchemaMismatch, match="manifest states"):
        load_bundle(copy, TRUSTED)
    resign(copy, feature_digest=sha256((copy / FEATURES).read_bytes()), ontology="1999-01-01")
    with pytest.raises(BundleSchemaMismatch, match="1999-01-01"):
        load_bundle(copy, TRUSTED)


@pytest.mark.parametrize("change", [{"new_member": 1}, {"findings": None}, {"trends": ["x"]}])
def test_a_schema_that_other_code_wrote_is_refused(copy: Path, change: dict[str, object]) -> None:
    schema = json.loads((copy / FEATURES).read_bytes()) | change
    data = canonical({key: value for key, value in schema.items() if value is not None})
    (copy / FEATURES).write_bytes(data)
    resign(copy, feature_digest=sha256(data))
    with pytest.raises(BundleSchemaMismatch):
        load_bundle(copy, TRUSTED)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("diseases.json", b"[]"),
        ("diseases.json", b'[{"id": 1}]'),
        ("stack.json", b"[]"),
        ("stack.json", b"\xff"),
        ("arrays.npz", b""),
        ("arrays.npz", b"PK\x05\x06" + bytes(18)),
        ("model_card.md", b"\xff"),
    ],
)
def test_signed_nonsense_is_refused_by_name(copy: Path, name: str, data: bytes) -> None:
    (copy / name).write_bytes(data)
    resign(copy)
    if data.startswith(b"PK"):
        assert (
            load_bundle(copy, TRUSTED).arrays == {}
        )  # an empty archive: which arrays it needs, who reads says
        return
    with pytest.raises(BundleUnreadable, match=name.replace(".", r"\.")):
        load_bundle(copy, TRUSTED)


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"f1": float("nan")}},
        {"name": "with space"},
        {"version": ""},
        {"created": "yesterday"},
        {"diseases": ()},
        {"diseases": tiny_diseases() + tiny_diseases()},
    ],
)
def test_a_bundle_that_could_not_be_loaded_is_not_written(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid):
        tiny_bundle(tmp_path / "b", **change)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "name", ["../manifest.json", "/etc/passwd", "a/b.json", "..\\x", "C:x", ".", "", "x" * 101, "ñ.json"]
)
def test_no_name_in_an_archive_leads_out_of_it(name: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "b.zip", [("manifest.json", b"{}"), (zipfile.ZipInfo(name), b"x")])
    with pytest.raises(BundleUnreadable):
        load_bundle(path, TRUSTED)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.zip"]


def test_links_folders_and_doubles_are_no_files_of_a_bundle(tmp_path: Path, packed: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(BundleUnreadable, match="link"):
        load_bundle(archive(tmp_path / "1.zip", [(link, b"/etc/passwd")]), TRUSTED)
    with pytest.raises(BundleUnreadable):
        load_bundle(archive(tmp_path / "2.zip", [("folder/", b"")]), TRUSTED)
    with zipfile.ZipFile(packed) as file:
        members: list[tuple[zipfile.ZipInfo | str, bytes]] = [(m, file.read(m)) for m in file.infolist()]
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "3.zip", [*members, ("stack.json", b"{}")])
    with pytest.raises(BundleUnreadable, match="twice"):
        load_bundle(path, TRUSTED)


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: Path
) -> None:
    path = archive(tmp_path / "b.zip", [("manifest.json", bytes(50_000_000))])
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleUnreadable):
        load_bundle(path, TRUSTED)
    monkeypatch.setattr(bundle_files, "TOTAL_LIMIT", 1_000)
    with pytest.raises(BundleUnreadable, match="unpacks to more than"):
        load_bundle(packed, TRUSTED)
    monkeypatch.setattr(bundle_files, "ARCHIVE_LIMIT", 1_000)
    with pytest.raises(BundleUnreadable, match="more than 1000 bytes"):
        load_bundle(packed, TRUSTED)


def test_an_archive_that_lies_about_a_size_gives_no_more_than_it_said(tmp_path: Path, packed: Path) -> None:
    data = bytearray(packed.read_bytes())
    place = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, place + 24, 10)  # the first member's unpacked size
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(BundleInvalid):
        load_bundle(tmp_path / "b.zip", TRUSTED)


def test_an_endless_list_of_contents_is_refused_unread(tmp_path: Path) -> None:
    path = archive(tmp_path / "b.zip", [(f"file-{number}", b"") for number in range(2_000)])
    with pytest.raises(BundleUnreadable, match="more files than"):
        load_bundle(path, TRUSTED)
    path = archive(tmp_path / "c.zip", [(f"file-{number}", b"") for number in range(65)])
    with pytest.raises(BundleUnreadable, match="more than 64 files"):
        load_bundle(path, TRUSTED)


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BundleUnreadable, match="no model bundle at this path"):
        load_bundle(tmp_path / "nowhere", TRUSTED)
    with pytest.raises(BundleUnreadable, match=r"manifest\.json is missing"):
        load_bundle(tmp_path, TRUSTED)
    (tmp_path / "text.zip").write_text("not an archive")
    with pytest.raises(BundleUnreadable, match="cds-server bundle pack"):
        load_bundle(tmp_path / "text.zip", TRUSTED)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BundleUnreadable, match="folder"):
        load_bundle(tmp_path, TRUSTED)


def test_only_a_bundle_that_holds_is_packed(copy: Path, tmp_path: Path) -> None:
    (copy / "stack.json").write_bytes(b"{}")
    with pytest.raises(BundleDigestMismatch):
        pack_bundle(copy, tmp_path / "b.zip", TRUSTED)
    with pytest.raises(BundleUnreadable):
        pack_bundle(copy / "stack.json", tmp_path / "b.zip", TRUSTED)
    assert not (tmp_path / "b.zip").exists()


def test_key_files_are_checked(tmp_path: Path) -> None:
    assert [key_id(key) for key in read_trusted_keys(trusted_file(tmp_path))] == [key_id(KEY.public_key())]
    path = tmp_path / "keys.json"
    both = json.loads(trusted_keys_json([(KEY.public_key(), ""), (STRANGER.public_key(), "")]))
    both["keys"][0]["public"] = both["keys"][1]["public"]
    for content in (b"", b'{"keys": [{"id": "x"}]}', json.dumps(both).encode()):
        path.write_bytes(content)
        with pytest.raises(KeysInvalid):
            read_trusted_keys(path)
        with pytest.raises(KeysInvalid):
            read_private_key(path)
    with pytest.raises(KeysInvalid, match="cannot be read"):
        read_trusted_keys(tmp_path / "nowhere.json")
