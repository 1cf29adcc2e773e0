"""Trains the small speaker judge on packed speech.

    python -m benchmarks.speaker_judge.train PACKED OUT --steps 9000 --seconds 480

ECAPA-TDNN (Desplanques et al. 2020, arXiv 2005.07143) with few channels learns to classify the
training speakers by an additive angular margin (Deng et al. 2019, arXiv 1801.07698, eq. 3). Every
crop is disturbed in another way; each of three speeds of a speaker counts as another speaker.

OUT gets `encoder.safetensors` (averaged weights, half precision), `card.json`, and the state of
the training, each file under 16 MB. The same command resumes from it. The training ends after
`--steps`, or when it has run for `--seconds` in all; the learning rate follows the one that is
nearer its end.
"""

import argparse
import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.judges.encoders import ecapa
from bench.judges.secs import operating_point
from benchmarks.speaker_judge.disturb import at_speed, disturb, masked_features
from benchmarks.speaker_judge.pack import SAMPLE_RATE, Packed, unpack

SPEEDS = (1.0, 0.9, 1.1)
CROPS = (2.0, 2.5, 3.0, 4.0)  # seconds; one length a step
LAST = 0.85  # of the training; from there on the crops are long and the margin wide
LAST_CROPS = (5.0,)
MARGIN, LAST_MARGIN = 0.2, 0.3  # radians
MARGIN_FROM, MARGIN_FULL = 0.05, 0.3  # of the training: it grows in between
SCALE = 30.0  # of the cosines
WARM_UP = 0.03  # of the training
LEARNING_RATE, LAST_LEARNING_RATE = 1.5e-3, 1e-5
WEIGHT_DECAY = 0.02
LONGEST_GRADIENT = 5.0
AVERAGING = 0.999  # of the weights, from step to step
DIM = 192
STATE = ("network", "averaged", "head", "first", "second")  # files of the resumable state


@dataclass
class Clips:
    """Recordings in one tensor on one device.

    Attributes:
        samples: (N,) int16, back to back.
        start: (K,) of each recording.
        length: (K,)
        speaker: (K,) its number.
        weight: (K,) how often it is drawn: speakers by the square root of their seconds.
    """

    samples: Tensor
    start: Tensor
    length: Tensor
    speaker: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, waves: Sequence[np.ndarray], speakers: Sequence[str], device: torch.device
    ) -> "Clips":
        """Of samples (T,) and the label of each."""
        names = sorted(set(speakers))
        number = torch.tensor([names.index(s) for s in speakers])
        length = torch.tensor([len(w) for w in waves])
        total = torch.zeros(len(names)).index_add_(0, number, length.float())
        weight = length / total[number].sqrt()
        return cls(
            torch.from_numpy(np.concatenate(waves)).to(device),
            (length.cumsum(0) - length).to(device),
            length.to(device),
            number.to(device),
            weight.to(device),
        )

    def crops(self, count: int, samples: int) -> tuple[Tensor, Tensor]:
        """Random crops (count, samples) in [-1, 1] and their speakers (count,).

        Recordings that are shorter begin again at their end.
        """
        drawn = torch.multinomial(self.weight, count, replacement=True)
        length = self.length[drawn]
        places = torch.where(length > samples, length - samples + 1, length)
        first = (torch.rand(count, device=drawn.device) * places).long().clamp(max=length - 1)
        within = first[:, None] + torch.arange(samples, device=drawn.device)
        at = self.start[drawn, None] + within % length[:, None]
        return self.samples[at].float() / 32768, self.speaker[drawn]


