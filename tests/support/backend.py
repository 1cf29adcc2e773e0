"""A backend whose workers are in this process and end at will; a judge that counts its items."""

import json
import random
from contextlib import suppress
from pathlib import Path

from bench.objects import locate
from bench.stages.messages import Answer, answered, decoded_call, encoded_call
from bench.stages.pool import WorkerEnded
from tests.support.fakes import Length


class Here:
    """A `bench.stages.pool.Backend`.

    Args:
        seed: of the order in which calls are done.
        ends: the numbers of the calls during which their worker ends, counted from 0.
        cpus: of the cluster.
        before: called with the number of each call before it is done.
    """

    def __init__(self, seed=0, ends=(), cpus=2, before=lambda number: None):
        self.random = random.Random(seed)
        self.ends = set(ends)
        self.cpus = cpus
        self.before = before
        self.workers = {}
        self.answers = {}
        self.calls = {}
        self.number = 0
        self.most = 0  # calls in flight

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert not self.workers, "a worker is left behind"

    def resources(self):
        return {"CPU": self.cpus}

    def start(self, program, needs):
        worker = object()
        self.workers[worker] = locate(program.target, "worker")(*program.arguments)
        return worker

    def put(self, content):
        return bytes(content)

    def call(self, worker, method, *arguments, contents=()):
        call = object()
        method, arguments = decoded_call(encoded_call(method, arguments))
        if contents:
            arguments.append(contents)
        self.calls[call] = (worker, method, arguments)
        self.most = max(self.most, len(self.calls))
        return call

    def wait(self, calls, seconds):
        # Calls of one worker are done in their order.
        first = {}
        for call in calls:
            first.setdefault(self.calls[call][0], call)
        return [self.random.choice(list(first.values()))]

    def answer(self, call):
        worker, method, arguments = self.calls.pop(call)
        if worker not in self.workers:
            raise WorkerEnded("it had ended before")
        self.before(self.number)
        self.number += 1
        if self.number - 1 in self.ends:
            self.end(worker)
            raise WorkerEnded("killed")
        answer = answered(lambda: getattr(self.workers[worker], method)(*arguments))
        return Answer.decoded(answer.encoded())

    def end(self, worker):
        if (program := self.workers.pop(worker, None)) is not None:
            with suppress(Exception):
                program.close()
        self.calls = {call: about for call, about in self.calls.items() if about[0] is not worker}


class Counted(Length):
    """Writes the hash of every sound that it scores to a file."""

    def __init__(self, log, version=1, fails_on=None):
        super().__init__(version=version, fails_on=fails_on)
        self.log = Path(log)

    def score(self, items):
        with self.log.open("a") as file:
            file.writelines(json.dumps(item.converted.sha256) + "\n" for item in items)
        return super().score(items)


def counted(log):
    """The hashes of the sounds that a `Counted` judge has scored, in order."""
    return [json.loads(line) for line in Path(log).read_text().splitlines()]
