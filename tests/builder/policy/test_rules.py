"""A breach names image, package and rule; what cannot be checked is a breach, never a pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.inspect.audit import advisories
from builder.inspect.bill import cyclonedx
from builder.inspect.bill.part import UNKNOWN, Part
from builder.policy.document import RULES, Policy
from builder.policy.evidence import Evidence
from builder.policy.rules import Breach, allowed, judge, lines
from tests.key_pairs import key_pair

IMAGE = "r.example/p/train@sha256:" + "1" * 64
DEBIAN = (("arch", "amd64"), ("distro", "debian-13"))
LIBC = Part("deb", "libc6", "2.41-1+b2", "", (*DEBIAN, ("upstream", "glibc")), "LGPL-2.1-or-later")
JINJA = Part("wheel", "jinja2", "3.1.6", licence="BSD-3-Clause")
SYSTEM, RECIPE = Part("system", "debian", "13"), Part("recipe", "stages/a/Dockerfile")
WHERE = (("repository_url", "docker.io/library/python"),)
PYTHON = Part("image", "python", "sha256:" + "2" * 64, qualifiers=WHERE, licence=UNKNOWN)
PARTS = (SYSTEM, RECIPE, LIBC, JINJA)


def record(identity: str, ecosystem: str, name: str, fixed: str) -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": fixed}]
    package = {"ecosystem": ecosystem, "name": name}
    ranges = [{"type": "ECOSYSTEM", "events": events}]
    return {"id": identity, "affected": [{"package": package, "ranges": ranges}]}


def records(folder: Path, *documents: dict[str, Any]) -> list[advisories.Advisory]:
    (folder / "osv.json").write_text(json.dumps(documents))
    return list(advisories.read(folder / "osv.json"))


def policy(rule: str, exceptions: dict[str, str] | None = None, **more: Any) -> Policy:
    excepted = {rule: exceptions or {}}
    return Policy(Path("p.toml"), frozenset([rule]), exceptions=excepted, **more)


def evidence(*parts: Part, **more: Any) -> Evidence:
    return Evidence(IMAGE, parts=parts, **more)


def packages(found: list[Breach]) -> list[str]:
    return [breach.package for breach in found]


def test_affected_packages_are_named_by_their_source_and_release(tmp_path: Path) -> None:
    known = records(
        tmp_path,
        record("DSA-1", "Debian:13", "glibc", "2.41-2"),
        record("DSA-2", "Debian:12", "glibc", "9"),
        record("DSA-3", "Debian:13", "glibc", "2.41-1"),
        record("GHSA-1", "PyPI", "Jinja2", "3.1.7"),
    )
    found = judge(policy("advisories"), [evidence(*PARTS)], known)
    assert packages(found) == ["jinja2 3.1.6", "libc6 2.41-1"]
    assert {breach.rule for breach in found} == {"advisories"}
    of_jinja, of_libc = lines(found)
    image = "image train@sha256:111111111111, package"
    assert of_libc == f"{image} libc6 2.41-1, rule advisories: DSA-1, severity unknown"
    assert of_jinja == f"{image} jinja2 3.1.6, rule advisories: GHSA-1, severity unknown"
    reasons = {"DSA-1": "not reached", "jinja2": "no templates of strangers"}
    assert judge(policy("advisories", reasons), [evidence(*PARTS)], known) == []


def test_advisories_that_say_nothing_of_an_ecosystem_are_no_check(tmp_path: Path) -> None:
    of_debian = records(tmp_path, record("DSA-1", "Debian:13", "glibc", "1"))
    (found,) = judge(policy("advisories"), [evidence(*PARTS)], of_debian)
    assert (found.package, found.why) == (
        "jinja2 3.1.6",
        ". has no advisory about anything of PyPI",
    )
    (found,) = judge(policy("advisories"), [evidence(*PARTS)], [])
    assert found.why == ". has no advisory"


@pytest.mark.parametrize(
    "part",
    [
        PYTHON,
        Part("deb", "x", "1", qualifiers=(("distro", "sid"),)),
        Part("deb", "x", "1 2", qualifiers=DEBIAN),
        Part("wheel", "x", "not a version"),
    ],
)
def test_a_package_that_cannot_be_looked_up_is_a_breach(part: Part, tmp_path: Path) -> None:
    known = records(tmp_path, record("A", "Debian:13", "y", "1"), record("B", "PyPI", "y", "1"))
    (found,) = judge(policy("advisories"), [evidence(part)], known)
    assert found.package == f"{part.name} {part.version}"
    assert judge(policy("advisories", {part.name: "ours"}), [evidence(part)], known) == []


def test_licences_that_are_not_allowed_or_not_known_are_named() -> None:
    weights = Part("file", "https://w.example/w.bin", licence=UNKNOWN)
    asked = policy("licences", licences=frozenset(["BSD-3-Clause"]))
    found = judge(asked, [evidence(*PARTS, weights)])
    assert [(b.package, b.why) for b in found] == [
        ("https://w.example/w.bin", "its licence is not known (NOASSERTION)"),
        ("libc6 2.41-1+b2", "LGPL-2.1-or-later is not allowed"),
    ]
    for libc, is_excepted in (("libc6", True), ("libc6 2.41-1+b2", True), ("libc6 2.40", False)):
        asked = policy("licences", {libc: "linked only"}, licences=frozenset(["BSD-3-Clause"]))
        assert ("libc6 2.41-1+b2" not in packages(judge(asked, [evidence(*PARTS)]))) == is_excepted
    excepted = {"libc6": "linked only", "https://w.example/w.bin": "ours"}
    asked = policy("licences", excepted, licences=frozenset(["BSD-3-Clause"]))
    assert judge(asked, [evidence(*PARTS, weights)]) == []


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True),
        ("ISC", False),
        ("MIT AND ISC", False),
        ("MIT OR ISC", True),
        ("MIT AND (ISC OR Zlib)", True),
        ("ISC OR MIT AND Zlib", True),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("LGPL-2.1-only WITH x-exception", True),  # which only gives more rights
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("GPL-2.0-only", False),
        ("MIT AND", False),
        ("", False),
        (UNKNOWN, False),
    ],
)
def test_an_expression_is_allowed_by_the_licences_alone(expression: str, is_allowed: bool) -> None:
    licences = {"MIT", "Zlib", "LGPL-2.1-only", "GPL-2.0-only WITH Classpath-exception-2.0"}
    assert allowed(expression, licences) == is_allowed


def test_bases_are_allowed_by_name_or_by_digest() -> None:
    def breaches(*bases: str) -> list[str]:
        return packages(judge(policy("bases", bases=bases), [evidence(*PARTS, PYTHON)]))

    assert breaches("docker.io/library/python") == []
    assert breaches("docker.io/python") == [], "as Docker reads it"
    assert breaches(f"docker.io/library/python@{PYTHON.version}") == []
    assert breaches() == [f"docker.io/library/python@{PYTHON.version}"]
    assert breaches(f"docker.io/library/python@sha256:{'3' * 64}")
    assert breaches("docker.io/library/pythonx")
    assert judge(policy("bases"), [evidence(*PARTS)]) == []


def test_so_many_of_the_keys_must_have_signed(tmp_path: Path) -> None:
    lab, clinic = (key_pair(tmp_path, name).public for name in ("lab", "clinic"))
    asked = policy("signatures", keys=(lab, clinic), at_least=2)
    assert judge(asked, [evidence(signers=(clinic, lab))]) == []
    (found,) = judge(asked, [evidence(signers=(lab,))])
    assert found.why.endswith("must have signed it; lab did")
    other = key_pair(tmp_path, "other").public
    assert judge(asked, [evidence(signers=(lab, other))])
    unread = evidence(signers=(), problems={"signatures": "no route to r.example"})
    assert "no route to r.example" in judge(asked, [unread])[0].why


def test_tests_must_have_passed_unless_an_image_is_excepted() -> None:
    assert judge(policy("tests"), [evidence(tested=True)]) == []
    (found,) = judge(policy("tests"), [evidence()])
    assert (found.image, found.rule, found.package) == (IMAGE, "tests", "")
    for name in (IMAGE, "r.example/p/train"):
        assert judge(policy("tests", {name: "has none"}), [evidence()]) == []


@pytest.mark.parametrize("name", ["train", "p/train", "r.example/p", "other.example/p/train"])
def test_an_image_is_excepted_by_its_whole_repository(name: str) -> None:
    """Anybody can name an image train."""
    assert judge(policy("tests", {name: "has none"}), [evidence()])


@pytest.mark.parametrize("rule", RULES)
def test_nothing_known_of_an_image_breaks_each_rule(rule: str, tmp_path: Path) -> None:
    asked = policy(rule, keys=(key_pair(tmp_path).public,), at_least=1)
    known = records(tmp_path, record("A", "PyPI", "x", "1"))
    (found,) = judge(asked, [Evidence(IMAGE)], known)
    assert (found.image, found.rule) == (IMAGE, rule)


def test_what_several_images_share_is_said_once() -> None:
    both = [Evidence("h/p/a@sha256:" + "a" * 64), Evidence("h/p/b@sha256:" + "b" * 64)]
    (line,) = lines(judge(policy("tests"), both))
    assert line.startswith("image a@sha256:aaaaaaaaaaaa, b@sha256:bbbbbbbbbbbb, rule tests: ")


def test_a_name_from_elsewhere_moves_no_cursor() -> None:
    (line,) = lines([Breach(IMAGE, "licences", "x\x1b[2J", "y\n")])
    assert line.isprintable()


names = st.text("abc-", min_size=1, max_size=5).map(lambda t: f"a{t}".strip("-"))
licence = st.sampled_from(["MIT", "MIT AND (ISC OR Zlib)", UNKNOWN, "LicenseRef-x"])
sha = st.sampled_from(["", "c" * 64])
a_part = st.one_of(
    st.builds(Part, st.just("deb"), names, names, sha, st.just(LIBC.qualifiers), licence),
    st.builds(Part, st.just("wheel"), names, names, sha, st.just(()), licence),
    st.builds(Part, st.sampled_from(["file", "source"]), names, names, sha, st.just(()), licence),
    st.just(PYTHON), st.just(SYSTEM), st.just(RECIPE),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(a_part, unique_by=lambda part: part.ref, max_size=5))
def test_a_bill_is_read_back_as_it_was_written(parts: list[Part]) -> None:
    assert set(cyclonedx.read(json.loads(cyclonedx.render("x", parts)))) == set(parts)
