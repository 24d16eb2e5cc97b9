"""A Slurm of one node with its own ports and folders, for as long as a test needs it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
ReturnToService=2
KillWait=5
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 State=UP
PartitionName=high Nodes={host} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP
"""
MISSING = "Slurm is not installed: apt install slurm-wlm" if shutil.which("slurmctld") is None else (
    "Slurm without munge runs as root alone" if os.geteuid() else None
)


class Cluster:
    """A running cluster; its commands are found by SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def call(self, *words: str) -> str:
        """What one of Slurm's commands puts out; its failure is the test's."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Slurm's state of a job, such as RUNNING."""
        return self.call("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")

    def free(self, job: str) -> None:
        """A job that was requeued waits two minutes; let it start now, with time enough."""
        subprocess.run(
            ["scontrol", "update", f"jobid={job}", "StartTime=now", "TimeLimit=60"], env=self.environment, check=False,
            capture_output=True, timeout=60,
        )


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the daemons below `folder`, wait until the node is idle, and end everything afterwards."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    ports = _free_ports(2)
    text = CONFIGURATION.format(
        host=socket.gethostname(), folder=folder, ctld_port=ports[0], d_port=ports[1], user="root",
        cpus=min(2, os.cpu_count() or 1),
    )
    (folder / "slurm.conf").write_text(text, encoding="utf-8")
    cluster = Cluster(folder)
    daemons = [
        subprocess.Popen([name, "-D", "-f", str(folder / "slurm.conf")], env=cluster.environment,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("slurmctld", "slurmd")
    ]
    try:
        _wait_for_node(cluster)
        yield cluster
    finally:
        subprocess.run(["scancel", "--full", "--user=root"], env=cluster.environment, check=False, timeout=60)
        time.sleep(1)
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(30)
            except subprocess.TimeoutExpired:  # a job that the test left behind does not end
                daemon.kill()
                daemon.wait()


def _wait_for_node(cluster: Cluster) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=cluster.environment, capture_output=True,
                               text=True, check=False, timeout=60)
        if found.returncode == 0 and found.stdout.split() and set(found.stdout.split()) == {"idle"}:
            return
        time.sleep(0.5)
    logs = {log.name: log.read_text(errors="replace")[-1000:] for log in cluster.folder.glob("*.log")}
    raise RuntimeError(f"Slurm did not start: {logs}")


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