class Head(nn.Module):
    """A vector for each class; the loss is the cross-entropy of scaled cosines with a margin."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, DIM) * DIM**-0.5)

    def forward(self, embeddings: Tensor, label: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """embeddings (B, 192), label (B,) -> loss, and the share of right answers."""
        cosine = F.linear(F.normalize(embeddings.float()), F.normalize(self.weight))
        true = cosine.gather(1, label[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        widened = torch.cos(true.acos() + margin)
        loss = F.cross_entropy(SCALE * cosine.scatter(1, label[:, None], widened), label)
        return loss, (cosine.argmax(1) == label).float().mean()


class Training:
    """Network, averaged network, head and optimiser."""

    def __init__(self, channels: int, classes: int, device: torch.device) -> None:
        self.network = ecapa.EcapaTDNN(channels).to(device)
        self.averaged = ecapa.EcapaTDNN(channels).to(device).requires_grad_(False).eval()
        self.averaged.load_state_dict(self.network.state_dict())
        self.head = Head(classes).to(device)
        self.parameters = [*self.network.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        self.filterbank = ecapa.filterbank().to(device)
        self.device = device

    def step(self, clips: Clips, batch: int, progress: float, step: int) -> tuple[Tensor, Tensor]:
        """One step at `progress`, from 0 to 1 -> loss and share of right answers, on the device."""
        wave, label = draw(clips, batch, progress, step)
        with torch.no_grad():
            wave = disturb(wave)
            lengths = torch.full((len(wave),), wave.shape[1], device=wave.device)
            features, _ = ecapa.log_mels(self.filterbank, wave, lengths)
            features = masked_features(features)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            embeddings = self.network(features)
        loss, right = self.head(embeddings, label, margin(progress))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, LONGEST_GRADIENT)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(progress)
        self.optimiser.step()
        self._average(min(AVERAGING, (step + 1) / (step + 10)))
        return loss.detach(), right

    @torch.no_grad()
    def _average(self, kept: float) -> None:
        pairs = zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        )
        averaged, new = zip(*[(a, n) for a, n in pairs if a.is_floating_point()], strict=True)
        torch._foreach_lerp_(list(averaged), list(new), 1 - kept)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All tensors that a resumed training needs, by the file that holds them."""
        moments = [self.optimiser.state[p] for p in self.parameters if p in self.optimiser.state]
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "head": self.head.state_dict(),
            "first": {f"{i:04d}": m["exp_avg"] for i, m in enumerate(moments)},
            "second": {f"{i:04d}": m["exp_avg_sq"] for i, m in enumerate(moments)},
        }

    def restore(self, state: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """The tensors of `state`, after `step` steps."""
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.head.load_state_dict(state["head"])
        for i, parameter in enumerate(self.parameters):
            self.optimiser.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": state["first"][f"{i:04d}"].to(self.device),
                "exp_avg_sq": state["second"][f"{i:04d}"].to(self.device),
            }


