"""A pod's patch becomes the process that a kubelet would start, or is refused by name."""

from __future__ import annotations

import pytest

from builder.sandbox.process import Mount
from pipeline.backend.pod import Given, expand, process
from pipeline.errors import PipelineError
from pipeline.run.step.context import Volume


@pytest.mark.parametrize(
    ("word", "expanded"),
    [("$(NAME)", "value"), ("$$(NAME)", "$(NAME)"), ("$(OTHER)", "$(OTHER)"), ("$NAME", "$NAME"),
     ("a$$b", "a$b"), ("$(NAME", "$(NAME")],
)  # fmt: skip
def test_words_are_expanded_as_by_the_kubelet(word, expanded):
    assert expand(word, {"NAME": "value"}) == expanded


@pytest.fixture
def lent(tmp_path):
    for name in ("claim", "secret"):
        (tmp_path / name).mkdir()
    (tmp_path / "secret" / "key").write_text("hidden")
    return Given(
        images={"i": None}, volumes={"c": Volume(tmp_path / "claim", writable=True)},
        secrets={"s": tmp_path / "secret"}, mounts=(Mount(tmp_path, "/kfp-launcher"),),
        env={"KUBERNETES_SERVICE_HOST": "127.0.0.1"},
    )  # fmt: skip


def patch(**changes):
    container = {"name": "main", "image": "i", "command": ["run", "$(KFP_POD_NAME)"], "args": ["a"]}
    pod = {key: changes.pop(key) for key in ("volumes", "activeDeadlineSeconds", "dnsPolicy")
           if key in changes}  # fmt: skip
    return {"containers": [{**container, **changes}], **pod}


def mounted(name, volume, **more):
    mount = {"name": name, "mountPath": "/data", **more}
    return patch(volumes=[{"name": name, **volume}], volumeMounts=[mount])


def test_command_limits_user_and_variables_are_the_patchs(lent, tmp_path):
    made = process(
        patch(
            resources={"limits": {"memory": "1Gi", "cpu": "1"}}, activeDeadlineSeconds=60,
            securityContext={"runAsUser": 7},
            env=[{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"},
                 {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}}],
        ),
        "pod-name", tmp_path / "pod", lent,
    )  # fmt: skip
    assert made.command == ("run", "pod-name", "a")
    assert (made.memory, made.timeout, made.user) == (2**30, 60.0, "7:7")
    assert {"A": "1", "B": "12", "C": "hidden"}.items() <= dict(made.env).items()
    assert made.network


def test_claims_and_secrets_are_mounted_where_the_patch_says(lent, tmp_path):
    claim = mounted("c", {"persistentVolumeClaim": {"claimName": "c"}}, subPath="below")
    made = process(claim, "p", tmp_path / "pod", lent)
    assert Mount(tmp_path / "claim" / "below", "/data", writable=True) in made.mounts
    made = process(mounted("s", {"secret": {"secretName": "s"}}), "p", tmp_path / "pod", lent)
    assert Mount(tmp_path / "secret", "/data") in made.mounts


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (mounted("h", {"hostPath": {"path": "/"}}), "its volume h"),
        (mounted("c", {"persistentVolumeClaim": {"claimName": "x"}}), "the claim x"),
        (mounted("s", {"secret": {"secretName": "x"}}), "the secret x"),
        (patch(env=[{"name": "A", "valueFrom": {"fieldRef": {}}}]), "fieldRef"),
        (patch(lifecycle={}), "lifecycle"),
        (patch(dnsPolicy="None"), "dnsPolicy"),
        (mounted("e", {"emptyDir": {}}, mountPath="/minio"), "/minio"),
    ],
)
def test_what_this_engine_has_not_is_refused_by_name(asked, named, lent, tmp_path):
    with pytest.raises(PipelineError, match=named):
        process(asked, "p", tmp_path / "pod", lent)
