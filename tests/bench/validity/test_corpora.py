"""The table of public corpora is consistent, and any spelling of a name is recognised."""

import pytest

from bench.validity.corpora import (
    MAY_SHARE_SPEAKERS,
    PUBLIC_CORPORA,
    plain_name,
    public_corpus,
)


@pytest.mark.parametrize("name", ["LibriTTS-R", "libritts_r", "LIBRITTSR", "Libri TTS R"])
def test_a_corpus_is_recognised_by_any_spelling(name):
    assert public_corpus(name) is PUBLIC_CORPORA["librittsr"]


@pytest.mark.parametrize("name", ["Common Voice", "CommonVoice/en", "common_voice_17_0_en"])
def test_common_voice_is_one_collection_in_every_version_and_language(name):
    assert public_corpus(name) is PUBLIC_CORPORA["commonvoice"]


def test_an_unknown_corpus_is_none():
    assert public_corpus("my recordings") is None


def test_keys_are_plain_and_shared_voices_are_those_of_known_corpora():
    assert all(plain_name(key) == key for key in PUBLIC_CORPORA)
    voices = {corpus.voices for corpus in PUBLIC_CORPORA.values()}
    assert all(pair <= voices for pair in MAY_SHARE_SPEAKERS)
    assert all(bool(c.licence) == bool(c.home) for c in PUBLIC_CORPORA.values())
