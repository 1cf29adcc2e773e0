"""Converts published trial lists to suites.

These lists name no enrolment recordings, except for VoicePrivacy speakers with several recordings.
The reference stands in for them: such trials have the factor `enrolment` (see
`bench.trials.ENROLMENT`). A list without texts takes them from its corpus. A trial's id is the file
name that the list's tools give the conversion, so that `vcbench score wavs=…` reads
<trial_id>.wav.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from bench.errors import UserError, choose_one_of
from bench.files import read_text
from bench.manifest import LANGUAGE, TRIAL_ID, has_words
from bench.trials import ENROLMENT, REFERENCE, Trial, Utterance
from suites.corpora.layouts import READERS, kaldi
from suites.corpora.table import CorpusRecording, Faults, gather


def seed_tts(listed: Path, root: Path, swap: bool = False, language: str = "") -> list[Trial]:
    """seed-tts-eval: `utt|prompt text|prompt wav|text|wav`; paths are relative to the list.

    Its VC lists are `{en,zh}/non_para_reconstruct_meta.lst`: the recording in the last field is
    converted to the voice of the prompt. A line of `meta.lst` has four fields and its recording,
    where there is one, in `wavs/<utt>.wav`.

    Args:
        listed: the list.
        root: the folder that holds it.
        swap: convert the prompt to the voice of the other recording instead, as X-VC's evaluation
            does in its second half (hdwlab/X-VC, `--swap`). The trials keep their names.
        language: of the recordings; "" for what the list's folder is called.
    """
    lines = list(_lines(listed, "|", (4, 5)))
    spoken = language or listed.resolve().parent.name
    if spoken not in ("en", "zh") and not (language and LANGUAGE.fullmatch(language)):
        raise UserError(
            f"{listed}: is it English or Mandarin? Its folder is called {spoken!r}, not en or zh; "
            "add language=en or language=zh"
        )
    trials = []
    for where, cells in lines:
        name, prompt_text, prompt, text, *rest = cells
        wav = rest[0] if rest else f"wavs/{name}.wav"
        said = replace(_utterance(where, root, listed.parent, wav, text), language=spoken)
        prompted = _utterance(where, root, listed.parent, prompt, prompt_text)
        prompted = replace(prompted, language=spoken)
        source, reference = (prompted, said) if swap else (said, prompted)
        trials.append(_trial(where, name, source, (reference,)))
    return trials


def freevc(listed: Path, root: Path, corpus: str = "") -> list[Trial]:
    """FreeVC: `title|source|target`, the texts from the corpus under `root`.

    Args:
        listed: the list.
        root: the corpus folder. Paths outside of it (DUMMY/p225/p225_001.wav, another machine's)
            are matched by the end of the path, or by the file's name in the corpus.
        corpus: a key of `suites.corpora.layouts.READERS`.
    """
    return _piped(listed, root, corpus, title_first=True)


def _piped(listed: Path, root: Path, corpus: str, *, title_first: bool) -> list[Trial]:
    """Lines of title, source and target, the title first or last."""
    known = _by_name(corpus, root)
    trials = []
    for where, columns in _lines(listed, "|", (3,)):
        title, source, target = columns if title_first else (columns[2], *columns[:2])
        utterance = _of_corpus(where, root, source, known)
        trials.append(_trial(where, title, utterance, (_of_corpus(where, root, target, known),)))
    return trials


def oovc(listed: Path, root: Path, corpus: str = "librispeech") -> list[Trial]:
    """O_O-VC's `pairs.txt`: `source|target|name of the conversion`; otherwise as `freevc`."""
    return _piped(listed, root, corpus, title_first=False)


def vce(listed: Path, root: Path, source_root: str = "", target_root: str = "") -> list[Trial]:
    """Voice-conversion-evaluation's `metadata.json`: pairs with several references each.

    Args:
        listed: the file.
        root: the folder that holds both corpora.
        source_root: the source corpus, relative to `root`.
        target_root: the target corpus, likewise.
    """
    try:
        pairs = list(json.loads(read_text(listed))["pairs"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{listed}: no metadata of pairs ({error})") from error
    trials = []
    for number, pair in enumerate(pairs):
        where = f"{listed}: pair {number}"
        try:
            source, targets, text = pair["src_utt"], pair["tgt_utts"], pair["content"]
            speakers = pair["source_speaker"], pair["target_speaker"]
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{where}: no {error}; a pair needs src_utt, tgt_utts, content"
            ) from error
        texts = (source, text, *speakers, *(targets if isinstance(targets, list) else (None,)))
        if not targets or not all(isinstance(value, str) for value in texts):
            raise UserError(f"{where}: tgt_utts must be a list of texts, the other values texts")
        utterance = _utterance(where, root, root / source_root, source, " ".join(text.split()))
        references = tuple(_utterance(where, root, root / target_root, t, "") for t in targets)
        conversion = str(pair.get("converted") or pair.get("mel_path") or "")
        name = Path(conversion).stem or f"{Path(source).stem}_to_{Path(targets[0]).stem}"
        trials.append(
            _trial(
                where,
                name,
                replace(utterance, speaker=speakers[0]),
                tuple(replace(r, speaker=speakers[1]) for r in references),
            )
        )
    return trials


def voiceprivacy(
    listed: Path, root: Path, target_root: str = "", targets: bool = False
) -> list[Trial]:
    """VoicePrivacy: `trials` (`speaker utterance target|nontarget`) next to its Kaldi files.

    A trial is converted to its enrolment speaker: the first of that speaker's recordings is the
    reference, up to three others the enrolment.

    Args:
        listed: the `trials` file in its folder (`…/libri_test_trials_f/trials`).
        root: the folder that holds the data.
        target_root: the enrolment folder, relative to `root` (`…/libri_test_enrolls`).
        targets: also take the trials whose source is the enrolment speaker.
    """
    sources = _kaldi(listed.parent)
    enrolled: dict[str, list[Utterance]] = {}
    listing = root / target_root / "enrolls"
    wanted = set(read_text(listing).split()) if listing.is_file() else None
    for name, recording in _kaldi(root / target_root).items():
        if wanted is None or name in wanted:
            enrolled.setdefault(recording.speaker, []).append(recording)
    trials = []
    for where, (speaker, name, kind) in _lines(listed, None, (3,)):
        if kind not in ("target", "nontarget"):
            raise UserError(f"{where}: {kind!r} is neither target nor nontarget")
        if kind == "target" and not targets:
            continue
        if name not in sources or speaker not in enrolled:
            missing = f"utterance {name}" if name not in sources else f"enrolment of {speaker}"
            raise UserError(f"{where}: no {missing} in {listed.parent} or {root / target_root}")
        reference, *others = enrolled[speaker]
        trials.append(
            _trial(where, f"{speaker}-{name}", sources[name], (reference,), tuple(others[:3]))
        )
    return trials


IMPORTERS: dict[str, Callable[..., list[Trial]]] = {
    "seed_tts": seed_tts,
    "freevc": freevc,
    "oovc": oovc,
    "vce": vce,
    "voiceprivacy": voiceprivacy,
}


def _lines(
    listed: Path, separator: str | None, fields: tuple[int, ...]
) -> Iterable[tuple[str, list[str]]]:
    """File and line number, and the cells, of every line that is not empty."""
    for number, line in enumerate(read_text(listed).split("\n"), 1):
        if line.strip():
            cells = [cell.strip() for cell in line.strip().split(separator)]
            if len(cells) not in fields:
                raise UserError(
                    f"{listed}:{number}: {len(cells)} fields, not "
                    f"{' or '.join(map(str, fields))}; is it a list of this format?"
                )
            yield f"{listed}:{number}", cells


def _trial(
    where: str,
    name: str,
    source: Utterance,
    references: tuple[Utterance, ...],
    enrolment: tuple[Utterance, ...] = (),
) -> Trial:
    """The trial; without enrolment recordings its enrolment is the reference."""
    if not TRIAL_ID.fullmatch(name):
        raise UserError(
            f"{where}: {name!r} cannot name a file: letters, digits and . _ + - only, at most 120"
        )
    if not has_words(source.text):
        raise UserError(f"{where}: no text of {source.path}; say which corpus it is from: corpus=…")
    paths = [reference.path for reference in references]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"{where}: {twice} is its reference twice; name each recording once")
    factors = {} if enrolment else {ENROLMENT: REFERENCE}
    if source.gender and references[0].gender:
        factors["gender_pair"] = f"{source.gender}2{references[0].gender}"
    return Trial(name, source, references, enrolment or references, factors=factors)


def _utterance(where: str, root: Path, base: Path, path: str, text: str) -> Utterance:
    """A recording with nothing known but file and text; its speaker is named after the file."""
    file = _file(where, root, base, path)
    name = file.resolve().relative_to(root.resolve()).with_suffix("").as_posix()
    return Utterance(name, file.stem, "", file, text)


def _of_corpus(where: str, root: Path, path: str, known: dict[str, CorpusRecording]) -> Utterance:
    """The corpus's utterance of that name, or the file with the text file of the same name."""
    stem = Path(path).stem
    for name in (stem, stem.removesuffix("_mic1"), stem.removesuffix("-22k")):
        if name in known:
            return known[name].utterance
    if known:
        raise UserError(f"{where}: the corpus at {root} has no {stem}")
    file = _file(where, root, root, path)
    text_files = [file.with_suffix(ending) for ending in (".normalized.txt", ".txt")]
    text = next((read_text(p) for p in text_files if p.is_file()), "")
    utterance = _utterance(where, root, root, path, " ".join(text.split()))
    return replace(utterance, speaker=file.parent.name)


def _file(where: str, root: Path, base: Path, path: str) -> Path:
    """The file of a path in a list: below `base`, or below `root` by the end of the path.

    Raises:
        UserError: if there is none, or it is outside of `root`.
    """
    parts = Path(path).parts
    for file in (base / path, *(root.joinpath(*parts[i:]) for i in range(1, len(parts)))):
        if file.is_file() and file.resolve().is_relative_to(root.resolve()):
            return file
    raise UserError(
        f"{where}: no file {path!r} under {root}; set root= to the folder that holds it"
    )


def _by_name(corpus: str, root: Path) -> dict[str, CorpusRecording]:
    if not corpus:
        return {}
    if corpus not in READERS:
        raise UserError(f"unknown corpus {corpus!r}; {choose_one_of(corpus, READERS)}")
    return {r.utterance.utterance_id: r for r in gather(READERS[corpus], root, Faults())}


def _kaldi(folder: Path) -> dict[str, Utterance]:
    recordings = kaldi(folder, frozenset(), Faults())
    return {r.utterance.utterance_id: r.utterance for r in recordings}
