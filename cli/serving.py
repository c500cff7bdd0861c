"""The tasks about the packaged model: where it comes from, and putting it to work."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.command import command
from cli.output import ENGINE_HELP, INSECURE_HELP, JSON_HELP, ROOT, facts, say
from cli.progress import sometimes
from cli.signing import SIGN_HELP, no_key, public_keys, signing_key

STACK = str(ROOT / "deploy" / "openfaas" / "stack.yaml")
_SHOWN = ("class", "probability", "model_digest")


@command(
    positional=["image"],
    repeated=["key"],
    help={
        "image": "the packaged image, HOST/REPOSITORY@sha256:…; localhost/… is the store",
        "run": "instead, a file with what the API gives of a run or of a pipeline's version",
        "receipt": "instead, a receipt of the function; nothing but the key is asked",
        "picture": "for --receipt: the picture that the receipt must be about",
        "key": "for --receipt: a public key whose word counts (keys/*.pub of this workspace)",
        "package": "the compiled package, where it is neither released nor in the store",
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def trace(
    image: str = "",
    run: str = "",
    receipt: str = "",
    picture: str = "",
    key: list[str] = [],  # noqa: B006 - invoke reads it as a list
    package: str = "",
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Walk back from an image or a run to model, package, images and commit; read a receipt."""
    from builder.oci.reference import Reference
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.release.trace import Places, trace_run
    from pipeline.release.trace import trace as walk

    if [bool(image), bool(run), bool(receipt)].count(True) != 1:
        raise PipelineError("give one of these: the packaged image, --run FILE or --receipt FILE")
    if (picture or key) and not receipt:
        raise PipelineError("--picture and --key are of --receipt; give that as well")
    if receipt:
        _receipt(receipt, picture, key, as_json=json)
        return
    with Places(Store.open(), insecure=insecure, notice=say) as places:
        if run:
            found = trace_run(_bytes(Path(run)), places, ROOT)
        else:
            file = Path(package) if package else None
            found = walk(Reference.parse(image), places, ROOT, file)
    facts(asdict(found), _walked(found), as_json=json)


def _receipt(file: str, picture: str, names: list[str], *, as_json: bool) -> None:
    """Print what a receipt says, and whose word it is."""
    from pipeline.release.receipt import read

    keys = public_keys(names)
    if not keys:
        raise no_key()
    found = read(_bytes(Path(file)), keys, _bytes(Path(picture)) if picture else None)
    said = {
        "signed by": str(found.key), "picture": f"sha256:{found.picture}",
        "model": f"sha256:{found.model}", "image": found.image, "time": found.time,
        "call": found.call, "class": str(found.outcome.get("class", "")),
        "probability": str(found.outcome.get("probability", "")),
    }  # fmt: skip
    document = {
        "signer": {"name": found.key.name, "id": found.key.id}, "picture": said["picture"],
        "model": said["model"], "image": found.image, "time": found.time, "call": found.call,
        "outcome": dict(found.outcome),
    }  # fmt: skip
    shown = [(name, _plain(value)) for name, value in said.items() if value]
    facts(document, [("what", "said"), *shown], as_json=as_json)
    if not picture:
        say("give --picture FILE to hold it against the picture that was sent")
    say(f"from image to commit: ./invoke trace {_plain(found.image)}")


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _bytes(path: Path) -> bytes:
    from pipeline.errors import PipelineError

    try:
        return path.read_bytes()
    except OSError as error:
        raise PipelineError(f"reading {path} failed ({error.strerror})") from None


