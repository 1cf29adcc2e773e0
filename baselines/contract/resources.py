"""Checks of what a system does to its process, its machine and its caller's time."""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from baselines.contract.subject import FAIL, NOTE, PASS, CheckResult, FirstFailed, Subject, entries
from bench.objects import TARGET, locate

WARM_UP = 5  # conversions before memory is measured
MEGABYTE = 1e6
MOST_GROWTH = 0.5  # MB a conversion; less is noise of the allocator
TRIAL_SECONDS = (1.5, 1.1, 1.9)  # of the sources of `memory`
# Variables of the environment that name a folder of a cache.
CACHES = (
    "XDG_CACHE_HOME",
    "HF_HOME",
    "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "NUMBA_CACHE_DIR",
)
SHOWN = 3  # paths in a verdict
SOME = 3  # further conversions, after which no more temporary files should be there
LATE = 0.02  # share of the time that a GPU may still work after the system returned
FEW, MANY = 4, 8  # steps that are compared


def memory(subject: Subject) -> CheckResult:
    """Whether memory grows with every conversion after some to warm up."""
    source, reference = subject.clips.pairs[0]
    used, on_gpu = [], []
    for n in range(WARM_UP + subject.trials):
        part = source.first(TRIAL_SECONDS[n % len(TRIAL_SECONDS)])
        subject.speech(part, reference, seed=n, again=n + 1, what=f"a trial, the {n + 1}th,")
        call = subject.call(part, reference, seed=n, again=n + 1)
        used.append(call.memory_bytes / MEGABYTE)
        on_gpu.append(call.gpu_bytes / MEGABYTE)
    growth, gpu = growth_of(used[WARM_UP:]), growth_of(on_gpu[WARM_UP:])
    text = f"{growth:+.2f} MB a conversion over {subject.trials} ({used[-1]:.0f} MB at the end)"
    if on_gpu[-1]:
        text += f", on the GPU {gpu:+.2f} ({on_gpu[-1]:.0f} MB)"
    return CheckResult(FAIL if max(growth, gpu) > MOST_GROWTH else PASS, text)


def growth_of(values: Sequence[float]) -> float:
    """What is added by each value, in both halves of the series: one step is no growth.

    The lesser of both halves' median slopes between all pairs of values (Theil 1950).
    """
    middle = (len(values) + 1) // 2
    slopes = []
    for half in (values[:middle], values[middle:]):
        y = np.asarray(half)
        i, j = np.triu_indices(len(y), k=1)
        slopes.append(float(np.median((y[j] - y[i]) / (j - i))) if len(i) else 0.0)
    return min(slopes)


def writes(subject: Subject) -> CheckResult:
    """Whether it writes files outside of temporary and cache folders, or leaves more and more."""
    home = Path.home()
    subject.speech(*subject.clips.pairs[0])
    probe = subject.probe()
    work, temporary = probe.work, probe.temporary
    kept = len(_files(temporary))
    for n, pair in enumerate(subject.clips.pairs[:SOME]):
        subject.call(*pair, again=-1 - n)
    left = {path for folder in (work, temporary) for path in _files(folder)}
    remaining = len(_files(temporary))
    logged = [*probe.writes, *(path for call in subject.main_calls for path in call.writes)]
    faults: list[str] = []
    notes: list[str] = []
    for path in dict.fromkeys([*map(Path, logged), *sorted(left)]):
        if path.is_relative_to(work):
            faults.append(f"{path.relative_to(work)} in the working directory")
        elif path.is_relative_to(temporary):
            if remaining > kept:
                added = remaining - kept
                faults.append(
                    f"temporary files and leaves {remaining}, {added} more than {SOME} calls ago"
                )
            else:
                notes.append(f"temporary files, and keeps {remaining or 'none'}")
        elif _is_cache(path, home):
            notes.append(f"{_short(path, home)}, in a folder of caches")
        else:
            faults.append(_short(path, home))
    if faults:
        faults = [*dict.fromkeys(faults)]
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        return CheckResult(FAIL, f"writes {', '.join(faults[:SHOWN])}{more}")
    for path in sorted(entries(home) - subject.home):
        notes.append(f"{_short(path, home)} (it appeared meanwhile, perhaps by another program)")
    if notes:
        return CheckResult(NOTE, f"writes {', '.join([*dict.fromkeys(notes)][:SHOWN])}")
    return CheckResult(PASS, f"no file in {len(subject.main_calls)} conversions")


