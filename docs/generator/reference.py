"""The pages of docs/reference, made from the code that they describe."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import yaml

from bench import __main__ as command_line
from bench import manifest, metrics
from bench.cli import VERBS
from bench.cli.arguments import OneOf, Setting
from bench.cli.settings import FOLDER, Settings, options
from bench.metrics.metric import FAMILIES, Metric
from bench.objects import TARGET, locate
from bench.results import COLUMNS, SUMMARY_COLUMNS
from bench.run.folder import CONTENTS, LAYOUT
from bench.run.judges import DeclaredJudge
from bench.systems import Facts, declared_facts
from bench.trials import Trial, Utterance
from bench.validity.exposure import in_short
from bench.validity.flags import FLAGS
from docs.generator.navigation import ROOT
from docs.generator.sources import code, entries, keys_of, settings_of, summary, table

# Modules that have the settings of further verbs.
MORE = ("baselines.contract.commands", "reports.listening.plan_command")
# Verbs that take the settings of a run → their flags.
HYDRA = {
    "run": "`-m` (or `--multirun`) makes one run for every combination of the settings that have "
    "several values.",
    "convert": "",
    "score": "",
    "report": "",
    "doctor": "`--fetch` downloads the missing weights of the judges and systems first.",
}
TYPES = {
    "str": "text",
    "boolean": "true or false",
    "whole_number": "whole number",
    "number": "number",
    "numbers": "numbers, separated by commas",
    "listed": "names, separated by commas",
}


def cli() -> str:
    """Every verb with its settings."""
    usage = command_line.USAGE
    about = dict(re.findall(r"^  (\w+) +(\S.*)$", usage.partition("\nSettings")[0], re.MULTILINE))
    modules = [import_module(path.rpartition(".")[0]) for path in VERBS.values()]
    settings: dict[str, Mapping[str, Setting]] = {}
    for module in (*modules, *map(import_module, MORE)):
        settings |= getattr(module, "SETTINGS", {})
    parts = [
        "# Command line",
        "A command is `vcbench VERB`, then settings `name=value` in any order. A list is written "
        "`name=a,b` or `name='[a,b]'`. `vcbench` without a verb prints the verbs.",
        "Exit codes: 0 done, 1 a check failed, 2 a mistake that is named, 3 undecided, 130 stopped "
        "by Ctrl-C. An error is one line: the value, the reason, the way out. "
        "`VCBENCH_TRACEBACK=1` shows the traceback instead.",
    ]
    for verb, path in VERBS.items():
        module, function = import_module(path.rpartition(".")[0]), locate(path, verb)
        parts += [f"## {verb}", _described(function)]
        parts += [_fenced(command) for command in re.findall(r"vcbench .*", about[verb])]
        if verb in HYDRA:
            parts.append(f"It takes [the settings of a run](settings.md). {HYDRA[verb]}")
        for name, known in settings.items():
            if name.partition(" ")[0] == verb:
                parts += [f"### {name}" if name != verb else "", _usage(name, module)]
                rows = [(code(n), _kind(s), _needed(s)) for n, s in known.items()]
                parts.append(table(("setting", "value", "meaning"), rows) or "No settings.")
    return _page(parts)


def _described(function: object) -> str:
    """What a verb does and returns; a docstring may begin with its usage."""
    usage, text = "", summary(function)
    if match := re.match(r"`(vcbench [^`]*)`(\.|: )", text):
        usage, text = _fenced(match[1]), text[match.end() :].strip()
    result = " ".join((inspect.getdoc(function) or "").partition("Returns:\n")[2].split())
    result = result.partition(" Raises:")[0]
    returns = f"Exit code: {_lower(result)}" if result and "exit code" not in result else ""
    return "\n\n".join(filter(None, (_upper(text), usage, returns)))


def _fenced(command: str) -> str:
    return f"```text\n{command}\n```"


def _usage(verb: str, module: object) -> str:
    """What a module's usage text says of a verb: a command, then indented lines about it."""
    texts = [v for v in vars(module).values() if isinstance(v, str) and v.startswith("vcbench ")]
    for block in re.split(r"\n(?=vcbench )", "\n".join(texts)):
        command, *about = re.split(r"\n    (?! )", block, maxsplit=1)
        words = command.split()[1:]
        of_verb = [w for w in words[:2] if re.fullmatch(r"[a-z]+", w) and w in verb.split()]
        if " ".join(of_verb) == verb:
            return f"{_fenced(command)}\n\n{_sentence(''.join(about))}"
    return ""


