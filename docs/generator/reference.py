"""The pages of docs/reference, made from the code that they describe."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import yaml

from bench import metrics
from bench.cli.settings import FOLDER, Settings, options
from bench.metrics.metric import FAMILIES, Metric
from bench.objects import TARGET, locate
from bench.run.judges import DeclaredJudge
from bench.systems import Facts, declared_facts
from bench.validity.exposure import in_short
from bench.validity.flags import FLAGS
from docs.generator.commands import cli
from docs.generator.formats import manifest_page, run_folder_page, score_page
from docs.generator.navigation import ROOT
from docs.generator.python import python_page
from docs.generator.sources import (
    as_sentence,
    code,
    entries,
    keys_of,
    metrics_of,
    page,
    settings_of,
    summary,
    table,
)
from suites.importers import IMPORTERS
from suites.protocols import PROTOCOLS


def settings() -> str:
    """Every key of the configuration of a run."""
    must = {f.name: f.metadata["must"] for f in fields(Settings)}
    keys = keys_of(FOLDER / "config.yaml")
    rows = [(code(k.name), code(k.value), k.meaning, must.get(k.name, "")) for k in keys]
    gate = keys_of(FOLDER / "gate.yaml")
    return page(
        [
            "# Settings",
            "The settings of `vcbench run`, `convert`, `score`, `report` and `doctor` are "
            "[Hydra](https://hydra.cc) overrides: `name=value` on the command line. Their defaults "
            "are in [bench/conf/config.yaml](../../bench/conf/config.yaml).",
            table(
                ("setting", "default", "meaning", "must be"), [r for r in rows if r[1] != "`{}`"]
            ),
            "## Groups",
            "A group has entries by name. `system=world` or `system='[source,world]'` chooses "
            "entries, `system.world.frame_period=10` sets a value in one, and the dotted path of a "
            "class is an entry too: `system='[source,my_package.MySystem]'`. "
            "`+system.mine._target_=my_package.MySystem` gives it a name.",
            table(
                ("group", "default", "entries"),
                [
                    ("`system`", _default("system"), "[systems](systems.md)"),
                    (
                        "`suite`",
                        _default("suite"),
                        "[suites](suites.md); `suite=trials.jsonl root=FOLDER` "
                        "is a [manifest](manifest.md)",
                    ),
                    ("`judge`", _default("judge"), "[judges](judges.md)"),
                    ("`report`", _default("report"), "below"),
                    ("`preset`", _default("preset"), "[presets](presets.md)"),
                    *(
                        [("`executor`", _default("executor"), "[executors](executors.md)")]
                        if options("executor")
                        else []
                    ),
                ],
            ),
            "## Reports",
            *(part for name in options("report") for part in _entry("report", name, 3)),
            "## Margins of the gate",
            "`vcbench gate` and `compare` read them from "
            "[bench/conf/gate.yaml](../../bench/conf/gate.yaml), or from the file `margins=`.",
            _comment(FOLDER / "gate.yaml"),
            table(
                ("key", "default", "meaning"),
                [(code(k.name), code(k.value), k.meaning) for k in gate],
            ),
        ]
    )


def _default(group: str) -> str:
    for item in yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))["defaults"]:
        if isinstance(item, dict) and group in item:
            value = item[group]
            return ", ".join(map(code, value if isinstance(value, list) else [value]))
    return ""


def _comment(path: Path) -> str:
    """The comment at the beginning of a file, as one paragraph."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def _joined(*texts: str | None) -> str:
    return "; ".join(t for t in texts if t)


def _entry(group: str, name: str, level: int = 2) -> list[str]:
    """The heading, the sentence and the settings of an entry of a group."""
    path = FOLDER / group / f"{name}.yaml"
    rows = [(code(k.name), code(k.value), k.meaning) for k in keys_of(path, group, name)]
    return [
        f"{'#' * level} {name}",
        as_sentence(options(group)[name]),
        table(("setting", "default", "meaning"), [r for r in rows if r[0] not in SHOWN_ELSEWHERE]),
    ]


SHOWN_ELSEWHERE = ("`name`", "`sha256`", "`manifest`", "`published`", "`trained_on`")


