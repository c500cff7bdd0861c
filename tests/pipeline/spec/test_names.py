"""Names and paths of a package stay where they belong, or the package is refused by name."""

import json
from pathlib import Path, PurePosixPath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.spec import names
from pipeline.spec.lint import lint

GOOD = Path(__file__).parent / "broken" / "good.yaml"
PARTS = st.sampled_from(
    ["..", ".", "", "a", "b c", "kfp", "proc", "etc", "...", "\0", "é", "x" * 99]
)
PATHS = st.builds("/".join, st.lists(PARTS, max_size=6)) | st.text(max_size=20)


def accepted(check, *words):
    """What `check` returns, or None where it refuses; nothing else may come of it."""
    try:
        return check(*words)
    except PipelineError:
        return None


@given(st.text(max_size=300) | PATHS)
def test_a_key_is_one_name_of_a_file_and_no_other(text):
    if accepted(names.key, "the task", text) is not None:
        assert PurePosixPath("/steps", text).parent == PurePosixPath("/steps")
        assert text.strip(".") == text
        assert len(f"{text}.{'9' * 40}".encode()) <= 255
        assert text.isprintable()


@pytest.mark.parametrize("text", ["a", "comp-read", "pipelinechannel--x-loop-item", "größe", "_0"])
def test_keys_that_compilers_write_are_taken(text):
    assert names.key("the task", text) == text


@given(PATHS)
def test_a_sub_path_stays_in_its_claim(text):
    parts = accepted(names.sub_path, text)
    if parts is not None:
        assert not text.startswith("/")
        assert not {"..", ".", ""} & set(parts)
        assert PurePosixPath("/claim", *parts).is_relative_to("/claim")
        assert not any("/" in part or "\0" in part for part in parts)


@given(PATHS | PATHS.map("/{}".format))
def test_a_mount_hides_nothing_that_a_container_needs(text):
    path = accepted(names.mount_path, text)
    if path is not None:
        assert path.startswith("/")
        assert ".." not in PurePosixPath(path).parts
        assert path == str(PurePosixPath(text)).replace("//", "/")
        for taken in ("/kfp", "/proc", "/sys", "/dev", "/s3", "/gcs", "/minio"):
            assert not PurePosixPath(path).is_relative_to(taken) or path == "/dev/shm"
        for needed in ("/etc/passwd", "/usr/bin/python3", "/lib64/ld.so", "/kfp/step/out"):
            assert not PurePosixPath(needed).is_relative_to(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [("/mnt/images", "/mnt/images"), ("/mnt//x/./", "/mnt/x"), ("/var/run/docker.sock",) * 2,
     ("/var/run/secrets/dockercreds",) * 2, ("/dev/shm",) * 2, ("/etc/config",) * 2],
)  # fmt: skip
def test_usual_mounts_are_taken(text, path):
    assert names.mount_path(text) == path


@given(PATHS | PATHS.map("/kfp/{}".format) | PATHS.map("file:///kfp/{}".format))
def test_an_artifact_lies_in_a_steps_outputs_or_in_another_store(uri):
    found = accepted(names.place, uri)
    if found is not None:
        step, inner = found
        base = PurePosixPath("/runs/1/steps")
        assert PurePosixPath(base, step, "out", *inner).is_relative_to(base / step / "out")
        assert inner
        assert {"..", ""}.isdisjoint({step, *inner})


def test_a_place_is_taken_apart_and_another_store_is_none():
    assert names.place("/kfp/a.b/made/x.csv") == ("a.b", ("made", "x.csv"))
    assert names.place("file:///kfp/a/made") == ("a", ("made",))
    assert names.place("s3://bucket/key") is None
    for uri in ("/etc/passwd", "/kfp/a", "/kfp/../etc/x", "made", "", "file:///etc/x", "/kfp"):
        with pytest.raises(PipelineError, match=r"outside of the step's outputs|leads out"):
            names.place(uri)


@pytest.mark.parametrize("uri", ["s3://b/k", "gs://b", "https://example.org/a", "oci://h/r:t"])
def test_importers_read_object_stores(uri):
    assert names.imported(uri) == uri


@pytest.mark.parametrize(
    "uri", ["/etc", "data", "file:///etc", "s3://b/../c", "s3://", "", "FILE://x"]
)
def test_importers_read_no_files_of_this_machine(uri):
    with pytest.raises(PipelineError, match=r"the importer's URI .* is refused"):
        names.imported(uri)


