"""From text to token ids, as transformers would give them, outside the GIL."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt

from worker.inference.errors import CheckpointError, TokeniseError, first_line
from worker.inference.hub import VOCABULARY_FILES
from worker.inference.json_files import read_object

if TYPE_CHECKING:
    from tokenizers import AddedToken, Encoding, Tokenizer

_CONFIG: Final = "tokenizer_config.json"
_FIRST_WINDOW: Final = 16
"""Characters a token that are looked at first; Korean text has 1.5 to 2.5."""
_WIDEN: Final = 8
_SPARE_TOKENS: Final = 128
"""A cut can change the tokens of the word it falls in; WordPiece gives up on words of over 100 characters."""
_LONG_WORD: Final = 200
"""Such a run is split by the cut: dropped whole, it could be all there is."""
_TEMPLATES: Final = (("[CLS]", "[SEP]"), ("<s>", "</s>"))
_NORMALISER: Final = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""What tokenizer_config.json calls the settings of a BERT normaliser, and what the library does."""
_KOREAN: Final = "비트코인 이더 매수 손절 가즈아 떡상 나락 오늘 시장이 올랐다"
_FOREIGN: Final = "ꀀ"
"""A letter of Yi, for which a vocabulary that holds Korean has no token."""
_NAMED: Final = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One text, ready for a batch."""

    ids: npt.NDArray[np.int32]
    """Token ids, special tokens included."""
    truncated: bool
    """The text was longer than the model reads."""

    def __len__(self) -> int:
        """Tokens."""
        return len(self.ids)


class Tokeniser:
    """Tokenises in the calling thread with the GIL released, so that a thread pool scales; thread-safe.

    A long text is not tokenised whole: of 1 MB that would take a second. Its first 16 × ``max_length``
    characters, up to white space, are; if they do not give 128 tokens more than the model reads, eight
    times as many, and so on. The ids are those of the whole text, since a token depends on its word only.
    The one exception is a text that the cut meets within over 200 characters without white space: there
    SentencePiece may split the run (``aaaa…``) in another way.

    Args:
        tokenizer: Taken over: truncation and padding are set.
        max_length: Tokens, special tokens included.
        prefix: Put before each text.
        direction: Which end of a long text is dropped.
    """

    def __init__(
        self,
        tokenizer: "Tokenizer",
        *,
        max_length: int,
        prefix: str = "",
        direction: Literal["left", "right"] = "right",
    ) -> None:
        # Unless it is set, the library's own thread pool competes with the engine for the cores, and a
        # later fork (of a benchmark or a test) deadlocks or warns.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        _ensure_template(tokenizer)
        self._specials = tokenizer.num_special_tokens_to_add(is_pair=False)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length, direction=direction)
        self._tokenizer = tokenizer
        self._prefix = prefix
        self._window = _FIRST_WINDOW * max_length if direction == "right" else None
        self.max_length = max_length
        self.separator = _separator(tokenizer)
        # Not their number: a vocabulary may leave ids out, and the largest one is looked up too.
        self.vocab_size: int = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Tokenise texts, in order; an empty text gives the special tokens alone.

        Lone surrogates become U+FFFD; NUL is left to the tokeniser, as transformers does.

        Raises:
            TokeniseError: The tokeniser gave up; texts given one by one tell which.
        """
        prepared = [_encodable(self._prefix + text) for text in texts]
        window = self._window
        if window is None:
            return [_encoded(encoding) for encoding in self._run(prepared)]
        encodings = self._run([_cut(text, window) for text in prepared])
        return [
            _encoded(encoding if len(text) <= window else self._widen(text, encoding, window))
            for text, encoding in zip(prepared, encodings, strict=True)
        ]

    def reads_korean(self) -> bool:
        """Whether most of a Korean text becomes tokens that the vocabulary knows."""
        unknown = self._tokenizer.encode(_FOREIGN, add_special_tokens=False).ids[-1:]
        found = self._tokenizer.encode(_KOREAN, add_special_tokens=False).ids
        return 2 * sum(number in unknown for number in found) < len(found)

    def _widen(self, text: str, encoding: "Encoding", window: int) -> "Encoding":
        while len(text) > window and self._overflow(encoding) < _SPARE_TOKENS:
            window *= _WIDEN
            encoding = self._run([_cut(text, window)])[0]
        return encoding

    def _overflow(self, encoding: "Encoding") -> int:
        """Tokens beyond ``max_length``."""
        return sum(len(part) - self._specials for part in encoding.overflowing)

    def _run(self, texts: list[str]) -> list["Encoding"]:
        try:
            return self._tokenizer.encode_batch_fast(texts)
        except BaseException as error:
            # A panic in the library's Rust code is no Exception.
            if isinstance(error, Exception) or type(error).__name__ == "PanicException":
                raise TokeniseError(f"The tokeniser failed: {error}") from error
            raise


def load_tokeniser(directory: Path, *, max_length: int, prefix: str = "") -> Tokeniser:
    """Load ``tokenizer.json`` directly, or what else transformers makes a tokeniser of.

    What ``tokenizer_config.json`` names goes before, as in transformers. What it leaves unsaid stays as
    ``tokenizer.json`` has it, where transformers would lowercase and make [UNK] of Hangul.

    Raises:
        CheckpointError: Nothing usable lies there.
    """
    told = _config(directory)
    tokenizer = _read(directory, told)
    side = told.get("truncation_side") or (tokenizer.truncation or {}).get("direction")
    return Tokeniser(
        tokenizer, max_length=max_length, prefix=prefix, direction="left" if side == "left" else "right"
    )