def metric_page() -> str:
    """Every metric by its family."""
    measured: dict[str, list[str]] = {}
    for judge in options("judge"):
        for metric in metrics_of(judge):
            measured.setdefault(metric, []).append(judge)
    parts = [
        "# Metrics",
        "A metric is a ratio of two sums over trials: pooling, slices and intervals follow from "
        "it. "
        "Its family decides where it is shown, ranked and gated. In a family the metric of lowest "
        "rank leads; the others are in the full tables. `vcbench ls metrics` lists the keys.",
    ]
    for family, about in {**FAMILIES, "": "in the full tables only"}.items():
        of_family = {k: m for k, m in metrics.METRICS.items() if m.family == family}
        if not of_family:
            continue
        parts += [f"## {family.capitalize() or 'No family'}", as_sentence(about)]
        rows = [
            (
                code(key),
                f"{m.label} {m.arrow}".strip() + (f" ({m.unit})" if m.unit else ""),
                _about(m),
                code(m.pooling) + (", the mean of each trial's ratio" if m.mean else ""),
                ", ".join(f"[{j}](judges.md#{j})" for j in measured.get(key, ())),
            )
            for key, m in sorted(of_family.items(), key=lambda item: item[1].rank)
        ]
        parts.append(table(("key", "name", "meaning", "computed as", "judges"), rows))
    parts += [
        "## Fields of a metric",
        "A third party's judge defines its metrics by `defines`, key → `bench.Metric`.",
        table(
            ("field", "meaning"), [(code(k), v) for k, v in entries(Metric, "Attributes").items()]
        ),
    ]
    return page(parts)


def _about(metric: Metric) -> str:
    return _joined(
        metric.about,
        f"rank {metric.rank}" if metric.rank else None,
        f"as good as a recording within {metric.near:g}" if metric.near is not None else None,
        f"not comparable under {metric.shortest:g} s" if metric.shortest is not None else None,
        f"compared as `{metric.differs_as}`" if metric.differs_as else None,
    )


def judge_page() -> str:
    """Every judge."""
    settings = {name: settings_of("judge", name) for name in options("judge")}
    classes = Counter(s[TARGET] for s in settings.values())
    parts = [
        "# Judges",
        "A judge scores converted speech. It receives only what it reads, and its cached scores "
        "depend on exactly that, on its weights and on its settings. Choose judges by "
        "`judge='[secs_resemblyzer,dnsmos]'`; [metrics](metrics.md) lists what they measure. "
        "A judge of a language refuses suites in another one.",
    ]
    for path in (path for path, count in classes.items() if count > 1):
        judge = locate(path, path)
        parts += [f"## Class {judge.__name__}", summary(judge)]
    for name, of_judge in settings.items():
        path, model = of_judge[TARGET], of_judge.get("encoder") or of_judge.get("recogniser")
        judge = locate(path, name)
        languages = DeclaredJudge(of_judge).languages(name)
        reads = judge.reads_for(of_judge) if hasattr(judge, "reads_for") else judge.reads
        heading, sentence, rows = _entry("judge", name)
        shared = f"[{judge.__name__}](#class-{judge.__name__.lower()})" if classes[path] > 1 else ""
        facts = [
            ("class", shared or code(path)),
            ("model", code(model[TARGET]) if model else ""),
            ("reads", ", ".join(map(code, sorted(reads)))),
            ("metrics", ", ".join(map(code, metrics_of(name)))),
            ("languages", ", ".join(sorted(languages)) if languages else "any"),
            ("rows without the source's words", "no" if judge.needs_source_words else "yes"),
        ]
        parts += [
            heading,
            sentence,
            summary(locate(model[TARGET], name)) if model else "",
            "" if shared else summary(judge),
            table(("fact", "value"), [fact for fact in facts if fact[1]]),
            rows,
        ]
    return page(parts)


def system_page() -> str:
    """Every system with its declared facts."""
    parts = [
        "# Systems: settings and declared facts",
        "The systems that `system=` knows, with the facts that they declare: training data "
        "([exposure](../methods/validity.md)) and networks ([kinship](../methods/kinship.md)). "
        "[docs/systems](../systems/README.md) describes the published ones. The meaning of the "
        "facts:",
        table(("fact", "meaning"), [(code(k), v) for k, v in entries(Facts, "Attributes").items()]),
    ]
    for name in options("system"):
        settings, file = settings_of("system", name), ROOT / "docs" / "systems" / f"{name}.md"
        facts = declared_facts(settings, name)
        networks = None
        if facts.networks is not None:
            networks = ", ".join(f"{code(n.name)} ({n.use})" for n in facts.networks) or "none"
        heading, sentence, rows = _entry("system", name)
        described = [
            ("kind", facts.kind),
            ("role", facts.role),
            ("trained on", "" if facts.role else in_short(facts.trained_on)),
            ("networks", "" if facts.role else networks or "unknown"),
            ("class", code(settings[TARGET])),
        ]
        parts += [
            heading,
            sentence,
            summary(locate(settings[TARGET], name)),
            f"[More about it](../systems/{name}.md)." if file.is_file() else "",
            table(("fact", "value"), [row for row in described if row[1]]),
            rows,
        ]
    return page(parts)


