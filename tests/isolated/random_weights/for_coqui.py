"""Writes random weights of the four architectures, in the published layout, to a folder.

WavLM has few layers; everything else has its published size.
"""

import json
import os
import sys
import zipfile
from pathlib import Path

out = Path(sys.argv[1])
os.environ["TTS_HOME"] = str(out)

import torch  # noqa: E402
from TTS.vc.configs.freevc_config import FreeVCConfig  # noqa: E402
from TTS.vc.configs.openvoice_config import OpenVoiceConfig  # noqa: E402
from TTS.vc.layers.freevc.wavlm.wavlm import WavLM, WavLMConfig  # noqa: E402
from TTS.vc.models import freevc, openvoice  # noqa: E402
from TTS.vocoder.configs.hifigan_config import HifiganConfig  # noqa: E402
from TTS.vocoder.models.gan import GAN  # noqa: E402

torch.manual_seed(1)
LARGE = {  # of WavLM-Large, but for the number of layers
    "extractor_mode": "layer_norm",
    "encoder_layers": 7,
    "encoder_embed_dim": 1024,
    "encoder_ffn_embed_dim": 4096,
    "encoder_attention_heads": 16,
    "layer_norm_first": True,
    "normalize": True,
    "relative_position_embedding": True,
    "max_distance": 800,
    "gru_rel_pos": True,
}


def archive(name, checkpoint, config):
    """A release as it is published: a zip with a folder in it."""
    folder = out / "made"
    folder.mkdir(exist_ok=True)
    torch.save(checkpoint, folder / "model.pth")
    config.save_json(str(folder / "config.json"))
    with zipfile.ZipFile(out / name, "w") as file:
        for part in ("model.pth", "config.json"):
            file.write(folder / part, f"release/{part}")
            (folder / part).unlink()
    folder.rmdir()


(out / "tts" / "wavlm").mkdir(parents=True)
wavlm = WavLM(WavLMConfig(LARGE))
torch.save({"cfg": LARGE, "model": wavlm.state_dict()}, out / "tts/wavlm/WavLM-Large.pt")

lstm = torch.nn.LSTM(40, 256, 3, batch_first=True).state_dict()
linear = torch.nn.Linear(256, 256).state_dict()
state = {
    **{f"lstm.{k}": v for k, v in lstm.items()},
    **{f"linear.{k}": v for k, v in linear.items()},
}
torch.save({"model_state": state}, out / "speaker_encoder.pt")


def load_speaker_encoder(self):
    self.enc_spk_ex = freevc.SpeakerEncoderEx(str(out / "speaker_encoder.pt"))


freevc.FreeVC.load_pretrained_speaker_encoder = load_speaker_encoder
config = FreeVCConfig()
config.model_args.use_spk = True  # as in the authors' freevc-24.json, like the rates
config.model_args.upsample_rates = [10, 6, 4, 2]
archive("freevc24.zip", {"model": freevc.FreeVC(config).state_dict()}, config)

config = HifiganConfig()
config.audio.sample_rate = 16000
config.audio.num_mels = 512
config.generator_model_params = {
    "upsample_factors": [10, 8, 2, 2],
    "upsample_kernel_sizes": [20, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "resblock_type": "1",
    "pre_linear": 1024,
    "inference_padding": 0,
}
archive("knnvc_vocoder.zip", {"model": GAN(config).state_dict()}, config)

DATA = {"sampling_rate": 22050, "filter_length": 1024, "hop_length": 256, "win_length": 1024}
for name in ("OpenVoice", "OpenVoiceV2"):
    (out / name).mkdir()
    model = openvoice.OpenVoice(OpenVoiceConfig())
    torch.save({"model": model.state_dict()}, out / name / "checkpoint.pth")
    (out / name / "config.json").write_text(json.dumps({"data": DATA}))
