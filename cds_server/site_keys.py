"""The site's keys as the settings give them, for the server and for commands alike."""

from cds_server.audit.signing import Signer
from cds_server.privacy import SiteKeys
from cds_server.settings import Settings


def site_keys(settings: Settings) -> SiteKeys:
    """Opens the key rings; makes the files at the first start.

    Raises:
        KeyMaterialInvalid: a file or setting is not a key.
        OSError: the directory cannot be read or written.
    """
    given = {
        name: key.get_secret_value()
        for name, key in (
            ("pseudonym", settings.pseudonym_key),
            ("cipher", settings.cipher_key),
            ("master", settings.master_key),
        )
        if key is not None
    }
    return SiteKeys.open(settings.var_dir / "keys", **given)


def site_signer(settings: Settings) -> Signer:
    """What signs the audit trail; makes the key file at the first start.

    Raises:
        KeyMaterialInvalid: a file or setting is not a key.
        OSError: the directory cannot be read or written.
    """
    given = settings.audit_signing_key
    return Signer.open(settings.var_dir / "keys", given.get_secret_value() if given is not None else None)
