"""Ids as transformers gives them; no text crashes the tokeniser or takes it seconds."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.checkpoints import PIECES, WORDS, unigram_tokenizer, wordpiece_tokenizer
from worker.inference.errors import CheckpointError, TokeniseError
from worker.inference.tokenising import Tokeniser, load_tokeniser

KINDS = {"wordpiece": wordpiece_tokenizer, "unigram": unigram_tokenizer}
SPECIALS = {"wordpiece": [2, 3], "unigram": [0, 2]}
MEGABYTE = 1 << 20
MORE = ("[mask]", "cafe", "café", "CAFÉ", "Moon", "ab", "漢", "字", "##漢", "##字")
KLUE = {
    "do_lower_case": False,
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "tokenize_chinese_chars": True,
    "strip_accents": None,
    "special_tokens_map_file": None,
    "name_or_path": "klue/bert-base",
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def ids(tokeniser: Tokeniser, text: str) -> list[int]:
    found: list[int] = tokeniser.encode([text])[0].ids.tolist()
    return found


def theirs(kind: str, text: str, max_length: int, **more: str) -> list[int]:
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=KINDS[kind](), **more)
    found: list[int] = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    return found


PARTS = [*"비트코인가자해즈아ab \t\n?!ㅋ\u0301\u200d", "떡상", "moon", "[SEP]", "<s>", "[", "</s>", "[UNK]"]


@given(text=st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
def test_any_text_equals_transformers(text: str) -> None:
    for kind, make in KINDS.items():
        for max_length in (3, 8):
            tokeniser = Tokeniser(make(), max_length=max_length)
            expected = theirs(kind, text, max_length)
            encoded = tokeniser.encode([text])[0]
            assert encoded.ids.tolist() == expected
            assert encoded.truncated == (len(theirs(kind, text, 10_000)) > max_length)


def counting(kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Tokeniser, list[int]]:
    """A tokeniser, and the lengths of the texts that it hands to the library."""
    tokeniser, lengths = Tokeniser(KINDS[kind](), max_length=200), list[int]()
    run = tokeniser._run

    def counted(texts: list[str]) -> list[Encoding]:
        lengths.extend(map(len, texts))
        return run(texts)

    monkeypatch.setattr(tokeniser, "_run", counted)
    return tokeniser, lengths


@given(text=st.text())
def test_any_unicode_gives_ids(text: str) -> None:
    for kind, make in KINDS.items():
        found = ids(Tokeniser(make(), max_length=16), text)
        assert 2 <= len(found) <= 16
        assert [found[0], found[-1]] == SPECIALS[kind]


def test_an_empty_text_is_its_special_tokens(kind: str) -> None:
    assert ids(Tokeniser(KINDS[kind](), max_length=8), "") == SPECIALS[kind]


@pytest.mark.parametrize("text", ["\ud800", "가즈아 \udfff!", "\x00", "비트\x00코인", "\ufffe\uffff"])
def test_what_is_no_text_does_not_crash(kind: str, text: str) -> None:
    assert len(ids(Tokeniser(KINDS[kind](), max_length=8), text)) >= 2


def test_split_surrogate_pairs_are_joined(kind: str) -> None:
    tokeniser = Tokeniser(KINDS[kind](), max_length=8)
    assert ids(tokeniser, "moon \ud83d\ude80") == ids(tokeniser, "moon 🚀")


def test_the_prefix_comes_before_every_text() -> None:
    with_prefix = Tokeniser(wordpiece_tokenizer(), max_length=8, prefix="to the ")
    assert ids(with_prefix, "moon") == ids(Tokeniser(wordpiece_tokenizer(), max_length=8), "to the moon")


def test_stored_padding_and_truncation_do_not_apply() -> None:
    tokenizer = wordpiece_tokenizer()
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(4)
    assert ids(Tokeniser(tokenizer, max_length=16), "to the moon") == theirs("wordpiece", "to the moon", 16)


class TestLongTexts:
    """The cut before tokenising changes nothing but the time."""

    @pytest.mark.parametrize(
        "repeated",
        [
            pytest.param("비트코인 가즈아! to the moon ", id="words"),
            pytest.param("   \t\n ", id="white space"),
            pytest.param("          비트 " + " " * 5000, id="white space and a word"),
            pytest.param("쀍" * 150 + " ", id="unknown words"),
            pytest.param("moon" * 60 + " ", id="long words"),
            pytest.param("?! ", id="punctuation"),
        ],
    )
    @pytest.mark.parametrize("characters", [3199, 3201, 30_000, 200_000])
    def test_ids_are_those_of_the_whole_text(self, kind: str, repeated: str, characters: int) -> None:
        text = (repeated * (characters // len(repeated) + 1))[:characters]
        encoded = Tokeniser(KINDS[kind](), max_length=200).encode([text])[0]
        assert encoded.ids.tolist() == theirs(kind, text, 200)
        assert encoded.truncated == (len(KINDS[kind]().encode(text).ids) > 200)

    def test_a_word_at_the_very_end_is_found(self, kind: str) -> None:
        text = " " * 300_000 + "가즈아"
        assert ids(Tokeniser(KINDS[kind](), max_length=200), text) == theirs(kind, text, 200)

    def test_wordpiece_without_white_space(self) -> None:
        text = "비트코인가자" * 50_000
        assert ids(Tokeniser(wordpiece_tokenizer(), max_length=200), text) == theirs("wordpiece", text, 200)

    def test_of_a_megabyte_only_the_start_is_tokenised(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokeniser, tokenised = counting(kind, monkeypatch)
        tokeniser.encode(["비트코인 가즈아! " * (MEGABYTE // 10)])
        assert sum(tokenised) <= 16 * 200

    def test_what_gives_few_tokens_is_read_little_more_than_once(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokeniser, tokenised = counting(kind, monkeypatch)
        tokeniser.encode([" " * MEGABYTE])
        assert sum(tokenised) <= 1.3 * MEGABYTE

    @pytest.mark.parametrize("told", ["left", "right", None])
    @pytest.mark.parametrize("stored", ["left", "right", None])
    def test_truncation_on_the_left_keeps_the_end(
        self, told: str | None, stored: Literal["left", "right"] | None, tmp_path: Path
    ) -> None:
        tokenizer = wordpiece_tokenizer()
        if stored is not None:
            tokenizer.enable_truncation(30, direction=stored)
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        config = {} if told is None else {"truncation_side": told}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        text = "to " * 9000 + "the moon"
        expected = theirs("wordpiece", text, 16, truncation_side=told or stored or "right")
        assert ids(load_tokeniser(tmp_path, max_length=16), text) == expected


class TestLoading:
    def test_vocab_txt_goes_through_transformers(self, tmp_path: Path) -> None:
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]
        (tmp_path / "vocab.txt").write_text("\n".join(names))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
        )
        tokeniser = load_tokeniser(tmp_path, max_length=16)
        text = "비트코인 가즈아! [SEP] to the moon"
        assert ids(tokeniser, text) == AutoTokenizer.from_pretrained(str(tmp_path))(text)["input_ids"]
        assert ids(tokeniser, text) == theirs("wordpiece", text, 16)

    @pytest.mark.parametrize("marks", [("[CLS]", "[SEP]"), ("<s>", "</s>")])
    def test_missing_special_tokens_are_put_around(self, marks: tuple[str, str]) -> None:
        vocabulary = {"[UNK]": 0, marks[0]: 1, marks[1]: 2, "가": 3}
        bare = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokeniser = Tokeniser(bare, max_length=4)
        assert [ids(tokeniser, text) for text in ("", "가")] == [[1, 2], [1, 3, 2]]

    def test_a_tokeniser_without_any_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match=r"neither \[CLS\] and \[SEP\] nor <s> and </s>"):
            Tokeniser(Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")), max_length=4)

    def test_a_damaged_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"tokenizer.json: is not a tokeniser"):
            load_tokeniser(tmp_path, max_length=8)

    def test_a_vocabulary_that_transformers_cannot_read_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "sentencepiece.bpe.model").write_bytes(b"nonsense")
        with pytest.raises(CheckpointError, match=r"put a tokenizer.json there"):
            load_tokeniser(tmp_path, max_length=8)

    @pytest.mark.parametrize("stored", [True, False])
    @pytest.mark.parametrize("kind", ["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", None])
    @pytest.mark.parametrize(
        "told",
        [
            {"do_lower_case": True},
            {"do_lower_case": False},
            {"do_lower_case": False, "strip_accents": True},
            {"do_lower_case": True, "strip_accents": False},
            {"do_lower_case": False, "tokenize_chinese_chars": False},
            {"do_lower_case": False, "additional_special_tokens": ["비트코인", "<url>"]},
            {
                "do_lower_case": False,
                "additional_special_tokens": ["<url>"],
                "added_tokens_decoder": {
                    "40": {"content": "ab", "special": False, "single_word": True},
                    "9": {"content": "가즈아!!", "special": True, "lstrip": True},
                },
            },
            {"do_lower_case": False, "mask_token": {"__type": "AddedToken", "content": "[mask]"}},
            KLUE,
        ],
    )
    def test_the_config_goes_before_as_in_transformers(
        self, stored: bool, kind: str | None, told: dict[str, Any], tmp_path: Path
    ) -> None:
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES, *MORE]
        tokenizer = Tokenizer(models.WordPiece({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=stored)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.add_special_tokens(names[:5])
        tokenizer.post_processor = wordpiece_tokenizer().post_processor
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
        classed = told if kind is None else told | {"tokenizer_class": kind}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(classed))
        ours, theirs = load_tokeniser(tmp_path, max_length=64), AutoTokenizer.from_pretrained(str(tmp_path))
        for text in (
            "Moon CAFÉ café",
            "비트 가즈아",
            "비트漢字",
            "비트코인 가즈아!!ab ab <url>",
            "[MASK] [mask] to",
        ):
            assert ids(ours, text) == theirs(text)["input_ids"], text

    def test_what_the_config_leaves_unsaid_stays(self, tmp_path: Path) -> None:
        """transformers would lowercase here, which takes Hangul apart."""
        wordpiece_tokenizer().save(str(tmp_path / "tokenizer.json"))
        for told in ({}, {"tokenizer_class": "BertTokenizer"}):
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
            assert ids(load_tokeniser(tmp_path, max_length=8), "가즈아") == [2, WORDS.index("가즈아") + 5, 3]

    def test_a_name_that_the_vocabulary_lacks_adds_no_row(self, tmp_path: Path) -> None:
        wordpiece_tokenizer().save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "[BOS]"}))
        rows = wordpiece_tokenizer().get_vocab_size()
        assert load_tokeniser(tmp_path, max_length=8).vocab_size == rows

    @pytest.mark.parametrize(
        ("told", "sentence"),
        [
            ([], "a JSON object is expected"),
            ({"do_lower_case": "yes"}, "is not usable"),
            ({"added_tokens_decoder": ["a"]}, "is not usable"),
            ({"added_tokens_decoder": [0]}, "is not usable"),
            ({"added_tokens_decoder": {"first": {"content": "a"}}}, "is not usable"),
            ({"additional_special_tokens": "abc"}, "is not usable"),
            ({"additional_special_tokens": [3]}, "is not usable"),
        ],
    )
    def test_a_config_that_makes_no_sense_is_refused(self, told: Any, sentence: str, tmp_path: Path) -> None:
        wordpiece_tokenizer().save(str(tmp_path / "tokenizer.json"))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
        with pytest.raises(CheckpointError, match=f"tokenizer_config.json: {sentence}"):
            load_tokeniser(tmp_path, max_length=8)

    def test_tokenizer_json_needs_no_transformers(self, tmp_path: Path) -> None:
        """transformers takes as long to import as the rest of the start together."""
        wordpiece_tokenizer().save(str(tmp_path / "tokenizer.json"))
        program = (
            "import sys; from pathlib import Path;"
            "from worker.inference.tokenising import load_tokeniser;"
            f"load_tokeniser(Path({str(tmp_path)!r}), max_length=8).encode(['가']);"
            "print(sorted({'transformers', 'torch'} & set(sys.modules)))"
        )
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "[]"


def test_threads_share_one_tokeniser(kind: str) -> None:
    tokeniser = Tokeniser(KINDS[kind](), max_length=32)
    texts = [f"{word} {other} {number}" for number in range(20) for word in WORDS for other in WORDS]
    alone = [text.ids.tolist() for text in tokeniser.encode(texts)]
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(tokeniser.encode, [texts] * 8):
            assert [text.ids.tolist() for text in together] == alone


def test_other_threads_run_while_one_tokenises() -> None:
    """The GIL is released: another thread counts on while a large batch is tokenised."""
    tokeniser = Tokeniser(wordpiece_tokenizer(), max_length=200)
    texts = ["비트코인 가즈아! to the moon " * 8] * 3000
    counted, done = 0, threading.Event()

    def tokenise() -> None:
        tokeniser.encode(texts)
        done.set()

    worker = threading.Thread(target=tokenise)
    worker.start()
    while not done.wait(0.001):
        counted += 1
    worker.join()
    assert counted > 10


def test_a_panic_of_the_library_is_an_error_of_the_text() -> None:
    class PanicException(BaseException):
        pass

    class Broken(Tokeniser):
        def __init__(self, error: BaseException) -> None:
            super().__init__(wordpiece_tokenizer(), max_length=8)
            self._tokenizer = self  # type: ignore[assignment]
            self.error = error

        def encode_batch_fast(self, texts: list[str]) -> None:
            raise self.error

    for error in (PanicException("boom"), ValueError("boom")):
        with pytest.raises(TokeniseError, match="boom"):
            Broken(error).encode(["가"])
    with pytest.raises(KeyboardInterrupt):
        Broken(KeyboardInterrupt()).encode(["가"])