def _sentence(text: str) -> str:
    """The text as a sentence; a first word that is a name stays as it is."""
    text = " ".join(text.split())
    name = re.match(r"\S*[._A-Z0-9]\S", text)
    return f"{text if name else _upper(text)}." if text else ""


def _kind(setting: Setting) -> str:
    if isinstance(setting.convert, OneOf):
        return " or ".join(map(code, setting.convert.values))
    return TYPES[getattr(setting.convert, "__name__", "")]


def _needed(setting: Setting) -> str:
    return f"{setting.about}; needed" if setting.needed else setting.about


def settings() -> str:
    """Every key of the configuration of a run."""
    must = {f.name: f.metadata["must"] for f in fields(Settings)}
    keys = keys_of(FOLDER / "config.yaml")
    rows = [(code(k.name), code(k.value), k.meaning, must.get(k.name, "")) for k in keys]
    gate = keys_of(FOLDER / "gate.yaml")
    return _page(
        [
            "# Settings",
            "The settings of `vcbench run`, `convert`, `score`, `report` and `doctor` are "
            "[Hydra](https://hydra.cc) overrides: `name=value` on the command line. Their defaults "
            "are in [bench/conf/config.yaml](../../bench/conf/config.yaml).",
            table(("setting", "default", "meaning", "value"), [r for r in rows if r[1] != "`{}`"]),
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
        _sentence(options(group)[name]),
        table(("setting", "default", "meaning"), [r for r in rows if r[0] not in SHOWN_ELSEWHERE]),
    ]


SHOWN_ELSEWHERE = ("`sha256`", "`manifest`", "`published`", "`trained_on`")


def metric_page() -> str:
    """Every metric by its family."""
    measured: dict[str, list[str]] = {}
    for judge in options("judge"):
        for metric in _metrics_of(judge):
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
        parts += [f"## {family.capitalize() or 'No family'}", _sentence(about)]
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
    return _page(parts)


def _about(metric: Metric) -> str:
    return _joined(
        metric.about,
        f"rank {metric.rank}" if metric.rank else None,
        f"as good as a recording within {metric.near:g}" if metric.near is not None else None,
        f"not comparable under {metric.shortest:g} s" if metric.shortest is not None else None,
        f"compared as `{metric.differs_as}`" if metric.differs_as else None,
    )


def _metrics_of(judge: str) -> tuple[str, ...]:
    settings = settings_of("judge", judge)
    return DeclaredJudge(settings).measured(judge, "").metrics


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
            ("metrics", ", ".join(map(code, _metrics_of(name)))),
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
    return _page(parts)


def system_page() -> str:
    """Every system with its declared facts."""
    parts = [
        "# Systems",
        "The systems that `system=` knows, with the facts that they declare: training data "
        "([exposure](../methods/validity.md)) and networks ([kinship](../methods/kinship.md)). "
        "[docs/systems](../systems/README.md) describes the published ones. The meaning of the "
        "facts:",
        table(("fact", "meaning"), [(code(k), v) for k, v in entries(Facts, "Attributes").items()]),
    ]
    for name in options("system"):
        settings = settings_of("system", name)
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
            table(("fact", "value"), [row for row in described if row[1]]),
            rows,
        ]
    return _page(parts)


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
        parts += [f"## {name}", _sentence(sentence)]
        if preset.get("publication"):
            parts.append(f"Publication: {preset['publication']}.")
        parts.append(table(("setting", "value"), rows))
        if preset.get("deviations"):
            parts += ["Deviations:", "\n".join(f"- {d}" for d in preset["deviations"]) + "\n"]
    return _page(parts)


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
    return _page(parts)


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