@command(
    help={
        "image": "the packaged image, HOST/REPOSITORY@sha256:…",
        "sign": SIGN_HELP,
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def sign_model(image: str, sign: str = "", insecure: bool = False, json: bool = False) -> None:
    """Sign a packaged image whose models passed, and what its quality gate found."""
    from builder.oci.reference import Reference
    from builder.registry.client import Registries
    from builder.signing.signatures import sign as sign_image
    from builder.signing.signatures import state
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.release import gate

    key, reference = signing_key(sign), Reference.parse(image)
    if key is None:
        raise PipelineError("no key was named; give --sign KEY or set PLATELINE_SIGNING_KEY")
    if reference.local:
        raise PipelineError(f"{image} is in this machine's store, where nothing can be signed")
    store = Store.open()
    with store.in_use(), Registries(insecure=insecure, notice=say) as registries:
        registry = registries.at(reference.host)
        found = gate.read(registry, store, reference)
        sign_image(registry, reference.repository, found.image, key)
        state(registry, reference.repository, found.image, key, gate.QUALITY_GATE, found.predicate)
    rows = [("model", "variant", "weighted F1", "sha256")]
    rows += [
        (m["name"], m["variant"], f"{m['metrics']['weighted_f1']:.3g}", m["digest"]["sha256"])
        for m in found.predicate["models"]
    ]
    facts({"image": str(reference), "gate": found.predicate}, rows, as_json=json)
    say(f"signed with {key.public}: {reference}, and that its models passed the gate")


GATEWAY_HELP = "address of the OpenFaaS gateway ($OPENFAAS_URL)"
PLAIN_HELP = "send the password over plain HTTP to a gateway that is not on this machine"


def gateway_at(url: str, timeout: int, *, insecure: bool) -> Any:
    """Return the Gateway of --gateway or $OPENFAAS_URL; raises PipelineError without either."""
    from pipeline.errors import PipelineError
    from pipeline.serving.deploy import Gateway, find_password

    url = url or os.environ.get("OPENFAAS_URL", "")
    if not url:
        raise PipelineError("no gateway was named; give --gateway URL or set OPENFAAS_URL")
    return Gateway(
        url, *find_password(url), insecure=insecure, timeout=timeout, waiting=sometimes(say)
    )


def _tile(path: str) -> bytes:
    from pipeline.definition.plates import sample_tile
    from pipeline.errors import PipelineError

    try:
        return Path(path).read_bytes() if path else sample_tile()
    except OSError as error:
        raise PipelineError(f"cannot read the tile {path} ({error.strerror})") from None


@command(
    help={
        "gateway": GATEWAY_HELP,
        "image": "the packaged image, HOST/REPOSITORY@sha256:… (the stack file's own)",
        "stack": "a stack file, such as the package stage puts out (deploy/openfaas/stack.yaml)",
        "function": "which function of the stack file",
        "tile": "an image file to send at the end (a drawn one)",
        "timeout": "seconds that it may take to become ready",
        "insecure": PLAIN_HELP,
        "json": JSON_HELP,
    }
)
def deploy(
    gateway: str = "",
    image: str = "",
    stack: str = STACK,
    function: str = "",
    tile: str = "",
    timeout: int = 300,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Deploy a packaged image to OpenFaaS, wait until it is ready, and send it one tile."""
    from pipeline.serving.deploy import deploy as put
    from pipeline.serving.deploy import read_stack

    where = gateway_at(gateway, timeout, insecure=insecure)
    found = put(where, read_stack(Path(stack), image, function), _tile(tile))
    facts(asdict(found), _answered(found), as_json=json)


def _answered(found: Any) -> list[tuple[str, str]]:
    rows = [("what", "found"), ("function", found.name), ("image", found.image)]
    rows += [("address", found.url), ("was", "updated" if found.updated else "created")]
    return rows + [(key, str(value)) for key, value in found.answer.items() if key in _SHOWN]


@command(
    help={
        "to": "the image to go back to: its digest or a tag, or HOST/REPOSITORY@sha256:…",
        "gateway": GATEWAY_HELP,
        "stack": "the stack file of the function (deploy/openfaas/stack.yaml)",
        "function": "which function of the stack file",
        "tile": "an image file to send at the end (a drawn one)",
        "timeout": "seconds that it may take to become ready",
        "dry_run": "only say what would change",
        "insecure": PLAIN_HELP,
        "json": JSON_HELP,
    }
)
def rollback(
    to: str,
    gateway: str = "",
    stack: str = STACK,
    function: str = "",
    tile: str = "",
    timeout: int = 300,
    dry_run: bool = False,
    insecure: bool = False,
    json: bool = False,
) -> None:
    """Deploy an earlier image of a function again, and say what changes by that.

    A digest or a tag is looked for in the repository of the image that is deployed now.
    """
    from dataclasses import replace

    from builder import oci
    from builder.oci.reference import Reference
    from builder.store import Store
    from pipeline.errors import PipelineError
    from pipeline.release.trace import Places, changes
    from pipeline.release.trace import trace as walk
    from pipeline.serving.deploy import deploy as put
    from pipeline.serving.deploy import deployed, read_stack

    where = gateway_at(gateway, timeout, insecure=insecure)
    # Read before the gateway is asked; which image it names does not matter here.
    name = read_stack(Path(stack), f"none.invalid/none@sha256:{'0' * 64}", function)["service"]
    running = deployed(where).get(name)
    if running is None:
        raise PipelineError(
            f"{where.url} has no function {name}, so there is nothing to go back from; deploy one "
            "with `invoke deploy`, or name another with --function"
        )
    with Places(Store.open(), insecure=insecure, notice=say) as places:
        now = places.pinned(Reference.parse(running))
        if "/" in to:
            wanted = Reference.parse(to)
        elif oci.is_digest(to):
            wanted = replace(now, tag="", digest=to)
        else:
            wanted = replace(now, tag=to, digest="")
        wanted = replace(places.pinned(wanted), tag="")
        if wanted.digest == now.digest:
            raise PipelineError(f"{name} runs {wanted} already; name the image to go back to")
        before, after = walk(now, places, ROOT), walk(wanted, places, ROOT)
    if not after.base:
        raise PipelineError(f"{wanted} is no image that the package stage made; nothing changed")
    differ = changes(before, after)
    for change in differ:
        say(
            f"{change.kind} {change.name}".strip() + f": {change.old or '-'} -> {change.new or '-'}"
        )
    for said in after.missing:
        say(f"not known of {wanted.digest}: {said}")
    found: dict[str, Any] = {"changes": [asdict(change) for change in differ], "deployed": None}
    rows = [("what", "found"), ("function", name), ("would be", str(wanted))]
    if not dry_run:
        done = put(where, read_stack(Path(stack), str(wanted), function), _tile(tile))
        found["deployed"], rows = asdict(done), _answered(done)
    facts(found, rows, as_json=json)


@command(
    positional=["image"],
    help={
        "image": "localhost/NAME, as a run packaged it, or HOST/REPOSITORY@sha256:…",
        "engine": ENGINE_HELP,
        "insecure": INSECURE_HELP,
        "json": JSON_HELP,
    },
)
def serve(image: str, engine: str = "auto", insecure: bool = False, json: bool = False) -> None:
    """Serve a packaged image on this machine's loopback, until Ctrl-C; prints the address."""
    import threading

    from builder.oci.reference import Reference
    from builder.registry.client import Registries
    from builder.registry.pull import pull
    from builder.sandbox.engines import choose
    from builder.store import Store
    from pipeline.release.trace import Places
    from pipeline.serving.function import serving

    store = Store.open()
    with Places(store, insecure=insecure, notice=say) as places:
        reference = places.pinned(Reference.parse(image))
    with store.in_use():
        if reference.local:
            found = store.image(reference.digest)
        else:
            with Registries(insecure=insecure, notice=say) as registries:
                found = pull(store, registries.at(reference.host), reference)
        with serving(choose(engine, store), found) as url:
            rows = [("what", ""), ("image", str(reference)), ("address", url)]
            facts({"image": str(reference), "address": url}, rows, as_json=json)
            sys.stdout.flush()
            say("Ctrl-C ends it")
            threading.Event().wait()


def _walked(found: Any) -> list[tuple[str, str]]:
    rows = [("what", "name"), ("image", found.image), ("base", found.base)]
    rows.append(("artifact", found.artifact))
    rows += [
        (f"model {m.get('name', '')}", f"{m.get('sha256', '')} {m.get('variant', '')}".strip())
        for m in found.models
    ]
    rows.append(("package", found.package))
    rows += [
        (f"stage {name}", f"{entry['digest']} key {entry['key'][:12]}")
        for name, entry in found.stages.items()
    ]
    rows += [(f"lock {path}", digest) for path, digest in found.locks.items()]
    rows.append(("commit", found.commit + (" (dirty)" if found.dirty else "")))
    return [(what, name) for what, name in rows if name] + [("missing", m) for m in found.missing]
