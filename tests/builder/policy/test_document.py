"""A policy file says what it means, or what is wrong with it and on which line."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.policy.document import RULES, read
from tests.key_pairs import key_pair, write_other_kind


def policy(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_rules_keys_and_exceptions_are_read(tmp_path: Path) -> None:
    lab, clinic = key_pair(tmp_path / "k", "lab").public, key_pair(tmp_path / "k", "clinic").public
    text = """
[signatures]
keys = ["k/lab.pub", "k/clinic.pub", "k/lab.pub"]
at-least = 1
[bases]
allowed = ["docker.io/library/python"]
[advisories]
file = "osv.zip"
except.CVE-2026-1 = "not reached"
[licences]
allowed = ["mit", "GPL-3.0-or-later WITH GCC-exception-3.1", "LicenseRef-public-domain"]
[licences.except]
namex = "Apache-2.0, by its repository"
[tests]
passed = true
"""
    found = read(policy(tmp_path, text))
    assert found.keys == (lab, clinic)
    assert found.at_least == 1
    assert found.advisories == tmp_path / "osv.zip"
    assert found.licences == {
        "MIT", "GPL-3.0-or-later WITH GCC-exception-3.1", "LicenseRef-public-domain"
    }  # fmt: skip
    assert found.exceptions["licences"] == {"namex": "Apache-2.0, by its repository"}
    assert found.exceptions["advisories"] == {"CVE-2026-1": "not reached"}


def test_without_a_number_all_keys_must_have_signed(tmp_path: Path) -> None:
    key_pair(tmp_path, "lab")
    key_pair(tmp_path, "clinic")
    found = read(policy(tmp_path, '[signatures]\nkeys = ["lab.pub", "clinic.pub"]\n'))
    assert found.at_least == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "asks for nothing; write one of signatures, bases"),
        ("[signature]\n", r"line 1: signature is no setting; did you mean signatures\?"),
        ('\n[signatures]\nkeys = ["lab.pub"]\natleast = 1', "line 4: signatures.atleast is no"),
        ("[signatures]\nat-least = 1", "line 1: signatures.keys must name a public key"),
        ('[signatures]\nkeys = ["lost.pub"]', r"line 2: signatures.keys does not fit: .*lost\.pub"),
        ('[signatures]\nkeys = ["rsa.pub"]', "line 2: signatures.keys does not fit: .*kind RSA"),
        (
            '[signatures]\nkeys = ["lab.pub"]\nat-least = 2',
            "line 3: .* 1 to 1, the keys named",
        ),
        ('[signatures]\nkeys = ["lab.pub", "lab.pub"]\nat-least = 2', "line 3: .* from 1 to 1"),
        ('[signatures]\nkeys = ["lab.pub"]\nat-least = true', "line 3: signatures.at-least must"),
        ("[bases]\nallowed = 1", "line 2: bases.allowed must be a list of texts"),
        ('[bases]\nallowed = ["docker.io/python:3"]', "line 2: .*has a tag, which can move"),
        ('[bases]\nallowed = ["A B"]', "line 2: bases.allowed does not fit"),
        ('[bases]\nexcept = {a = "b"}', "line 2: bases.except is no setting"),
        ("[advisories]", "line 1: advisories.file must name a file"),
        ('[licences]\nallowed = ["MIT", "BSD"]', "line 2: .*'BSD' is no licence of SPDX"),
        ('[licences]\nallowed = ["MIT OR ISC"]', "line 2: .*'MIT OR ISC' is several licences"),
        ("[licences]\nallowed = []", "line 2: licences.allowed must name a licence"),
        ('[licences]\nallowed = ["MIT"]\n[licences.except]\nx = " "', "line 4: .* needs a reason"),
        ("[tests]\npassed = false", "line 2: tests.passed must be true; leave the table out"),
        ("[tests]\nexcept = 3\npassed = true", "line 2: tests.except must be a table"),
        ("tests = 3", "line 1: tests must be a table"),
        ("[tests", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    key_pair(tmp_path, "lab")
    write_other_kind(tmp_path / "rsa", "RSA")
    with pytest.raises(BuilderError, match=says):
        read(policy(tmp_path, text))


def test_a_file_that_is_not_there_is_no_empty_policy(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"cannot read .*correct --policy"):
        read(tmp_path / "policy.toml")


def test_the_policy_of_the_page_is_one(tmp_path: Path) -> None:
    for name in ("lab", "clinic"):
        key_pair(tmp_path, name)
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0].replace("…", "1" * 64)
    assert read(policy(tmp_path, text)).rules == {*RULES}
