"""Exported listening tests with simulated listeners whose planted scores are known."""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from reports.listening.ratings.exported import ExportedTest
from tests.support.simulation import drawn, ring

TEST_ID = "abcdef0123456789"
SCALES = {"nmos": (1, 5, 1), "smos": (1, 5, 1), "ab": (-1, 1, 1), "cmos": (-3, 3, 1)}
SCALES |= {"mushra": (0, 100, 1), "abx": (-1, 1, 1)}
HEADS = ["test_id", "listener", "group", "screen", "stimulus", "rating", "position", "seconds"]
HEADS += ["played"]


@dataclass(frozen=True)
class Panel:
    """Listeners of a MOS test over systems of planted quality, on a scale of 1 to 5.

    A listener's rating is the middle of the scale plus the quality's distance from it, times the
    listener's gain (range-equalising bias: above 1, since a listener uses the whole scale for
    whatever the test has), plus bias, taste and noise. Standard deviations are those of one effect.

    Attributes:
        design: numbers of the source and target speaker of every trial: see `ring`.
        quality: of each system.
        listeners: how many listen, without the cheaters.
        cheaters: how many answer without listening.
        each: trials that a listener rates, each with one system (Latin square).
        gain: mean and standard deviation.
        bias: of a listener.
        taste: of a listener for a system.
        shared: effects of source speaker, target speaker and sentence on all systems.
        apart: the same, on each system alone.
        noise: of one rating.
        slip: probability that a listener misses what a trap says.
        traps, gold, repeats: screens of each listener.
    """

    design: tuple[np.ndarray, np.ndarray]
    quality: tuple[float, ...] = (2.6, 3.2, 3.5, 3.9)
    listeners: int = 24
    cheaters: int = 0
    each: int = 24
    gain: tuple[float, float] = (1.2, 0.2)
    bias: float = 0.4
    taste: float = 0.2
    shared: tuple[float, float, float] = (0.2, 0.2, 0.3)
    apart: tuple[float, float, float] = (0.1, 0.1, 0.2)
    noise: float = 0.7
    slip: float = 0.01
    traps: int = 2
    gold: int = 4
    repeats: int = 3

    def rated(self, rng: np.random.Generator) -> pd.DataFrame:
        """Ratings of honest listeners: columns trial, system, listener (numbers), rating."""
        source, target = self.design
        systems, trials = len(self.quality), len(source)
        item = drawn(source, target, self.shared, 1, rng)
        item = item + drawn(source, target, self.apart, systems, rng) + np.array(self.quality)
        listener = np.repeat(np.arange(self.listeners), self.each)
        start = listener // systems * self.each
        trial = (start + np.tile(np.arange(self.each), self.listeners)) % trials
        system = (trial + listener) % systems
        rating = self._given(item[trial, system], listener, system, rng)
        return pd.DataFrame(
            {"trial": trial, "system": system, "listener": listener, "rating": rating}
        )

    def _given(
        self,
        quality: np.ndarray,
        listener: np.ndarray,
        system: np.ndarray,
        rng: np.random.Generator,
    ) -> np.ndarray:
        gain = rng.normal(*self.gain, self.listeners)[listener]
        bias = rng.normal(0, self.bias, self.listeners)[listener]
        taste = rng.normal(0, self.taste, (self.listeners, len(self.quality)))[listener, system]
        noise = rng.normal(0, self.noise, len(quality))
        return np.clip(np.round(3 + gain * (quality - 3) + bias + taste + noise), 1, 5)

    def planted(self, times: int = 40) -> np.ndarray:
        """The mean rating of each system over infinitely many listeners, speakers and sentences."""
        many = np.arange(4000)
        large = replace(self, design=(many, many), listeners=800, each=40)
        rng = np.random.default_rng(7)
        means = [large.rated(rng).groupby("system")["rating"].mean() for _ in range(times)]
        return np.mean(means, axis=0)

    def answers(self, rng: np.random.Generator) -> tuple[dict, dict, pd.DataFrame]:
        """test.json, key.json and the answers of listeners l000, … and cheaters c000, ….

        Half of the cheaters answer at random, a quarter always gives the same rating, a quarter
        answers at random before the clip has ended.
        """
        rated = self.rated(rng)
        public, key = self.exported()
        rows = []
        for listener, part in rated.groupby("listener"):
            seen = [(f"r{t:03d}x{s}", r) for t, s, r in
                    zip(part["trial"], part["system"], part["rating"], strict=True)]  # fmt: skip
            seen += [(f"trap{k}", 2.0 if rng.random() > self.slip else 5.0)
                     for k in range(self.traps)]  # fmt: skip
            for k in range(self.gold):
                seen.append((f"gold{k}", 5.0 - rng.choice(2) if k % 2 else 1.0 + rng.choice(2)))
            for k in range(self.repeats):
                again = seen[k][1] + np.round(rng.normal(0, self.noise * np.sqrt(2)))
                seen.append((f"again{seen[k][0]}", float(np.clip(again, 1, 5))))
            rows += self._rows(f"l{listener:03d}", listener, seen, rng.normal(9, 1), 1)
        for k in range(self.cheaters):
            group = k % self.listeners
            screens = public["groups"][group]
            value = float(rng.integers(1, 6))
            same, hasty = k % 4 == 1, k % 4 == 3
            seen = [(s, value if same else float(rng.integers(1, 6))) for s in screens]
            seconds, played = (1.0, 0) if hasty else (rng.normal(8, 1), 1)
            rows += self._rows(f"c{k:03d}", group, seen, seconds, played)
        return public, key, pd.DataFrame(rows, columns=HEADS)

    def _rows(
        self, name: str, group: int, seen: list[tuple[str, float]], seconds: float, played: int
    ) -> list[list]:
        stimuli = [s.removeprefix("again").replace("x", "s") for s, _ in seen]
        return [
            [TEST_ID, name, group, screen, stimulus, int(rating), k, f"{seconds:.2f}", played]
            for k, ((screen, rating), stimulus) in enumerate(zip(seen, stimuli, strict=True))
        ]

    def exported(self) -> tuple[dict, dict]:
        """test.json and key.json. The screen r003x1 has the stimulus r003s1: trial 3, system 1."""
        source, target = self.design
        pairs = [(t, s) for t in range(len(source)) for s in range(len(self.quality))]
        screens = {f"r{t:03d}x{s}": (f"r{t:03d}s{s}", "trial", None, None) for t, s in pairs}
        screens |= {f"again{name}": (v[0], "repeat", None, name) for name, v in screens.items()}
        screens |= {f"trap{k}": (f"trap{k}", "trap", 2, None) for k in range(self.traps)}
        screens |= {
            f"gold{k}": (f"gold{k}", "gold", 5 if k % 2 else 1, None) for k in range(self.gold)
        }
        stimuli = {
            f"r{t:03d}s{s}": {
                "system": f"s{s}",
                "suite": "s",
                "trial_id": f"t{t:04d}",
                "sha256": "0" * 64,
                "source_speaker": f"S{source[t]}",
                "target_speaker": f"T{target[t]}",
                "gender_pair": ("F2M", "M2F")[source[t] % 2],
                "what": "converted",
            }
            for t, s in pairs
        }
        checks = [name for name in screens if name.startswith(("trap", "gold"))]
        what = {"trap": "trap", "gold": "anchor_low"}
        stimuli |= {name: {"system": "", "what": what[name[:4]]} for name in checks}
        systems = len(self.quality)
        groups = []
        for listener in range(self.listeners):
            rated = (listener // systems * self.each + np.arange(self.each)) % len(source)
            groups.append([f"r{t:03d}x{(t + listener) % systems}" for t in rated])
        public = {
            "format": 1,
            "test_id": TEST_ID,
            "kind": "nmos",
            "scale": {"lowest": 1, "highest": 5, "step": 1, "labels": {"5": "Excellent"}},
            "screens": [
                {"screen": name, "stimuli": [v[0]], "reference": None, "role": "trial"}
                for name, v in screens.items()
            ],
            "groups": [[*g, *checks, *(f"again{s}" for s in g[: self.repeats])] for g in groups],
            "language": "en",
        }
        key = {
            "format": 1,
            "test_id": TEST_ID,
            "run": "mini",
            "stimuli": stimuli,
            "screens": {
                name: {"role": v[1], "expected": v[2], "repeats": v[3]}
                for name, v in screens.items()
            },
            "processing": {},
            "level_lufs": -23.0,
            "sample_rate": 24000,
        }
        return public, key


def written(folder: Path, public: dict, key: dict) -> ExportedTest:
    """The exported test of these contents, in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.json").write_text(json.dumps(public))
    (folder / "key.json").write_text(json.dumps(key))
    return ExportedTest.load(folder)


def loaded(public: dict, key: dict) -> ExportedTest:
    """The exported test of these contents, by a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return written(Path(folder), public, key)


def small_test(kind: str = "nmos", screens: int = 6, systems: int = 2) -> tuple[dict, dict]:
    """A small test of any kind: systems a, b, … over 6 trials; one group.

    Paired kinds have the screens p0, p1, … of a and b in changing order; mushra has all systems, a
    hidden reference and a low anchor on each screen; the others have one stimulus a screen.
    """
    lowest, highest, step = SCALES[kind]
    names = [chr(ord("a") + k) for k in range(systems)]
    stimuli: dict[str, dict] = {}

    def add(name: str, trial: int, system: str, what: str = "converted") -> str:
        stimuli[name] = {
            "system": system,
            "suite": "s",
            "trial_id": f"t{trial}",
            "sha256": "0" * 64,
            "source_speaker": f"S{trial % 4}",
            "target_speaker": f"T{trial // 2}",
            "gender_pair": "F2M" if trial % 2 else "M2F",
            "what": what,
        }
        return name

    listed = []
    for t in range(screens):
        sounds = [add(f"x{t}{n}", t, n) for n in names]
        reference = None
        if kind in ("smos", "abx", "mushra"):
            reference = add(f"ref{t}", t, "", "reference")
        if kind == "mushra":
            sounds += [add(f"hid{t}", t, "source", "source"), f"low{t}"]
            stimuli[f"low{t}"] = {"system": "", "what": "anchor_low"}
            listed.append((f"m{t}", sounds, reference))
        elif kind in ("ab", "abx", "cmos"):
            listed.append((f"p{t}", sounds[:2] if t % 2 else sounds[1::-1], reference))
        else:
            listed += [(f"q{s[1:]}", [s], reference) for s in sounds]
    public = {
        "format": 1,
        "test_id": TEST_ID,
        "kind": kind,
        "scale": {"lowest": lowest, "highest": highest, "step": step, "labels": {}},
        "screens": [
            {"screen": name, "stimuli": sounds, "reference": reference, "role": "trial"}
            for name, sounds, reference in listed
        ],
        "groups": [[name for name, _, _ in listed]],
        "language": "en",
    }
    key = {
        "format": 1,
        "test_id": TEST_ID,
        "run": "mini",
        "stimuli": stimuli,
        "screens": {
            name: {"role": "trial", "expected": None, "repeats": None} for name, _, _ in listed
        },
        "processing": {},
    }
    return public, key


PANELS = {
    "18 speakers, 72 sentences, 24 listeners x 24": Panel(ring(18, 4)),
    "the same, 24 listeners x 72": Panel(ring(18, 4), each=72),
    "the same, 100 listeners x 12": Panel(ring(18, 4), listeners=100, each=12),
    "10 speakers, 20 sentences, 40 listeners x 20": Panel(ring(10, 2), listeners=40, each=20),
    "12 speakers, 48 sentences, 12 listeners x 24": Panel(ring(12, 4), listeners=12),
    "8 speakers, 16 sentences, 20 listeners x 16": Panel(ring(8, 2), listeners=20, each=16),
    "24 listeners x 24, strong bias and taste": Panel(ring(18, 4), bias=0.8, taste=0.4),
    "24 listeners x 24, no speaker effects": Panel(
        ring(18, 4), shared=(0.0, 0.0, 0.3), apart=(0.0, 0.0, 0.2)
    ),
}
