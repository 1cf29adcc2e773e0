"""Runs the workers of a pipeline as actors of a Ray cluster.

Only Ray's core is used: actors, and `ray.wait`. Calls and answers are bytes of JSON (see
`bench.stages.messages`), which Ray carries as they are. Calls carry paths, not audio, unless
`executor.files=store` sends the content of files through Ray's object store.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.files import encoded, json_text
from bench.stages.messages import Answer, answered, decoded_call, encoded_call
from bench.stages.pool import Needs, Program, WorkerEnded
from bench.stages.worker import json_object

OLDEST = (2, 60)
INSTALL = "pip install 'takin-vc-bench[ray]'"
STORE_BYTES = 256 << 20  # of the object store: calls are small


class RayActor:
    """A process of the cluster that runs a `bench.stages.pool.Program`.

    Args:
        message: a JSON object: "search_path" of modules, as where the run was started; "folder",
            the working directory where it exists; "target", the dotted path of the program's class;
            "arguments" of the class.
    """

    def __init__(self, message: bytes) -> None:
        start = json_object(message)
        sys.path += [path for path in start["search_path"] if path not in sys.path]
        if Path(start["folder"]).is_dir():
            os.chdir(start["folder"])
        self._target = start["target"]
        self._arguments = start["arguments"]
        self._program: Any = None

    def call(self, message: bytes, *contents: bytes) -> bytes:
        """Calls a method of the program, which is built for the first call.

        Args:
            message: see `bench.stages.messages.encoded_call`.
            contents: of files; where there are any, the method's last argument.

        Returns:
            See `bench.stages.messages.Answer.encoded`.
        """

        def answer() -> Answer:
            method, arguments = decoded_call(message)
            if contents:
                arguments.append(contents)
            if self._program is None:
                from bench.objects import locate

                self._program = locate(self._target, "worker")(*self._arguments)
            result: Answer = getattr(self._program, method)(*arguments)
            return result

        return answered(answer).encoded()


class RayBackend:
    """A `bench.stages.pool.Backend`; a context manager that leaves the cluster.

    Args:
        address: None to start a cluster on this machine that ends with the run; "auto" for the one
            that this machine belongs to; else HOST:PORT.

    Raises:
        UserError: if Ray is missing or too old, or there is no such cluster.
    """

    def __init__(self, address: str | None) -> None:
        ray = imported_ray()
        if ray.is_initialized():
            raise UserError(
                "executor=ray: this process uses Ray already; call ray.shutdown() before"
            )
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        variables: dict[str, str] = {}
        path = os.pathsep.join(str(Path(part).resolve()) for part in sys.path if part)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address is None:
            # Its processes inherit the environment. Ray listens on the network, and from 2.60 on
            # asks for a secret by itself. The dashboard is off.
            options |= {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
            }
            variables = {"PYTHONPATH": path}
        else:
            options |= {
                "address": address,
                "runtime_env": {"env_vars": {"PYTHONPATH": path}},
            }
        self._before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            self._restore()
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"executor.address={address or 'null'}: no Ray cluster ({reason}); start one by "
                "`ray start --head`, or leave the address out to use this machine"
            ) from error
        self._ray = ray
        self._search_path = path.split(os.pathsep)
        self._folder = str(Path.cwd())
        self._actor = ray.remote(RayActor)

    def __enter__(self) -> "RayBackend":
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()
        self._restore()

    def _restore(self) -> None:
        """Gives the environment its values from before."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def resources(self) -> Mapping[str, float]:
        """What all machines of the cluster have now: CPU, GPU and others."""
        resources: Mapping[str, float] = self._ray.cluster_resources()
        return resources

    def start(self, program: Program, needs: Needs) -> Any:
        """See `bench.stages.pool.Backend`."""
        actor = self._actor.options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=0, max_task_retries=0
        )
        start = {"search_path": self._search_path, "folder": self._folder, **vars(program)}
        return actor.remote(encoded(json_text(start)))

    def call(self, worker: Any, method: str, *arguments: Any, contents: Sequence[Any] = ()) -> Any:
        """See `bench.stages.pool.Backend`."""
        return worker.call.remote(encoded_call(method, arguments), *contents)

    def put(self, content: bytes) -> Any:
        """See `bench.stages.pool.Backend`."""
        return self._ray.put(content)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """See `bench.stages.pool.Backend`."""
        done, rest = self._ray.wait(list(calls), timeout=seconds)
        if rest and done:
            more, _ = self._ray.wait(rest, num_returns=len(rest), timeout=0)
            done += more
        result: list[Any] = done
        return result

    def answer(self, call: Any) -> Answer:
        """See `bench.stages.pool.Backend`."""
        try:
            message = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            raise WorkerEnded(_reason(error)) from error
        return Answer.decoded(message)

    def end(self, worker: Any) -> None:
        """See `bench.stages.pool.Backend`."""
        self._ray.kill(worker, no_restart=True)


def _reason(error: BaseException) -> str:
    """The first useful line of one of Ray's errors."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("class_name", "actor_id"))]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def imported_ray() -> Any:
    """The module `ray`.

    Raises:
        UserError: if it is not installed, or older than `OLDEST`.
    """
    try:
        import ray
    except ImportError as error:
        why = "" if error.name == "ray" else f" as a whole ({error})"
        raise UserError(
            f"executor=ray: Ray is not installed{why}; {INSTALL}, or take executor=local"
        ) from error
    version = tuple(int(part) for part in ray.__version__.split(".")[:2] if part.isdigit())
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise UserError(
            f"executor=ray: Ray {ray.__version__} is older than {oldest}; {INSTALL} --upgrade"
        )
    # Ray prints what its daemons report to stdout, which is for reports; the executor says itself
    # that a worker has ended. There is no setting for it.
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
    return ray