def draw(clips: Clips, batch: int, progress: float, step: int) -> tuple[Tensor, Tensor]:
    """Crops (B, T) in random order, a third at each speed, and their classes (B,)."""
    choice = CROPS if progress < LAST else LAST_CROPS
    samples = round(choice[step % len(choice)] * SAMPLE_RATE)
    waves, labels = [], []
    for number, speed in enumerate(SPEEDS):
        wave, speaker = clips.crops(batch // len(SPEEDS), 2 * round(samples * speed / 2))
        waves.append(at_speed(wave, samples))
        labels.append(speaker * len(SPEEDS) + number)
    order = torch.randperm(batch // len(SPEEDS) * len(SPEEDS), device=waves[0].device)
    return torch.cat(waves)[order], torch.cat(labels)[order]


def learning_rate(progress: float) -> float:
    """Rises in a line, then falls along a cosine."""
    if progress < WARM_UP:
        return LEARNING_RATE * (progress + 1e-3) / (WARM_UP + 1e-3)
    fallen = (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2
    return LAST_LEARNING_RATE + (LEARNING_RATE - LAST_LEARNING_RATE) * fallen


def margin(progress: float) -> float:
    """In radians: 0, then rising in a line, then constant; wider at the end."""
    if progress >= LAST:
        return LAST_MARGIN
    return MARGIN * min(1.0, max(0.0, (progress - MARGIN_FROM) / (MARGIN_FULL - MARGIN_FROM)))


def equal_error_rates(
    training: Training, packed: Sequence[Packed], waves: Sequence[np.ndarray]
) -> dict[str, float]:
    """Of the averaged network on whole recordings, among the speakers of each corpus, and `all`.

    Only pairs within a corpus count: pairs across corpora are told apart by their sound.
    """
    tensors = [torch.from_numpy(w).float() / 32768 for w in waves]
    embeddings = ecapa.embed(training.averaged, training.filterbank, tensors, 32, training.device)
    corpus = np.array([p.corpus for p in packed])
    speaker = np.array([p.speaker for p in packed])
    first, second = np.triu_indices(len(packed), k=1)
    within = corpus[first] == corpus[second]
    first, second = first[within], second[within]
    cosine = np.sum(embeddings[first] * embeddings[second], axis=1)
    same = speaker[first] == speaker[second]
    rates = {}
    for name in ["all", *sorted(set(corpus))]:
        chosen = np.ones_like(same) if name == "all" else corpus[first] == name
        if (same & chosen).any() and (~same & chosen).any():
            rates[name] = operating_point(cosine[same & chosen], cosine[~same & chosen])[0]
    return rates


def half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in half precision; vectors and the statistics of the norms as they are."""
    return {
        name: (v.half() if v.is_floating_point() and v.ndim > 1 else v).contiguous().cpu()
        for name, v in state.items()
    }


def save(folder: Path, training: Training, card: Mapping[str, Any]) -> None:
    """Writes the weights, the state and the card; the card last."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {f"state-{name}": tensors for name, tensors in training.state().items()}
    files["encoder"] = half(training.averaged.network.state_dict())
    for name, tensors in files.items():
        # A copy each: safetensors refuses tensors that share memory.
        copies = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        part = folder / f"{name}.part"
        save_file(copies, part)
        part.replace(folder / f"{name}.safetensors")
    (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n")


def train(
    packed_folder: Path,
    folder: Path,
    *,
    channels: int,
    batch: int,
    steps: int,
    seconds: float,
    report_every: int,
    device: torch.device,
    processes: int,
    speakers: int | None = None,
) -> dict[str, Any]:
    """Trains or resumes, and returns the card. `speakers`: only so many, to try the program."""
    began = time.perf_counter()
    packed, waves = unpack(packed_folder, processes)
    known = sorted({p.speaker for p in packed if not p.held_out})[:speakers]
    chosen = set(known)
    training_set = [i for i, p in enumerate(packed) if p.speaker in chosen]
    held_out = [i for i, p in enumerate(packed) if p.held_out]
    clips = Clips.of(
        [waves[i] for i in training_set], [packed[i].speaker for i in training_set], device
    )
    hours = len(clips.samples) / SAMPLE_RATE / 3600
    print(
        f"{len(known)} speakers, {len(training_set)} recordings, {hours:.2f} h; held out: "
        f"{len({packed[i].speaker for i in held_out})} speakers, {len(held_out)} recordings; "
        f"read in {time.perf_counter() - began:.0f} s",
        flush=True,
    )
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # there are few lengths of crops
    training = Training(channels, len(known) * len(SPEEDS), device)
    corpora = Counter(p.corpus for p in {p.speaker: p for p in packed if not p.held_out}.values())
    card: dict[str, Any] = {
        "network": "ECAPA-TDNN",
        "channels": channels,
        "batch": batch,
        "speakers": len(known),
        "speakers_of": dict(sorted(corpora.items())),
        "hours": round(hours, 3),
        "held_out_speakers": len({packed[i].speaker for i in held_out}),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "step": 0,
        "seconds": 0.0,
        "history": [],
    }
    if (folder / "card.json").exists():
        card = json.loads((folder / "card.json").read_text())
        state = {name: load_file(folder / f"state-{name}.safetensors") for name in STATE}
        training.restore(state, card["step"])
        torch.manual_seed(card["step"])
    step, before = card["step"], card["seconds"]
    began, losses = time.perf_counter(), []
    training.network.train()
    progress = 0.0
    while progress < 1:
        elapsed = before + time.perf_counter() - began
        progress = min(1.0, max((step + 1) / steps, elapsed / seconds))
        losses.append(torch.stack(training.step(clips, batch, progress, step)))
        step += 1
        if step % report_every == 0 or progress == 1:
            loss, right = torch.stack(losses).mean(0).tolist()
            losses = []
            rates = equal_error_rates(
                training, [packed[i] for i in held_out], [waves[i] for i in held_out]
            )
            card["history"].append(
                {"step": step, "loss": loss, "right": right, "eer": rates, "progress": progress}
            )
            card |= {"step": step, "seconds": before + time.perf_counter() - began}
            print(
                f"step {step} ({card['seconds']:.0f} s, {progress:.0%})  loss {loss:.3f}  "
                f"right {right:.1%}  EER "
                + "  ".join(f"{name} {rate:.2%}" for name, rate in rates.items()),
                flush=True,
            )
            save(folder, training, card)
    return card


def main() -> int:
    """Trains; ends with 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speaker_judge.train", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("packed", type=Path, help="folder that benchmarks.speaker_judge.pack wrote")
    parser.add_argument("out", type=Path, help="folder for weights, card and state")
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--batch", type=int, default=384)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--seconds", type=float, default=480, help="of training, in all calls")
    parser.add_argument("--report-every", type=int, default=500, help="steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that decode")
    parser.add_argument("--speakers", type=int, help="only so many, to try the program")
    a = vars(parser.parse_args())
    folder, out = a.pop("packed"), a.pop("out")
    train(folder, out, device=torch.device(a.pop("device")), **a)
    return 0


if __name__ == "__main__":
    sys.exit(main())
