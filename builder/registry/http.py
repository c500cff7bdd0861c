"""httpx, and whose certificates it trusts.

httpx imports its command line (click, rich) and httpcore imports trio wherever they are installed,
here as dependencies of test tools: together longer than a push takes. Both do without where the
import fails, which is what None in sys.modules makes it do.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from builder.errors import BuilderError

_hidden = [name for name in ("click", "trio") if name not in sys.modules]
for _name in _hidden:
    sys.modules[_name] = None  # type: ignore[assignment]
try:
    import httpcore  # noqa: F401 - httpx imports it later, when trio is in sight again
    import httpx
finally:
    for _name in _hidden:
        del sys.modules[_name]

__all__ = ["httpx", "tls_context"]


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
