"""openai-whisper's greedy decoding in batches that shrink as transcripts end."""

from typing import Any

import torch
from torch import Tensor
from whisper.decoding import DecodingTask

SHRINK = 0.75  # a batch is cut to its unfinished rows when these are at most this share of it


class ShrinkingBatch(DecodingTask):
    """Greedy decoding that leaves out clips whose transcript has ended.

    openai-whisper decodes every clip until the longest transcript of the batch ends. The tokens are
    the same; `avg_logprob` of the results is 0, since nothing here reads it.

    Raises:
        ValueError: if the options are not greedy (beam search, samples, a temperature).
    """

    def __init__(self, model: Any, options: Any) -> None:
        if options.beam_size or options.best_of or options.temperature:
            raise ValueError("ShrinkingBatch decodes greedily")
        super().__init__(model, options)

    def _main_loop(self, audio_features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, list]:
        count, begin = tokens.shape
        end = self.tokenizer.eot
        # Behind a transcript's end stand end tokens, as `GreedyDecoder` writes them.
        decoded = tokens.new_full((count, begin + self.sample_len), end)
        decoded[:, :begin] = tokens
        rows = torch.arange(count, device=tokens.device)  # of `decoded`, that are still decoded
        silence = [float("nan")] * count
        longest = begin
        try:
            for step in range(self.sample_len):
                logits = self.inference.logits(tokens, audio_features)
                if step == 0 and self.tokenizer.no_speech is not None:
                    first = logits[:, self.sot_index].float().softmax(dim=-1)
                    silence = first[:, self.tokenizer.no_speech].tolist()
                logits = logits[:, -1]
                for logit_filter in self.logit_filters:
                    logit_filter.apply(logits, tokens)
                chosen = logits.argmax(dim=-1)
                chosen[tokens[:, -1] == end] = end
                tokens = torch.cat([tokens, chosen[:, None]], dim=-1)
                longest = tokens.shape[1]
                decoded[rows, longest - 1] = chosen
                going = (chosen != end).nonzero()[:, 0]
                if not len(going) or longest > self.n_ctx:
                    break
                if len(going) <= SHRINK * len(rows):
                    rows, tokens, audio_features = rows[going], tokens[going], audio_features[going]
                    cache = self.inference.kv_cache
                    for layer, cached in cache.items():
                        cache[layer] = cached[going]
        finally:
            self.inference.cleanup_caching()
        return decoded[:, :longest], torch.zeros(count, device=decoded.device), silence
