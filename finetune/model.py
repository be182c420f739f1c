"""G's architecture: the first generation of Gemma, small."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GemmaConfig, GemmaForCausalLM

from finetune.batches import Batch
from helmsman.prompts.codec import Codec
from helmsman.prompts.dialect import BOS, END_TURN, PAD


def build(codec: Codec, hidden: int = 256, layers: int = 6, inner: int = 768, head: int = 64) -> GemmaForCausalLM:
    """A fresh model over the codec's vocabulary. Eager attention: on short rows and a CPU it trains a fifth faster."""
    config = GemmaConfig(
        vocab_size=codec.tokenizer.get_vocab_size(),
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=inner,
        num_attention_heads=hidden // head,
        num_key_value_heads=hidden // head,
        head_dim=head,
        max_position_embeddings=2048,
        pad_token_id=codec.id_of(PAD),
        bos_token_id=codec.id_of(BOS),
        eos_token_id=codec.id_of(END_TURN),
        tie_word_embeddings=True,
    )
    model = GemmaForCausalLM(config)
    model.set_attn_implementation("eager")
    return model


def regularise(model: GemmaForCausalLM, dropout: float) -> None:
    """Dropout behind every attention and every feed-forward layer, which Gemma has none of; active in training only."""

    def attention(module: nn.Module, _: object, out: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (F.dropout(out[0], dropout, module.training), *out[1:])

    def feed_forward(module: nn.Module, _: object, out: torch.Tensor) -> torch.Tensor:
        return F.dropout(out, dropout, module.training)

    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(attention)
        layer.mlp.register_forward_hook(feed_forward)


def loss(model: GemmaForCausalLM, batch: Batch, dropout: float = 0.0) -> torch.Tensor:
    """The weighted mean loss over the answer's tokens; logits are computed at those positions only.

    No attention mask: rows are padded on the right, and a causal model never looks there.
    """
    embedded = model.model.embed_tokens(batch.ids)
    if dropout:
        embedded = F.dropout(embedded, dropout)
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden.flatten(0, 1)[batch.at])
    each = F.cross_entropy(logits.float(), batch.targets, reduction="none")
    return (each * batch.weights).sum() / batch.weights.sum()
