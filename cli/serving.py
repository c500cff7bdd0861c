"""The tasks about the packaged model: where it comes from, and putting it to work."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.command import command
from cli.output import ENGINE_HELP, INSECURE_HELP, JSON_HELP, ROOT, facts, say
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
    from builder.registry.pull import pull, stored
    from builder.sandbox.engines import choose
    from builder.store import Store
    from pipeline.release.trace import Places
    from pipeline.serving.function import serving

    store = Store.open()
    with Places(store, insecure=insecure, notice=say) as places:
        reference = places.pinned(Reference.parse(image))
    with store.in_use():
        if reference.local:
            found = stored(store, reference.digest)
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
