"""The plain pipeline that most people would write: transformers, padded batches of 32."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from worker.inference.architecture import HEADS
from worker.inference.config import EncoderShape
from worker.inference.tokenising import EncodedText

if TYPE_CHECKING:
    import torch

BATCH = 32
WINDOW = 256


class TransformersPeer:
    """``BertModel`` and four linear heads; weights and products in ``dtype``."""

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
        self._encoder = encoder.to(device, dtype).eval()
        self._heads = [
            (state[f"{head}.weight"].to(device, dtype), state[f"{head}.bias"].to(device, dtype))
            for head in HEADS["crypto"]
        ]
        self._linear = torch.nn.functional.linear

    def classify(self, texts: Sequence[EncodedText], *, in_order: bool) -> None:
        """Compute all heads of all texts, in arrival order or sorted by length within windows of 256."""
        import torch

        ordered = list(texts)
        if not in_order:
            windows = (ordered[start : start + WINDOW] for start in range(0, len(ordered), WINDOW))
            ordered = [text for window in windows for text in sorted(window, key=len)]
        with torch.inference_mode():
            for start in range(0, len(ordered), BATCH):
                ids, mask = _padded(ordered[start : start + BATCH])
                hidden = self._encoder(
                    input_ids=ids.to(self._device), attention_mask=mask.to(self._device)
                ).last_hidden_state[:, 0]
                for weight, bias in self._heads:
                    self._linear(hidden, weight, bias).cpu()


def _padded(batch: Sequence[EncodedText]) -> "tuple[torch.Tensor, torch.Tensor]":
    import torch

    ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = torch.from_numpy(text.ids)
        mask[row, : len(text)] = 1
    return ids, mask
