"""The plain pipeline that most people would write: transformers, padded batches of 32."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worker.inference.architecture import HEADS
from worker.inference.config import EncoderShape
from worker.inference.tokenising import EncodedText

if TYPE_CHECKING:
    import torch

BATCH = 32
WINDOW = 256


class TransformersPeer:
    """``BertModel`` and the four heads; weights and products in ``dtype``."""

    def __init__(
        self,
        state: "Mapping[str, torch.Tensor]",
        shape: EncoderShape,
        dtype: "torch.dtype",
        device: "torch.device",
    ) -> None:
        import torch
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.intermediate_size,
            max_position_embeddings=shape.positions,
        )
        self._device = device
        encoder: Any = BertModel(config, add_pooling_layer=False)
        encoder.load_state_dict(
            {name.removeprefix("bert."): t for name, t in state.items() if name.startswith("bert.")}
        )
        heads = torch.nn.Linear(shape.hidden_size, sum(HEADS["crypto"].values()))
        heads.load_state_dict(
            {
                kind: torch.cat([state[f"{head}.{kind}"] for head in HEADS["crypto"]])
                for kind in ("weight", "bias")
            }
        )

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.encoder, self.heads = encoder, heads

            def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
                hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
                computed: torch.Tensor = self.heads(hidden)
                return computed

        self.module: torch.nn.Module = Model().to(device, dtype).eval()

    def classify(self, texts: Sequence[EncodedText], *, in_order: bool) -> None:
        """Compute all heads of all texts, in arrival order or sorted by length within windows of 256."""
        import torch

        with torch.inference_mode():
            for batch in batches(texts, in_order=in_order):
                ids, mask = padded(batch)
                self.module(ids.to(self._device), mask.to(self._device)).cpu()


def batches(texts: Sequence[EncodedText], *, in_order: bool) -> Iterator[Sequence[EncodedText]]:
    """Batches of 32 in arrival order, or sorted by length within windows of 256."""
    ordered = list(texts)
    if not in_order:
        windows = (ordered[start : start + WINDOW] for start in range(0, len(ordered), WINDOW))
        ordered = [text for window in windows for text in sorted(window, key=len)]
    for start in range(0, len(ordered), BATCH):
        yield ordered[start : start + BATCH]


def padded(batch: Sequence[EncodedText]) -> "tuple[torch.Tensor, torch.Tensor]":
    """Ids and mask ``[texts, longest]``, int64."""
    import torch

    ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = torch.from_numpy(text.ids)
        mask[row, : len(text)] = 1
    return ids, mask
