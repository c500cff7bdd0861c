"""cosign verifies what we sign, in both forms, and we verify what it signs.

cosign is a Go module, `go install github.com/sigstore/cosign/v3/cmd/cosign@latest`, which compiles
for minutes: these tests run where it is on the PATH, and `.ci/run` does not ask for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder import oci
from builder.registry.client import Registry
from builder.registry.push import push
from builder.signing.keys import SigningKey
from builder.signing.results import PROVENANCE
from builder.signing.signatures import sign, signatures, state
from builder.store import Store
from tests.builder import small
from tests.conftest import missing
from tests.key_pairs import PASSWORD, key_pair

BUNDLE, TAG = (), ("--new-bundle-format=false",)
Cosign = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cosign(tmp_path: Path) -> Cosign:
    """Return a function that runs cosign with a home of its own."""
    if not shutil.which("cosign"):
        missing("cosign", "go install github.com/sigstore/cosign/v3/cmd/cosign@latest")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COSIGN_PASSWORD": "secret"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["cosign", *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip

    return run


def verify(cosign: Cosign, name: str, key: str, *form: str) -> subprocess.CompletedProcess[str]:
    words = ("--key", key, "--insecure-ignore-tlog", "--output", "json", *form)
    return cosign("verify", *words, name)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return key_pair(tmp_path)


@pytest.fixture
def registry(registry_host: str) -> Iterator[Registry]:
    with Registry(registry_host) as client:
        yield client


def image(store: Store, registry: Registry, content: str) -> oci.Image:
    """Push a small image as p/x, and return it."""
    made = small.image(store, content.encode())
    push(store, {"x": (made.digest.removeprefix("sha256:"), made)}, f"{registry.host}/p", registry)
    return made


@pytest.mark.parametrize("form", [BUNDLE, TAG], ids=["bundle", "tag"])
def test_cosign_verifies_a_signature_and_nothing_else(
    cosign: Cosign, store: Store, registry: Registry, key: SigningKey, tmp_path: Path,
    form: tuple[str, ...],
) -> None:  # fmt: skip
    signed, other = image(store, registry, "signed"), image(store, registry, "other")
    key_pair(tmp_path, "stranger")
    sign(registry, "p/x", signed.manifest, key)
    name = f"{registry.host}/p/x@{signed.digest}"
    found = verify(cosign, name, "lab.pub", *form)
    assert found.returncode == 0, found.stderr
    (said,) = json.loads(found.stdout)
    assert said["critical"]["image"] == {"docker-manifest-digest": signed.digest}
    assert verify(cosign, name, "stranger.pub", *form).returncode != 0
    unsigned = f"{registry.host}/p/x@{other.digest}"
    assert verify(cosign, unsigned, "lab.pub", *form).returncode != 0


def test_cosign_verifies_the_signature_of_an_index(
    cosign: Cosign, store: Store, registry: Registry, key: SigningKey
) -> None:
    entry = image(store, registry, "signed").manifest.to_json()
    index = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]}).encode()
    described = oci.describe(oci.INDEX, index)
    registry.put_manifest("p/x", described.digest, index, oci.INDEX)
    sign(registry, "p/x", described, key)
    for form in (BUNDLE, TAG):
        found = verify(cosign, f"{registry.host}/p/x@{described.digest}", "lab.pub", *form)
        assert found.returncode == 0, found.stderr


def test_cosign_verifies_provenance(
    cosign: Cosign, store: Store, registry: Registry, key: SigningKey
) -> None:
    made = image(store, registry, "made")
    predicate = {
        "buildDefinition": {
            "buildType": "urn:plateline:image:v1", "externalParameters": {},
            "internalParameters": {"actionKey": "k"}, "resolvedDependencies": [],
        },
        "runDetails": {"builder": {"id": "urn:plateline:builder"}},
    }  # fmt: skip
    state(registry, "p/x", made.manifest, key, PROVENANCE, predicate)
    words = ("--key", "lab.pub", "--insecure-ignore-tlog", "--type", "slsaprovenance1")
    found = cosign("verify-attestation", *words, f"{registry.host}/p/x@{made.digest}")
    assert found.returncode == 0, found.stderr


def test_a_key_of_ours_signs_in_cosign_and_counts_here(
    cosign: Cosign, store: Store, registry: Registry, key: SigningKey, tmp_path: Path
) -> None:
    """The way that docs/signatures.md describes."""
    made = image(store, registry, "made")
    if not shutil.which("openssl"):
        missing("openssl", "apt-get install openssl")
    subprocess.run(
        ["openssl", "pkcs8", "-in", "lab.key", "-out", "plain.pem", "-passin", "env:P"],
        cwd=tmp_path, check=True, env={"PATH": os.environ["PATH"], "P": PASSWORD.decode()},
    )  # fmt: skip
    done = cosign("import-key-pair", "--key", "plain.pem", "--output-key-prefix", "imported")
    assert done.returncode == 0, done.stderr
    offline = (
        "--yes",
        "--key",
        "imported.key",
        "--tlog-upload=false",
        "--use-signing-config=false",
    )
    for form in (("--new-bundle-format=true",), TAG):
        done = cosign("sign", *offline, *form, f"{registry.host}/p/x@{made.digest}")
        assert done.returncode == 0, done.stderr
    found = signatures(registry, "p/x", made.digest, [key.public])
    assert [(each.form, each.key) for each in found] == [
        ("bundle", key.public), ("tag", key.public)
    ]  # fmt: skip
    # Ours stand beside its.
    sign(registry, "p/x", made.manifest, key)
    assert len(signatures(registry, "p/x", made.digest, [key.public])) == 4
    name = f"{registry.host}/p/x@{made.digest}"
    assert all(verify(cosign, name, "imported.pub", *f).returncode == 0 for f in (BUNDLE, TAG))