@pytest.mark.parametrize("name", ["a.b", "A", "-a", "a-", "x" * 64, "", "a_b", "a/b"])
def test_a_claims_name_is_a_label(name):
    with pytest.raises(PipelineError, match="at most 63 small letters"):
        names.label("the claim", name)


@pytest.mark.parametrize("name", ["../id_rsa", "a/b", ".", "..", "", "..x", "a\0", "é"])
def test_the_key_of_a_secret_is_a_file_in_its_folder(name):
    with pytest.raises(PipelineError, match="the key of a secret"):
        names.secret_key(name)


def put(node, path, value):
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value


def moved(node, path, name):
    for key in path[:-1]:
        node = node[key]
    node[name] = node.pop(path[-1])


MOUNT = ("platforms", "kubernetes", "deploymentSpec", "executors", "exec-make-2")


def attack(document, platform, name):
    """Put one attack into a good package."""
    settings = platform
    for key in MOUNT:
        settings = settings[key]
    (claim,) = settings["pvcMount"]
    task = document["root"]["dag"]["tasks"]
    container = document["deploymentSpec"]["executors"]["exec-make-2"]["container"]
    match name:
        case "subpath out":
            claim["subPath"] = "a/../../x"
        case "subpath absolute":
            claim["subPath"] = "/etc"
        case "mount out":
            claim["mountPath"] = "/../../x"
        case "mount over the outputs":
            claim["mountPath"] = "/kfp/other"
        case "mount over /proc":
            claim["mountPath"] = "/proc/self"
        case "mounted twice":
            settings["pvcMount"].append({**claim, "mountPath": claim["mountPath"] + "/"})
        case "claim with dots":
            claim["pvcNameParameter"] = {"runtimeValue": {"constant": "my.claim"}}
        case "secret's key":
            settings["secretAsEnv"] = [
                {"secretName": "s", "keyToEnv": [{"secretKey": "../../id_rsa", "envVar": "X"}]}
            ]
        case "secret's mount":
            settings["secretAsVolume"] = [{"secretName": "s", "mountPath": "/etc"}]
        case "variable":
            container["env"] = [{"name": "A=B", "value": "x"}]
        case "NUL":
            container["args"] = ["a\0b"]
        case "store":
            first = next(iter(task))
            task[first].setdefault("inputs", {}).setdefault("parameters", {})[
                "pipelinechannel--s"
            ] = {"runtimeValue": {"constant": "localhost/x"}}
        case "task":
            moved(task, [next(iter(task))], "../../x")
        case "dotted task":
            moved(task, [next(iter(task))], "a.b")
        case "executor":
            document["deploymentSpec"]["executors"]["../x"] = {"container": container}
        case "parameter":
            inputs = document["root"]["inputDefinitions"]["parameters"]
            inputs["../../../etc/passwd"] = {"parameterType": "STRING", "isOptional": True}
        case "importer":
            document["deploymentSpec"]["executors"]["exec-i"] = {
                "importer": {"artifactUri": {"constant": "/etc"}}
            }
        case "name":
            document["pipelineInfo"]["name"] = "a/../b"


@pytest.mark.parametrize(
    ("name", "rule"),
    [("subpath out", "bad-path"), ("subpath absolute", "bad-path"), ("mount out", "bad-path"),
     ("mount over the outputs", "bad-path"), ("mount over /proc", "bad-path"),
     ("mounted twice", "bad-path"), ("claim with dots", "bad-name"), ("secret's key", "bad-name"),
     ("secret's mount", "bad-path"), ("variable", "bad-name"), ("NUL", "bad-name"),
     ("store", "store-access"), ("task", "bad-name"), ("dotted task", "bad-name"),
     ("executor", "bad-name"), ("parameter", "bad-name"), ("importer", "bad-path"),
     ("name", "bad-name")],
)  # fmt: skip
def test_lint_names_each_way_out_of_a_package(name, rule, tmp_path):
    document, platform = yaml.safe_load_all(GOOD.read_text())
    attack(document, platform, name)
    path = tmp_path / "attack.yaml"
    path.write_text(json.dumps(document) + "\n---\n" + json.dumps(platform))
    found = lint(path)
    assert rule in {finding.rule for finding in found}
    assert all(";" in finding.message for finding in found), "a message holds the way out"
