"""A Slurm of one node on this machine for tests: its own munged, slurmctld and slurmd."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "sinfo")
START_S = 60.0
# One node on the loopback, no cgroups, no accounting. `cred_expire`: a requeued job waits that long
# (120 s unless set).
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=300
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Boards=1 SocketsPerBoard=1 CoresPerSocket={cores} \
ThreadsPerCore=1 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """What keeps Slurm from being started here; "" if nothing does."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if len(missing) > 0:
        return f"{', '.join(missing)} not installed (apt-get install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "slurmctld and slurmd are started as root"


class Node:
    """Daemons that are ours alone, stopped by their own pids; use as a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # sockets need short paths
        self.daemons: list[subprocess.Popen[bytes]] = []
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        conf = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": path}
        self.environment.pop("SLURM_JOB_ID", None)

    def __enter__(self) -> "Node":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, *words: str) -> str:
        """What one of Slurm's commands prints. Raises where it fails."""
        asked = subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        if asked.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {asked.stderr.strip()}")
        return asked.stdout.strip()

    def _start(self) -> None:
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o755)
        self._write_configuration()
        munge, key = self.folder / "munge", self.folder / "key"
        self.ask("mungekey", f"--keyfile={key}")
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={munge}/socket", f"--key-file={key}",
            f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed",
        )  # fmt: skip
        self._until("munged", lambda: (munge / "socket").exists())
        conf = self.environment["SLURM_CONF"]
        self._daemon("slurmctld", "-D", "-c", "-f", conf)
        self._daemon("slurmd", "-D", "-f", conf)
        self._until("the node", lambda: self._state() == "idle")

    def _state(self) -> str:
        try:
            return self.ask("sinfo", "--noheader", "--format=%T")
        except RuntimeError:
            return ""

    def _write_configuration(self) -> None:
        host = socket.gethostname().split(".")[0]
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        text = CONFIGURATION.format(
            host=host,
            folder=self.folder,
            ports=[_free_port(), _free_port()],
            cores=os.cpu_count(),
            memory=int(0.9 * pages * size / 2**20),
        )
        Path(self.environment["SLURM_CONF"]).write_text(text)

    def _daemon(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.out").open("wb") as log:
            daemon = subprocess.Popen(
                words, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.daemons.append(daemon)

    def _until(self, what, ready) -> None:  # noqa: ANN001
        until = time.monotonic() + START_S
        while not ready():
            dead = [d.args[0] for d in self.daemons if d.poll() is not None]  # type: ignore[index]
            if len(dead) > 0 or time.monotonic() > until:
                logs = "\n".join(
                    f"{log.name}: {log.read_text(errors='replace')[-1500:]}"
                    for log in [*self.folder.glob("*.out"), *self.folder.glob("*.log")]
                )
                raise RuntimeError(f"{what} does not come up; ended: {dead}\n{logs}")
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
