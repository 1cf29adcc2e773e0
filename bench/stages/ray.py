"""Runs the workers of a pipeline as actors of a Ray cluster.

Only Ray's core is used: actors, and `ray.wait`. Calls and answers are bytes of JSON (see
`bench.stages.messages`), which Ray carries as they are. Calls carry paths, not audio, unless
`executor.files=store` sends the content of files through Ray's object store.
"""

import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
            the working directory where it exists; and the parts of the program.
    """

    def __init__(self, message: bytes) -> None:
        start = json_object(message)
        sys.path += [path for path in start["search_path"] if path not in sys.path]
        if Path(start["folder"]).is_dir():
            os.chdir(start["folder"])
        self._target = start["target"]
        self._arguments = start["arguments"]
        self._program: Any = None
        if start["forks"]:  # the server imports torch while this process does
            from bench.stages.forkserver import fork_server

            fork_server()

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

    A cluster of this machine takes seconds to start. It starts meanwhile: only what needs it waits,
    and raises what went wrong.

    Args:
        address: None to start a cluster on this machine that ends with the block; "auto" for the
            one that this machine belongs to; else HOST:PORT.

    Raises:
        UserError: if Ray is missing or too old, or there is no such cluster.
    """

    def __init__(self, address: str | None) -> None:
        self._address = address
        path = os.pathsep.join(str(Path(part).resolve()) for part in sys.path if part)
        self._search_path = path.split(os.pathsep)
        self._folder = str(Path.cwd())
        # One thread as long as the cluster: Linux ends Ray's processes with the thread that has
        # started them.
        self._thread = ThreadPoolExecutor(1, "ray")
        self._is_own = False  # whether Ray is connected by this object, or has tried to

    def __enter__(self) -> "RayBackend":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # The processes of a cluster of this machine inherit the environment.
        path = os.pathsep.join(self._search_path)
        variables = {"PYTHONPATH": path} if self._address is None else {}
        self._before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        self._handler = signal.getsignal(signal.SIGTERM)
        if _in_main_thread():
            signal.signal(signal.SIGTERM, _end)
        self._connected = self._thread.submit(self._connect, path)
        if self._address is not None:  # it is there at once, or never
            try:
                self._connected.result()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.submit(self._leave).result()
        self._thread.shutdown()
        if _in_main_thread():
            signal.signal(signal.SIGTERM, self._handler or signal.SIG_DFL)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _connect(self, path: str) -> Any:
        """Connects; the module `ray`."""
        ray = imported_ray()
        if ray.is_initialized():
            raise UserError(
                "executor=ray: this process uses Ray already; call ray.shutdown() before"
            )
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if self._address is None:
            # Ray listens on the network, and from 2.60 on asks for a secret by itself.
            options |= {
                "address": "local",
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
            }
        else:
            options |= {
                "address": self._address,
                "runtime_env": {"env_vars": {"PYTHONPATH": path}},
            }
        self._is_own = True
        try:
            ray.init(**options)
        except Exception as error:  # also a plain Exception, on a machine that is too busy
            reason = " ".join(str(error).split())[:300]
            if self._address is None:
                what = f"executor=ray: Ray did not start on this machine ({reason})"
                way_out = "run it again when the machine is less busy, or take executor=local"
            else:
                what = f"executor.address={self._address}: no Ray cluster ({reason})"
                way_out = "start one by `ray start --head`, or leave the address out"
            raise UserError(f"{what}; {way_out}") from error
        self._actor = ray.remote(RayActor)
        return ray

    def _leave(self) -> None:
        """Leaves the cluster; ends what a start that failed has left."""
        if self._is_own:
            sys.modules["ray"].shutdown()

    @property
    def _ray(self) -> Any:
        """The module `ray`, as soon as it is connected."""
        return self._connected.result()

    def resources(self) -> Mapping[str, float]:
        """What all machines of the cluster have now: CPU, GPU and others."""
        resources: Mapping[str, float] = self._ray.cluster_resources()
        return resources

    def start(self, program: Program, needs: Needs) -> Any:
        """See `bench.stages.pool.Backend`."""
        self._connected.result()
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


def _in_main_thread() -> bool:
    """Whether signals can be handled here."""
    return threading.current_thread() is threading.main_thread()


def _end(number: int, _: object) -> None:
    """Ends this process in order: Ray's own handler, which only the main thread could set."""
    sys.exit(128 + number)


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