def _read(directory: Path, told: dict[str, Any]) -> "Tokenizer":
    from tokenizers import Tokenizer

    file = directory / "tokenizer.json"
    if file.is_file():
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise CheckpointError(
                f"{file}: is not a tokeniser ({first_line(error)}); fetch it again."
            ) from error
        try:
            _follow_normaliser(tokenizer, told)
            _follow_tokens(tokenizer, told)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            told_by = directory / _CONFIG
            raise CheckpointError(
                f"{told_by}: is not usable ({first_line(error)}); fetch it again."
            ) from error
        return tokenizer
    # Of settings alone transformers makes a tokeniser that knows no word.
    if not any((directory / name).is_file() for name in VOCABULARY_FILES):
        raise CheckpointError(f"{directory}: holds no vocabulary; put tokenizer.json there.")
    from transformers import AutoTokenizer

    try:
        found: Any = AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        raise CheckpointError(
            f"{directory}: its tokeniser cannot be loaded ({first_line(error)}); put a tokenizer.json there."
        ) from error
    backend: Tokenizer | None = getattr(found, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(f"{directory}: its tokeniser has no fast form; put a tokenizer.json there.")
    return backend


def _config(directory: Path) -> dict[str, Any]:
    return read_object(directory / _CONFIG)


def _follow_normaliser(tokenizer: "Tokenizer", told: dict[str, Any]) -> None:
    """transformers builds the normaliser of a BERT tokeniser from the config; other classes keep theirs."""
    from tokenizers.normalizers import BertNormalizer

    kind = told.get("tokenizer_class") or "BertTokenizer"
    normaliser: Any = tokenizer.normalizer
    if isinstance(normaliser, BertNormalizer) and kind in ("BertTokenizer", "BertTokenizerFast"):
        for name in _NORMALISER.keys() & told.keys():
            setattr(normaliser, _NORMALISER[name], told[name])


def _follow_tokens(tokenizer: "Tokenizer", told: dict[str, Any]) -> None:
    """Tokens that the config adds, in transformers' order, which gives them their ids."""
    from tokenizers import AddedToken

    added = told.get("added_tokens_decoder") or {}
    tokenizer.add_tokens([AddedToken(**added[number]) for number in sorted(added, key=int)])
    named = [_added(told[f"{name}_token"]) for name in _NAMED if told.get(f"{name}_token")]
    # One that the vocabulary lacks would need a row that the weights lack, though no text holds it.
    tokens = [token for token in named if tokenizer.token_to_id(token.content) is not None]
    more = told.get("extra_special_tokens") or told.get("additional_special_tokens") or []
    if not isinstance(more, (list, dict)):
        raise TypeError(f"its special tokens are {more!r}")
    tokens += [_added(token) for token in (more.values() if isinstance(more, dict) else more)]
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_tokens([token for token in tokens if token.content not in known])


def _added(token: Any) -> "AddedToken":
    """A special token, given by its text alone or with its settings."""
    from tokenizers import AddedToken

    if isinstance(token, str):
        return AddedToken(token, special=True)
    settings = {name: value for name, value in token.items() if name != "__type"}
    return AddedToken(**settings | {"special": True})


def _ensure_template(tokenizer: "Tokenizer") -> None:
    """A tokeniser saved without its special tokens would give the model a sequence without [CLS]."""
    if tokenizer.num_special_tokens_to_add(is_pair=False) > 0:
        return
    from tokenizers.processors import TemplateProcessing

    for first, last in _TEMPLATES:
        ids = tokenizer.token_to_id(first), tokenizer.token_to_id(last)
        if ids[0] is not None and ids[1] is not None:
            tokenizer.post_processor = TemplateProcessing(
                single=f"{first} $A {last}", special_tokens=[(first, ids[0]), (last, ids[1])]
            )
            return
    raise CheckpointError(
        "The tokeniser has neither [CLS] and [SEP] nor <s> and </s>: no BERT reads its output."
    )


def _separator(tokenizer: "Tokenizer") -> str:
    """The token that ends a sequence (``[SEP]``, ``</s>``), known as special so that text may hold it."""
    separator = tokenizer.encode("").tokens[-1]
    # A tokenizer.json that lists it as a plain piece would split its name into letters.
    tokenizer.add_special_tokens([separator])
    return separator


def _encodable(text: str) -> str:
    """UTF-8 has no lone surrogates, and JSON's escapes can make them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _cut(text: str, window: int) -> str:
    """The first ``window`` characters, without the word that the cut splits unless it is very long."""
    if len(text) <= window:
        return text
    head = text[:window]
    if text[window].isspace():
        return head
    words = head.rsplit(None, 1)
    return words[0] if len(words) > 1 and len(words[1]) <= _LONG_WORD else head


def _encoded(encoding: "Encoding") -> EncodedText:
    return EncodedText(np.array(encoding.ids, dtype=np.int32), bool(encoding.overflowing))
