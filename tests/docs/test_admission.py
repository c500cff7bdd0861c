"""The examples for a cluster's admission ask for statements that plateline makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from builder.signing.predicates import TEST_RESULT, passing
from builder.signing.results import PROVENANCE
from pipeline.release.gate import QUALITY_GATE

FOLDER = Path(__file__).parents[2] / "deploy" / "admission"


def read(name: str) -> dict[str, Any]:
    found = yaml.safe_load((FOLDER / name).read_text())
    assert isinstance(found, dict)
    return found


def test_kyverno_asks_for_each_statement_by_its_type_and_by_a_key_alone() -> None:
    rules = read("kyverno.yaml")["spec"]["rules"]
    images = [image for rule in rules for image in rule["verifyImages"]]
    assert {image["type"] for image in images} == {"SigstoreBundle"}
    asked = {each["type"] for image in images for each in image["attestations"]}
    assert asked == {TEST_RESULT, PROVENANCE, QUALITY_GATE}
    holders = [*images, *(each for image in images for each in image["attestations"])]
    for holder in holders:
        ((entry,),) = (each["entries"] for each in holder["attestors"])
        assert entry["keys"]["rekor"]["ignoreTlog"]
        assert entry["keys"]["ctlog"]["ignoreSCT"]
    (result,) = [c["value"] for image in images for each in image["attestations"]
                 if each["type"] == TEST_RESULT for c in each["conditions"][0]["all"]]  # fmt: skip
    assert passing({})["result"] == result


def test_policy_controller_asks_for_the_signature_by_a_key() -> None:
    found = read("policy-controller.yaml")["spec"]
    (authority,) = found["authorities"]
    assert authority["key"]["secretRef"]["name"] == "plateline-keys"
    assert found["mode"] == "enforce"
    assert "signatureFormat" not in authority, "with a key it reads no bundles"