def preset_page() -> str:
    """Every preset with its overrides and deviations."""
    parts = [
        "# Presets",
        "A preset has the judges, references, poolings and sampling of a publication: "
        "`preset=takin_paper`. The report lists how the run deviates from the publication.",
    ]
    for name, sentence in options("preset").items():
        path = FOLDER / "preset" / f"{name}.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        preset = content.get("preset", {})
        chosen = {
            key.removeprefix("override /"): value
            for item in content.get("defaults", ())
            if isinstance(item, dict)
            for key, value in item.items()
        }
        rows = [(code(g), ", ".join(map(code, v))) for g, v in chosen.items()]
        rows += [
            (code(k.name), code(k.value))
            for k in keys_of(path)
            if not k.name.startswith(("preset.", "judge._")) and k.name != "preset"
        ]
        parts += [f"## {name}", as_sentence(sentence)]
        if preset.get("publication"):
            parts.append(f"Publication: {preset['publication']}.")
        parts.append(table(("setting", "value"), rows))
        if preset.get("deviations"):
            parts += ["Deviations:", "\n".join(f"- {d}" for d in preset["deviations"]) + "\n"]
    return page(parts)


def suite_page() -> str:
    """Every suite with the counts of its manifest."""
    parts = [
        "# Suites",
        "A suite is a frozen list of trials with a hash: `suite=mini_cross_gender`. The lists are "
        "[manifests](manifest.md). `limit=8` takes the first 8 trials of each.",
    ]
    for name in options("suite"):
        path = FOLDER / "suite" / f"{name}.yaml"
        values = {k.name: k.value for k in keys_of(path, "suite", name)}
        heading, sentence, rows = _entry("suite", name)
        facts = [("list", code(values["manifest"].replace("${package:suites}", "suites")))]
        file = ROOT / values["manifest"].replace("${package:suites}", "suites")
        if file.is_file():
            facts = [*_counts(file.read_text(encoding="utf-8")), *facts]
        if "sha256" in values:
            facts.append(("sha256", code(values["sha256"])))
        parts += [heading, sentence, table(("fact", "value"), facts), rows]
    return page(
        [
            *parts,
            "## Protocols",
            "`vcbench suite build PROTOCOL` deals a list from a copy of a corpus.",
            _functions(PROTOCOLS),
            "## Published lists",
            "`vcbench suite import FORMAT` converts a list of others. Where it names no other "
            "recording of the target speaker, the reference stands in as enrolment.",
            _functions(IMPORTERS),
        ]
    )


def _counts(text: str) -> list[tuple[str, str]]:
    """Trials, speakers and factors of a manifest."""
    known: dict[str, dict[str, str]] = {}
    factors: dict[str, Counter[str]] = {}
    speakers: tuple[set[str], set[str]] = (set(), set())
    count = 0
    for line in filter(str.strip, text.splitlines()):
        trial = json.loads(line)
        count += 1
        for key in ("source", "references", "enrolment", "source_enrolment", "target"):
            value = trial.get(key) or []
            for utterance in value if isinstance(value, list) else [value]:
                if isinstance(utterance, dict):
                    known[utterance["utterance_id"]] = utterance
        for who, key in zip(speakers, (trial["source"], trial["references"][0]), strict=True):
            who.add((known[key] if isinstance(key, str) else key)["speaker"])
        for factor, value in trial.get("factors", {}).items():
            factors.setdefault(factor, Counter())[value] += 1
    rows = [
        ("trials", f"{count}"),
        ("source speakers, target speakers", f"{len(speakers[0])}, {len(speakers[1])}"),
        ("recordings", f"{len(known)}"),
    ]
    for factor, values in factors.items():
        few = ", ".join(f"{v} × {code(k)}" for k, v in sorted(values.items()))
        rows.append(
            (f"factor {code(factor)}", few if len(values) <= 8 else f"{len(values)} values")
        )
    return rows


def executor_page() -> str:
    """Every executor."""
    parts = [
        "# Executors",
        "An executor decides where a run computes: `executor=NAME`. It changes no number.",
    ]
    return page([*parts, *(p for name in options("executor") for p in _entry("executor", name))])


def flag_page() -> str:
    """Every flag."""
    return page(
        [
            "# Flags",
            "A flag warns that a number of a trial is misleading. It is not a score. "
            "[Validity](../methods/validity.md) says how they are used.",
            table(
                ("flag", "shown as", "raised by", "meaning"),
                [(code(k), f.label, f.when, f.about) for k, f in FLAGS.items()],
            ),
        ]
    )


def _functions(named: Mapping[str, Callable[..., object]]) -> str:
    """Name → the docstring's text, as a list."""
    return (
        "\n".join(f"- {code(n)}: {' '.join(summary(f).split())}" for n, f in named.items()) + "\n"
    )


PAGES: Mapping[str, Callable[[], str]] = {
    "cli": cli,
    "settings": settings,
    "metrics": metric_page,
    "judges": judge_page,
    "systems": system_page,
    **({"executors": executor_page} if options("executor") else {}),
    "flags": flag_page,
    "presets": preset_page,
    "suites": suite_page,
    "python": python_page,
    "manifest": manifest_page,
    "run-folder": run_folder_page,
    "scores": score_page,
}
