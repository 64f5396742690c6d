"""A Slurm of one node, real, in a folder of its own: started and ended by the tests that need it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
DAEMONS = ("slurmd", "slurmctld", "munged")
START_S = 60.0
# cred_expire: a task that is queued again waits for its old credential to expire, two minutes unless said otherwise.
CONFIG = """\
ClusterName=sandbox
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
MpiDefault=none
ReturnToService=2
KillWait=3
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why none can be started here; empty where one can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "starting Slurm's daemons takes root"


@contextmanager
def node(folder: Path) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's programs find the node, which takes two tasks of one core at once."""
    host = os.uname().nodename
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(config)}
    files = {"key-file": "key", "socket": "sock", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{ending}" for option, ending in files.items()]
    try:
        for command in (
            ["munged", "--force", f"--pid-file={folder}/munged.pid", *munge],
            ["slurmctld", "-c", "-f", str(config)],
            ["slurmd", "-f", str(config), "-N", host],
        ):
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _until_idle(environment, folder)
        yield environment
    finally:
        _end(folder, environment)


def _until_idle(environment: dict[str, str], folder: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
        if asked.stdout.strip() == "idle":
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the node did not come up: {(folder / 'slurmctld.log').read_text()[-2000:]}")
        time.sleep(0.2)


def _end(folder: Path, environment: dict[str, str]) -> None:
    with suppress(OSError):
        subprocess.run(["scancel", f"--user={os.getuid()}"], env=environment, capture_output=True, timeout=20)
    for daemon in DAEMONS:
        with suppress(OSError, ValueError):
            os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)
