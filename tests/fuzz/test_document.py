"""Fuzz jobs: an image's manifest and config, and a compiled package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import strategies as st

from builder import oci
from builder.errors import BuilderError
from builder.platform import AMD64
from builder.registry import pull
from builder.registry.http import parse
from pipeline.errors import PipelineError
from pipeline.spec import lint, package

pytestmark = pytest.mark.slow

_PACKAGES = Path(__file__).parents[1] / "pipeline/spec/broken"

_DIGEST = "sha256:" + "0123456789abcdef" * 4
_BLOB = {"mediaType": oci.LAYER, "digest": _DIGEST, "size": 7}
_MANIFEST = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": _BLOB, "layers": [_BLOB]}
_CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=1"], "User": "1"},
    "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
    "history": [{"created_by": "x"}],
}
_INDEX = {"manifests": [{**_BLOB, "platform": AMD64.oci, "annotations": {"a": "b"}}]}  # fmt: skip
_WORDS = [b"null", b"[]", b"{}", b"1e999", b"-1", b"true", b'"' + _DIGEST.encode() + b'"', b"NaN",
          b"[" * 5000, b"9" * 5000, b'"\\ud800"', b'"layers":', b'"diff_ids":']  # fmt: skip
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just(_DIGEST) | st.just(_BLOB),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["layers", "config", "rootfs", "diff_ids", "history", "manifests", "platform",
                         "digest", "size", "mediaType", "annotations"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def test_a_manifest_and_its_config(fuzz) -> None:
    def read(documents: tuple[bytes, bytes]) -> None:
        manifest, config = documents
        document = parse(manifest, "the manifest x")
        if "manifests" in document:
            pull.choose(document, AMD64.oci, "the manifest x")
            return
        image = oci.parse(manifest, config)
        assert image.size >= 0
        json.dumps(image.manifest.to_json())

    samples = [json.dumps(d).encode() for d in (_MANIFEST, _INDEX)]
    made = _JSON.map(lambda d: json.dumps(d).encode())
    manifests = fuzz.mutated(samples, _WORDS) | made
    configs = fuzz.mutated([json.dumps(_CONFIG).encode()], _WORDS) | made
    fuzz.run(read, st.tuples(manifests, configs), refusal=BuilderError, names="manifest")


def test_a_compiled_package(fuzz, tmp_path: Path) -> None:
    path = tmp_path / "package.yaml"
    samples = [p.read_bytes() for p in sorted(_PACKAGES.glob("*.yaml"))[:6]]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        found, _ = package.read(path)
        package.references(found)
        lint.lint(path)

    words = [b": ", b"- ", b"&a ", b"*a", b"!!python/object:os.system ", b"{", b"[" * 200, b"---\n", b"? ",
             b"9" * 500, b"null", b"|\n", b"{{$.inputs.parameters['x']}}", b"\t", b"2001-99-99"]  # fmt: skip
    fuzz.run(read, fuzz.mutated(samples, words), refusal=PipelineError, names="package.yaml")
