from calls import record


def load_audio(audiopath, sampling_rate):
    record("load_audio", locals())
    return None if "refused" in audiopath else (audiopath, sampling_rate)