def process_state(subject: Subject) -> CheckResult:
    """Which global state of the process it changes while it is built and while it converts."""
    subject.speech(*subject.clips.pairs[0])
    source, reference = subject.clips.pairs[0]
    one = subject.call(source, reference)
    other = subject.call(source, reference, global_seed=1)
    converting = dict.fromkeys(c for call in subject.main_calls for c in call.changes)
    building = subject.probe().changes
    mild = [c for c in building if c.startswith("set the environment") or "warnings" in c]
    faults = [c for c in building if c not in mild]
    notes = [f"while it is built, it {c}" for c in mild]
    notes += [f"it {c}" for c in converting if "warnings" in c]
    reseeded = [
        name for name, state in one.generators.items() if other.generators.get(name) == state
    ]
    drawn = [name for name in one.generators if name not in reseeded]
    if reseeded:
        notes.append(f"it seeds the global generator of {' and '.join(reseeded)}")
    if drawn:
        notes.append(f"it draws from the global generator of {' and '.join(drawn)}")
    faults += [c for c in converting if "warnings" not in c]
    if faults:
        return CheckResult(FAIL, f"it {', and it '.join(dict.fromkeys(faults))}")
    if notes:
        return CheckResult(NOTE, "; ".join(notes))
    return CheckResult(PASS, f"nothing changed in {len(subject.main_calls)} conversions")


def steps(subject: Subject) -> CheckResult:
    """How often the network of an iterative system runs, by default and at given steps."""
    if not _has_steps(subject):
        return CheckResult(PASS, "not applicable: it has no setting `steps`")
    source, reference = subject.clips.pairs[0]
    subject.speech(source, reference)
    counted, seconds = {}, {}
    for value in (subject.settings.get("steps"), FEW, MANY):
        process = f"steps={value}"
        subject.probe(process, {"steps": value} if value is not None else {})
        what = f"speech with {process}"
        subject.speech(source, reference, process=process, what=what)
        subject.speech(source, reference, process=process, again=1, count=True, what=what)
        call = subject.call(source, reference, process=process, again=1, count=True)
        counted[value], seconds[value] = call.calls, call.elapsed_seconds
        subject.end(process)
    few, many = ({(s, n): c for s, n, c in counted[value]} for value in (FEW, MANY))
    scaled = [key for key in few if many.get(key, 0) > few[key]]
    times = f"{MANY} steps take {seconds[MANY] / seconds[FEW]:.2f} times as long as {FEW}"
    if not scaled:
        return CheckResult(NOTE, f"no network's calls could be counted; {times}")
    key = max(scaled)
    default = {(s, n): c for s, n, c in counted[subject.settings.get("steps")]}.get(key, 0)
    per_step = (many[key] - few[key]) / (MANY - FEW)
    setting = subject.settings.get("steps")
    taken = (default - few[key]) / per_step + FEW
    text = (
        f"{default} calls of {key[1]} at steps={'null' if setting is None else setting}, "
        f"{few[key]} at {FEW}, {many[key]} at {MANY}: {taken:g} steps by default; {times}"
    )
    return CheckResult(NOTE if setting not in (None, taken) else PASS, text)


def time(subject: Subject) -> CheckResult:
    """Whether conversions end in time, and before the GPU is idle."""
    first = subject.first()
    if first.late:
        return CheckResult(FAIL, f"its first conversion {first.ended}")
    if first.fault:
        raise FirstFailed(f"its first conversion {first.fault}")
    source, reference = subject.clips.pairs[0]
    subject.speech(source, reference, again=1, what="a pair again")
    call = subject.call(source, reference, again=1)
    rtf = call.synchronised_seconds / source.seconds
    if not call.uses_gpu:
        return CheckResult(
            PASS, f"RTF {rtf:.3f}, once, on the CPU; synchronisation does not apply there"
        )
    late = 1 - call.elapsed_seconds / call.synchronised_seconds
    if late > LATE:
        return CheckResult(
            NOTE,
            f"returns before the GPU is idle: RTF {call.elapsed_seconds / source.seconds:.3f} by "
            f"its clock, {rtf:.3f} synchronised",
        )
    return CheckResult(
        PASS, f"RTF {rtf:.3f}, once, synchronised; {100 * late:.1f} % after it ended"
    )


def _has_steps(subject: Subject) -> bool:
    if "steps" in subject.settings:
        return True
    target = locate(str(subject.settings[TARGET]), f"system {subject.name}")
    try:
        return "steps" in inspect.signature(target).parameters
    except (TypeError, ValueError):  # no Python function
        return False


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


def _is_cache(path: Path, home: Path) -> bool:
    caches = [home / ".cache", *(Path(os.environ[k]) for k in CACHES if os.environ.get(k))]
    return any(path.is_relative_to(cache) for cache in caches)


def _short(path: Path, home: Path) -> str:
    text = str(path)
    return f"~{text.removeprefix(str(home))}" if text.startswith(f"{home}/") else text
