"""A flaky gateway is outlived, a login renewed, and what is not trusted is said."""

from dataclasses import replace

import pytest

from pipeline.errors import PipelineError
from pipeline.kubeflow.server.access import Access
from pipeline.kubeflow.server.connection import Connection, ServerError, Unclear
from pipeline.kubeflow.server.pipelines import listed
from tests.tls import authority


@pytest.fixture
def connect(access):
    def do(**changes):
        return Connection(replace(access, **changes))

    return do


@pytest.mark.parametrize("fault", [502, 503, 504, 429, "drop"])
def test_a_question_is_asked_again_where_a_gateway_fails(connect, kubeflow, fault):
    answers = [fault, fault, fault, 0]
    kubeflow.faults["GET /healthz"] = lambda: answers.pop(0)
    with connect() as connection:
        assert connection.get("healthz")["tag_name"] == kubeflow.version
    assert kubeflow.requests.count("GET /healthz") == 4


def test_a_gateway_that_stays_away_is_an_error_after_so_many_tries(connect, kubeflow):
    kubeflow.faults["GET /healthz"] = 503
    with connect(tries=3) as connection, pytest.raises(ServerError, match="503"):
        connection.get("healthz")
    assert kubeflow.requests.count("GET /healthz") == 3


@pytest.mark.parametrize("fault", [500, 502, 503, 504, "drop", "cut", "hang"])
def test_what_changes_the_server_is_sent_once_and_unclear_without_an_answer(
    connect, kubeflow, fault
):
    kubeflow.faults["POST /experiments"] = fault
    with connect(timeout=0.2) as connection, pytest.raises(Unclear):
        connection.post("experiments", {"display_name": "e"})
    assert kubeflow.requests.count("POST /experiments") == 1


@pytest.mark.parametrize("fault", [400, 401, 403, 404, 409])
def test_a_clear_refusal_is_not_unclear(connect, kubeflow, fault):
    kubeflow.faults["POST /experiments"] = fault
    with connect() as connection, pytest.raises(ServerError) as caught:
        connection.post("experiments", {"display_name": "e"})
    assert not isinstance(caught.value, Unclear)
    assert caught.value.status == fault


def test_an_ended_token_is_read_again_from_its_file(connect, kubeflow, tmp_path):
    file = tmp_path / "token"
    file.write_text("first\n")
    kubeflow.token = "first"
    with connect(token_file=file) as connection:
        connection.get("healthz")
        kubeflow.token = "second"
        with pytest.raises(ServerError, match=r"401.*fresh --token-file"):
            connection.get("healthz")
        file.write_text("second\n")
        connection.get("healthz")
        connection.post("experiments", {"display_name": "e"})
    assert len(kubeflow.experiments) == 1


def test_an_ended_token_is_printed_again_by_its_command(connect, kubeflow, tmp_path):
    kubeflow.token = "one"
    (tmp_path / "now").write_text("one")
    with connect(token_command=f"cat {tmp_path / 'now'}") as connection:
        connection.get("healthz")
        kubeflow.token = "two"
        (tmp_path / "now").write_text("two")
        connection.get("healthz")


def test_a_certificate_of_an_unknown_ca_is_refused_until_its_file_is_given(kubeflow, tmp_path):
    ca, context = authority(tmp_path / "known")
    other, _ = authority(tmp_path / "other")
    kubeflow.over_tls(context)
    access = Access(kubeflow.url, token="t", timeout=2, pause=0.001)
    kubeflow.token = "t"
    for file in (None, other):
        with (
            Connection(replace(access, ca_file=file)) as connection,
            pytest.raises(ServerError, match=r"not trusted.*--ca-file"),
        ):
            connection.get("healthz")
    assert kubeflow.requests == [], "no token went out"
    with Connection(replace(access, ca_file=ca)) as connection:
        assert connection.get("healthz")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_named(access, tmp_path, content):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(PipelineError, match=r"ca\.pem.*--ca-file"):
        Connection(replace(access, host="https://127.0.0.1:1", ca_file=file))


@pytest.mark.parametrize("fault", ["page", "away"])
def test_a_page_to_sign_in_is_no_api(connect, kubeflow, fault):
    kubeflow.faults["GET /healthz"] = fault
    with connect() as connection, pytest.raises(ServerError, match=r"not the API.*--token-command"):
        connection.get("healthz")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_list_is_read_page_by_page(connect, kubeflow, size):
    kubeflow.page_size = size
    with connect() as connection:
        for number in range(5):
            connection.post("runs", {"display_name": f"r{number}", "experiment_id": "e"})
        names = [run["display_name"] for run in listed(connection, "runs", "runs")]
    assert names == ["r0", "r1", "r2", "r3", "r4"]


def test_pages_that_go_round_end_with_an_error(connect, kubeflow, monkeypatch):
    monkeypatch.setattr(kubeflow, "_listed", lambda *_: {"runs": [{}], "next_page_token": "1"})
    with connect() as connection, pytest.raises(ServerError, match="without an end"):
        list(listed(connection, "runs", "runs"))


def test_an_answer_without_an_end_is_not_read(connect, kubeflow):
    kubeflow.objects["minio/b/k"] = b"x" * 1000
    with connect() as connection, pytest.raises(ServerError, match="more than"):
        connection.read("/artifacts/minio/b/k", limit=100)
