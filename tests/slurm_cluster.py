"""A Slurm of one node on loopback, out of Debian's slurm-wlm and munge, that ends with its block.

Options: https://slurm.schedmd.com/slurm.conf.html.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.registries import free_port

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
KillWait=2
MessageTimeout=2
MailProg=/bin/true
NodeName=one NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=one Default=YES State=UP MaxTime=60
"""


def missing() -> list[str]:
    """Return which programs of a cluster this machine lacks."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    return [name for name in _PROGRAMS if not shutil.which(name, path=path)]


def user() -> str:
    """Return whose daemons and jobs they are."""
    return pwd.getpwuid(os.geteuid()).pw_name


@dataclass
class Cluster:
    """The daemons that run, and how to ask them."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which Slurm's programs find this cluster."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def ask(self, *words: str) -> str:
        """Return what one of Slurm's programs prints."""
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def start(self, name: str, *options: str) -> None:
        """Start a daemon that stays a child of this process."""
        with (self.folder / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [name, *options], env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def end(self, name: str) -> None:
        """End a daemon, by its process."""
        self.daemons[name].terminate()
        try:
            self.daemons[name].wait(20)
        except subprocess.TimeoutExpired:
            self.daemons[name].kill()
            self.daemons[name].wait()

    def until_idle(self) -> None:
        """Wait until the controller answers and its node is idle."""
        self.until(lambda: self.ask("sinfo", "--noheader", "--format=%T").strip() == "idle")

    def until(self, true) -> None:  # type: ignore[no-untyped-def]
        """Wait until `true` says so; a program that fails meanwhile says nothing."""
        for _ in range(300):
            try:
                if true():
                    return
            except (subprocess.SubprocessError, OSError):
                pass
            time.sleep(0.1)
        logs = [path.read_text()[-1500:] for path in sorted(self.folder.glob("*.out"))]
        raise AssertionError("the cluster is not as it should be: " + "\n".join(logs))


def _end_steps(folder: Path) -> None:
    """End what still waits to tell this cluster's controller how a job ended, by its process."""
    of_this = f"SLURM_CONF={folder}/slurm.conf".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == "slurmstepd" and of_this in (
                process / "environ"
            ).read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def serve(folder: Path) -> Iterator[Cluster]:
    """Yield a cluster with everything of it in `folder`; its daemons end with the block."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(os.urandom(256))
    (folder / "munge.key").chmod(0o600)
    conf = _CONF.format(folder=folder, host=socket.gethostname(), user=user(),
                        controller=free_port(), node=free_port())  # fmt: skip
    (folder / "slurm.conf").write_text(conf)
    cluster = Cluster(folder)
    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}"
             for name in ("key-file", "socket", "pid-file", "log-file", "seed-file")]  # fmt: skip
    with ExitStack() as stack:
        stack.callback(_end_steps, folder)
        for name, options in (
            ("munged", ("--foreground", "--force", *munge)),
            ("slurmctld", ("-D",)),
            ("slurmd", ("-D", "-N", "one")),
        ):
            cluster.start(name, *options)
            stack.callback(cluster.end, name)
            if name == "munged":
                cluster.until((folder / "munge.socket").exists)
        cluster.until_idle()
        yield cluster
