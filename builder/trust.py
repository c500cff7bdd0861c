"""Whose certificates are trusted."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path

from builder.errors import BuilderError


def tls_context(host: str, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Trust the system's CAs, or the bundle that the usual variables name, and Docker's for `host`.

    SSL_CERT_FILE, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are looked at in this order;
    `/etc/docker/certs.d/<host>/*.crt` is added as Docker does it.
    """
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    bundle = next((environ[name] for name in names if environ.get(name)), None)
    try:
        context = ssl.create_default_context(cafile=bundle)
        for path in sorted(Path("/etc/docker/certs.d", host).glob("*.crt")):
            context.load_verify_locations(path)
    except OSError as error:
        raise BuilderError(
            f"the CA bundle {bundle or 'of Docker for ' + host} cannot be read ({error}); "
            "mend SSL_CERT_FILE or REQUESTS_CA_BUNDLE"
        ) from None
    return context
