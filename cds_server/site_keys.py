"""The site's keys as the settings give them, for the server and for commands alike."""

from cds_server.privacy import SiteKeys
from cds_server.settings import Settings


def site_keys(settings: Settings) -> SiteKeys:
    """The keys named by the settings, else those in ``<var_dir>/keys``, made there if missing.

    Raises `cds_server.privacy.KeyMaterialInvalid` and `OSError`.
    """
    given = {
        name: key.get_secret_value()
        for name, key in (("pseudonym", settings.pseudonym_key), ("cipher", settings.cipher_key))
        if key is not None
    }
    return SiteKeys.open(settings.var_dir / "keys", **given)
