"""The traffic model: splits, views, briefs, and a whole run on toys."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.fake_model import FakeModel
from tests.unit.training_toys import FILLERS, WORDS, write_base
from worker.commands.models import train_app
from worker.errors import ConfigurationError
from worker.inference.load import load_model
from worker.training import traffic
from worker.training.article_briefs import brief, fill
from worker.training.article_views import cut, polite, sentences, view
from worker.training.articles import PACKAGED_ARTICLES, Article, load_articles, split_articles
from worker.training.datasets import DatasetError
from worker.training.model import load_encoder
from worker.training.provenance import StateMismatchError
from worker.training.splits import near_duplicate_groups
from worker.training.traffic import TrafficTrainConfig, train_traffic
from worker.training.traffic_evaluate import ArticleBaseline, evaluate_traffic, table
from worker.training.traffic_model import read_checkpoint


def _toys(count: int) -> list[Article]:
    rng = random.Random(5)
    words = {0: WORDS["buy"], 1: WORDS["avoid"]}
    return [
        Article(
            title=f"{rng.choice(words[n % 2])} {' '.join(rng.sample(FILLERS, 3))} {n}",
            body=f"{rng.choice(words[n % 2])} {rng.choice(words[n % 2])} {rng.choice(FILLERS)} {n * 7}",
            label=1 if n % 2 else 0,
        )
        for n in range(count)
    ]


def _write(articles: list[Article], path: Path) -> Path:
    path.write_text("\n".join(a.model_dump_json() for a in articles), encoding="utf-8")
    return path


def test_the_split_has_equal_shares_of_both_labels_and_no_near_duplicates_across() -> None:
    articles = load_articles(PACKAGED_ARTICLES)
    parts = split_articles(articles)
    everything = [*parts.train, *parts.validation, *parts.test]
    assert sorted(a.title for a in everything) == sorted(a.title for a in articles)
    for label in (0, 1):
        total = sum(a.label == label for a in articles)
        for part in (parts.validation, parts.test):
            assert abs(sum(a.label == label for a in part) - 0.1 * total) <= 2
    groups = near_duplicate_groups([f"{a.title} {a.body}" for a in everything])
    held = set(groups[len(parts.train) :])
    assert held.isdisjoint(groups[: len(parts.train)])


def test_the_split_does_not_depend_on_the_order_of_the_file() -> None:
    articles = load_articles(PACKAGED_ARTICLES)
    shuffled = random.Random(1).sample(articles, len(articles))
    assert {a.title for a in split_articles(articles).test} == {
        a.title for a in split_articles(shuffled).test
    }


def test_a_group_of_both_labels_falls_into_the_same_part_in_any_order() -> None:
    same = "서울 강남대로에서 승용차와 버스가 부딪쳐 다섯 명이 다쳤다"
    ends = "가나다라마바사아자차"
    both = [Article(title=f"{same} {end}", label=1 if n % 2 else 0) for n, end in enumerate(ends)]
    articles = [*_toys(40), *both]

    def held_back(given: list[Article]) -> list[set[str]]:
        parts = split_articles(given)
        return [{a.title for a in part} for part in (parts.validation, parts.test)]

    assert held_back(articles) == held_back(articles[::-1])


def test_articles_of_one_title_are_two_and_of_one_body_as_well_one(tmp_path: Path) -> None:
    first = Article(title="[교통] 오늘의 사고", body="버스가 넘어졌다.\u2028세 명이 숨졌다.\x85끝", label=1)
    second = first.model_copy(update={"body": "사망자가 크게 줄었다.", "label": 0})
    file = _write([first, second, first.model_copy(update={"label": 0})], tmp_path / "a.jsonl")
    assert load_articles([file]) == [first, second]


_FEW_NEGATIVE = [*_toys(120)[::2], *_toys(120)[1:8:2]]


@pytest.mark.parametrize(
    "articles", [_toys(3), _toys(40)[::2], _FEW_NEGATIVE], ids=["few", "of one label", "few negative"]
)
def test_too_few_articles_are_refused_before_any_work(tmp_path: Path, articles: list[Article]) -> None:
    data = _write(articles, tmp_path / "few.jsonl")
    message = f"--data: of {len(articles)} articles"
    with pytest.raises(DatasetError, match=message):
        train_traffic(TrafficTrainConfig(tmp_path / "base", tmp_path / "out", (data,)))
    with pytest.raises(DatasetError, match="TF-IDF cannot learn"):
        ArticleBaseline(articles[:1])


def test_judging_on_a_part_of_too_few_articles_is_refused(tmp_path: Path) -> None:
    data = _write(_toys(3), tmp_path / "few.jsonl")
    with pytest.raises(DatasetError, match="--part test: none of so few"):
        evaluate_traffic(FakeModel(), [data], baseline=False, part="test")  # type: ignore[arg-type]


def test_three_thousand_articles_split_as_published() -> None:
    digests = [hashlib.sha256(b"%d" % n).digest() for n in range(3_000)]
    titles = ["".join(chr(0xAC00 + 40 * byte) for byte in digest) for digest in digests]
    articles = [Article(title=title, label=1 if n % 4 == 0 else 0) for n, title in enumerate(titles)]
    parts = split_articles(articles)
    assert [len(p) for p in (parts.train, parts.validation, parts.test)] == [2_400, 300, 300]


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", ":2: not JSON"), ('{"title": "a", "label": 2}', ":2: label"), ('{"label": 1}', ":2: title")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"title": "b", "label": 0}\n' + line, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        load_articles([file])


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        ("버스가 넘어져 3명이 다쳤다.", "버스가 넘어져 3명이 다쳤습니다."),
        ("경찰은 조사한다.", "경찰은 조사합니다."),
        ("대책이 없다.", "대책이 없습니다."),
        ("어린이를 태우고 먹는다.", "어린이를 태우고 먹습니다."),
        ("사고는 예고된 참사이다.", "사고는 예고된 참사입니다."),
        ("바다. 육지", "바다. 육지"),
    ],
)
def test_broadcast_register(plain: str, said: str) -> None:
    assert polite(plain) == said


def test_views_are_parts_of_the_article() -> None:
    article = Article(title="제목 하나", body="첫 문장이다. 둘째 문장이다. 셋째 문장이다.", label=1)
    assert len(sentences(article.body)) == 3
    rng = random.Random(2)
    kinds = {(bool(title), bool(body)) for title, body in (cut(article, rng) for _ in range(200))}
    assert kinds == {(True, True), (True, False), (False, True)}
    assert all(article.body.startswith(body[:-1]) for _, body in (cut(article, rng) for _ in range(200)))
    assert all(any(view(article, rng)) for _ in range(300))
    assert cut(Article(title="제목", label=0), rng) == ("제목", "")


def test_briefs_fill_every_slot_and_put_the_right_particle() -> None:
    rng = random.Random(3)
    made = [brief(rng) for _ in range(2_000)]
    assert not any("{" in a.title + a.body for a in made)
    assert 0.45 < np.mean([a.label for a in made]) < 0.55
    for _ in range(50):
        words = fill("{vehicle}가 {target}을 {road}로", rng)
        assert not any(
            bad in words for bad in ("버스이 ", "트럭가 ", "가드레일를", "상가을", "터널으로", "고속도로으로")
        )


def _train(tmp_path: Path, **changes: object) -> tuple[Path, Path]:
    data = _write(_toys(240), tmp_path / "toys.jsonl")
    settings: dict[str, object] = {
        "base": write_base(tmp_path / "base"),
        "out": tmp_path / "out",
        "data": (data,),
        "max_length": 64,
        "epochs": 8,
        "rate": 5e-3,
        "threads": 1,
        **changes,
    }
    return train_traffic(TrafficTrainConfig(**settings)), data  # type: ignore[arg-type]


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "damaged")
    (base / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json is not a tokenizer"):
        _train(tmp_path, base=base)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"width": 48}, "2 layers of hidden size 48, and --base gives 2 of 32"),
        ({"layers": 1}, "1 layers of hidden size 32, and --base gives 2 of 32"),
        ({"layers": 3}, "3 layers of hidden size 32, and --base gives 2 of 32"),
    ],
)
def test_a_start_of_another_shape_is_refused(tmp_path: Path, shape: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _train(tmp_path, init=write_base(tmp_path / "other", **shape))


def test_pooling_and_prefix_are_those_of_the_start(tmp_path: Path) -> None:
    init = write_base(tmp_path / "init")
    assert TrafficTrainConfig.going_on(init, tmp_path, init=init).pooling == "cls"
    said = json.loads((init / "config.json").read_text("utf-8"))
    said["kbert"] = {"pooling": "mean", "text_prefix": "query: "}
    (init / "config.json").write_text(json.dumps(said), encoding="utf-8")
    kept = TrafficTrainConfig.going_on(init, tmp_path, init=init)
    assert (kept.pooling, kept.text_prefix) == ("mean", "query: ")
    assert TrafficTrainConfig.going_on(init, tmp_path, init=init, pooling="cls").pooling == "cls"


def test_the_command_passes_on_what_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TrafficTrainConfig] = []

    def trained(given: TrafficTrainConfig) -> Path:
        asked.append(given)
        return given.out

    monkeypatch.setattr(traffic, "train_traffic", trained)
    monkeypatch.setattr("worker.commands.models._need_training_packages", lambda: None)
    command = ["traffic", "--base", str(tmp_path), "--out", str(tmp_path)]
    for options in ([], ["--threads", "1", "--pooling", "mean", "--prefix", "query: "]):
        result = CliRunner().invoke(train_app, [*command, *options])
        assert result.exit_code == 0, result.output
    assert asked[0] == TrafficTrainConfig(tmp_path, tmp_path)
    assert (asked[1].threads, asked[1].pooling, asked[1].text_prefix) == (1, "mean", "query: ")


def test_the_weights_of_a_sharded_encoder_are_read(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    whole = read_checkpoint(base)
    weights = base / "model.safetensors"
    shard = "model-00001-of-00001.safetensors"
    weights.rename(base / shard)
    index = {"weight_map": dict.fromkeys(whole, shard)}
    (base / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert read_checkpoint(base).keys() == whole.keys()
    assert load_encoder(base, 2, 0.0, 64).config.num_hidden_layers == 2


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_run_ends_in_a_checkpoint_that_the_worker_loads(tmp_path: Path, pooling: str) -> None:
    folder, data = _train(tmp_path, pooling=pooling)
    assert (tmp_path / "out" / "traffic.csv").read_text("utf-8").count("\n") == 9
    assert (tmp_path / "out" / "traffic.png").is_file()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    model = load_model(str(folder), head_set="traffic", precision="fp32", threads=1)
    report = evaluate_traffic(model, [data], baseline=True, part="test")
    found = report.tables["article"]
    assert found.accuracy >= 0.9
    assert report.articles == 24
    assert "negative narrative" in report.text()
    assert set(report.to_dict()["baseline"]) == {"article", "headline", "body"}
    with pytest.raises(StateMismatchError, match=r"\(max_length\)"):
        _train(tmp_path, pooling=pooling, max_length=31)
    # Taken over as the start of another run, with views and briefs: the layout goes round.
    again, _ = _train(
        tmp_path, out=tmp_path / "again", init=folder, pooling=pooling, views=1, briefs=8, epochs=2, rate=5e-4
    )
    assert (
        load_model(str(again), head_set="traffic", precision="fp32", threads=1).tokeniser.separator == "</s>"
    )


def test_the_table_is_that_of_a_classification_report() -> None:
    from sklearn.metrics import classification_report

    rng = np.random.default_rng(1)
    truth, negative = rng.integers(0, 2, 200), rng.random(200)
    found = table(truth, np.column_stack([1 - negative, negative]))
    expected = classification_report(truth, negative >= 0.5, output_dict=True)
    for ours, theirs in (
        ("non-negative", "0"),
        ("negative narrative", "1"),
        ("macro avg", "macro avg"),
        ("weighted avg", "weighted avg"),
    ):
        line = found.lines[ours]
        assert (line.precision, line.recall, line.f1) == pytest.approx(
            (expected[theirs]["precision"], expected[theirs]["recall"], expected[theirs]["f1-score"])
        )
    assert found.accuracy == pytest.approx(expected["accuracy"])
