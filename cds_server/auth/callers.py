"""Which authenticators there are: one list, in the order in which they are asked."""

from cds_server.auth.authenticator import Authenticator
from cds_server.state import House


def authenticators(house: House) -> list[Authenticator]:
    """Those of this server's settings; the first that recognises a request's credentials decides."""
    found: list[Authenticator] = [house.smart.caller]
    if house.users is not None:
        found.append(house.users)
    return found
