"""``cds-server bundle ...``: check, read, pack and sign for model bundles, without a server running."""

import os
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cds_server.cli_settings import read_settings
from models.bundle_files import BundleInvalid
from models.bundle_seal import (
    KeysInvalid,
    bundle_id,
    key_id,
    read_private_key,
    read_trusted_keys,
    trusted_keys_json,
    unseal,
)

bundle_commands = typer.Typer(
    help="Model bundles: check one, look at it, pack it into one file; make keys to sign with.",
    no_args_is_help=True,
)
keys = typer.Typer(help="The keys that sign bundles.", no_args_is_help=True)
bundle_commands.add_typer(keys, name="keys")


SIGNING_KEY, TRUSTED_KEYS = "signing_key.pem", "trusted_keys.json"
PathArgument = Annotated[Path, typer.Argument(help="A bundle: a directory or a .zip archive.")]
KeysOption = Annotated[
    Path | None,
    typer.Option(
        "--keys", help="File of trusted keys (default: the one in the settings, else the product's)."
    ),
]


@bundle_commands.command()
def verify(path: PathArgument, keys_file: KeysOption = None) -> None:
    """Say whether this server would use a bundle: signature, digests, feature schema, engine."""
    # Late: these bring numpy and the terminology, and `cds-server call` needs neither.
    from cds_server.deployment.loading import at_start  # noqa: PLC0415
    from cds_server.deployment.source import BundleSource, ModelRefused  # noqa: PLC0415

    try:
        knowledge = at_start(BundleSource(path, _keys_file(keys_file)), None)
    except ModelRefused as refused:
        _fail(f"{path}: {refused.fault}: {refused.reason}", 1)
    typer.echo(f"{path}: good: {knowledge.bundle}")


@bundle_commands.command()
def show(
    path: Annotated[
        Path | None, typer.Argument(help="A bundle (default: the one this server would use).")
    ] = None,
    keys_file: KeysOption = None,
    card: Annotated[bool, typer.Option("--card", help="Print the model card instead.")] = False,
) -> None:
    """Print what a bundle says of itself; only of one whose signature and digests hold."""
    from cds_server.deployment.source import BundleSource  # noqa: PLC0415

    named = path or BundleSource.of(read_settings()).path
    if named is None:
        _fail("This server uses no bundle (published rules only): name one.", 2)
    try:
        sealed = unseal(named, read_trusted_keys(_keys_file(keys_file)))
    except (BundleInvalid, KeysInvalid) as fault:
        _fail(f"{named}: {type(fault).__name__}: {fault}", 1)
    if card:
        typer.echo(sealed.files.get("model_card.md", b"").decode(errors="replace"))
        return
    typer.echo(f"{bundle_id(sealed.manifest)}  {named}")
    typer.echo(msgspec.json.format(msgspec.json.encode(sealed.manifest), indent=2).decode())


@bundle_commands.command()
def pack(
    directory: Annotated[Path, typer.Argument(help="A bundle as a directory.")],
    archive: Annotated[Path, typer.Argument(help="The .zip archive to write.")],
    keys_file: KeysOption = None,
) -> None:
    """Put a bundle into one .zip archive, to carry it; it is verified before and after."""
    from models.bundle import pack_bundle  # noqa: PLC0415

    try:
        name = pack_bundle(directory, archive, read_trusted_keys(_keys_file(keys_file)))
    except (BundleInvalid, KeysInvalid) as fault:
        _fail(f"{directory}: {type(fault).__name__}: {fault}", 1)
    except OSError as fault:
        _fail(f"Cannot write {archive}: {fault.strerror}.", 2)
    typer.echo(f"{archive}: {name}")


@bundle_commands.command("add-rare")
def add_rare_engine(
    path: Annotated[Path, typer.Argument(help="A signed bundle: a directory or a .zip archive.")],
    out: Annotated[Path, typer.Argument(help="Directory of the bundle to write.")],
    key: Annotated[Path, typer.Option("--key", help="PEM file of the signing key.", dir_okay=False)],
    rare: Annotated[
        Path | None,
        typer.Option(
            "--rare",
            help="What `train rare` wrote (a directory), or a signed bundle whose part is carried over "
            "(default: the bundle shipped with the product).",
        ),
    ] = None,
    keys_file: KeysOption = None,
) -> None:
    """Write a bundle that carries the rare-disease engine too, signed anew."""
    from cds_server.deployment.source import SHIPPED_BUNDLE, SHIPPED_KEYS  # noqa: PLC0415
    from models.bundle import add_rare  # noqa: PLC0415
    from models.bundle_rare import rare_part  # noqa: PLC0415

    at = rare or SHIPPED_BUNDLE
    try:
        trusted = read_trusted_keys(_keys_file(keys_file))
        signers = trusted if rare is not None else read_trusted_keys(SHIPPED_KEYS)
        part = rare_part(at, signers)
    except (BundleInvalid, KeysInvalid) as fault:
        _fail(f"{at}: {type(fault).__name__}: {fault}", 1)
    try:
        bundle = add_rare(path, out, trusted, part.arrays, part.licences, read_private_key(key))
    except (BundleInvalid, KeysInvalid) as fault:
        _fail(f"{path}: {type(fault).__name__}: {fault}", 1)
    except OSError as fault:
        _fail(f"{fault.filename or out} cannot be used: {fault.strerror}.", 2)
    typer.echo(f"{out}: {bundle.id}")


@keys.command("new")
def new_keys(
    directory: Annotated[Path, typer.Argument(help="Where the two files go; outside of any repository.")],
    note: Annotated[str, typer.Option("--note", help="Whose key it is, for those who trust it.")] = "",
) -> None:
    """Make an Ed25519 key pair: signing_key.pem (secret, mode 0600) and trusted_keys.json (for servers).

    Servers trust it with CDS_TRUSTED_MODEL_KEYS=DIRECTORY/trusted_keys.json.
    """
    from cds_server.desk_keys import KeyChange, record_keys  # noqa: PLC0415 - the others need no trail

    settings = read_settings()
    private, public = directory / SIGNING_KEY, directory / TRUSTED_KEYS
    for path in (private, public):
        if path.exists():
            _fail(f"{path} exists already; nothing was written. Choose another directory.", 2)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(private, pem, 0o600)
        _write(public, trusted_keys_json([(key.public_key(), note)]), 0o644)
    except OSError as fault:
        _fail(f"Cannot write to {directory}: {fault.strerror}.", 2)
    typer.echo(
        f"Key {key_id(key.public_key())}\n  sign with  {private}  (keep it secret)\n  trust with {public}"
    )
    made = KeyChange("bundle-signing", "made", key_id(key.public_key()), place="file")
    record_keys(settings, [made])


def _write(path: Path, data: bytes, mode: int) -> None:
    """Made with its mode from the first byte on, and never over something that is there."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def _keys_file(given: Path | None) -> Path:
    from cds_server.deployment.source import BundleSource  # noqa: PLC0415

    return given or BundleSource.of(read_settings()).keys


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
