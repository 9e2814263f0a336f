"""The files of a model bundle, from a directory or one .zip archive, and nothing but bytes.

Responsible for reading safely what may come from anywhere: nothing is ever written to disk while
reading, names are plain, sizes are bounded before memory is spent.  Whether the bytes are to be
believed is `models.bundle_seal`'s business, what they mean `models.bundle`'s.
"""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

TOTAL_LIMIT = 256 * 1024 * 1024
"""Bytes that all files of a bundle may have together, unpacked; the shipped one has under 30 MB."""
ARCHIVE_LIMIT = 128 * 1024 * 1024
COUNT_LIMIT = 64
_DIRECTORY_LIMIT = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_END, _END64 = b"PK\x05\x06", b"PK\x06\x07"
_END_SIZE, _END64_SIZE = 22, 20
_ENCRYPTED = 0x1
_PACKED_AT = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive, whenever it is made
# What zipfile raises for an archive that is not well formed or uses what we do not read.
ZIP_FAULTS = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError
)  # fmt: skip


class BundleInvalid(Exception):
    """A model bundle that must not be used; the text names the file in it and says what to do."""


class BundleUnreadable(BundleInvalid):
    """Not a bundle, incomplete, or of a form that is not read."""


class BundleSignatureInvalid(BundleInvalid):
    """Not signed by a trusted key."""


class BundleDigestMismatch(BundleInvalid):
    """A file is not the one that was signed, is missing, or was never signed."""


class BundleSchemaMismatch(BundleInvalid):
    """Made for another version of the feature code or another terminology release."""


class Source(Protocol):
    """Where the files of one bundle are read from."""

    def names(self) -> frozenset[str]:
        """The names of all files."""

    def read(self, name: str, limit: int) -> bytes:
        """All bytes of a file of at most `limit` bytes."""


@contextmanager
def open_bundle(path: Path) -> Iterator[Source]:
    """The files of the bundle at `path`, a directory or a .zip archive.

    Raises `BundleUnreadable` when there is none, or when it holds what no bundle holds.
    """
    if path.is_dir():
        yield _Directory(path)
        return
    if not path.is_file():
        raise BundleUnreadable("there is no model bundle at this path: name a directory or a .zip archive")
    # The user's reading goes on inside this block: a member that does not unpack fails here too.
    try:
        _check_ending(path)
        with zipfile.ZipFile(path) as archive:
            yield _Archive(archive)
    except OSError as fault:
        raise BundleUnreadable(f"the archive cannot be read: {fault.strerror}") from None
    except ZIP_FAULTS:
        raise BundleUnreadable("the archive is damaged or not a .zip archive: copy it again") from None


class _Directory:
    """A bundle as a directory.  Hidden entries are skipped: volumes of containers bring their own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> frozenset[str]:
        """See `Source`."""
        try:
            entries = [entry for entry in self._path.iterdir() if not entry.name.startswith(".")]
        except OSError as fault:
            raise BundleUnreadable(f"the directory cannot be read: {fault.strerror}") from None
        for entry in entries:
            if not entry.is_file():
                raise BundleUnreadable(f"{_shown(entry.name)} is not a regular file: a bundle has only files")
        return _checked([entry.name for entry in entries])

    def read(self, name: str, limit: int) -> bytes:
        """See `Source`."""
        try:
            with (self._path / name).open("rb") as file:
                data = file.read(limit + 1)
        except OSError as fault:
            raise BundleUnreadable(f"{name} cannot be read: {fault.strerror}") from None
        return _within(data, name, limit)


class _Archive:
    """A bundle as a .zip archive, read in memory."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._members = {member.filename: member for member in archive.infolist()}
        self._archive = archive

    def names(self) -> frozenset[str]:
        """See `Source`."""
        members = self._archive.infolist()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or member.flag_bits & _ENCRYPTED:
                raise BundleUnreadable(f"{_shown(member.filename)} in the archive is not a plain file")
        if sum(member.file_size for member in members) > TOTAL_LIMIT:
            raise BundleUnreadable(f"the archive unpacks to more than {TOTAL_LIMIT} bytes")
        return _checked([member.filename for member in members])

    def read(self, name: str, limit: int) -> bytes:
        """See `Source`."""
        member = self._members.get(name)
        if member is None:
            raise BundleUnreadable(f"{name} is not in the archive")
        with self._archive.open(member) as file:
            return _within(file.read(limit + 1), name, limit)


def _check_ending(path: Path) -> None:
    """Bound the archive's list of contents before zipfile builds an object for each entry of it."""
    size = path.stat().st_size
    if size > ARCHIVE_LIMIT:
        raise BundleUnreadable(f"the archive has more than {ARCHIVE_LIMIT} bytes")
    with path.open("rb") as file:
        file.seek(max(0, size - _END_SIZE - _END64_SIZE))
        tail = file.read()
    end = tail[-_END_SIZE:]
    if not end.startswith(_END) or tail[:-_END_SIZE].startswith(_END64):
        raise BundleUnreadable("not a plain .zip archive: make it with `cds-server bundle pack`")
    if int.from_bytes(end[12:16], "little") > _DIRECTORY_LIMIT:
        raise BundleUnreadable("the archive lists more files than a bundle has")


def _checked(names: list[str]) -> frozenset[str]:
    """Plain file names only: no path leaves the bundle, no name stands twice."""
    if len(names) > COUNT_LIMIT:
        raise BundleUnreadable(f"more than {COUNT_LIMIT} files")
    for name in names:
        if not _NAME.fullmatch(name):
            raise BundleUnreadable(
                f"{_shown(name)} is no name of a bundle's file: the files lie in it directly, without folders"
            )
    found = frozenset(names)
    if len(found) != len(names):
        raise BundleUnreadable("a name stands twice in the archive")
    return found


def _within(data: bytes, name: str, limit: int) -> bytes:
    if len(data) > limit:
        raise BundleUnreadable(f"{name} has more than {limit} bytes")
    return data


def _shown(name: str) -> str:
    """A name of somebody else's choosing, fit for one line of a log."""
    return ascii(name[:60])


def write_directory(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write a bundle beside `directory` and put it in its place at once, replacing what was there.

    Raises `OSError`.
    """
    new = directory.with_name(f".{directory.name}.new")
    old = directory.with_name(f".{directory.name}.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    for name, data in contents.items():
        (new / name).write_bytes(data)
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    shutil.rmtree(old, ignore_errors=True)


def write_archive(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write a bundle as one .zip archive, in place at once; the same contents give the same bytes.

    Raises `OSError`.
    """
    new = path.with_name(f".{path.name}.new")
    with zipfile.ZipFile(new, "w") as archive:
        for name in sorted(contents):
            member = zipfile.ZipInfo(name, _PACKED_AT)
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            # Arrays are compressed already.
            member.compress_type = zipfile.ZIP_STORED if name.endswith(".npz") else zipfile.ZIP_DEFLATED
            archive.writestr(member, contents[name])
    new.replace(path)
