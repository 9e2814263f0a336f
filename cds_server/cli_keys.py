"""``cds-server keys ...``: make, rotate and list the keys of a site.  No key is ever shown.

What each kind of key is for stands in `PURPOSES`; a part of the server with keys of its own adds a row.
"""

import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from cds_server.audit import signing as audit_signing
from cds_server.cli_settings import read_settings
from cds_server.privacy import KeyMaterialInvalid, add_key, add_key_to_ring, key_files
from cds_server.settings import Settings

keys_commands = typer.Typer(
    help="The site's keys: make them, rotate them, list them.  Back them up with the database.",
    no_args_is_help=True,
)


@dataclass(frozen=True, slots=True)
class KeyPurpose:
    """A kind of key of 32 random bytes, numbered; `setting` (of `Settings`) can give it instead of a file.

    `former` says what keys with lower numbers still do; `make` adds a key file to a directory.
    """

    name: str
    meaning: str
    after_rotation: str
    setting: str
    former: str = "reads only"
    make: Callable[[Path], int] | None = None

    def add(self, directory: Path) -> int:
        """Make the next key file; returns its number."""
        return self.make(directory) if self.make is not None else add_key(directory, self.name)


PURPOSES: list[KeyPurpose] = [
    KeyPurpose(
        "pseudonym",
        "turns persons into pseudonyms",
        "From then on a person has a new pseudonym; the former ones keep their numbers (p1-, p2-).",
        "pseudonym_key",
    ),
    KeyPurpose(
        "cipher",
        "encrypts stored texts",
        "What was stored before still opens with the former key, which therefore must be kept.",
        "cipher_key",
    ),
    KeyPurpose(
        "master",
        "wraps the patients' data keys",
        "After the restart, `cds-server keys rewrap` wraps the data keys there are under the new one.",
        "master_key",
    ),
    KeyPurpose(
        audit_signing.PURPOSE,
        "signs the audit trail",
        "From then on the trail is signed with the new key. Give its public half to whoever verifies: "
        "`cds-server audit public-key`.",
        "audit_signing_key",
        former="verifies only",
        make=audit_signing.add_signing_key,
    ),
]

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file", help="A key ring to give to the server as a setting: CDS_..._KEY=@FILE (mode 0600)."
    ),
]
PurposeArgument = Annotated[str, typer.Argument(help="As `keys list` shows it.")]


