import numpy
import torch
from calls import record
from modules.astral_quantization import default_model

AudioSegment = None
load_custom_model_from_hf = None


class VoiceConversionWrapper(torch.nn.Module):
    def __init__(self, sr, content_extractor_narrow, content_extractor_wide, vocoder):
        record("VoiceConversionWrapper", locals())
        super().__init__()
        assert default_model.AutoTokenizer.from_pretrained("openai/whisper-small") is None

    def load_checkpoints(self, cfm_checkpoint_path=None, ar_checkpoint_path=None):
        record("load_checkpoints", locals())
        narrow = load_custom_model_from_hf(repo_id="a", model_filename="bsq32/bsq32_light.pth")
        style = load_custom_model_from_hf("b", "campplus_cn_common.bin", config_filename=None)
        record("files", {"narrow": narrow, "style": style})

    def setup_ar_caches(
        self,
        max_batch_size=1,
        max_seq_len=4096,
        dtype=torch.float32,
        device=torch.device("cpu"),  # noqa: B008
    ):
        record("setup_ar_caches", locals())

    def convert_voice_with_streaming(
        self,
        source_audio_path: str,
        target_audio_path: str,
        diffusion_steps: int = 30,
        length_adjust: float = 1.0,
        intelligebility_cfg_rate: float = 0.7,
        similarity_cfg_rate: float = 0.7,
        top_p: float = 0.7,
        temperature: float = 0.7,
        repetition_penalty: float = 1.5,
        convert_style: bool = False,
        anonymization_only: bool = False,
        device: torch.device = torch.device("cuda"),  # noqa: B008
        dtype: torch.dtype = torch.float16,
        stream_output: bool = True,
    ):
        record("convert_voice_with_streaming", locals())
        mp3 = AudioSegment(b"", frame_rate=22050, sample_width=2, channels=1)
        for whole in (None, (22050, numpy.full(2205, 0.25, dtype="float32"))):
            yield mp3.export(format="mp3", bitrate="320k").read(), whole
