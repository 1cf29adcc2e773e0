"""A program for `bench.stages.forkserver`: says what its process is like, and obeys."""

import os
import random
import socket
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bench.stages.worker import receive, send


def main(descriptor: int) -> None:
    connection = socket.socket(fileno=descriptor)
    state = {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "temporary": tempfile.gettempdir(),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "pid": os.getpid(),
        "session": os.getsid(0),
        "parent": os.getppid(),
        "hash": hash("text"),
        "random": [random.random(), float(np.random.rand())],
        "default_dtype": str(torch.get_default_dtype()),
        "cuda": torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork(),
        "left": getattr(torch, "left_by_a_test", None),
    }
    send(connection, state)
    message, _ = receive(connection)
    if "exit" in message:
        sys.exit(message["exit"])
    if "kill" in message:
        os.kill(os.getpid(), message["kill"])
    if "change" in message:
        torch.set_default_dtype(torch.float64)
        torch.left_by_a_test = "here"  # type: ignore[attr-defined]
    if "compute" in message:
        torch.set_num_threads(2)
        product = torch.ones(300, 300) @ torch.ones(300, 300)
        send(connection, {"sum": float(product.sum()), "threads": torch.get_num_threads()})
    if "start" in message:
        if (pid := os.fork()) == 0:
            os.execvp("sleep", ["sleep", "600"])
        send(connection, {"pid": pid})
    while True:
        try:
            receive(connection)
        except EOFError:
            if "stay" not in message:
                return
