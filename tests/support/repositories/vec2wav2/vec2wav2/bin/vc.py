import numpy
import soundfile
import torch
import yaml
from calls import record


class VoiceConverter:
    def __init__(
        self,
        expdir="pretrained/",
        token_extractor="pretrained/vq-wav2vec_kmeans.pt",
        prompt_extractor="pretrained/WavLM-Large.pt",
        prompt_output_layer=6,
        checkpoint=None,
        script_logger=None,
    ):
        record("VoiceConverter", locals())
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.safe = yaml.Loader is yaml.SafeLoader
        self.config = {"sampling_rate": 24000}

    def voice_conversion(self, source_audio, target_audio, output_path="output.wav"):
        record("voice_conversion", locals())
        assert self.safe
        assert self.device == "cpu"
        soundfile.write(output_path, numpy.full(2400, 0.25), self.config["sampling_rate"])
        return output_path
