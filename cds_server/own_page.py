"""Whether a form was sent by a page of ours: what a browser sends along by itself proves no intention.

Cookies, a proxy's sign-on, or being on the same machine come with every request, also with one that another
site's page made the browser send.  Knows what browsers say of where a request comes from, and nothing else.
"""

import msgspec

from cds_server.http import Call
from fhir_adapters.origin import ServerBase


def from_own_page(call: Call, base_url: str) -> bool:
    """Whether a request comes from a page of ours, as far as the browser says.

    A browser says it in ``Sec-Fetch-Site``, which no page can set; an old one, or plain http, leaves the
    origin.  A caller that is no browser says nothing, and nothing comes with its requests by itself.
    """
    site = call.header(b"sec-fetch-site")
    if site:
        return site == "same-origin"
    return call.header(b"origin") in ("", origin_of(base_url))


def origin_of(url: str) -> str:
    """The origin of a URL as browsers write it (RFC 6454, 6.2): without a default port."""
    return msgspec.structs.replace(ServerBase.parse(url), path="").url
