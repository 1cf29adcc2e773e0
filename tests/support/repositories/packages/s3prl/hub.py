from calls import record


def wavlm_local(*args, **kwargs):
    record("wavlm_local", kwargs)
