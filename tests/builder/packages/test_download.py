"""What is downloaded comes from whom this machine trusts."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.packages import download
from tests import registries
from tests.builder import token_server
from tests.builder.answers import Reply, answering


def test_a_redirect_from_plain_http_to_tls_checks_the_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_PAUSE", 0)
    authority = token_server.Authority(tmp_path / "authority")
    files = (authority.certificate_path, authority.key_path)
    with registries.serve(tmp_path / "server", tls=files) as safe:
        sent_on = Reply(307, (("Location", f"https://{safe}/v2/"),))
        with answering(lambda _: sent_on) as plain:
            url, got = f"http://{plain.host}/file", bytearray()
            with pytest.raises(BuilderError, match="CERTIFICATE_VERIFY_FAILED"):
                download.read(url, got.extend)
            assert download.size(url) is None
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate_path))
            download.read(url, got.extend)
            assert got == b"{}"
            assert download.size(url) == 2
