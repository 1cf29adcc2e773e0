"""Trains the autoencoder of `instance_norm`:

    python -m baselines.instance_norm.train data=utterances.csv out=FOLDER [minutes=10] …

`data` is a list of recordings as `takin_vc.train` takes it. Features, optimiser, moving average,
exact resuming and the log are `takin_vc.train`'s. A target and its reference are different
recordings of one speaker, and the content comes from the target's recording at another speed, as in
the conversion stage of Takin-VC: what the two speeds do not share, the voice, does not help.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.instance_norm.network import (
    FACTS,
    MEL_MEAN,
    MEL_STD,
    WEIGHTS,
    InstanceNormAutoencoder,
)
from takin_vc.mel import LogMel
from takin_vc.tensors import WeightsError, write_tensors
from takin_vc.train.data import features
from takin_vc.train.data.batches import Draw, PairSampler, generator
from takin_vc.train.data.corpus import (
    CorpusError,
    held_out_speakers,
    identity_of,
    names_of,
    read_recordings,
)
from takin_vc.train.data.formants import colours
from takin_vc.train.data.versions import Versions, load_versions, to_device
from takin_vc.train.loop import Trainer, TrainingSettings
from takin_vc.train.stage import Apply, Log, TrainingError

# The mel of takin_vc's preset `mini`, whose vocoder speaks.
MEL = {"sample_rate": 16000, "n_fft": 1024, "hop_length": 160, "win_length": 640, "n_mels": 80}
VALIDATION_BATCHES = 4


@dataclasses.dataclass
class Recipe:
    """The settings of a training: `name=value` on the command line.

    Attributes:
        data: list of recordings.
        out: folder of the result, and of the features unless `features` names another.
        features: folder of the features.
        seed: of the weights and of the batches.
        held_out: speakers that only validate.
        minutes: of training.
        steps: of training, if it is to end by steps; null for no limit.
        batch_seconds: of targets in a batch.
        content_dim: channels of the content.
        slope: of the sigmoid on the content.
        learning_rate: at its largest.
        device: cuda or cpu; auto for the GPU where there is one.
        graphs: capture steps in CUDA graphs.
    """

    data: str = "???"
    out: str = "outputs/instance_norm"
    features: str | None = None
    seed: int = 0
    held_out: int = 12
    minutes: float | None = 10.0
    steps: int | None = None
    batch_seconds: float = 128.0
    content_dim: int = 4
    slope: float = 0.1
    learning_rate: float = 5e-4
    device: str = "auto"
    graphs: bool = True


SPEEDS = (1.0, 0.84, 0.92, 1.09, 1.19)
TARGETS, REFERENCES = (2.0, 3.0, 4.5), (2.5, 4.0, 6.0)  # seconds
COLOUR_DB = 4.0  # of the random filter that target and reference pass
BALANCE = 0.25


class AutoencoderStage:
    """Trains an `InstanceNormAutoencoder`: a `takin_vc.train.stage.Stage`.

    Args:
        model: to be trained.
        versions: of the training recordings.
        sampler: of pairs of them.
        held_out: the same of other speakers; None validates nothing.
        seed: of the batches.
    """

    def __init__(
        self,
        model: InstanceNormAutoencoder,
        versions: Versions,
        sampler: PairSampler,
        held_out: tuple[Versions, PairSampler] | None,
        *,
        seed: int,
    ) -> None:
        self.module = self.averaged = self.model = model
        self.versions, self.sampler, self.held_out = versions, sampler, held_out
        self.seed = seed

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """One: all of it."""
        return {"model": list(self.model.parameters())}

    def draw(self, step: int, process: int) -> dict[str, Tensor]:
        """Targets, references and sources of a step."""
        rng = generator(self.seed, step, process)
        batch = gather(self.versions, self.sampler.draw(rng))
        mel = batch["target"]
        colour = to_device(colours(rng, len(mel), mel.shape[1], COLOUR_DB), mel.device)
        colour = colour[:, :, None] / MEL_STD
        return batch | {name: batch[name] + colour for name in ("target", "reference")}

    def phase(self, step: int) -> str:
        """There is one."""
        return "reconstruct"

    def learn(self, batch: dict[str, Tensor], phase: str | None, apply: Apply) -> dict[str, Tensor]:
        """One step on one batch."""
        loss = _difference(self.model, batch)
        return {"mel": loss, "norm": apply("model", loss)}

    @torch.no_grad()
    def validate(self, averaged: nn.Module, step: int, log: Log | None) -> dict[str, float]:
        """Mean absolute difference of log mels, on speakers that are held out."""
        if self.held_out is None:
            return {}
        versions, sampler = self.held_out
        model = cast(InstanceNormAutoencoder, averaged).eval()
        batches = [
            gather(versions, sampler.draw(generator(0, k))) for k in range(VALIDATION_BATCHES)
        ]
        return {"mel": MEL_STD * sum(float(_difference(model, b)) for b in batches) / len(batches)}

    def export(self, averaged: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """Its tensors."""
        write_tensors(averaged.state_dict(), folder / WEIGHTS)


def _difference(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    made = model(batch["source"], batch["reference"])
    return F.l1_loss(made.float(), batch["target"].float())


def gather(versions: Versions, draw: Draw) -> dict[str, Tensor]:
    """Scaled mels of a batch: "target" (B, n_mels, L), "source" (B, n_mels, L), the target's words
    at another speed and at the target's times, and "reference" (B, n_mels, R)."""
    rate = versions.frame_rates["mel"]
    rows = draw.version * versions.recordings + draw.target
    reference_rows = draw.version * versions.recordings + draw.reference
    content_rows = draw.content_version * versions.recordings + draw.target
    frames, count = int(draw.target_seconds * rate), int(draw.reference_seconds * rate)
    first = (draw.target_start * rate).astype("int64")
    start = (draw.reference_start * rate).astype("int64")
    speeds = torch.tensor(versions.speeds).numpy()
    ratio = speeds[draw.version] / speeds[draw.content_version]
    begin = (first + 0.5) * ratio - 0.5
    mels = {
        "target": versions.frames("mel", rows, first, frames),
        "source": versions.stretched("mel", content_rows, begin, ratio, frames),
        "reference": versions.frames("mel", reference_rows, start, count),
    }
    return {n: (mel.float().transpose(1, 2) - MEL_MEAN) / MEL_STD for n, mel in mels.items()}


