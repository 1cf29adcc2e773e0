class SignalObj:
    def __init__(self, *args):
        self.data, self.fs = args
