"""Trains every stage of `recipe=paper` at full size for some steps, and measures it.

    P="python -m benchmarks.programs.full_size"
    $P --data path/to/utterances.csv --recordings 300 --pack packed
    $P --data packed/utterances.csv --limit 190 --json full_size.json
    $P --data packed/utterances.csv --tiny --steps 10 --log-every 2    # on a CPU
    $P --table full_size.json                                          # as Markdown

The first command copies recordings with a text to a new folder. Front ends, voiceprint and
vocoder have random weights (`_weights_=null`), which changes no time and no memory. The recordings
are resampled to 24 kHz where they have another rate.

Each stage is trained twice: from the first step to the last, with a checkpoint at --stop-at that is
kept; and, by new processes, from that checkpoint to the last step. Losses and parameters of the two
are compared. `conversion` has one process a GPU (torch.distributed.run, as `accelerate launch`
does), the other stages have one GPU. All processes build their models at the same time; each stage
then has its GPUs alone, while stages of other GPUs run beside it. The learning rate is the
recipe's, but it rises in 20 steps and then stays, and the vocoder has its discriminators from step
10 on: 100 steps would else see neither. No speaker is held out: validations are not measured.

The JSON is written whenever a training ends or fails; --limit ends everything and writes what is
there. Without a GPU, two processes on the CPU train the conversion stage (gloo).
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.files import write_json

ROOT = Path(__file__).resolve().parents[2]
WORKER = "benchmarks.programs.full_size_worker"
STAGES = ("conversion", "content", "vocoder", "ctc")  # the most important first
MAIN_LOSS = {"conversion": "flow", "content": "mel", "vocoder": "mel", "ctc": "ctc"}
PAPER_GPUS = 4  # ACL §4.4
WARM_STEPS = 0.4  # share of the steps before the rate is measured: kernels are chosen, graphs made
LONG = 8.0  # seconds of the recipe's longest targets
TAIL = 8000  # characters of a failed process's errors

RANDOM = (
    "model.content.ssl._weights_=null",
    "model.content.ppg._weights_=null",
    "model.voiceprint.model._weights_=null",
    "model.vocoder._weights_=null",
    "conversion.train_voiceprint=true",  # CAM++ stays frozen; else its weights would be asked for
)
_SMALL = (
    "{hidden_size: 16, num_attention_heads: 2, intermediate_size: 32, feat_extract_norm: layer, "
    "do_stable_layer_norm: true, num_hidden_layers: 2, conv_dim: [16, 16, 16, 16, 16, 16, 16], "
    "num_conv_pos_embeddings: 16, num_conv_pos_embedding_groups: 4}"
)
TINY = (
    "model.content.ssl.layer=2",
    *(f"+model.content.ssl.config={_SMALL}", f"+model.content.ppg.config={_SMALL}"),
    *("model.content.quantizer.dim=16", "model.content.quantizer.codebook_size=32"),
    *("model.content.dim=24", "model.mel.n_mels=20", "model.vocoder.n_mels=20"),
    *("model.vocoder.initial_channels=64", "model.vocoder.kernel_sizes=[3]"),
    *("model.vocoder.dilations=[[1]]", "model.voiceprint.model.growth=4"),
    *("model.timbre.dim=32", "model.timbre.layers=2", "model.timbre.heads=2"),
    *("model.memory.dim=32", "model.memory.blocks=2", "model.memory.heads=2"),
    *("model.memory.groups=4", "model.estimator.hidden=64", "model.estimator.blocks=4"),
    *("model.estimator.resnet_blocks=1", "model.estimator.half_rate_blocks=2"),
    *("model.estimator.heads=2", "conversion.targets=[1.0]", "conversion.references=[1.0]"),
    *("conversion.batch_seconds=3", "content.crop_seconds=0.4", "content.batch=2"),
    *("content.decoder_channels=16", "content.period_channels=[4,4,4,4,4]"),
    *("content.scale_channels=16", "content.spectrum_sizes=[256]", "content.spectrum_channels=4"),
    *("vocoder.crop_seconds=0.2", "vocoder.batch=2", "vocoder.period_channels=[4,4,4,4,4]"),
    *("vocoder.spectrum_sizes=[256]", "vocoder.spectrum_channels=4", "vocoder.alone_steps=4"),
    *("ctc.batch_seconds=20", "ctc.hybridformer.dim=16", "ctc.hybridformer.heads=2"),
)


@dataclass
class Training:
    """A training of a stage.

    Attributes:
        stage: its name.
        resumed: whether it begins with the checkpoint of the other training of its stage.
        cards: GPUs that it uses.
        folder: of its files.
        process: None before it is started.
        state: building, training, finishing (its GPUs are free), done, failed or stopped.
        errors: file of its output.
    """

    stage: str
    resumed: bool
    cards: frozenset[int]
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    state: str = "building"

    @property
    def name(self) -> str:
        """For the JSON."""
        return f"{self.stage} resumed" if self.resumed else self.stage

    @property
    def errors(self) -> Path:
        """File of what its processes print."""
        return self.folder / "output.txt"

    def figures(self) -> list[dict[str, Any]]:
        """What its processes wrote, by rank."""
        files = sorted(self.folder.glob("rank-*.json"))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def processes(self, gpus: int) -> int:
        """How many it has."""
        return 1 if self.stage != "conversion" else gpus or 2


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints a line a training; with --json it also writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a list of recordings")
    parser.add_argument("--recordings", type=int, help="of --pack; default: all")
    parser.add_argument(
        "--pack", type=Path, metavar="FOLDER", help="copy recordings, train nothing"
    )
    parser.add_argument("--stages", nargs="*", choices=STAGES, default=STAGES)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--stop-at", type=int, help="default: four fifths of the steps")
    parser.add_argument("--log-every", type=int, default=10, help="steps")
    parser.add_argument("--gpus", type=int, help="default: those that nvidia-smi lists")
    parser.add_argument("--limit", type=float, help="seconds; then everything is ended")
    parser.add_argument("--tiny", action="store_true", help="models of a few thousand parameters")
    parser.add_argument("--set", nargs="*", default=[], help="more overrides of every stage")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary one")
    parser.add_argument("--table", type=Path, metavar="FILE.json", help="print as Markdown")
    given = parser.parse_args(arguments)
    if given.table:
        result = json.loads(given.table.read_text(encoding="utf-8"))
        print(table(result), hours(result), sep="\n\n")
        return {}
    if given.data is None:
        parser.error("--data is missing: a list of recordings")
    if given.pack:
        pack(given.data, given.pack, given.recordings)
        return {}
    given.stop_at = given.stop_at or given.steps * 4 // 5
    if given.stop_at % given.log_every or not 0 < given.stop_at < given.steps:
        parser.error("--stop-at must be a multiple of --log-every, and less than --steps")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        return measure(given, folder)


def pack(listed: Path, folder: Path, count: int | None) -> None:
    """Copies `count` recordings of `LONG` seconds or more, of all speakers in turn; lists them."""
    with listed.open(newline="", encoding="utf-8") as file:
        rows = [
            row for row in csv.DictReader(file) if row["text"] and float(row["seconds"]) >= LONG
        ]
    if not rows or any(Path(row["path"]).is_absolute() for row in rows):
        sys.exit(f"{listed}: give recordings of {LONG:g} s with a text, by relative paths")
    turns = Counter[str]()
    order = []
    for row in rows:
        turns[row["speaker"]] += 1
        order.append((turns[row["speaker"]], row["speaker"], row["utterance_id"], row))
    rows = [row for *_, row in sorted(order, key=lambda entry: entry[:3])][:count]
    for row in rows:
        target = folder / row["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(listed.parent / row["path"], target)
    with (folder / "utterances.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{len(rows)} recordings in {folder}")


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs all trainings, and returns what the JSON holds."""
    start = time.monotonic()
    gpus = given.gpus if given.gpus is not None else visible_gpus()
    trainings = planned(given.stages, gpus, folder)
    about = {
        **{key: vars(given)[key] for key in ("steps", "stop_at", "tiny")},
        "gpus": gpus,
        "recordings": len(given.data.read_text(encoding="utf-8").splitlines()) - 1,
    }
    try:
        for training in trainings:
            begin(training, given, gpus)
        while any(t.state in ("building", "training", "finishing") for t in trainings):
            time.sleep(0.1)
            changed = [t for t in trainings if advance(t, trainings)]
            for training in changed:
                print(f"{time.monotonic() - start:6.1f} s  {training.name}: {training.state}")
            if given.limit and time.monotonic() - start > given.limit:
                for training in trainings:
                    if training.state in ("building", "training", "finishing"):
                        training.state = f"stopped by the limit while {training.state}"
                changed = trainings
            if changed:
                about["seconds"] = round(time.monotonic() - start, 1)
                result = about | {"stages": collected(trainings, given)}
                if given.json:
                    write_json(given.json, result)
    finally:
        stop(trainings)
    result = about | {"stages": collected(trainings, given)}
    print(table(result))
    return result


