"""`cds-server ehr` and `cds-server keys smart`: registrations and keys, for an operator."""

import asyncio
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cds_server.auth.outbound import Outbound
from cds_server.cli_settings import read_settings
from cds_server.clock import utc_now
from cds_server.desk_keys import KeyChange, record_keys
from cds_server.privacy import KeyMaterialInvalid
from cds_server.settings import Settings
from cds_server.smart.checking import Step, check
from cds_server.smart.discovery import Discovery
from cds_server.smart.ehrs import Algorithm, Ehr, EhrsInvalid, registered
from cds_server.smart.grants import ClientProof, Grants
from cds_server.smart.keys import ALGORITHMS, ClientKeys
from fhir_adapters.client import FhirClient, FhirLimits

ehr_commands = typer.Typer(
    help="EHRs this server is registered with (CDS_SMART_EHRS): list them, try one.", no_args_is_help=True
)
smart_key_commands = typer.Typer(
    help="Keys with which this server proves to EHRs that it is the registered client.", no_args_is_help=True
)

AlgorithmOption = Annotated[str, typer.Option("--algorithm", "-a", help="ES384 or RS384.")]


@ehr_commands.command("list")
def list_ehrs() -> None:
    """Show the registered EHRs, and check the file; asks nobody."""
    settings = read_settings()
    table = Table("name", "FHIR server", "client", "proof", "callback", "jobs")
    for ehr in _registered(settings):
        table.add_row(
            ehr.name,
            ehr.base.url,
            ehr.client_id or "-",
            ehr.client_auth if ehr.client_id else "-",
            f"{settings.base_url}{ehr.callback_path}" if ehr.client_id else "-",
            ehr.backend.client_id if ehr.backend else "-",
        )
    Console().print(table)


@ehr_commands.command("check")
def check_ehr(
    url: Annotated[str, typer.Argument(help="FHIR base URL of a registered EHR, or its name.")],
) -> None:
    """Get a token as a job would, read the CapabilityStatement, make one search; show what works.

    Prints no patient's data.  The exit status is 1 when something that jobs need does not work.
    """
    settings = read_settings()
    found = [ehr for ehr in _registered(settings) if url == ehr.name or _same(ehr, url)]
    if not found:
        _fail(f"{url} is not among the registered EHRs: cds-server ehr list")
    try:
        steps = asyncio.run(_checked(settings, found[0]))
    except (KeyMaterialInvalid, OSError) as fault:
        _fail(str(fault))
    table = Table("step", "", "")
    for step in steps:
        state = {True: "works", False: "does not work", None: "-"}[step.good]
        table.add_row(step.name, state, Text(step.said))  # a server's scope is text, not our markup
    Console().print(table)
    if any(step.good is False for step in steps):
        raise typer.Exit(1)


@smart_key_commands.command("list")
def list_keys() -> None:
    """Show the keys by number and key id; never the keys themselves."""
    try:
        keys = _keys(read_settings()).all()
    except (KeyMaterialInvalid, OSError) as fault:
        _fail(str(fault))
    table = Table("algorithm", "number", "kid", "")
    for key in keys:
        last = max(other.number for other in keys if other.algorithm == key.algorithm)
        table.add_row(key.algorithm, str(key.number), key.kid, "signs" if key.number == last else "published")
    Console().print(table)


@smart_key_commands.command("new")
def new_key(algorithm: AlgorithmOption = "ES384") -> None:
    """Make a key, which signs from now on; the former ones stay published until they are retired."""
    settings = read_settings()
    try:
        key = _keys(settings).add(_algorithm(algorithm))
    except (KeyMaterialInvalid, OSError) as fault:
        _fail(str(fault))
    typer.echo(f"{key.algorithm} key {key.number} signs from now on (kid {key.kid}).")
    record_keys(settings, [KeyChange(f"smart-{key.algorithm}", "made", str(key.number))])


@smart_key_commands.command("retire")
def retire_key(
    number: Annotated[int, typer.Argument(help="The key's number.")], algorithm: AlgorithmOption = "ES384"
) -> None:
    """Remove an older key for good, once every EHR has read the newer key set."""
    settings = read_settings()
    try:
        _keys(settings).retire(_algorithm(algorithm), number)
    except (KeyMaterialInvalid, OSError) as fault:
        _fail(str(fault))
    typer.echo(f"{algorithm} key {number} is gone.")
    record_keys(settings, [KeyChange(f"smart-{algorithm}", "retired", str(number))])


async def _checked(settings: Settings, ehr: Ehr) -> list[Step]:
    keys = ClientKeys(settings.var_dir / "keys")
    outbound = Outbound(ca_file=settings.fhir_ca_file)
    limits = FhirLimits(budget=settings.fhir_time_budget_ms / 1000)
    try:
        async with FhirClient(limits, ca_file=settings.fhir_ca_file) as fhir:
            return await check(
                ehr,
                discovery=Discovery(outbound),
                grants=Grants(outbound, ClientProof(keys)),
                fhir=fhir,
                now=utc_now,
            )
    finally:
        await outbound.close()


def _same(ehr: Ehr, url: str) -> bool:
    return url.rstrip("/") == ehr.iss.rstrip("/")


def _registered(settings: Settings) -> tuple[Ehr, ...]:
    try:
        return registered(settings).entries
    except EhrsInvalid as fault:
        _fail(str(fault))


def _keys(settings: Settings) -> ClientKeys:
    return ClientKeys(settings.var_dir / "keys")


def _algorithm(text: str) -> Algorithm:
    found = next((algorithm for algorithm in ALGORITHMS if algorithm == text), None)
    if found is None:
        _fail(f"--algorithm {text}: one of {', '.join(ALGORITHMS)}")
    return found


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)
