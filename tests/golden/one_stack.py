"""Models of one stack as the transformers library would run them, if it had them: its searches over logits of ours.

The text of such a model is the start token, the inputs and the targets (docs/t5.md 1.7). To the library it is an
encoder, which keeps the inputs as they are, and a decoder, whose start token stands for the last of the inputs: the
logits there choose the first target. Nothing is cached.
"""

import torch
from transformers import GenerationMixin, T5Config
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import ACT2FN, T5Attention, T5LayerNorm, T5PreTrainedModel


class Ids(torch.nn.Module):
    """The encoder: inputs as they are."""

    main_input_name = "input_ids"

    def forward(self, input_ids, attention_mask=None, **_):
        return BaseModelOutput(last_hidden_state=input_ids.unsqueeze(-1))


class OneStack(T5PreTrainedModel, GenerationMixin):
    def __init__(self, config, state, scaled, prefix):
        super().__init__(T5Config(**{**config, "model_type": "t5", "is_encoder_decoder": True, "num_layers": 1}))
        self.ids, self.scaled, self.prefix = Ids(), scaled, prefix
        self.relative_attention_max_distance = config["relative_attention_max_distance"]
        self.gated = config["feed_forward_proj"].startswith("gated-")
        self.act = ACT2FN[self.config.dense_act_fn]
        self.values = torch.nn.ParameterDict(
            {key.replace(".", "/"): torch.nn.Parameter(value.clone()) for key, value in state.items()}
        )

    def get_encoder(self, *_args, **_options):
        return self.ids

    def forward(
        self, input_ids=None, attention_mask=None, decoder_input_ids=None, encoder_outputs=None, use_cache=False, **_
    ):
        assert not use_cache, "there are no caches"
        if encoder_outputs is not None:
            input_ids = encoder_outputs[0].squeeze(-1)
        if attention_mask is not None and not attention_mask.all():
            # Rows of a padded batch have their own lengths, and so positions.
            rows = [
                self(row[mask == 1][None], decoder_input_ids=targets[None]).logits
                for row, mask, targets in zip(input_ids, attention_mask, decoder_input_ids)
            ]
            return Seq2SeqLMOutput(logits=torch.cat(rows))
        start, targets = decoder_input_ids[:, :1], decoder_input_ids[:, 1:]
        logits = self.logits(torch.cat([start, input_ids, targets], 1), input_ids.shape[1] + 1)
        return Seq2SeqLMOutput(logits=logits[:, input_ids.shape[1] :])

    def logits(self, text, seen):
        """Logits [rows, len, vocab] of texts [rows, len] of which the first `seen` tokens are read."""
        value = lambda name: self.values[f"{name}.weight".replace(".", "/")]
        rows, length = text.shape
        at = torch.arange(length)
        query, key = at[:, None], at[None, :]
        visible = key <= query
        if self.prefix:
            visible = visible | ((key < seen) & (query < seen))
        buckets = T5Attention._relative_position_bucket(
            key - query,
            bidirectional=self.prefix,
            num_buckets=self.config.relative_attention_num_buckets,
            max_distance=self.relative_attention_max_distance,
        )
        bias = value("decoder.block.0.layer.0.SelfAttention.relative_attention_bias")[buckets].permute(2, 0, 1)
        bias = bias.masked_fill(~visible, float("-inf"))
        x = value("shared")[text]
        for block in range(self.config.num_decoder_layers):
            layer = f"decoder.block.{block}.layer"
            y = self.norm(x, value(f"{layer}.0.layer_norm"))
            q, k, v = (
                (y @ value(f"{layer}.0.SelfAttention.{part}").T)
                .reshape(rows, length, self.config.num_heads, self.config.d_kv)
                .transpose(1, 2)
                for part in "qkv"
            )
            mixed = (q @ k.transpose(2, 3) + bias).softmax(-1) @ v
            x = x + mixed.transpose(1, 2).flatten(2) @ value(f"{layer}.0.SelfAttention.o").T
            y = self.norm(x, value(f"{layer}.2.layer_norm"))
            dense = f"{layer}.2.DenseReluDense"
            if self.gated:
                y = self.act(y @ value(f"{dense}.wi_0").T) * (y @ value(f"{dense}.wi_1").T)
            else:
                y = self.act(y @ value(f"{dense}.wi").T)
            x = x + y @ value(f"{dense}.wo").T
        x = self.norm(x, value("decoder.final_layer_norm"))
        if self.scaled:
            x = x * self.config.d_model**-0.5
        return x @ (value("lm_head") if "lm_head/weight" in self.values else value("shared")).T

    def norm(self, x, weight):
        norm = T5LayerNorm(len(weight), self.config.layer_norm_epsilon)
        norm.weight = weight
        return norm(x)
