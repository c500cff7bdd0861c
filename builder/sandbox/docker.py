"""Images as containers of a Docker Engine, through the docker SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from builder import oci
from builder.errors import BuilderError
from builder.registry import pull
from builder.sandbox.confine.limits import Limits
from builder.sandbox.layer_tar import opened
from builder.sandbox.process import Exit, Process
from builder.store import Store

LABEL = "plateline"


# Seconds for an engine to answer a question of no size, such as whether it is there.
_ANSWER = 60


@dataclass
class Docker:
    """Runs images out of `store` in the engine that DOCKER_HOST or the usual socket names.

    `url` is another one, such as podman's. Making one raises BuilderError where it does not answer.
    """

    store: Store
    name: str = "docker"
    url: str = ""
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        import docker

        try:
            self.client = (
                docker.DockerClient(self.url, timeout=_ANSWER)
                if self.url
                else docker.from_env(timeout=_ANSWER)
            )
            self.client.ping()
        except (docker.errors.DockerException, OSError) as error:
            url = self.url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
            raise BuilderError(_unreachable(url, str(error))) from None
        # What follows takes as long as an image is large or a disk is slow.
        self.client.api.timeout = None

    def load(self, image: oci.Image) -> str:
        """Bring `image` into the engine unless it is there, and return its id.

        The id of a loaded image is its config's digest, so the very image is found again. Raises
        BuilderError where a layer is missing or the engine refuses it.
        """
        import docker

        identity = image.config_blob.digest
        with _refusals("load the image"):
            try:
                self.client.images.get(identity)
            except docker.errors.ImageNotFound:
                self.client.images.load(_archive(self.store, image))
        return identity

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> DockerProcess:
        """Start `process` in a container; its output is copied to `stdout` as it comes.

        Raises BuilderError where the engine refuses or a limit in the environment is no number.
        """
        assert not stdin, "the engine's stdin is not used"
        with _refusals("start the container"):
            container = self._create(process)
            try:
                container.start()
            except BaseException:
                container.remove(force=True)
                raise
        return DockerProcess(container, process, stdout)

    def attach(self, process: Process) -> Exit:
        """Run `process` on the caller's own stdin and stdout, by the `docker` program.

        Raises BuilderError where that program is missing or the engine refuses.
        """
        began = time.monotonic()
        with _refusals("start the container"):
            container = self._create(process, stdin_open=True, tty=sys.stdin.isatty())
        try:
            command = ["docker", "start", "--attach", "--interactive", container.id]
            code = subprocess.run(command, check=False, timeout=process.timeout).returncode
        except FileNotFoundError:
            raise BuilderError(
                "the program `docker` is not there to attach to the container; install it, or use "
                "--engine bubblewrap"
            ) from None
        except subprocess.TimeoutExpired:
            return Exit(code=137, timed_out=True, seconds=time.monotonic() - began)
        finally:
            container.remove(force=True)
        return Exit(code=code, seconds=time.monotonic() - began)

    def _create(self, process: Process, **members: Any) -> Any:
        import docker

        user = process.user or process.image.config["config"].get("User") or "0"
        if os.geteuid():
            user = f"{os.geteuid()}:{os.getegid()}"
        for mount in process.mounts:
            if mount.writable and not os.geteuid() and mount.source.is_dir():
                number, _, group = user.partition(":")
                os.chown(mount.source, int(number), int(group or number))
        words = process.words()
        return self.client.containers.create(
            self.load(process.image),
            words[1:],
            entrypoint=words[:1],
            environment=dict(process.env),
            user=user,
            working_dir=process.workdir or None,
            init=True,  # a first process would ignore signals that it sends itself
            read_only=True,
            tmpfs={"/tmp": "exec,mode=1777"},  # noqa: S108
            network_mode=None if process.network or process.ports else "none",
            ports={f"{port}/tcp": ("127.0.0.1", None) for port in process.ports},
            mounts=[
                docker.types.Mount(
                    m.target, str(m.source.resolve()), type="bind", read_only=not m.writable
                )
                for m in process.mounts
            ],
            mem_limit=process.memory,
            pids_limit=Limits.read().processes,
            memswap_limit=process.memory,  # as on a cluster, where nothing swaps
            security_opt=["no-new-privileges"],
            labels={LABEL: str(os.getpid())},
            **(members | self._as_the_caller() | _gpus(process)),
        )

    def _as_the_caller(self) -> dict[str, Any]:
        """Return what lets a container of podman without root write as the caller does."""
        return {"userns_mode": "keep-id"} if self.name == "podman" and os.geteuid() else {}


def _gpus(process: Process) -> dict[str, Any]:
    """Return what asks the engine for all its GPUs, as `docker run --gpus all` does.

    The engine finds the driver by itself, with NVIDIA's container toolkit.
    """
    import docker

    if process.gpus is None:
        return {}
    asked = docker.types.DeviceRequest(count=-1, capabilities=[["gpu", "compute", "utility"]])
    return {"device_requests": [asked]}


def podman(store: Store) -> Docker:
    """Return the podman of this user; raises BuilderError where its socket does not answer."""
    user = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}"
    socket = Path(runtime if user else "/run", "podman/podman.sock")
    return Docker(store, "podman", f"unix://{socket}")


def _unreachable(url: str, said: str) -> str:
    """Return why the engine at `url` cannot be used, and what mends it."""
    path = Path(url.removeprefix("unix://"))
    if "podman" in path.parts:
        start = (
            "podman system service --time=0 &"
            if not os.geteuid()
            else ("systemctl --user start podman.socket")
        )
        what = "no podman answers" if path.exists() else f"podman has no socket {path}"
        return f"{what}; install podman and start it: {start}"
    if url.startswith("unix://") and not _exists(path):
        return f"there is no Docker socket {path}; install Docker and start dockerd"
    if url.startswith("unix://") and not os.access(path, os.W_OK):
        return (
            f"a Docker Engine is there, but you may not use its socket {path}; join its group, "
            "whose members are as good as root: sudo usermod -aG docker $USER, then log in again"
        )
    return f"no Docker Engine answers at {url} ({said[:120]}); start dockerd"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # it lies in a folder that may not be looked into


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn what the engine refuses, and a connection that breaks, into a BuilderError."""
    import docker
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as error:
        if "could not select device driver" in str(error):
            raise BuilderError(
                "this Docker Engine has no NVIDIA GPU to hand on; install NVIDIA's container "
                "toolkit where it runs, or leave out --gpus to compute on the processor"
            ) from None
        raise BuilderError(f"the engine did not {what} ({error})") from None


