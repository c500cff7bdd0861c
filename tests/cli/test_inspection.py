"""The tasks that answer questions print tables for people and one JSON object for programs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment with an empty store."""
    return {**os.environ, "PLATELINE_STORE": str(tmp_path / "cache/store")}


def invoke(environ: dict[str, str], *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [ROOT / "invoke", *arguments], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def facts(environ: dict[str, str], *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(invoke(environ, *arguments, "--json"))
    return found


def test_graph_tells_who_stands_on_whom(environ: dict[str, str]) -> None:
    found = facts(environ, "graph")
    assert "train" in found["dependents"]["base"]
    assert found["needs"]["train"] == ["base"]
    assert invoke(environ, "graph", "--format", "svg").startswith("<svg")
    assert "there is no format 'png'" in invoke(environ, "graph", "--format", "png", code=1)


def test_explain_tells_a_first_build(environ: dict[str, str]) -> None:
    found = facts(environ, "explain", "base")
    assert found["first"]
    assert not found["known"]
    assert found["layers"] == len(found["making"])
    assert "for the first time" in invoke(environ, "explain", "base")
    assert "there is no target 'bass'" in invoke(environ, "explain", "bass", code=1)


def test_the_bill_is_the_same_in_every_process(environ: dict[str, str], tmp_path: Path) -> None:
    bills = []
    for seed in "12":
        # Each has an empty store of its own; what is downloaded, by its SHA-256, lies beside both.
        own = {**environ, "PYTHONHASHSEED": seed, "PLATELINE_STORE": str(tmp_path / seed)}
        invoke(own, "sbom", "package", "--output", str(tmp_path / f"{seed}.json"))
        bills.append((tmp_path / f"{seed}.json").read_bytes())
    assert bills[0] == bills[1]
    names = {component["name"] for component in json.loads(bills[0])["components"]}
    assert {"libc6", "httpcore", "stages/package/Dockerfile"} <= names


def test_store_and_gc_tell_number_and_bytes(environ: dict[str, str], tmp_path: Path) -> None:
    invoke(environ, "sbom", "base", "--output", str(tmp_path / "bill.json"))
    held = facts(environ, "store")
    assert held["kinds"]["document"]["number"] == 1
    assert held["bytes"] == sum(kind["bytes"] for kind in held["kinds"].values())
    dry = facts(environ, "gc", "--keep-days", "0", "--dry-run")
    assert dry["gone"]["document"] == held["kinds"]["document"]
    assert facts(environ, "store") == held
    assert facts(environ, "gc", "--keep-days", "0")["gone"] == dry["gone"]
    assert facts(environ, "store")["bytes"] == 0
    assert "must not be negative" in invoke(environ, "gc", "--keep-days=-1", code=1)


def test_nothing_is_built_where_nothing_changed(environ: dict[str, str]) -> None:
    revision = "nowhere-to-be-found"
    said = invoke(environ, "build-images", "--changed-since", revision, code=1)
    assert "git rev-parse" in said


def test_audit_ends_with_1_where_a_pin_is_affected_unless_it_is_ignored(
    environ: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "records.json"
    record = {
        "id": "X-1", "aliases": ["CVE-1"],
        "affected": [{"package": {"ecosystem": "PyPI", "name": "NumPy"},
                      "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}],
    }  # fmt: skip
    path.write_text(json.dumps(record))
    assert "1 advisories" in invoke(environ, "audit", str(path), code=1)
    found = facts(environ, "audit", str(path), "--ignore", "CVE-1")
    assert {f["package"] for f in found["findings"]} == {"numpy"}
    assert all(f["ignored"] == "--ignore" and f["targets"] for f in found["findings"])
    assert {"libc6", "numpy", "invoke"} <= {pin["package"] for pin in found["pins"]}
