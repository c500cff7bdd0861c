"""What keys say of images beside plain signatures: the types of those statements, and their forms.

Test results: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md (0.1).
A bill of materials is the CycloneDX document itself, as cosign and others attach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BILL = "https://cyclonedx.org/bom"


def passing(files: Mapping[str, str]) -> dict[str, Any]:
    """Return that all tests of `files` (name -> SHA-256) passed; only that is ever said."""
    configuration = [
        {"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())
    ]
    return {"result": "PASSED", "configuration": configuration}


def passed(predicate: Mapping[str, Any]) -> bool:
    """Tell whether a test result says that all passed."""
    return predicate.get("result") == "PASSED" and not predicate.get("failedTests")
