"""A tiny encoder, tokenizer and labelled texts for the tests of training."""

import json
import random
from pathlib import Path

from worker.training.datasets import LabelledText

WORDS = {
    "buy": ["가즈아", "탑승", "매수", "간다"],
    "avoid": ["해킹", "조심", "피해", "비상"],
    "ask_info": ["어때", "뭐야", "언제", "어디"],
}
FILLERS = ["오늘", "지금", "비트", "이더", "진짜", "아침", "점심", "저녁"]


def row(text: str, action: str, sentiment: str) -> LabelledText:
    return LabelledText.model_validate(
        {
            "text": text,
            "source": "chat",
            "coins": [],
            "sentiment_strength": sentiment,
            "action_signal": action,
            "emotions": ["greed"] if action == "buy" else [],
            "certainty": 0.9 if action == "buy" else 0.3,
            "relevance": 0.9,
            "toxicity": 0.0,
            "file": "toy",
        }
    )


def toy_rows(count: int, seed: int = 1) -> list[LabelledText]:
    rng = random.Random(seed)
    sentiments = {"buy": "strong_pos", "avoid": "strong_neg", "ask_info": "neutral"}
    rows = []
    for i in range(count):
        action = list(WORDS)[i % 3]
        words = [rng.choice(WORDS[action]), *rng.sample(FILLERS, rng.randint(1, 4)), str(i)]
        rng.shuffle(words)
        rows.append(row(" ".join(words), action, sentiments[action]))
    return rows


def write_jsonl(rows: list[LabelledText], path: Path) -> Path:
    lines = [json.dumps(r.model_dump(mode="json"), ensure_ascii=False) for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_base(folder: Path, width: int = 32, layers: int = 2) -> Path:
    """A random BERT of two layers, 32 wide, with a Unigram tokenizer of the toy words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = sorted({w for group in WORDS.values() for w in group} | set(FILLERS) | set("0123456789"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", *words, *(f"▁{w}" for w in words)]
    pieces += sorted({c for w in words for c in w} - set(pieces))
    vocab = [(p, 0.0 if i < 4 else -5.0 - len(p) * 0.1) for i, p in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
