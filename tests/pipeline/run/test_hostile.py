"""A package of somebody else gets nothing of this machine but what its user gave it."""

import json
import stat

import pytest

from pipeline.errors import PipelineError
from pipeline.run.runner import Volume

SECRET = "private-key-of-the-user"
SAID = {"parameters": ["said"], "words": ["{{$.outputs.parameters['said'].output_file}}"]}
MADE = {"artifacts": ["made"], "words": ["{{$.outputs.artifacts['made'].path}}"]}
TELLS = {
    "script": 'cat "$0" "$0/f" > "$1" || exit 9', "parameters": ["said"],
    "words": ["{{$.inputs.artifacts['one'].path}}", SAID["words"][0]],
}  # fmt: skip


@pytest.fixture
def victim(tmp_path):
    """Return a folder of the user that no package was given."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "f").write_text(SECRET)
    return folder


@pytest.fixture
def claim(tmp_path):
    folder = tmp_path / "claim"
    folder.mkdir()
    return folder


@pytest.fixture
def attack(run_written, victim):
    """Run a package; return why it failed, having looked for what it reached."""

    def do(steps, **options):
        before = sorted(victim.parent.iterdir())
        try:
            result = run_written(steps, **options)
        except PipelineError as error:
            assert not (victim.parent / "runs").exists()
            why = str(error)
        else:
            assert result.state == "failed"
            assert [s.name for s in result.steps.values() if s.state == "running"] == []
            for path in result.folder.rglob("*"):
                if path.is_file() and not path.is_symlink() and "victim" not in path.name:
                    assert SECRET not in path.read_text(errors="replace"), path
            why = result.error
        assert [path.name for path in victim.iterdir()] == ["f"]
        assert (victim / "f").read_text() == SECRET
        now = {*victim.parent.iterdir()} - {*before}
        assert {path.name for path in now} <= {"runs", "written.yaml"}, now
        return why

    return do


def pvc(sub_path="", mount_path="/w"):
    return {"pvcMount": [{"constant": "c", "mountPath": mount_path, "subPath": sub_path}]}


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("sub_path", ["{victim}", "../victim", "a/../../victim", "link", "link/x"])
def test_a_sub_path_stays_in_its_claim(attack, victim, claim, sub_path, writable):
    (claim / "link").symlink_to(victim)
    steps = {"c": {"script": "cat /w/f; echo x > /w/pwned"}}
    why = attack(
        steps, kubernetes={"c": pvc(sub_path.format(victim=victim))},
        volumes={"c": Volume(claim, writable)},
    )  # fmt: skip
    assert "subPath" in why


def test_a_link_that_one_step_leaves_in_a_claim_is_no_way_out_for_the_next(attack, victim, claim):
    steps = {
        "a": {"script": f"ln -s {victim} /w/sub; echo -n x > $0", **SAID},
        "b": {"script": "cat /w/f; echo x > /w/pwned", "takes": {"x": ("a", "said")}},
    }
    why = attack(
        steps, kubernetes={"a": pvc(), "b": pvc("sub")}, volumes={"c": Volume(claim, True)}
    )
    assert "the subPath 'sub' of the claim c does not stay in it" in why


def test_no_step_changes_a_claim_while_another_mounts_a_sub_path_of_it(run_written, claim):
    """Two steps that would run at the same time run one after the other."""
    script = "echo begin >> /w/log; sleep 0.3; echo end >> /w/log"
    steps = {"a": {"script": script}, "b": {"script": script.replace("/w/", "/all/sub/")}}
    (claim / "sub").mkdir()
    result = run_written(
        steps, kubernetes={"a": pvc("sub"), "b": pvc(mount_path="/all")},
        volumes={"c": Volume(claim, True)},
    )  # fmt: skip
    assert result.state == "succeeded", result.error
    assert (claim / "sub" / "log").read_text().split() == ["begin", "end"] * 2


def test_a_sub_path_of_a_writable_claim_is_made_inside_it(run_written, claim):
    result = run_written(
        {"c": {"script": "echo x > /w/f"}}, kubernetes={"c": pvc("deep/er")},
        volumes={"c": Volume(claim, True)},
    )  # fmt: skip
    assert result.state == "succeeded", result.error
    assert (claim / "deep" / "er" / "f").read_text() == "x\n"


@pytest.mark.parametrize(
    "place",
    ["/../../../victim/made", "relative", "/", "/proc/x", "/dev", "/sys/x", "/kfp/c/x", "/etc",
     "/var/lib/plateline/x", "/a\nb"],
)  # fmt: skip
@pytest.mark.parametrize("what", ["claim", "secret"])
def test_a_mount_path_stays_inside_and_out_of_what_the_run_gives(attack, claim, place, what):
    settings = pvc(mount_path=place) if what == "claim" else {
        "secretAsVolume": [{"secretName": "c", "mountPath": place}]
    }  # fmt: skip
    why = attack(
        {"c": {"script": "exit 0"}}, kubernetes={"c": settings},
        volumes={"c": Volume(claim, True)}, secrets={"c": claim},
    )  # fmt: skip
    assert "mountPath" in why


def test_two_mounts_at_one_place_are_refused(attack, claim):
    (claim / "inner").mkdir()
    both = {"pvcMount": pvc()["pvcMount"], "secretAsVolume": [
        {"secretName": "s", "mountPath": "/w/"}]}  # fmt: skip
    why = attack(
        {"c": {"script": "exit 0"}}, kubernetes={"c": both}, secrets={"s": claim / "inner"},
        volumes={"c": Volume(claim)},
    )  # fmt: skip
    assert "is mounted twice" in why


@pytest.mark.parametrize("uri", ["{victim}", "file://{victim}", "{victim}/../victim", "victim",
                                 "/proc/self/environ", "file:///etc/passwd"])  # fmt: skip
@pytest.mark.parametrize("runtime", [False, True])
def test_an_importer_reads_no_path_of_this_machine(attack, victim, uri, runtime):
    uri = uri.format(victim=victim)
    importer = {"importer": uri, "asked": {}}
    if runtime:
        importer = {"importer": None, "asked": {"uri": uri}}
    steps = {
        "imp": {**importer, "artifacts": ["made"]},
        "b": {**TELLS, "takes": {"one": ("imp", "made")}},
    }
    assert "the importer's URI" in attack(steps)


@pytest.fixture(params=["bubblewrap", "docker"])
def engine(request):
    if request.param == "docker":
        import docker

        try:
            docker.from_env().ping()
        except docker.errors.DockerException:
            pytest.skip("no Docker Engine answers; start dockerd")
    return request.param


@pytest.mark.parametrize("output", ["said", "made", "message", "deep"])
def test_a_link_among_the_outputs_is_neither_read_nor_mounted(attack, victim, output, engine):
    script = {
        "said": f'ln -s {victim}/f "$0"',
        "made": f'echo x > "$0"; ln -s {victim} "$1"',
        "message": f'echo x > "$0"; rmdir "${{2%/*}}"; ln -s {victim} "${{2%/*}}"',
        "deep": f'echo x > "$0"; mkdir -p "$1/x"; ln -s {victim}/f "$1/x/f"',
    }[output]
    words = [*SAID["words"], *MADE["words"], "{{$.outputs.output_file}}"]
    steps = {
        "a": {"script": script, "words": words, "parameters": ["said"], "artifacts": ["made"]},
        "b": {**TELLS, "takes": {"one": ("a", "made"), "x": ("a", "said")}},
    }
    why = attack(steps, engine=engine)
    assert "which is a symbolic link to" in why
    assert str(victim) in why


@pytest.mark.parametrize("kind", ["mkfifo", "mkfifo -m 0"])
def test_a_pipe_among_the_outputs_holds_nothing_up(attack, kind):
    why = attack({"a": {"script": f'{kind} "$0"', **SAID}})
    assert "out/.parameters/said" in why or ".parameters/said, which is a named pipe" in why


@pytest.mark.parametrize(
    "uri", ["{victim}", "file://{victim}", "/kfp/other/made", "/kfp/a/../../../victim", "/etc"]
)
def test_a_reported_uri_stays_in_the_outputs_of_its_step(attack, victim, uri):
    message = {"artifacts": {"made": {"artifacts": [{"uri": uri.format(victim=victim)}]}}}
    steps = {
        "a": {"script": f"echo '{json.dumps(message)}' > $0", "artifacts": ["made"],
              "words": ["{{$.outputs.output_file}}"]},
        "b": {**TELLS, "takes": {"one": ("a", "made")}},
    }  # fmt: skip
    why = attack(steps)
    assert "its own outputs" in why or "the artifact's URI" in why


NAMES = [
    "../" * 12 + "etc/passwd",
    "..",
    "/etc/passwd",
    "a/../../b",
    ".hidden",
    "a\0b",
    "a\nb",
    ".",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", ["parameters", "artifacts"])
def test_a_name_of_an_output_is_no_way_out(attack, name, what):
    why = attack({"a": {"script": "exit 0", what: [name]}})
    assert repr(name)[1:-1] in why


@pytest.mark.parametrize("name", ["../../../../victim/taskdir", "/tmp/x", "..", "a/b", "a\nb"])
def test_a_name_of_a_task_is_no_way_out(attack, name):
    why = attack({name: {"script": "echo hi"}})
    assert repr(name)[1:-1] in why


@pytest.mark.parametrize("key", ["../victim/f", "/etc/passwd", "..", ""])
def test_a_key_of_a_secret_is_no_way_out(attack, claim, key):
    asks = [{"secretName": "s", "keyToEnv": [{"envVar": "X", "secretKey": key}]}]
    why = attack(
        {"a": {"script": "echo $X"}}, kubernetes={"a": {"secretAsEnv": asks}}, secrets={"s": claim}
    )
    assert "the key of a secret" in why


def test_the_page_embeds_no_file_that_a_link_leads_to(run_written, victim):
    """Also where the folder changes after the step ended: nothing but a file is ever embedded."""
    from pipeline.run import page

    step = {"script": 'mkdir "$0"; echo x > "$0/a.png"', **MADE}
    result = run_written({"a": step})
    made = result.folder / "steps" / "a" / "out" / "made"
    (made / "a.png").unlink()
    png = b"\x89PNG" + SECRET.encode()
    (victim / "f").write_bytes(png)
    (made / "a.png").symlink_to(victim / "f")
    assert "data:image" not in page.render(result)
    (made / "b.png").write_bytes(png)
    assert page.render(result).count("data:image") == 1
    (made / "b.png").unlink()
    (made / "a.png").unlink()
    made.rmdir()
    made.symlink_to(victim)
    (victim / "f").rename(victim / "c.png")
    assert "data:image" not in page.render(result)


def test_what_a_package_says_is_text_on_the_page(run_written):
    words = "<script>alert(1)</script>"
    step = {"script": 'echo -n "$1" > "$0"; echo "$1"; exit 1', "parameters": ["said"],
            "words": [*SAID["words"], "{{$.inputs.parameters['x']}}"],
            "given": {"x": words}}  # fmt: skip
    page = run_written({"a": step}).page.read_text()
    assert words not in page
    assert page.count("&lt;script&gt;") == 4  # the run's error, the step's, its input and its log


def test_a_run_is_its_owners_alone_and_no_program_of_a_step_keeps_special_bits(
    run_written, claim, tmp_path, engine
):
    script = 'echo x > "$0"; chmod 6755 "$0"; echo x > /w/p; chmod 4755 /w/p'
    result = run_written(
        {"a": {"script": script, **MADE}}, kubernetes={"a": pvc()}, engine=engine,
        volumes={"c": Volume(claim, True)},
    )  # fmt: skip
    assert result.state == "succeeded", result.error
    assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == 0o700
    assert stat.S_IMODE(result.folder.stat().st_mode) == 0o700
    made = result.path(result.steps["a"].artifacts["made"][0]["uri"])
    assert stat.S_IMODE(made.stat().st_mode) == 0o755
    assert stat.S_IMODE((claim / "p").stat().st_mode) == 0o755


def test_a_step_has_the_network_only_where_its_package_asks_for_it(run_written):
    asks = {"podMetadata": {"labels": {"plateline/network": "yes"}}}
    steps = {"a": {"script": 'ls /sys/class/net > "$0" || cat /proc/net/dev > "$0"', **SAID}}

    def devices(**options):
        said = run_written(steps, **options).steps["a"].outputs["said"]
        return {line.split(":")[0].strip() for line in said.splitlines() if ":" in line}

    everything = devices(network=True)
    assert devices() == {"lo"}
    assert devices(kubernetes={"a": asks}) == everything


def test_a_step_that_fails_for_want_of_the_network_says_how_to_give_it(run_written):
    why = run_written({"a": {"script": "nc 192.0.2.1 80"}}).error
    assert "plateline/network: yes" in why
    assert "--network" in why
    assert "plateline/network" not in run_written({"a": {"script": "echo broken; exit 1"}}).error
