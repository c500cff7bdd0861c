"""What lets in, and where it is never sent."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.kubeflow.server.access import Access, check, from_environment, token


def test_the_environment_counts_where_nothing_was_given(tmp_path):
    (tmp_path / "token").write_text("pod")
    pod = {"KF_PIPELINES_SA_TOKEN_PATH": str(tmp_path / "token")}
    assert token(from_environment(Access("h"), pod)) == "pod"
    assert token(from_environment(Access("h"), {**pod, "KF_PIPELINES_TOKEN": "user"})) == "user"
    assert from_environment(Access("h", cookie="c"), pod) == Access("h", cookie="c")
    assert from_environment(Access("h"), {"KF_PIPELINES_SA_TOKEN_PATH": "/none"}) == Access("h")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("false", "exit code 1"),
        ("true", "printed nothing"),
        ("plateline-has-no-such-program", "--token-command"),
        ("sh -c 'echo expired >&2; exit 3'", "exit code 3: expired"),
        ("echo two words", "one word"),
        ("'", "--token-command"),
    ],
)
def test_a_command_without_a_token_is_named(command, words):
    with pytest.raises(PipelineError, match=words):
        token(Access("h", token_command=command))


def test_a_token_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(PipelineError, match="--token-file"):
        token(Access("h", token_file=tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(PipelineError, match="--token-file"):
        token(Access("h", token_file=tmp_path / "bytes"))


@given(st.text())
def test_a_token_is_one_word_or_an_error(text):
    """A line feed in it would be another header."""

    class File(type(Path())):
        def read_text(self, *_, **__):
            return text

    try:
        found = token(Access("h", token_file=File("/none")))
    except PipelineError:
        return
    assert found == text.strip()
    assert found.isascii()
    assert not set(found) & set("\r\n\t \0")


@pytest.mark.parametrize(
    "host", ["", "ftp://x", "http://", "http://[", "http://x:port", "https:///path"]
)
def test_an_address_that_is_none_is_named(host):
    with pytest.raises(PipelineError, match="--host"):
        check(Access(host))


@pytest.mark.parametrize(
    ("host", "environ", "allowed"),
    [
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888", {"KUBERNETES_SERVICE_HOST": "x"}, 1),
        ("http://ml-pipeline.kubeflow.svc:8888", {"KUBERNETES_SERVICE_HOST": "x"}, 1),
        ("http://ml-pipeline.kubeflow.svc:8888", {}, 0),
        ("http://svc.example.org", {"KUBERNETES_SERVICE_HOST": "x"}, 0),
        ("http://localhost:8080", {}, 1),
        ("kubeflow.example.org/pipeline", {}, 1),
    ],
)
def test_a_token_is_sent_over_plain_http_only_inside_of_a_machine_or_cluster(
    host, environ, allowed
):
    for access in (Access(host, token="t"), Access(host, token_command="x"), Access(host)):
        if allowed or not access.secret:
            check(access, environ)
        else:
            with pytest.raises(PipelineError, match="readable on the network"):
                check(access, environ)