@keys_commands.command("list")
def list_keys() -> None:
    """Show which keys there are, since when, and which are in use."""
    settings = read_settings()
    table = Table(title="Keys of this site", title_justify="left")
    for heading in ("purpose", "what for", "number", "since", "in use", "where", "to do"):
        table.add_column(heading, overflow="fold")  # a path cut short is no path
    for purpose in PURPOSES:
        given = _given(settings, purpose)
        if given is not None:
            where = f"CDS_{purpose.setting.upper()}" + (f"={given}" if given.startswith("@") else "")
            table.add_row(purpose.name, purpose.meaning, "", "", "yes", where, "")
            continue
        files = key_files(settings.var_dir / "keys", purpose.name)
        if not files:
            made = (str(settings.var_dir / "keys"), "made at the first start")
            table.add_row(purpose.name, purpose.meaning, "", "", "no", *made)
        for number, path in files.items():
            found = path.stat()
            since = datetime.fromtimestamp(found.st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
            in_use = "yes" if number == max(files) else purpose.former
            open_to_others = found.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            advice = f"others can read it: chmod 600 {path}" if open_to_others else ""
            table.add_row(purpose.name, purpose.meaning, str(number), since, in_use, str(path), advice)
    Console().print(table)


@keys_commands.command()
def new(
    purposes: Annotated[
        list[str] | None, typer.Argument(help="Of which purposes (default: all that have no key yet).")
    ] = None,
    file: FileOption = None,
) -> None:
    """Make the first key of purposes that have none.  The server does it by itself at its first start.

    For several machines, or secrets of a container platform, make the keys beforehand:
    cds-server keys new pseudonym --file pseudonym.keys, then CDS_PSEUDONYM_KEY=@/run/secrets/pseudonym.keys
    """
    chosen = [_purpose(name) for name in purposes] if purposes else PURPOSES
    settings = read_settings()
    if file is not None:
        if len(chosen) != 1:
            _fail("--file holds the keys of one purpose: name which one.")
        if file.exists():
            _fail(f"{file} is there; to add a key: cds-server keys rotate {chosen[0].name} --file {file}")
        number = _ring(file)
        _made(chosen[0], number, str(file))
        _record(settings, [(chosen[0], "made", number)], place="file")
        return
    made: list[tuple[KeyPurpose, str, int]] = []
    directory = settings.var_dir / "keys"
    for purpose in chosen:
        if _given(settings, purpose) is not None:
            typer.echo(f"{purpose.name}: given by CDS_{purpose.setting.upper()}; nothing was made")
        elif key_files(directory, purpose.name):
            typer.echo(f"{purpose.name}: there is a key already; nothing was made")
        else:
            number = purpose.add(directory)
            _made(purpose, number, str(directory))
            made.append((purpose, "made", number))
    _record(settings, made)


@keys_commands.command()
def rotate(purpose: PurposeArgument, file: FileOption = None) -> None:
    """Make a further key of a purpose.  It is in use after the next start; the former ones still read."""
    chosen = _purpose(purpose)
    settings = read_settings()
    given = _given(settings, chosen)
    if file is None and given is not None:
        if not given.startswith("@"):
            _fail(
                f"CDS_{chosen.setting.upper()} holds the keys themselves. Put them into a file, rotate it "
                "with --file, and name it in the setting as @FILE."
            )
        file = Path(given[1:])
    if file is not None:
        if not file.is_file():
            _fail(f"{file} is not a file; `cds-server keys new {chosen.name} --file {file}` makes it.")
        number = _ring(file)
        _made(chosen, number, str(file))
    else:
        directory = settings.var_dir / "keys"
        if not key_files(directory, chosen.name):
            _fail(f"{chosen.name}: no key to rotate in {directory}; `cds-server keys new` makes the first.")
        number = chosen.add(directory)
        _made(chosen, number, str(directory))
    _record(settings, [(chosen, "rotated", number)], place="directory" if file is None else "file")
    typer.echo(chosen.after_rotation)
    typer.echo("Restart every server that shares the keys, then back them up.")


def _made(purpose: KeyPurpose, number: int, where: str) -> None:
    typer.echo(f"{purpose.name}: made key {number} in {where}")


def _record(
    settings: Settings, changes: list[tuple[KeyPurpose, str, int]], *, place: str = "directory"
) -> None:
    from cds_server.desk_keys import KeyChange, record_keys  # noqa: PLC0415 - listing keys needs no trail

    record_keys(
        settings, [KeyChange(purpose.name, result, str(number), place) for purpose, result, number in changes]
    )


def _ring(file: Path) -> int:
    try:
        return add_key_to_ring(file)
    except KeyMaterialInvalid as fault:
        _fail(f"Nothing was made: {fault}")
    except UnicodeDecodeError:
        _fail(f"Nothing was made: {file} is no text")
    except OSError as fault:
        _fail(f"Nothing was made: {file}: {fault.strerror}")


def _purpose(name: str) -> KeyPurpose:
    found = next((purpose for purpose in PURPOSES if purpose.name == name), None)
    if found is None:
        _fail(f"No keys of purpose {name[:40]!r}; there are {', '.join(p.name for p in PURPOSES)}.")
    return found


def _given(settings: Settings, purpose: KeyPurpose) -> str | None:
    secret: SecretStr | None = getattr(settings, purpose.setting)
    return secret.get_secret_value() if secret is not None else None


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
