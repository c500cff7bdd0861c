"""A package that this checkout did not compile runs only where its user agrees to what it gets."""

import json

import pytest
import yaml

from builder import oci
from builder.registry.client import Registries, Registry
from builder.registry.transport import Timing
from builder.signing.signatures import sign
from builder.store import Store
from pipeline.errors import PipelineError
from pipeline.run import consent
from pipeline.run.consent import Grant
from pipeline.run.runner import Volume, load
from pipeline.spec.compile import compiled_here, remember
from pipeline.spec.kubernetes import GPU
from pipeline.spec.package import arguments
from tests.key_pairs import key_pair

IMAGE = "registry.example/t/x@sha256:" + "0" * 64


@pytest.fixture
def package(tmp_path):
    """Return a package that asks for one thing of each kind."""
    text = {"parameterType": "STRING"}
    spec = {
        "pipelineInfo": {"name": "asks"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
        "components": {
            "c": {"executorLabel": "e", "inputDefinitions": {"parameters": {"repo": text}}},
            "i": {"executorLabel": "far", "outputDefinitions": {"artifacts": {
                "a": {"artifactType": {"schemaTitle": "system.Artifact"}}}}},
        },
        "deploymentSpec": {"executors": {
            "e": {"container": {"image": IMAGE, "command": ["x"]}},
            "far": {"importer": {"artifactUri": {"constant": "s3://bucket/\x1b[2Jkey"}}},
        }},
        "root": {
            "inputDefinitions": {"parameters": {
                "repo": {**text, "defaultValue": "localhost/t/model"}, "claim": text}},
            "dag": {"tasks": {"c": {
                "componentRef": {"name": "c"}, "taskInfo": {"name": "c"},
                "inputs": {"parameters": {"repo": {"componentInputParameter": "repo"}}},
            }}},
        },
    }  # fmt: skip
    executor = {
        "pvcMount": [
            {"mountPath": "/w", "pvcNameParameter": {"componentInputParameter": "claim"}},
            {"mountPath": "/r", "constant": "read"},
        ],
        "secretAsVolume": [{"secretName": "login", "mountPath": "/s"}],
        "secretAsEnv": [{"secretName": "absent", "keyToEnv": []}],
        "podMetadata": {"labels": {"plateline/network": "yes"}},
    }
    platform = {"platforms": {"kubernetes": {"deploymentSpec": {"executors": {"e": executor}}}}}
    path = tmp_path / "asks.yaml"
    path.write_text(yaml.safe_dump_all([spec, platform]))
    return load(path)


def listed(package, tmp_path, **options):
    folders = {"work": Volume(tmp_path, writable=True), "read": Volume(tmp_path)}
    given = arguments(package, {"claim": "work"})
    return consent.grants(package, given, folders, {"login": tmp_path}, **options)


def test_all_that_a_package_gets_is_listed(package, tmp_path):
    assert listed(package, tmp_path) == (
        Grant("folder", f"{tmp_path}, to read and write: the claim work", "e"),
        Grant("folder", f"{tmp_path}, to read: the claim read", "e"),
        Grant("image", f"not signed by a key of this workspace: {IMAGE}", "e"),
        Grant("import", "s3://bucket/\x1b[2Jkey", "far"),
        Grant("network", "this machine's, with what listens on its loopback", "e"),
        Grant("secret", f"login ({tmp_path})", "e"),
        Grant("store", "to publish localhost/t/model"),
    )


def test_the_network_for_all_is_listed_once(package, tmp_path):
    found = listed(package, tmp_path, network=True)
    assert [grant.steps for grant in found if grant.kind == "network"] == ["all steps"]


def test_gpus_are_listed_for_the_step_that_asks_where_the_run_hands_them_on(package, tmp_path):
    found = Grant("device", "the GPUs of this machine", "e")
    assert found not in listed(package, tmp_path, gpus=True)
    container = package.spec["deploymentSpec"]["executors"]["e"]["container"]
    container["resources"] = {"accelerator": {"resourceType": GPU, "resourceCount": "1"}}
    assert found in listed(package, tmp_path, gpus=True)
    assert found not in listed(package, tmp_path)


def test_what_a_parameter_of_the_run_publishes_is_listed(package):
    given = arguments(package, {"claim": "work", "repo": "localhost/other:v1"})
    assert consent.published(package, given) >= {"localhost/other"}


def test_without_a_user_it_is_refused_with_the_list_and_no_control_character(package, tmp_path):
    with pytest.raises(PipelineError) as raised:
        consent.ask(tmp_path / "asks.yaml", listed(package, tmp_path), None)
    words = str(raised.value)
    for word in ("asks.yaml", "--trust", "to read and write", "localhost/t/model", "s3://", IMAGE):
        assert word in words
    assert "\x1b" not in words


@pytest.mark.parametrize(("answer", "runs"), [
    ("y", True), ("yes\n", True), ("Y", True), ("", False), ("n", False), ("\n", False),
    ("maybe", False),
])  # fmt: skip
def test_only_yes_is_an_agreement(package, tmp_path, answer, runs):
    asked = []

    def reply(question):
        asked.append(question)
        return answer

    if runs:
        consent.ask(tmp_path / "x", listed(package, tmp_path), reply)
    else:
        with pytest.raises(PipelineError, match="was not run"):
            consent.ask(tmp_path / "x", listed(package, tmp_path), reply)
    assert "localhost/t/model" in asked[0]


def test_a_checkout_knows_what_it_compiled_and_no_other_does(tmp_path):
    store = Store.open(tmp_path / "store")
    digest, other = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    remember(store, tmp_path / "here", digest)
    assert compiled_here(store, tmp_path / "here", digest)
    assert not compiled_here(store, tmp_path / "here", other)
    assert not compiled_here(store, tmp_path / "there", digest)
    for path in (store.root / "results").iterdir():
        document = json.loads(path.read_bytes())
        document["result"]["compiled"] = other
        path.write_text(json.dumps(document))
    assert not compiled_here(store, tmp_path / "here", digest)


def with_image(tmp_path, image):
    spec = {
        "pipelineInfo": {"name": "x"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
        "components": {"c": {"executorLabel": "e"}},
        "deploymentSpec": {"executors": {"e": {"container": {"image": image, "command": ["x"]}}}},
        "root": {"dag": {"tasks": {"c": {
            "componentRef": {"name": "c"}, "taskInfo": {"name": "c"}}}}},
    }  # fmt: skip
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(spec))
    return load(path)


def said_of(tmp_path, image, *keys):
    package = with_image(tmp_path, image)
    with Registries(timing=Timing(tries=2, pause=0.01)) as registries:
        signed = consent.signers(package, registries, [key.public for key in keys])
    (grant,) = consent.grants(package, {}, {}, {}, signed=signed)
    return grant.what


def test_the_signers_of_an_image_are_named_by_the_keys_of_the_workspace(tmp_path, registry_host):
    lab, clinic, stranger = (key_pair(tmp_path, name) for name in ("lab", "clinic", "stranger"))
    found = oci.describe(oci.MANIFEST, b"an image")
    image = f"{registry_host}/p/x@{found.digest}"
    assert said_of(tmp_path, image, lab) == f"{consent.UNSIGNED}: {image}"
    with Registry(registry_host) as registry:
        sign(registry, "p/x", found, stranger)
        assert said_of(tmp_path, image, lab, clinic) == f"{consent.UNSIGNED}: {image}"
        for key in (lab, clinic):
            sign(registry, "p/x", found, key)
    assert said_of(tmp_path, image, lab, clinic) == f"signed by lab, clinic: {image}"
    assert said_of(tmp_path, image, clinic) == f"signed by clinic: {image}"


def test_without_keys_no_registry_is_asked(tmp_path):
    image = f"127.0.0.1:1/p/x@sha256:{'0' * 64}"
    assert said_of(tmp_path, image) == f"{consent.UNSIGNED}: {image}"


@pytest.mark.parametrize("image", [
    f"127.0.0.1:1/p/x@sha256:{'0' * 64}", "{{$.inputs.parameters['x']}}", "registry.test/p/x:v1",
    f"localhost/p/x@sha256:{'0' * 64}", "signed by lab: registry.test/p/x",
])  # fmt: skip
def test_an_image_whose_signatures_cannot_be_read_is_not_signed(tmp_path, image):
    found = said_of(tmp_path, image, key_pair(tmp_path))
    assert found.startswith(consent.UNSIGNED)
    assert found.endswith(f": {image}")
