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
from typing import Any, BinaryIO

from builder import oci
from builder.errors import BuilderError
from builder.registry import pull
from builder.sandbox.process import Exit, Process
from builder.store import Store

LABEL = "plateline"


@dataclass
class Docker:
    """Runs images out of `store` in the engine that DOCKER_HOST or the usual socket names."""

    store: Store
    name: str = "docker"
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        import docker

        try:
            self.client = docker.from_env(timeout=60)
            self.client.ping()
        except (docker.errors.DockerException, OSError) as error:
            raise BuilderError(
                f"no Docker Engine answers ({str(error)[:120]}); start dockerd, or use "
                "--engine bubblewrap"
            ) from None

    def load(self, image: oci.Image) -> str:
        """Bring `image` into the engine unless it is there, and return its id.

        The id of a loaded image is its config's digest, so the very image is found again.
        """
        import docker

        identity = image.config_blob.digest
        try:
            self.client.images.get(identity)
        except docker.errors.ImageNotFound:
            self.client.images.load(_archive(self.store, image))
        return identity

    def start(
        self, process: Process, stdout: BinaryIO | int | None = None, stdin: bytes = b""
    ) -> DockerProcess:
        """Start `process` in a container; its output is copied to `stdout` as it comes."""
        assert not stdin, "the engine's stdin is not used"
        with _refusals():
            container = self._create(process)
            try:
                container.start()
            except BaseException:
                container.remove(force=True)
                raise
        return DockerProcess(container, process, stdout)

    def attach(self, process: Process) -> Exit:
        """Run `process` on the caller's own stdin and stdout, by the `docker` program."""
        began = time.monotonic()
        with _refusals():
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
            memswap_limit=process.memory,  # as on a cluster, where nothing swaps
            security_opt=["no-new-privileges"],
            labels={LABEL: str(os.getpid())},
            **members,
        )


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the engine refuses into a BuilderError."""
    import docker

    try:
        yield
    except docker.errors.DockerException as error:
        raise BuilderError(f"the Docker Engine did not start the container ({error})") from None


class DockerProcess:
    """A container that was started; it is removed when it has ended."""

    def __init__(self, container: Any, process: Process, stdout: BinaryIO | int | None) -> None:
        self._container = container
        self._timeout = process.timeout
        self._began = time.monotonic()
        self._exit: Exit | None = None
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
        for chunk in self._container.logs(stream=True, follow=True):
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
        code = code or (137 if out_of_memory else 0)
        self._exit = Exit(
            code=code,
            signal=code - 128 if 128 < code < 160 else None,
            timed_out=timed_out,
            out_of_memory=out_of_memory,
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
    """Yield the tar that `docker load` takes: manifest, config and the layers as they are.

    Format: https://github.com/moby/docker-image-spec/blob/v1.2.0/v1.2.md.
    """
    config = store.read(image.config_blob.digest)
    name = image.config_blob.digest.removeprefix("sha256:") + ".json"
    layers = [f"{layer.blob.digest.removeprefix('sha256:')}.tar.gz" for layer in image.layers]
    manifest = json.dumps([{"Config": name, "RepoTags": None, "Layers": layers}]).encode()
    for path, data in (("manifest.json", manifest), (name, config)):
        yield _header(path, len(data)) + data + b"\0" * (-len(data) % 512)
    seen = set()
    for path, layer in zip(layers, image.layers, strict=True):
        if path in seen:
            continue
        seen.add(path)
        pull.bring(store, layer.blob)
        yield _header(path, layer.blob.size)
        with store.path(layer.blob.digest).open("rb") as stream:
            while chunk := stream.read(1 << 20):
                yield chunk
        yield b"\0" * (-layer.blob.size % 512)
    yield b"\0" * 1024


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)
