from calls import record


def load_checkpoint(model, ckpt_path, device, use_ema=True):
    record("load_checkpoint", locals())
    return model
