"""The client of `baselines.contract.probe`: a system in a process of its own, watched."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.audio import Waveform
from bench.errors import UserError, shown
from bench.stages.forkserver import fork_server
from bench.stages.worker import BrokenMessage, receive, send

BUILD_SECONDS = 1800.0  # enough for large checkpoints on slow disks


@dataclass(frozen=True)
class Call:
    """One call of a system, and what was observed.

    Attributes:
        converted: what it returned; NaN and any length are possible; None if there is no waveform.
        error: the exception that it raised, in one line; "" if none.
        exits: whether the exception was one that ends a process, such as SystemExit.
        returned: what it returned instead of a `Waveform`; "" if it did not.
        ended: how its process ended during the call; "" if it goes on.
        late: whether its process was ended because the time was over.
        elapsed_seconds: until it returned.
        synchronised_seconds: until the GPU was idle too.
        uses_gpu: whether CUDA was in use.
        changes: of the process state (`bench.guard.ProcessState.changes`) and of warnings.
        generators: global generators of random numbers that it used → hash of their state.
        calls: (parameters, class, calls) of each torch module, if they were counted.
        memory_bytes: of its process and those that it started, after the call.
        gpu_bytes: held by torch, after the call.
        writes: files and folders that it changed through Python.
    """

    converted: Waveform | None = None
    error: str = ""
    exits: bool = False
    returned: str = ""
    ended: str = ""
    late: bool = False
    elapsed_seconds: float = 0.0
    synchronised_seconds: float = 0.0
    uses_gpu: bool = False
    changes: tuple[str, ...] = ()
    generators: Mapping[str, str] = field(default_factory=dict)
    calls: tuple[tuple[int, str, int], ...] = ()
    memory_bytes: int = 0
    gpu_bytes: int = 0
    writes: tuple[str, ...] = ()

    @property
    def fault(self) -> str:
        """Why this is no speech, as the end of "it …"; "" if it is speech."""
        if self.ended:
            return self.ended
        if self.error:
            return f"raised {self.error}"
        if self.returned:
            return f"returned {self.returned}, not a Waveform"
        assert self.converted is not None
        fault = self.converted.fault()
        return f"returned a waveform that is {fault}" if fault else ""


class Probe:
    """A system in a process of its own, which has empty working and temporary folders.

    The system is built in the user's working directory, so that relative paths in its settings
    hold, and converts in the empty one.

    Args:
        name: of the system, for messages.
        settings: its configuration with `_target_`.
        folder: an empty folder for this process.
        server: number of the server that it is forked from (`bench.stages.forkserver`).

    Attributes:
        work, temporary: its empty folders.
        reference_seconds: what the built system declares; None if nothing.
        changes: of the process state while the system was imported and built.
        writes: files and folders changed meanwhile.

    Raises:
        UserError: if the system cannot be built.
    """

    def __init__(
        self, name: str, settings: Mapping[str, Any], folder: Path, server: int = 0
    ) -> None:
        self.work, self.temporary = folder / "work", folder / "tmp"
        self.work.mkdir(parents=True)
        self.temporary.mkdir()
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self._process = fork_server(server).fork(
                "baselines.contract.probe", output.fileno(), {"TMPDIR": str(self.temporary)}
            )
        self._connection = self._process.connection
        what = f"system {name} ({settings.get('_target_')})"
        request = {"name": name, "settings": settings, "folder": str(self.work)}
        try:
            send(self._connection, {"build": request})
            message, _ = receive(self._connection, BUILD_SECONDS)
            if isinstance(reason := message.get("refused"), str):
                raise UserError(reason)
            built = message["built"]
            self.reference_seconds: float | None = built["reference_seconds"]
            self.changes, self.writes = tuple(built["changes"]), tuple(built["writes"])
        except TimeoutError:
            self.close()
            raise UserError(f"{what}: it was not ready after {BUILD_SECONDS:g} s") from None
        except (BrokenMessage, KeyError, TypeError) as error:
            self.close()
            raise UserError(f"{what}: its process sent {shown(str(error))}") from error
        except (EOFError, OSError):
            how = self._how_it_ended()
            raise UserError(f"{what}: its process {how} while the system was built") from None
        except BaseException:
            self.close()
            raise

    def call(
        self,
        source: Waveform,
        reference: Waveform,
        seed: int,
        seconds: float,
        global_seed: int | None = None,
        count: bool = False,
    ) -> Call:
        """Converts once.

        Args:
            source: gives the words.
            reference: gives the voice.
            seed: of the conversion.
            seconds: how long it may take; then the process is ended.
            global_seed: of all global generators; `seed` if None, as in a run.
            count: whether to count the calls of torch modules.
        """
        parts = {"source": source, "reference": reference}
        about = {k: {"rate": w.sample_rate, "count": len(w.samples)} for k, w in parts.items()}
        global_seed = seed if global_seed is None else global_seed
        message = {"seed": seed, "global_seed": global_seed, "count": count, **about}
        end = time.monotonic() + seconds
        try:
            self._connection.settimeout(seconds)
            send(self._connection, message, source.numpy(), reference.numpy())
            answer, samples = receive(self._connection, max(end - time.monotonic(), 1e-3))
            return _call(answer, samples)
        except TimeoutError:
            self.close()
            return Call(ended=f"gave no result within {seconds:g} s", late=True)
        except (BrokenMessage, KeyError, TypeError, ValueError) as error:
            self.close()
            return Call(ended=f"sent a broken answer ({shown(str(error))})")
        except (EOFError, OSError):
            return Call(ended=f"ended its process: it {self._how_it_ended()}")

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self._process.exit_code() is None

    def close(self) -> None:
        """Ends the process and those that it started."""
        self._process.close()

    def _how_it_ended(self) -> str:
        code = self._process.exit_code(1.0)
        self.close()
        if code is None:
            how = "closed its connection and was ended"
        else:
            how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{how} ({shown(lines[-1])})" if lines else how


def _call(answer: Mapping[str, Any], samples: np.ndarray) -> Call:
    """The call in an untrusted answer.

    Raises:
        BrokenMessage, KeyError, TypeError, ValueError: if a part is missing or impossible.
    """
    converted = None
    if "rate" in answer:
        if answer["count"] != len(samples):
            raise BrokenMessage("samples that do not fit their description")
        converted = Waveform.from_numpy(samples, answer["rate"])
    times = [float(answer[f"{name}_seconds"]) for name in ("elapsed", "synchronised")]
    if not all(math.isfinite(seconds) and seconds >= 0 for seconds in times):
        raise BrokenMessage("times that are impossible")
    call = Call(
        converted=converted,
        error=str(answer["error"]),
        exits=bool(answer["exits"]),
        returned=str(answer.get("returned", "")),
        elapsed_seconds=times[0],
        synchronised_seconds=times[1],
        uses_gpu=bool(answer["uses_gpu"]),
        changes=tuple(map(str, answer["changes"])),
        generators={str(k): str(v) for k, v in answer["generators"].items()},
        calls=tuple((int(size), str(name), int(count)) for size, name, count in answer["calls"]),
        memory_bytes=int(answer["memory_bytes"]),
        gpu_bytes=int(answer["gpu_bytes"]),
        writes=tuple(map(str, answer["writes"])),
    )
    if converted is None and not (call.error or call.returned):
        raise BrokenMessage("neither speech nor an error")
    return call
