"""What a stage minimises: the losses of the heads, or the guess of masked pieces."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import nn
from torch.nn import functional

from worker.training.batches import Batch, collate, pad
from worker.training.examples import Example
from worker.training.heads import HeadSpec
from worker.training.losses import class_weights, head_loss
from worker.training.mixed_precision import autocast
from worker.training.model import MultiHeadModel

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import BertModel

MASKED_SHARE: Final = 0.15
_MASKS: Final = ("[MASK]", "<mask>", "[UNK]", "<unk>")
"""The piece that hides another; a vocabulary that was cut may have lost it, and the unknown one serves."""


class Objective(Protocol):
    """A stage's loss and what it needs of the examples."""

    def weights(self, examples: Sequence[Example], power: float) -> "dict[str, Tensor]":
        """Class weights for an epoch of these examples, by class frequency to the power of -``power``."""

    def collate(
        self, examples: Sequence[Example], rows: Sequence[Sequence[int]], pad_id: int, smoothing: float
    ) -> Batch:
        """One batch of the examples, whose token ids are ``rows``."""

    def loss(self, model: MultiHeadModel, batch: Batch, weights: "dict[str, Tensor]") -> "Tensor":
        """The loss of one batch, a scalar in float32."""


class HeadsObjective:
    """Weighted sum of the heads' losses; a head counts by the part of the batch that has a target for it."""

    def __init__(self, heads: Sequence[HeadSpec]) -> None:
        self.heads = heads

    def weights(self, examples: Sequence[Example], power: float) -> "dict[str, Tensor]":
        """For the heads with classes."""
        if not power:
            return {}
        return {
            head.name: class_weights(examples, head, power)
            for head in self.heads
            if head.kind in ("class", "ordinal")
        }

    def collate(
        self, examples: Sequence[Example], rows: Sequence[Sequence[int]], pad_id: int, smoothing: float
    ) -> Batch:
        """Known classes become soft targets."""
        return collate(examples, rows, self.heads, pad_id, smoothing)

    def loss(self, model: MultiHeadModel, batch: Batch, weights: "dict[str, Tensor]") -> "Tensor":
        """The encoder in mixed precision, the heads in float32."""
        device = next(model.parameters()).device
        with autocast(device):
            vector = model.pooled(batch.ids.to(device), batch.mask.to(device))
        outputs = {
            name: head(model.dropout(vector)) for name, head in model.heads.items() if name in batch.targets
        }
        total = vector.new_zeros(())
        for head in self.heads:
            if head.name in batch.targets:
                rows, targets = (t.to(device) for t in batch.targets[head.name])
                loss = head_loss(head, outputs[head.name][rows], targets, weights)
                total = total + head.weight * loss * len(rows) / len(batch.ids)
        return total


class MaskedModel(MultiHeadModel):
    """The encoder with BERT's transform for guessing pieces; the output matrix is the embedding table."""

    def __init__(self, encoder: "BertModel") -> None:
        super().__init__(encoder, (), "cls", 0.0)
        size = encoder.config.hidden_size
        self.transform = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
        self.bias = nn.Parameter(torch.zeros(encoder.config.vocab_size))


class MaskedObjective:
    """Masked-language modelling as BERT's: of the chosen pieces 80 % are hidden, 10 % replaced, 10 % kept."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        masks = (tokenizer.token_to_id(name) for name in _MASKS)
        self.mask_id = next(index for index in masks if index is not None)
        self.size = tokenizer.get_vocab_size()
        special = {*tokenizer.encode("").ids}
        self.special = torch.tensor(sorted(special))

    def weights(self, examples: Sequence[Example], power: float) -> "dict[str, Tensor]":
        """None: every piece counts alike."""
        del examples, power
        return {}

    def collate(
        self, examples: Sequence[Example], rows: Sequence[Sequence[int]], pad_id: int, smoothing: float
    ) -> Batch:
        """Ids and mask alone: which pieces are hidden is drawn for each step anew."""
        del examples, smoothing
        ids, mask = pad(rows, pad_id)
        return Batch(ids, mask, {})

    def loss(self, model: MultiHeadModel, batch: Batch, weights: "dict[str, Tensor]") -> "Tensor":
        """Cross-entropy of the chosen pieces."""
        del weights
        if not isinstance(model, MaskedModel):
            raise TypeError("a masked stage trains a MaskedModel")
        device = next(model.parameters()).device
        chosen = (torch.rand(batch.ids.shape) < MASKED_SHARE) & (batch.mask > 0)
        chosen &= ~torch.isin(batch.ids, self.special)
        draw = torch.rand(batch.ids.shape)
        ids = batch.ids.masked_fill(chosen & (draw < 0.8), self.mask_id)
        ids = torch.where(chosen & (draw >= 0.9), torch.randint(self.size, ids.shape), ids)
        table = model.bert.embeddings.word_embeddings.weight
        with autocast(device):
            states = model.bert(input_ids=ids.to(device), attention_mask=batch.mask.to(device))
            hidden = model.transform(states.last_hidden_state[chosen.to(device)])
            logits = functional.linear(hidden, table, model.bias)
        if not len(logits):
            return logits.float().sum()
        return functional.cross_entropy(logits.float(), batch.ids[chosen].to(device))
