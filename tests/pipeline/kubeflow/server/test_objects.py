"""Artifacts come out of the object store as files and folders, and nothing else."""

import io
import tarfile

import pytest

from pipeline.errors import PipelineError
from pipeline.kubeflow.server import objects
from pipeline.kubeflow.server.connection import Connection, ServerError


@pytest.fixture
def save(access, tmp_path):
    with Connection(access) as connection:
        yield lambda uri="minio://b/k/made", **options: objects.save(
            connection, uri, tmp_path / "to" / "made", **options
        )


def packed(*members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            member.linkname = "" if kind == tarfile.REGTYPE else content.decode()
            member.mode = 0o4777
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_a_file_comes_as_it_is(save, kubeflow, tmp_path):
    kubeflow.objects["minio/b/k/made"] = b"\x00bytes"
    assert save() == ""
    assert (tmp_path / "to" / "made").read_bytes() == b"\x00bytes"
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["made"]


def test_a_folder_comes_unpacked_without_special_bits(save, kubeflow, tmp_path):
    kubeflow.objects["s3/b/k/made"] = packed(
        ("f", tarfile.REGTYPE, b"one"), ("sub/g", tarfile.REGTYPE, b"two")
    )
    assert save("s3://b/k/made") == ""
    assert (tmp_path / "to" / "made" / "sub" / "g").read_bytes() == b"two"
    assert (tmp_path / "to" / "made" / "f").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize(
    "member",
    [
        ("../out", tarfile.REGTYPE, b"x"),
        ("/out", tarfile.REGTYPE, b"x"),
        ("link", tarfile.SYMTYPE, b"/etc/passwd"),
        ("link", tarfile.LNKTYPE, b"/etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, b""),
    ],
)
def test_an_archive_with_anything_else_is_refused_whole(save, kubeflow, tmp_path, member):
    kubeflow.objects["minio/b/k/made"] = packed(("f", tarfile.REGTYPE, b"one"), member)
    why = save()
    assert "cannot be unpacked" in why or member[0] == "/out"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "to" / "out").exists()
    assert not (tmp_path / "to" / "made" / "link").exists()


def test_too_much_is_not_written(save, kubeflow, tmp_path):
    kubeflow.objects["minio/b/k/made"] = b"x" * 1000
    assert "more than 100 bytes" in save(most=100)
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("uri", ["https://example.org/data.csv", "oci://x/y", "minio://b", "/path"])
def test_what_no_object_store_has_is_said(save, uri):
    assert "no object store" in save(uri)


@pytest.mark.parametrize("status", [404, 500])
def test_what_the_server_does_not_hand_out_is_said(save, kubeflow, status):
    kubeflow.faults["GET /artifacts/minio/b/k/made"] = status
    assert f"({status})" in save()


def test_a_refused_login_ends_it(save, kubeflow):
    kubeflow.faults["GET /artifacts/minio/b/k/made"] = 403
    with pytest.raises(ServerError, match="403"):
        save()


def test_a_disk_that_is_full_is_said(save, kubeflow, monkeypatch):
    kubeflow.objects["minio/b/k/made"] = b"x"

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(PipelineError, match=r"No space left.*--fetch"):
        save()
