class Wav2Vec2ForPreTraining:
    @classmethod
    def from_pretrained(cls, name):
        return name
