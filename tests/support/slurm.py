"""A stand-in for Slurm's job arrays: runs the tasks of a script on this machine."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path


def run_array(
    script: Path,
    tasks: Sequence[int],
    *,
    folder: Path,
    environment: dict[str, str],
    kill: Callable[[int], bool],
    killed: Sequence[int] = (),
    seed: int = 0,
    at_once: int = 2,
) -> list[tuple[int, int]]:
    """Runs the tasks in a drawn order; those that were killed are started again at the end.

    Args:
        script: as it would be given to sbatch.
        tasks: the numbers of the tasks; a number may occur twice.
        folder: the working directory.
        environment: of the processes, with SLURM_ARRAY_TASK_ID added.
        kill: whether a task of `killed` is to be killed now.
        killed: tasks that are killed once by SIGKILL, with all their processes.
        seed: of the order.
        at_once: how many tasks run at a time; never two of one number, as under Slurm.

    Returns:
        (task, exit code) of every process in the order in which they ended; -9 if it was killed.
    """
    waiting, victims = list(tasks), set(killed)
    random.Random(seed).shuffle(waiting)
    running: dict[int, subprocess.Popen[bytes]] = {}
    ended = []
    while waiting or running:
        for task in [t for t in dict.fromkeys(waiting) if t not in running]:
            if len(running) < at_once:
                waiting.remove(task)
                running[task] = subprocess.Popen(
                    ["bash", str(script)],
                    cwd=folder,
                    env={**environment, "SLURM_ARRAY_TASK_ID": str(task)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
        for task, process in list(running.items()):
            if task in victims and process.poll() is None and kill(task):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                victims.remove(task)
                waiting.append(task)
            if process.poll() is not None:
                ended.append((task, process.returncode))
                del running[task]
        time.sleep(0.02)
    return ended
