"""``cds-server clients ...``: look at the file of trusted CDS clients before a server does."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cds_server.auth.clients import ClientEntry, ClientsFileInvalid, load_clients, read_entries
from cds_server.auth.jwks import PublicKey, public_keys
from cds_server.auth.key_files import read_keys
from cds_server.auth.outbound import Outbound, ServerUnreachable
from cds_server.cli_token import ClientKey, ProofUnusable

clients_commands = typer.Typer(
    help="The EHRs that may call: check the file that lists them.", no_args_is_help=True
)


@clients_commands.command()
def check(
    file: Annotated[Path, typer.Argument(help="As CDS_TRUSTED_CLIENTS names it (docs/authentication.md).")],
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Also fetch each client's keys from its jku, as the server would.")
    ] = False,
) -> None:
    """Show the trusted clients of a file and what is wrong with it.  Fetches nothing unless told to."""
    try:
        entries = read_entries(file)
        load_clients(file)
    except ClientsFileInvalid as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from None
    found = asyncio.run(_keys(entries, file.parent, fetch))
    table = Table(title=f"Trusted clients of {file}", title_justify="left", show_lines=True)
    for heading in (
        "name",
        "issuer (iss)",
        "jku",
        "keys",
        "tenants",
        "calls a minute",
        "roles",
    ):
        table.add_column(heading, overflow="fold")
    for entry, (keys, _) in zip(entries, found, strict=True):
        table.add_row(
            entry.name,
            entry.issuer,
            entry.jku or "—",
            keys,
            _patients(entry),
            str(entry.rate_per_minute or "default"),
            ", ".join(sorted(entry.roles)),
        )
    Console().print(table)
    if not all(usable for _, usable in found):
        typer.echo("The keys of at least one client cannot be had: its calls would be refused.", err=True)
        raise typer.Exit(1)


@clients_commands.command("key-set")
def key_set(
    key: Annotated[Path, typer.Argument(help="A client's private key in PEM, without a passphrase.")],
    kid: Annotated[
        str | None, typer.Option("--kid", help="Its id in the set (default: the RFC 7638 thumbprint).")
    ] = None,
) -> None:
    """Print the public half of a client's key as a JWK Set, as `jwks_file` of a client takes it.

    For a client of one's own, to try a server with: cds-server call ... --issuer ISS --key KEY.pem
    """
    try:
        found = ClientKey(key).key_set(kid)
    except ProofUnusable as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(2) from None
    typer.echo(json.dumps(found, indent=1))


def _patients(entry: ClientEntry) -> str:
    """Of which hospitals, and on which FHIR servers, a client's patients are."""
    tenants = ", ".join(entry.tenants) or "none allowed"
    return escape("\n".join([tenants, *(f"on {server}" for server in entry.fhir_servers)]))


async def _keys(entries: tuple[ClientEntry, ...], directory: Path, fetch: bool) -> list[tuple[str, bool]]:
    """What to say of each client's keys, and whether it could call."""
    return list(await asyncio.gather(*(_keys_of(entry, directory, fetch) for entry in entries)))


async def _keys_of(entry: ClientEntry, directory: Path, fetch: bool) -> tuple[str, bool]:
    if entry.jwks_file is not None:
        return f"{entry.jwks_file}: {_described(read_keys(directory / entry.jwks_file))}", True
    if not fetch:
        return "from jku; not asked (--fetch)", True
    outbound = Outbound(ca_file=directory / entry.ca_file if entry.ca_file else None)
    try:
        keys = public_keys(await outbound.get(entry.jku or ""))
    except ServerUnreachable as fault:
        return f"from jku: {fault}", False
    finally:
        await outbound.close()
    return f"from jku: {_described(keys)}", bool(keys)


def _described(keys: list[PublicKey]) -> str:
    """How many, and of which kinds; which algorithms a server takes is its own setting."""
    kinds = [key.curve_name if key.key_type == "EC" else "RSA" for key in keys]  # type: ignore[union-attr]
    return (
        ", ".join(f"{kinds.count(kind)} × {kind}" for kind in sorted(set(kinds))) or "none that can be used"
    )
