import torch
from calls import record
from omegaconf import OmegaConf


def _to_device(device_id):
    raise AssertionError("the adapter names the device")


def load_xvc(config_path, ckpt_path, device_id, ema_load):
    generator = OmegaConf.load(config_path).model.generator
    record(
        "load_xvc",
        {
            "ckpt_path": ckpt_path,
            "ema_load": ema_load,
            "tokenizer": generator.semantic_encoder.encoder.from_pretrained.local_ckpt,
            "features": generator.semantic_encoder.cfg.local_ckpt,
            "speaker": generator.speaker_encoder.pretrained_dir,
        },
    )
    return {"sample_rate": 16000}, "model", _to_device(device_id)


def load_pair_as_tensors(
    source_wav_path, target_wav_path, cfg, device, latent_hop_length, mask_target_condition
):
    record("load_pair_as_tensors", locals())
    return "source", "target", "condition"


def run_offline(model, source_wav, target_wav, target_wav_cond):
    record("run_offline", locals())
    return torch.full((1, 1, 25600), 0.25)
