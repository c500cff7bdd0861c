"""A lock knows every file that it was made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.packages.lock_file import check_fresh, in_hash


def made(folder: Path) -> str:
    return f"# made from requirements.in {in_hash(folder, 'requirements.in')}\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.in").write_text(text)
    return folder


@pytest.mark.parametrize(
    "option", ["-r {}", "-c {}", "-r{}", "--requirement {}", "--requirement={}", "--constraint={}"]
)
def test_a_change_of_an_included_file_makes_the_lock_stale(tmp_path: Path, option: str) -> None:
    folder = write(tmp_path, requirements=option.format("more.in") + "\n", more="numpy\n")
    lock = made(folder)
    check_fresh(folder, "requirements.in", "the.lock", lock)
    write(folder, more="numpy<2\n")
    with pytest.raises(BuilderError, match=r"the\.lock does not fit requirements\.in any more"):
        check_fresh(folder, "requirements.in", "the.lock", lock)


def test_what_an_included_file_includes_counts_and_circles_end(tmp_path: Path) -> None:
    folder = write(tmp_path, requirements="-r a.in\n", a="-c b.in\n", b="-r a.in\nnumpy\n")
    lock = made(folder)
    write(folder, b="-r a.in\nscipy\n")
    assert made(folder) != lock


def test_comments_and_order_do_not_count(tmp_path: Path) -> None:
    before = made(write(tmp_path, requirements="a\nb\n"))
    assert made(write(tmp_path, requirements="# why\nb # here\n\na\n")) == before


def test_an_included_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, requirements="-r gone.in\n")
    with pytest.raises(BuilderError, match=r"gone\.in is not there; write it anew"):
        made(tmp_path)


def test_a_package_that_debian_in_leaves_out_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "debian.in").write_text("bash\n-ca-certificates\n-r\n")
    assert in_hash(tmp_path, "debian.in")


def test_a_pin_that_moves_to_the_constraints_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path, requirements="-r a.in\n-c b.in\n", a="numpy\n", b="scipy\n")
    before = in_hash(folder, "requirements.in")
    write(folder, a="scipy\n", b="numpy\n")
    assert in_hash(folder, "requirements.in") != before


@pytest.mark.parametrize("data", [b"\xff\xfe", b"-r a\0b\n"])
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "requirements.in").write_bytes(data)
    with pytest.raises(BuilderError, match=r"(requirements\.in|a\0b) cannot be read"):
        in_hash(tmp_path, "requirements.in")
