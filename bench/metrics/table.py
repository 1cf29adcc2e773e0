"""The metrics that this project's judges and stages measure."""

from itertools import product

from bench.metrics.metric import (
    COSINE,
    COUNT,
    EXPOSURE,
    FAILURES,
    INTELLIGIBILITY,
    LEAKAGE,
    NATURALNESS,
    OPINION,
    PROSODY,
    SHARE,
    SIMILARITY,
    SPEED,
    Metric,
)


def error_rate(kind: str, reference: str, normalisation: str, pooling: str) -> str:
    """The key of a word or character error rate.

    Args:
        kind: wer or cer.
        reference: "text" of the source, or "asr_source", the recogniser's transcript of it.
        normalisation: "english", "raw" or "chinese".
        pooling: "corpus" or "mean".
    """
    marks = {"asr_source": "_asr", "raw": "_raw", "chinese": "_chinese", "mean": "_mean"}
    return kind + "".join(marks.get(choice, "") for choice in (reference, normalisation, pooling))


def kinds_of(normalisation: str) -> tuple[str, ...]:
    """Which error rates a normalisation has: Chinese is written without spaces between words."""
    return ("cer",) if normalisation == "chinese" else ("wer", "cer")


def _error_rates() -> dict[str, Metric]:
    """WER and CER, for each reference, normalisation and pooling."""
    rates = {}
    evened_out = {
        "english": "",
        "raw": "; only case and punctuation are evened out",
        "chinese": "; both in simplified characters without punctuation",
    }
    for reference, normalisation, pooling in product(
        ("text", "asr_source"), ("english", "raw", "chinese"), ("corpus", "mean")
    ):
        for kind in kinds_of(normalisation):
            unit, whole = ("word", "words") if kind == "wer" else ("char", "chars")
            prefix = ("asr_" if reference == "asr_source" else "") + (
                "" if normalisation == "english" else f"{normalisation}_"
            )
            label = kind.upper() + "".join(
                mark
                for mark, applies in (
                    (" vs ASR", reference == "asr_source"),
                    (" raw", normalisation == "raw"),
                    (" Chinese", normalisation == "chinese"),
                    (" mean", pooling == "mean"),
                )
                if applies
            )
            noun = "word" if kind == "wer" else "character"
            text = (
                "its transcript by the same recogniser" if reference == "asr_source" else "its text"
            )
            about = (
                f"{noun} errors over {noun}s "
                + ("of all trials together" if pooling == "corpus" else "of each trial, averaged")
                + f", against the source: {text}"
                + evened_out[normalisation]
            )
            rates[error_rate(kind, reference, normalisation, pooling)] = Metric(
                label,
                False,
                f"{prefix}{unit}_errors",
                f"{prefix}{whole}",
                unit="%",
                scale=100,
                decimals=1,
                about=about,
                mean=pooling == "mean",
                limits=COUNT,
                family=INTELLIGIBILITY,
                rank=0 if kind == kinds_of(normalisation)[0] else 1,
                near=1.0 if kind == "wer" else 0.5,
            )
    return rates


def _styles() -> dict[str, Metric]:
    """Similarity of accent and emotion: to the source, to the target, and the source's class kept.

    A conversion should keep the emotion. Whether it should keep the source's accent or take the
    target's, its use decides: no direction there.
    """
    metrics = {}
    for rank, (kind, keep) in enumerate((("accent", None), ("emotion", True))):
        about = f"cosine of the {kind} embedding to that of"
        metrics[f"{kind}_source"] = Metric(
            f"{kind} to source",
            keep,
            f"{kind}_source",
            about=f"{about} the source's recording; it carries the voice too",
            limits=COSINE,
            family=PROSODY,
            rank=5 + rank,
        )
        metrics[f"{kind}_target"] = Metric(
            f"{kind} to target",
            None,
            f"{kind}_target",
            about=f"{about} the target's enrolment recordings; it carries the voice too",
            limits=COSINE,
            family=PROSODY,
            rank=7 + rank,
        )
        metrics[f"{kind}_kept"] = Metric(
            f"{kind} kept",
            keep,
            f"{kind}_kept",
            unit="%",
            scale=100,
            decimals=0,
            about=f"share of trials whose {kind} is put into the same class as the source's",
            limits=SHARE,
            family=PROSODY,
            rank=9 + rank,
        )
    return metrics


ERROR_RATES = _error_rates()