class DockerProcess:
    """A container that was started; it is removed when it has ended."""

    def __init__(self, container: Any, process: Process, stdout: BinaryIO | int | None) -> None:
        self._container = container
        self._timeout = process.timeout
        self._began = time.monotonic()
        self._exit: Exit | None = None
        self._broke = ""
        self._waiting = threading.Lock()  # one thread waits, another may stop
        container.reload()
        found = container.attrs["NetworkSettings"]["Ports"] or {}
        self.ports: Mapping[int, int] = {
            port: int(found[f"{port}/tcp"][0]["HostPort"]) for port in process.ports
        }
        sink = open(stdout, "wb", closefd=False) if isinstance(stdout, int) else stdout  # noqa: SIM115
        self._copier = threading.Thread(target=self._copy, args=(sink,), daemon=True)
        self._copier.start()

    def _copy(self, sink: BinaryIO | None) -> None:
        printed, most = 0, Limits.read().log
        for chunk in self._container.logs(stream=True, follow=True):
            printed += len(chunk)
            if printed > most:
                self._broke = f"it printed more than {most} bytes (PLATELINE_STEP_LOG)"
                self._container.kill()
                return
            if sink is not None:
                sink.write(chunk)
                sink.flush()

    def wait(self) -> Exit:
        """Wait for the end and return how it came: the engine's own record of the exit code."""
        with self._waiting:
            return self._wait()

    def _wait(self) -> Exit:
        import requests

        if self._exit is not None:
            return self._exit
        timed_out = False
        try:
            state = self._container.wait(timeout=self._timeout)
        except requests.exceptions.RequestException:
            timed_out = True
            self._container.kill()
            state = self._container.wait()
        self._copier.join(timeout=30)
        code = int(state["StatusCode"])
        self._container.reload()
        # The kernel kills one process; as on a cluster (memory.oom.group) that fails the whole.
        out_of_memory = bool(self._container.attrs["State"].get("OOMKilled"))
        code = code or (137 if out_of_memory or self._broke else 0)
        self._exit = Exit(
            code=code,
            signal=code - 128 if 128 < code < 160 else None,
            timed_out=timed_out,
            out_of_memory=out_of_memory,
            broke=self._broke,
            seconds=time.monotonic() - self._began,
        )
        self._container.remove(force=True)
        return self._exit

    def stop(self, grace: float = 10.0) -> Exit:
        """Ask the container to end, and kill it after `grace` seconds."""
        if self._exit is None:
            if grace:
                self._container.stop(timeout=max(1, int(grace)))
            else:
                self._container.kill()
        return self.wait()


def _archive(store: Store, image: oci.Image) -> Iterator[bytes]:
    """Yield the tar that `docker load` takes: manifest, config and the layers.

    They are as they are but for zstd, which Docker takes from 23.0 on: these are plain tars.

    Format: https://github.com/moby/docker-image-spec/blob/v1.2.0/v1.2.md.
    """
    config = store.read(image.config_blob.digest)
    name = image.config_blob.digest.removeprefix("sha256:") + ".json"
    layers = [f"{layer.blob.digest.removeprefix('sha256:')}.tar" for layer in image.layers]
    manifest = json.dumps([{"Config": name, "RepoTags": None, "Layers": layers}]).encode()
    for path, data in (("manifest.json", manifest), (name, config)):
        yield _header(path, len(data)) + data + b"\0" * (-len(data) % 512)
    seen = set()
    for path, layer in zip(layers, image.layers, strict=True):
        if path in seen:
            continue
        seen.add(path)
        pull.bring(store, layer.blob)
        plain = layer.blob.media_type == oci.ZSTD_LAYER
        size = sum(map(len, _read(store, layer, plain))) if plain else layer.blob.size
        yield _header(path, size)
        yield from _read(store, layer, plain)
        yield b"\0" * (-size % 512)
    yield b"\0" * 1024


def _read(store: Store, layer: oci.Layer, plain: bool) -> Iterator[bytes]:
    """Yield the bytes of a layer's blob, or those of the tar in it."""
    with store.open_blob(layer.blob.digest) as raw:
        stream = opened(raw, layer.blob) if plain else raw
        while chunk := stream.read(1 << 20):
            yield chunk


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)