def train(recipe: Recipe) -> dict[str, Any]:
    """Trains to the end of the schedule, resuming if it was interrupted.

    Returns:
        Steps, minutes, losses and the validation; also in `facts.yaml`, with the training data.

    Raises:
        CorpusError, TrainingError: with what is wrong.
    """
    accelerator = Accelerator(mixed_precision="no", cpu=recipe.device == "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    recordings = [r for r in read_recordings([recipe.data]) if r.speaker]
    apart = held_out_speakers(recordings, recipe.held_out, 0)
    folder, out = Path(recipe.features or Path(recipe.out) / "features"), Path(recipe.out)
    prepared = {}
    for part, speeds in (("training", SPEEDS), ("held_out", (1.0,))):
        members = [r for r in recordings if (r.speaker in apart) == (part == "held_out")]
        if not members:
            continue
        where = folder / part
        features.prepare(members, where, mel=LogMel(**MEL), front_ends={}, speeds=speeds)
        versions = load_versions(
            where, streams=("wave", "mel"), speeds=speeds, device=accelerator.device
        )
        sampler = PairSampler(
            members,
            versions.seconds(),
            targets=TARGETS,
            references=REFERENCES,
            batch_seconds=recipe.batch_seconds,
            balance=BALANCE,
            known_speakers=True,
        )
        prepared[part] = (versions, sampler)
    torch.manual_seed(recipe.seed)
    sizes: dict[str, Any] = {"content_dim": recipe.content_dim, "slope": recipe.slope}
    model = InstanceNormAutoencoder(**sizes).to(accelerator.device)
    stage = AutoencoderStage(
        model, *prepared["training"], prepared.get("held_out"), seed=recipe.seed
    )
    schedule = TrainingSettings(
        seed=recipe.seed,
        steps=recipe.steps,
        minutes=recipe.minutes,
        learning_rate=recipe.learning_rate,
        average=0.9995,
        weight_decay=0.01,
        clip=5.0,
        save_minutes=4,
        validate_minutes=2,
        graphs=recipe.graphs,
    )
    free = ("out", "features", "device", "minutes", "steps", "graphs")
    described = {k: v for k, v in dataclasses.asdict(recipe).items() if k not in free}
    described["data"] = identity_of(recordings)
    trainer = Trainer(stage, schedule, out, described=described, accelerator=accelerator)
    facts = trainer.run()
    trained_on = sorted(names_of(r for r in recordings if r.speaker not in apart))
    OmegaConf.save({"model": sizes, "trained_on": trained_on, "facts": facts}, out / FACTS)
    return facts


def main(arguments: Sequence[str]) -> int:
    """Runs the command line. Returns 0, or 1 after a line with the error."""
    if not arguments or {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
    try:
        settings = OmegaConf.merge(OmegaConf.structured(Recipe), OmegaConf.from_cli([*arguments]))
        facts = train(cast(Recipe, OmegaConf.to_object(settings)))
    except (CorpusError, OmegaConfBaseException, TrainingError, WeightsError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 1
    print(facts)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