BUILT_IN = {
    "secs": Metric(
        "SECS",
        True,
        "secs",
        about="speaker similarity to enrolment speech of the target",
        limits=COSINE,
        family=SIMILARITY,
        near=0.02,
    ),
    "secs_reference": Metric(
        "SECS to reference",
        True,
        "secs_reference",
        about="speaker similarity to the very reference that the system was given",
        limits=COSINE,
        family=SIMILARITY,
        near=0.02,
    ),
    "secs_calibrated": Metric(
        "SECS calibrated",
        True,
        "secs_calibrated",
        about="where SECS lies between known different speakers (0) and one speaker (1)",
        family=SIMILARITY,
        rank=1,
    ),
    "secs_calibrated_reference": Metric(
        "SECS to reference calibrated",
        True,
        "secs_calibrated_reference",
        about="where SECS to reference lies between different speakers (0) and one speaker (1)",
        family=SIMILARITY,
        rank=1,
    ),
    "sv_accept": Metric(
        "accepted",
        True,
        "sv_accept",
        unit="%",
        scale=100,
        decimals=0,
        about="comparisons that a speaker verification at equal error would accept",
        limits=SHARE,
        family=SIMILARITY,
        rank=2,
    ),
    "sv_accept_reference": Metric(
        "accepted as reference",
        True,
        "sv_accept_reference",
        unit="%",
        scale=100,
        decimals=0,
        about="comparisons with the reference that a speaker verification would accept",
        limits=SHARE,
        family=SIMILARITY,
        rank=2,
    ),
    "source_secs": Metric(
        "SECS to source",
        False,
        "source_secs",
        about="speaker similarity to the source speaker: how much of that voice is left",
        limits=COSINE,
        family=LEAKAGE,
    ),
    "nearer_target": Metric(
        "nearer target",
        True,
        "nearer_target",
        unit="%",
        scale=100,
        decimals=0,
        about="share of trials more similar to the target than to the source",
        limits=SHARE,
        family=LEAKAGE,
        rank=1,
    ),
    **ERROR_RATES,
    "wer_added": Metric(
        "WER added",
        False,
        "added_word_errors",
        "words",
        unit="%",
        scale=100,
        decimals=1,
        about="word errors beyond those that the recogniser makes in the source's recording",
        family=INTELLIGIBILITY,
        differs_as="wer",
    ),
    "cer_chinese_added": Metric(
        "CER Chinese added",
        False,
        "added_chinese_char_errors",
        "chinese_chars",
        unit="%",
        scale=100,
        decimals=1,
        about="character errors beyond those that the recogniser makes in the source's recording",
        family=INTELLIGIBILITY,
        rank=1,
        differs_as="cer_chinese",
    ),
    "utmos": Metric(
        "UTMOS",
        True,
        "utmos",
        about="predicted naturalness, 1–5 (UTMOS22 strong)",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
    ),
    "distillmos": Metric(
        "DistillMOS",
        True,
        "distillmos",
        about="predicted naturalness, 1–5 (DistillMOS)",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
        shortest=6.0,
    ),
    "scoreq": Metric(
        "SCOREQ",
        True,
        "scoreq",
        about="predicted naturalness, 1–5 (SCOREQ for synthetic speech)",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
    ),
    "dnsmos_pro": Metric(
        "DNSMOS Pro",
        True,
        "dnsmos_pro",
        about="predicted naturalness, 1–5 (DNSMOS Pro, trained on BVCC)",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
    ),
    "dnsmos_ovrl": Metric(
        "OVRL",
        True,
        "ovrl",
        about="DNSMOS P.835 overall quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        near=0.1,
    ),
    "dnsmos_sig": Metric(
        "SIG",
        True,
        "sig",
        about="DNSMOS P.835 speech signal quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        rank=1,
    ),
    "dnsmos_bak": Metric(
        "BAK",
        True,
        "bak",
        about="DNSMOS P.835 background quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        rank=1,
    ),
    "dnsmos_p808": Metric(
        "P.808",
        True,
        "p808",
        about="DNSMOS P.808 overall quality, 1–5",
        limits=OPINION,
        family=NATURALNESS,
        rank=1,
    ),
    "f0_correlation": Metric(
        "F0 corr",
        True,
        "f0_correlation",
        about="Pearson correlation of log F0 with the source over frames voiced in both",
        limits=COSINE,
        family=PROSODY,
    ),
    "f0_rmse": Metric(
        "F0 RMSE",
        False,
        "f0_rmse",
        unit="st",
        decimals=1,
        about="difference of the F0 contours from the source's in semitones, each about its mean",
        limits=COUNT,
        family=PROSODY,
        rank=1,
    ),
    "energy_correlation": Metric(
        "energy corr",
        True,
        "energy_correlation",
        about="Pearson correlation of the energy contour in dB with the source's",
        family=PROSODY,
    ),
    "duration_ratio": Metric(
        "duration",
        None,
        "duration_ratio",
        about="converted over source duration; 1 keeps the timing",
        limits=COUNT,
        family=PROSODY,
        rank=2,
    ),
    "f0_median_error": Metric(
        "F0 median error",
        False,
        "f0_median_error",
        unit="st",
        decimals=1,
        about="distance of the median log F0 from that of the target's enrolment, in semitones",
        limits=COUNT,
        family=PROSODY,
        rank=3,
    ),
    "f0_spread_error": Metric(
        "F0 spread error",
        False,
        "f0_spread_error",
        unit="st",
        decimals=1,
        about="distance of the standard deviation of log F0 from that of the target's enrolment "
        "recordings, in semitones",
        limits=COUNT,
        family=PROSODY,
        rank=4,
    ),
    **_styles(),
    "unseen": Metric(
        "unseen",
        None,
        "unseen",
        unit="%",
        scale=100,
        decimals=0,
        about="trials whose two speakers are both outside the system's declared training data; "
        "n counts trials where that is known",
        family=EXPOSURE,
    ),
    "rtf": Metric(
        "RTF",
        False,
        "elapsed_seconds",
        "audio_seconds",
        decimals=3,
        about="seconds of computing per second of generated speech; below 1 beats real time",
        limits=COUNT,
        family=SPEED,
    ),
    "first_chunk": Metric(
        "first chunk",
        False,
        "first_chunk_seconds",
        unit="ms",
        scale=1000,
        decimals=0,
        about="time from the call of a streaming system to its first chunk of speech",
        limits=COUNT,
        family=SPEED,
        rank=1,
    ),
    "stream_rtf": Metric(
        "streaming RTF",
        False,
        "stream_seconds",
        "streamed_seconds",
        decimals=3,
        about="seconds of computing per second of speech while streaming",
        limits=COUNT,
        family=SPEED,
        rank=2,
    ),
    "failed": Metric(
        "failed",
        False,
        "failed",
        unit="%",
        scale=100,
        decimals=1,
        about="share of trials that could not be converted",
        limits=SHARE,
        family=FAILURES,
    ),
}
