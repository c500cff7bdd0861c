"""Records of OSV.dev, in the shapes that it exports: what they affect, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from builder.errors import BuilderError
from builder.inspect.audit import advisories, findings
from builder.inspect.audit.pins import Pin

# As GitHub's advisories come: ranges per package, a word for the severity, and CVSS.
GHSA: dict[str, Any] = {
    "schema_version": "1.7.0", "id": "GHSA-aaaa-bbbb-cccc", "modified": "2026-05-01T10:00:00Z",
    "published": "2026-04-30T10:00:00Z", "aliases": ["CVE-2026-1"], "summary": "a hole",
    "details": "## A hole\nlong", "references": [{"type": "WEB", "url": "https://a.example"}],
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"},
                 {"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H"}],
    "affected": [{
        "package": {"ecosystem": "PyPI", "name": "My.Package", "purl": "pkg:pypi/my-package"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2.3"}]},
                   {"type": "ECOSYSTEM", "events": [{"introduced": "2.0a1"}, {"fixed": "2.0.1"}]}],
        "database_specific": {"last_known_affected_version_range": "<= 2.0.0"}}],
    "database_specific": {"severity": "HIGH", "cwe_ids": ["CWE-1"]},
}  # fmt: skip
# As PyPA's come: a range of commits beside, and every version by its name.
PYSEC: dict[str, Any] = {
    "id": "PYSEC-2026-7", "modified": "2026-05-02T10:00:00Z", "aliases": ["CVE-2026-1"],
    "details": "A hole in my-package.",
    "affected": [{
        "package": {"ecosystem": "PyPI", "name": "my-package"},
        "ranges": [{"type": "GIT", "repo": "https://a.example/x.git",
                    "events": [{"introduced": "0"}, {"fixed": "0123456789"}]},
                   {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.2.3"}]}],
        "versions": ["1.0", "1.1", "not-a-version", "3.0.0"]}],
}  # fmt: skip
# As Debian's come: a source package of one release, its version, and an urgency.
DEBIAN: dict[str, Any] = {
    "id": "DEBIAN-CVE-2026-2", "modified": "2026-05-03T10:00:00Z", "upstream": ["CVE-2026-2"],
    "details": "expat reads too far",
    "affected": [
        {"package": {"ecosystem": "Debian:12", "name": "expat"},
         "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]},
        {"package": {"ecosystem": "Debian:13", "name": "expat"},
         "ranges": [{"type": "ECOSYSTEM",
                     "events": [{"introduced": "0"}, {"fixed": "2.7.1-2+deb13u1"}]}],
         "ecosystem_specific": {"urgency": "not yet assigned"}},
    ],
}  # fmt: skip


def pin(name: str, version: str, ecosystem: str = "PyPI") -> Pin:
    return Pin(ecosystem, name, name, version, "", ("x",))


def found(tmp_path: Path, pins: list[Pin], *records: Any) -> list[findings.Finding]:
    path = tmp_path / "records.json"
    path.write_text(json.dumps(list(records)))
    return findings.find(pins, advisories.read(path))


@pytest.mark.parametrize(
    ("version", "affected"),
    [("0.1", True), ("1.2.2.post1", True), ("1.2.3rc1", True), ("1.2.3", False), ("1.9", False),
     ("2.0a1", True), ("2.0", True), ("2.0.1", False), ("1.2.3+local", False)],
)  # fmt: skip
def test_ranges_are_those_of_pep_440(tmp_path: Path, version: str, affected: bool) -> None:
    said = found(tmp_path, [pin("my-package", version)], GHSA)
    assert [f.names for f in said] == ([("CVE-2026-1", "GHSA-aaaa-bbbb-cccc")] if affected else [])
    assert [f.severity for f in said] == ["HIGH"] * affected


def test_versions_by_name_count_in_any_spelling(tmp_path: Path) -> None:
    for version, affected in (("3.0.0", True), ("3.0", True), ("3.0.1", False), ("1.1", True)):
        assert bool(found(tmp_path, [pin("my-package", version)], PYSEC)) is affected


def test_records_of_one_weakness_are_one_finding(tmp_path: Path) -> None:
    bridge = {**PYSEC, "id": "X-1", "aliases": ["PYSEC-2026-7", "X-2"]}
    (one,) = found(tmp_path, [pin("my-package", "1.0")], GHSA, PYSEC, bridge)
    assert one.names == ("CVE-2026-1", "GHSA-aaaa-bbbb-cccc", "PYSEC-2026-7", "X-1", "X-2")
    assert (one.severity, one.summary) == ("HIGH", "a hole")


@pytest.mark.parametrize(
    ("version", "affected"),
    [("2.7.1-2", True), ("2.7.1-2+deb13u1~bpo1", True), ("2.7.1-2+deb13u1", False),
     ("2.7.1-10", False), ("1:2.0-1", False), ("2.7.1~rc1-9", True)],
)  # fmt: skip
def test_debian_compares_as_dpkg_does(tmp_path: Path, version: str, affected: bool) -> None:
    said = found(tmp_path, [pin("expat", version, "Debian:13")], DEBIAN)
    assert [f.severity for f in said] == ["NOT YET ASSIGNED"] * affected
    assert not found(tmp_path, [pin("expat", version, "Debian:14")], DEBIAN)
    assert not found(tmp_path, [pin("expat", version)], DEBIAN)


def test_a_withdrawn_record_counts_no_more(tmp_path: Path) -> None:
    assert not found(tmp_path, [pin("my-package", "1.0")], {**GHSA, "withdrawn": "2026-06-01"})


def test_the_last_affected_version_is_affected_and_the_next_is_not(tmp_path: Path) -> None:
    events = [{"last_affected": "2.0"}, {"introduced": "1.0"}]
    record = {"id": "X-1", "affected": [{"package": {"ecosystem": "PyPI", "name": "p"},
              "ranges": [{"type": "ECOSYSTEM", "events": events}]}]}  # fmt: skip
    for version, affected in (("0.9", False), ("1.0", True), ("2.0", True), ("2.0.1", False)):
        assert bool(found(tmp_path, [pin("p", version)], record)) is affected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=4), st.integers(0, 20))
def test_any_ranges_together_are_their_union(ranges: list[tuple[int, int]], version: int) -> None:
    made = advisories.Affected(
        "PyPI", "p",
        tuple(advisories.Range("ECOSYSTEM", (("fixed", str(at + size)), ("introduced", str(at))))
              for at, size in ranges), (), "",
    )  # fmt: skip
    expected = any(at <= version < at + size for at, size in ranges)
    assert advisories.affects(made, str(version), Version, "x") is expected


MALFORMED = {
    "no object": 7,
    "no id": {"affected": []},
    "affected": {"id": "X-1", "affected": {}},
    "package": {"id": "X-1", "affected": [{"package": "p"}]},
    "events": {"id": "X-1", "affected": [{"ranges": [{"events": [{"introduced": 1}]}]}]},
    "two in one event": {
        "id": "X-1", "affected": [{"ranges": [{"events": [{"introduced": "0", "fixed": "1"}]}]}]},
    "nothing introduced": {"id": "X-1", "affected": [{"ranges": [{"events": [{"fixed": "1"}]}]}]},
    "versions": {"id": "X-1", "affected": [{"versions": ["1", None]}]},
    "aliases": {"id": "X-1", "aliases": "CVE-1"},
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuilderError, match=r"records\.json: (X-1: its |a record without an id)"):
        found(tmp_path, [], MALFORMED[name])


def test_a_version_that_cannot_be_compared_is_refused_where_it_would_count(tmp_path: Path) -> None:
    record = {"id": "X-1", "affected": [{"package": {"ecosystem": "PyPI", "name": "p"},
              "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "one"}]}]}]}  # fmt: skip
    assert not found(tmp_path, [pin("q", "1")], record)
    with pytest.raises(BuilderError, match=r"X-1: a version of p cannot be compared .*'one'"):
        found(tmp_path, [pin("p", "1")], record)


def test_a_file_a_list_an_answer_a_zip_and_a_folder_say_the_same(tmp_path: Path) -> None:
    one, listed, answer, packed = (tmp_path / n for n in ("a.json", "b.json", "c.json", "d.zip"))
    one.write_text(json.dumps(GHSA))
    listed.write_text(json.dumps([GHSA]))
    answer.write_text(json.dumps({"vulns": [GHSA]}))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("GHSA-aaaa-bbbb-cccc.json", json.dumps(GHSA))
    folder = tmp_path / "folder/inner"
    folder.mkdir(parents=True)
    (folder / "x.json").write_text(json.dumps(GHSA))
    for path in (one, listed, answer, packed, tmp_path / "folder"):
        (found,) = advisories.read(path)
        assert found.names == ("GHSA-aaaa-bbbb-cccc", "CVE-2026-1")


@pytest.mark.parametrize("data", [b"{", b"\xff", b"PK\x03\x04broken", b"[" * 100_000])
def test_what_is_no_record_is_refused_by_its_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "records"
    path.write_bytes(data)
    with pytest.raises(BuilderError, match=r"records"):
        list(advisories.read(path))
    with pytest.raises(BuilderError, match=r"gone cannot be read \(No such file"):
        list(advisories.read(tmp_path / "gone"))


def test_what_is_ignored_has_a_reason_and_is_named_when_it_may_go(tmp_path: Path) -> None:
    (tmp_path / "audit-ignore.txt").write_text("# ours\nCVE-2026-1 not reachable: no such input\n")
    reasons = findings.ignored(tmp_path, ["X-9"])
    (one,) = findings.judged(found(tmp_path, [pin("my-package", "1.0")], GHSA), reasons)
    assert one.reason == "not reachable: no such input"
    assert findings.unused([one], reasons) == ["X-9"]
    (tmp_path / "audit-ignore.txt").write_text("CVE-2026-1\n")
    with pytest.raises(BuilderError, match=r"audit-ignore\.txt:1: CVE-2026-1 .*without a reason"):
        findings.ignored(tmp_path, [])
