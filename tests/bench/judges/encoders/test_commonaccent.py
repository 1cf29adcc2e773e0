"""CommonAccent's ECAPA-TDNN: against speechbrain's own interface, under the same random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.errors import UserError
from bench.judges.encoders import commonaccent, ecapa
from bench.judges.encoders.commonaccent import CommonAccent, classes
from bench.weights.find import WeightsMissing
from tests.support.tiny_judges import pieces, random_tensors

NAMES = ("us", "england", "hongkong", "southatlandtic")
# The published settings, as far as they decide a number.
HYPERPARAMS = """
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: 80
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: 80
    activation: !name:torch.nn.LeakyReLU
    channels: [1024, 1024, 1024, 1024, 3072]
    kernel_sizes: [5, 3, 3, 3, 1]
    dilations: [1, 2, 3, 4, 1]
    attention_channels: 128
    lin_neurons: 192
classifier: !new:speechbrain.lobes.models.ECAPA_TDNN.Classifier
    input_size: 192
    out_neurons: 4
modules:
    compute_features: !ref <compute_features>
    mean_var_norm: !ref <mean_var_norm>
    embedding_model: !ref <embedding_model>
    classifier: !ref <classifier>
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
        embedding_model: !ref <embedding_model>
        classifier: !ref <classifier>
        label_encoder: !ref <label_encoder>
    paths:
        embedding_model: FOLDER/embedding_model.ckpt
        classifier: FOLDER/classifier.ckpt
        label_encoder: FOLDER/accent_encoder.txt
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three published files and speechbrain's settings, with random weights."""
    from speechbrain.dataio.encoder import CategoricalEncoder

    folder = tmp_path_factory.mktemp("commonaccent")
    with torch.device("meta"):
        network = ecapa.EcapaTDNN().network
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    torch.save(random_tensors(shapes), folder / ecapa.FILE)
    torch.save(random_tensors({"weight": (4, 192)}, seed=1), folder / commonaccent.CLASSIFIER)
    labels = CategoricalEncoder()
    labels.update_from_iterable(NAMES)
    labels.save(folder / commonaccent.CLASSES)
    (folder / "hyperparams.yaml").write_text(HYPERPARAMS.replace("FOLDER", str(folder)))
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> CommonAccent:
    return CommonAccent(str(folder), device="cpu")


def test_styles_are_speechbrains_whatever_the_batch(encoder, folder, recordings) -> None:
    from speechbrain.inference.classifiers import EncoderClassifier

    public = EncoderClassifier.from_hparams(source=str(folder), savedir=str(folder))
    clips = pieces(recordings, [16000, 9000, 12345, 1600, 16000])
    expected, cosines, labels = [], [], []
    with torch.inference_mode():
        for clip in clips:
            expected.append(nn.functional.normalize(public.encode_batch(clip.samples)[0, 0], dim=0))
            scores, _, _, label = public.classify_batch(clip.samples)
            cosines.append(scores[0].numpy())
            labels += label
    for batch_size, step in ((1, 1), (3, -1), (16, 1)):
        encoder.batch_size = batch_size
        styles = encoder.styles(clips[::step])[::step]
        differences = np.stack([s.embedding for s in styles]) - np.stack(expected)
        assert np.abs(differences).max() < 1e-5
        scores = [[s.scores[name] for name in NAMES] for s in styles]
        assert np.abs(np.stack(scores) - np.stack(cosines)).max() < 1e-5
        assert [s.label for s in styles] == labels
    assert np.abs(np.stack(expected[:1]) - np.stack(expected[1:2])).max() > 0.01


def test_the_speaker_encoders_activation_would_move_them(encoder, folder, recordings) -> None:
    """The networks differ by it alone, and no file says so: the states have the same tensors."""
    [clip] = pieces(recordings, [16000])
    speaker = ecapa.ECAPA(str(folder), device="cpu")
    assert np.abs(speaker.embed([clip]) - encoder.embed([clip])).max() > 1e-3


def test_random_weights_fail_the_self_test(encoder, recordings) -> None:
    few = [r for r in recordings if r.utterance_id.startswith(("1688-142285-000", "1998"))][1:5]
    test = encoder.self_test(few)
    assert not test.passed
    assert float(test.findings["cosine to the nearest accent"].split()[0]) < 0.25
    with pytest.raises(UserError, match="needs two recordings of one speaker"):
        encoder.self_test(few[:1])


def test_recordings_near_one_accent_a_speaker_pass(encoder, recordings, monkeypatch) -> None:
    few = [r for r in recordings if r.speaker in ("1688", "1998")]
    names, directions = encoder.accents
    of_sound = {r.load().sha256: directions[int(r.speaker == "1998")] for r in few}
    monkeypatch.setattr(
        encoder, "embed", lambda waveforms: np.stack([of_sound[w.sha256] for w in waveforms])
    )
    test = encoder.self_test(few)
    assert test.passed
    assert test.findings == {
        "cosine to the nearest accent": "1.00 (at least 0.25)",
        "one accent for one speaker": "100% of 6 pairs (at least 60%)",
        "accents": f"{names[0]} 3, {names[1]} 3",
    }


def test_the_list_of_accents_is_read_by_number(tmp_path) -> None:
    path = tmp_path / "accent_encoder.txt"
    path.write_text("'b' => 1\n'a' => 0\n================\n\n'starting_index' => 0\n")
    assert classes(path) == ("a", "b")
    for wrong in ("", "'a' => 0\n'b' => 2\n", "'<script>' => 0\n", "'a' => 00000\n", "\xff"):
        path.write_text(wrong, encoding="latin-1")
        with pytest.raises(UserError, match="no list of numbered accents; hf download Jzuluaga"):
            classes(path)


def test_a_classifier_of_other_classes_is_refused(folder, tmp_path) -> None:
    for name in (ecapa.FILE, commonaccent.CLASSIFIER):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / commonaccent.CLASSES).write_text("'us' => 0\n")
    with pytest.raises(UserError, match=r"no weight of \(1, 192\), one row for each class of acc"):
        _ = CommonAccent(str(tmp_path), device="cpu").accents


def test_missing_weights_name_the_command_that_gets_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("bench.weights.find.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(WeightsMissing, match="hf download Jzuluaga/accent-id-commonaccent_ecapa"):
        CommonAccent()
    with pytest.raises(UserError, match=r"holds no embedding_model\.ckpt; correct `weights`"):
        CommonAccent(str(tmp_path))