def manifest_page() -> str:
    """The format of a trial list."""
    text = (manifest.__doc__ or "").partition("One trial a line:")[2]
    blocks = [b for b in text.split("\n\n") if b.strip()]
    example = next(b for b in blocks if "trial_id" in b)
    texts = [" ".join(b.split()) for b in blocks if b is not example]
    trial, utterance = entries(Trial, "Attributes"), entries(Utterance, "Attributes")
    return _page(
        [
            "# Manifest",
            "A suite is a JSON Lines file in UTF-8, one trial a line. "
            "`vcbench run suite=trials.jsonl root=corpus` runs it; "
            "[bench/manifest.py](../../bench/manifest.py) reads and writes it.",
            "```text\n" + re.sub(r"^ {4}", "", example.strip("\n"), flags=re.MULTILINE) + "\n```",
            _upper(texts[0]),
            *texts[1:],
            "## A trial",
            table(("key", "meaning"), [(code(k), v) for k, v in trial.items()]),
            "## An utterance",
            table(("key", "meaning"), [(code(k), v) for k, v in utterance.items()]),
            "Errors name the file, the line, the trial and the key.",
        ]
    )


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def run_folder_page() -> str:
    """The format of a run's folder."""
    return _page(
        [
            "# Run folder",
            "A run is a folder, `outputs/<name>/`. It stands alone: a copy on another machine can "
            "be compared, gated and reported without the corpus, the systems and the judges. "
            "[scores.csv has its own page](scores.md).",
            table(("path", "content"), [(code(k), v) for k, v in LAYOUT.items()]),
            "The score cache (`outputs/.cache/scores.sqlite`) is shared by all runs and is no part "
            "of a folder.",
            "## run.json",
            "It is written last and has hashes of both tables and of itself. `report`, `compare`, "
            "`gate` and `history` refuse a folder whose tables are not those of its run.json.",
            table(("key", "content"), [(code(k), v) for k, v in CONTENTS.items()]),
            "## summary.csv",
            "One row per suite × system × judge × metric.",
            table(("column", "meaning"), [(code(k), v) for k, v in SUMMARY_COLUMNS.items()]),
        ]
    )


def score_page() -> str:
    """The columns of scores.csv."""
    columns: dict[str, set[str]] = {}
    for judge in options("judge"):
        for key in _metrics_of(judge):
            metric = metrics.METRICS[key]
            for column in filter(None, (metric.numerator, metric.denominator)):
                columns.setdefault(column, set()).add(key)
    return _page(
        [
            "# Columns of scores.csv",
            "One row per system × suite × trial, failures included; CSV in UTF-8. An empty cell "
            "was not measured.",
            table(("column", "meaning"), [(code(k), v) for k, v in COLUMNS.items()]),
            "## Columns of the judges",
            "A judge called `wer_whisper_base` writes `wer_whisper_base.word_errors` and others. "
            "These columns are summed for metrics; judges may write further ones, such as "
            "`hypothesis`, the transcript.",
            table(
                ("column", "metrics"),
                [(code(k), ", ".join(map(code, sorted(v)))) for k, v in sorted(columns.items())],
            ),
        ]
    )


def flag_page() -> str:
    """Every flag."""
    return _page(
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


def _page(parts: list[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "cli": cli,
    "settings": settings,
    "metrics": metric_page,
    "judges": judge_page,
    "systems": system_page,
    "flags": flag_page,
    "presets": preset_page,
    "suites": suite_page,
    "manifest": manifest_page,
    "run-folder": run_folder_page,
    "scores": score_page,
}
