"""The EHR launch in a real browser: redirects, cookies, content security policy and the page."""

import base64
import os
from pathlib import Path

import chromium
import pytest
from smart_ehr import StandinEhr, launch_path, running
from smart_helpers import smart_site

from cds_server.state import Knowledge

pytestmark = pytest.mark.skipif(chromium.BINARY is None, reason="no Chromium on this machine (apt: chromium)")


def test_an_ehr_launch_leads_to_the_patients_page_and_the_button_ends_it(
    knowledge: Knowledge, tmp_path: Path, sqlite_url: str
) -> None:
    with (
        running(StandinEhr()) as ehr,
        smart_site(knowledge, tmp_path, sqlite_url, ehr) as site,
        chromium.browser() as browser,
    ):
        browser.open(f"{site.url}{launch_path(ehr)}")
        assert browser.url == f"{site.url}/app/"
        assert "Ada Prüfling" in browser.text
        assert "Possible septic shock" in browser.text
        _keep(browser, "launch")
        # The stylesheet is let in, scripts read no cookie, and nothing was refused on the way.
        assert browser.run("getComputedStyle(document.querySelector('article')).borderLeftWidth") == "8px"
        assert browser.run("document.cookie") == ""
        assert browser.violations == []
        assert browser.run("document.querySelectorAll('h1').length") == 1
        assert browser.run("document.documentElement.lang") == "en"
        browser.click("a[hreflang=es]")
        assert "Posible shock séptico" in browser.text
        assert browser.run("document.documentElement.lang") == "es"
        _keep(browser, "launch-es")
        browser.click("form button")
        assert browser.url == f"{site.url}/app/?out=1"
        assert "You are logged out." in browser.text
        assert ehr.tokens == []
        browser.open(f"{site.url}/app/")
        assert "Ada" not in browser.text
        browser.click("main a")  # a standalone launch from the page
        assert browser.url == f"{site.url}/app/"
        assert "Ada Prüfling" in browser.text


def _keep(browser: chromium.Browser, name: str) -> None:
    """A picture for whoever sets CDS_TEST_PICTURES to a directory."""
    directory = os.environ.get("CDS_TEST_PICTURES")
    if directory:
        (Path(directory) / f"{name}.png").write_bytes(base64.b64decode(browser.screenshot()))
