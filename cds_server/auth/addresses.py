"""Network addresses: which are this machine's own, lists of networks, and who is at the other end.

A header says where a call came from only as far as a trusted proxy wrote it: the last hops of
``X-Forwarded-For`` that are trusted proxies are passed over and the next one is believed.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

Address = IPv4Address | IPv6Address
Networks = tuple[IPv4Network | IPv6Network, ...]


def is_loopback(host: str) -> bool:
    """Whether a host name or address of a URL or setting means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_networks(text: str) -> Networks:
    """The networks of a comma-separated list of addresses and CIDR blocks.

    Raises:
        ValueError: names the entry that is none (`10.0.0.1/8` is none: its host bits are set).
    """
    found = []
    for part in text.split(","):
        entry = part.strip()
        if not entry:
            continue
        try:
            found.append(ip_network(entry))
        except ValueError:
            raise ValueError(
                f"{entry!r} is not an address or a network such as 10.20.0.0/16 or 2001:db8::/32"
            ) from None
    return tuple(found)


def holds(networks: Networks, address: Address) -> bool:
    """Whether an address is in one of the networks."""
    return any(address in network for network in networks)


def caller_address(scope: Scope, trusted_proxies: Networks) -> Address | None:
    """The address a call came from, or `None` when nobody can say.

    The socket's peer; when that is a trusted proxy, the nearest hop in ``X-Forwarded-For`` that is not
    one.  A hop that is no address ends the search: what stands before it was written by a stranger.
    """
    peer = scope.get("client")
    address = _address(peer[0]) if peer else None
    if address is None or not holds(trusted_proxies, address):
        return address
    for hop in reversed(_forwarded(scope["headers"])):
        address = _address(hop)
        if address is None or not holds(trusted_proxies, address):
            return address
    return address


def neighbourhood(network: str | None) -> str | None:
    """Whom to count by an address: an IPv6 caller has a whole /64 of addresses to itself (RFC 6177)."""
    if network is None or ":" not in network:
        return network
    address = ip_address(network)
    if not isinstance(address, IPv6Address):
        return network
    return str(ip_network((int(address) >> 64 << 64, 64)))


def host_name(scope: Scope) -> str | None:
    """The name a request was sent to: its Host header without the port, in lower case.

    `None` without that header, which every browser sends; an empty text when it comes twice or is none.
    """
    found = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    if len(found) != 1:
        return None if not found else ""
    name: str = found[0].strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].removesuffix(".")


def _forwarded(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    lines = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return [hop.strip() for hop in ",".join(lines).split(",")] if lines else []


@lru_cache(4096)
def _address(text: str) -> Address | None:
    """An address as written by servers and proxies: bare, ``[v6]:port`` or ``v4:port``."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped  # a socket for both families shows IPv4 callers so
    return address