def visible_gpus() -> int:
    """How many GPUs there are, without loading torch."""
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


def planned(stages: Sequence[str], gpus: int, folder: Path) -> list[Training]:
    """The trainings, the most important first; stages of one GPU are dealt over all of them."""
    trainings, turn = [], 0
    for stage in (stage for stage in STAGES if stage in stages):
        cards = frozenset(range(max(1, gpus)))
        if stage != "conversion":
            cards = frozenset([turn % max(1, gpus)])
            turn += 1
        for resumed in (False, True):
            name = f"{stage}-resumed" if resumed else stage
            trainings.append(Training(stage, resumed, cards, folder / name))
    return sorted(trainings, key=lambda t: (t.stage != "conversion", t.resumed))


def overrides(training: Training, given: argparse.Namespace, gpus: int) -> list[str]:
    """The settings of a training."""
    stage = training.stage
    of_stage = {
        "steps": given.steps,
        "minutes": "null",
        "warmup_steps": min(20, given.steps // 4),
        "final_learning_rate": 1.0,
        "log_every": given.log_every,
        "save_minutes": 1e6,
        "validate_minutes": "null",
    }
    return [
        *("recipe=paper", f"stage={stage}", f"data={given.data.resolve()}"),
        *(f"out={training.folder / 'out'}", f"device={'auto' if gpus else 'cpu'}"),
        *("held_out.speakers=0", "features.threads=4", "vocoder.alone_steps=10"),
        *(f"{stage}.settings.{name}={value}" for name, value in of_stage.items()),
        *RANDOM,
        *(TINY if given.tiny else ()),
        *given.set,
    ]


def begin(training: Training, given: argparse.Namespace, gpus: int) -> None:
    """Starts the processes of a training; they build and wait."""
    training.folder.mkdir(parents=True)
    whole = training.folder.with_name(training.stage) / "out" / training.stage / "state.pt"
    job = {
        "folder": str(training.folder),
        "overrides": overrides(training, given, gpus),
        "stop_at": 0 if training.resumed else given.stop_at,
        "complete": str(whole) if training.resumed else "",
        "started": time.time(),
    }
    command = [sys.executable]
    count = training.processes(gpus)
    if count > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += ["-m", WORKER, json.dumps(job)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "4")}
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, sorted(training.cards)))
    with training.errors.open("wb") as output:
        training.process = subprocess.Popen(
            command,
            env=os.environ | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def advance(training: Training, trainings: Sequence[Training]) -> bool:
    """Moves a training on where it can move; whether it did."""
    before = training.state
    figures = training.figures()
    code = training.process.poll() if training.process is not None else None
    if training.state == "building" and code is None:
        whole = next(t for t in trainings if t.stage == training.stage and not t.resumed)
        if training.resumed and whole.state not in ("building", "training", "finishing", "done"):
            training.state = "failed: there is no checkpoint to resume from"
            stop([training])
        elif _may_start(training, whole, trainings):
            if training.resumed:
                target = training.folder / "out" / training.stage / "state.pt"
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(whole.folder / "half.pt", target)
            (training.folder / "go").touch()
            training.state = "training"
    elif training.state == "training" and code is None:
        if figures and figures[0].get("trained"):
            training.state = "finishing"
    elif code is not None and training.state in ("building", "training", "finishing"):
        training.state = "done" if code == 0 else f"failed with {code}"
    return training.state != before


def _ready(training: Training) -> bool:
    figures = training.figures()
    return bool(figures) and len(figures) == figures[0]["processes"]


def _may_start(training: Training, whole: Training, trainings: Sequence[Training]) -> bool:
    """Whether it has built its model and its GPUs are free; the more important ones come first."""
    if not _ready(training) or (training.resumed and whole.state not in ("finishing", "done")):
        return False
    for other in trainings[: trainings.index(training)]:
        if other.state == "building" and other.cards & training.cards and _ready(other):
            other_whole = next(t for t in trainings if t.stage == other.stage and not t.resumed)
            if not other.resumed or other_whole.state in ("finishing", "done"):
                return False
    return not any(t.state == "training" and t.cards & training.cards for t in trainings)


def stop(trainings: Sequence[Training]) -> None:
    """Ends the processes of trainings, if they still run."""
    processes = [t.process for t in trainings if t.process is not None and t.process.poll() is None]
    for process in processes:
        process.terminate()  # torch.distributed.run ends its processes, which are in other groups
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def collected(trainings: Sequence[Training], given: argparse.Namespace) -> dict[str, Any]:
    """What the JSON says of every stage."""
    stages: dict[str, Any] = {}
    for training in trainings:
        ranks = training.figures()
        entry: dict[str, Any] = {
            "state": training.state,
            "processes": len(ranks),
            "gpus": sorted(training.cards),
        }
        if ranks:
            entry |= {key: value for key, value in ranks[0].items() if key not in ("rank", "log")}
            for key in ("reserved_bytes", "allocated_bytes"):
                entry[key] = [rank[key] for rank in ranks if key in rank]
            entry["log"] = ranks[0]["log"]
            entry["steps_per_second"] = rate(ranks[0]["log"], given.steps)
        if training.state.startswith(("failed", "stopped")) and training.errors.is_file():
            entry["errors"] = training.errors.read_text("utf-8", "replace")[-TAIL:]
        stages[training.name] = entry
    for stage in given.stages:
        whole, resumed = stages[stage], stages[f"{stage} resumed"]
        if "log" in whole and resumed.get("log"):
            after = {line["step"]: line["losses"] for line in whole["log"]}
            resumed["equal_losses"] = all(
                after.get(line["step"]) == line["losses"] for line in resumed["log"]
            )
    return stages


def rate(log: Sequence[Mapping[str, Any]], steps: int) -> float | None:
    """Steps a second after the warm-up; None if there are too few."""
    warm = [line for line in log if line["step"] >= WARM_STEPS * steps]
    if len(warm) < 2 or warm[-1]["seconds"] <= warm[0]["seconds"]:
        return None
    seconds = warm[-1]["seconds"] - warm[0]["seconds"]
    return float((warm[-1]["step"] - warm[0]["step"]) / seconds)


def table(result: Mapping[str, Any]) -> str:
    """The measurements as Markdown."""
    lines = [
        "| stage | GPUs | parameters, of them trained | steps/s | memory a GPU | checkpoint "
        "| loss, first and last | resumed: losses; tensors that differ |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for stage, entry in result["stages"].items():
        if stage.endswith(" resumed"):
            continue
        if not entry.get("log"):
            lines.append(f"| `{stage}` | {entry['state']} |" + " |" * 6)
            continue
        name, log = MAIN_LOSS[stage], entry["log"]
        speed, memory = entry["steps_per_second"], max(entry.get("reserved_bytes") or [0])
        cells = [
            f"`{stage}`" + ("" if entry["state"] == "done" else f" ({entry['state']})"),
            str(len(entry["gpus"])),
            f"{entry['parameters'] / 1e6:.0f} M, {entry['trained_parameters'] / 1e6:.0f} M",
            "–" if speed is None else f"{speed:.2f}",
            f"{memory / 2**30:.1f} GiB",
            f"{entry.get('checkpoint_bytes', 0) / 1e9:.1f} GB",
            f"{name} {log[0]['losses'][name]:.3g} → {log[-1]['losses'][name]:.3g}",
            _compared(result["stages"].get(f"{stage} resumed", {})),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def hours(result: Mapping[str, Any]) -> str:
    """What the whole schedules of the recipe take at the measured rates, as Markdown.

    Each further process has a batch of its own: the rate is taken to be that of the measurement.
    """
    from takin_vc.config import load  # seconds, which the measurement need not wait

    lines = ["| stage | GPUs | steps of the recipe | hours | GPU hours |", "|---|---|---|---|---|"]
    for stage, entry in result["stages"].items():
        speed = entry.get("steps_per_second")
        if stage.endswith(" resumed") or not speed:
            continue
        recipe = load(["recipe=paper", f"stage={stage}", "data=none"], "train")
        steps = recipe[stage]["settings"]["steps"]
        gpus, took = PAPER_GPUS if stage == "conversion" else 1, steps / speed / 3600
        lines.append(f"| `{stage}` | {gpus} | {steps:,} | {took:.0f} | {gpus * took:.0f} |")
    return "\n".join(lines)


def _compared(resumed: Mapping[str, Any]) -> str:
    if "compared" not in resumed:
        return str(resumed.get("state", "–"))
    losses = "equal" if resumed.get("equal_losses") else "differ"
    parts = resumed["compared"]
    unequal, tensors = (sum(p[key] for p in parts.values()) for key in ("unequal", "tensors"))
    largest = max(part["largest"] for part in parts.values())
    return f"{losses}; {unequal} of {tensors}" + (f", by up to {largest:.2g}" if unequal else "")


if __name__ == "__main__":
    main()
