"""The commands as a user runs them, with the bundled model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from schemas.signals import CryptoSignal
from tests.kafka_io import settings_for
from tests.processes import environment_of
from tests.servers import KafkaServer
from tests.waiting import eventually
from worker.commands import demo
from worker.commands.watch import watch_board
from worker.errors import KbertError
from worker.settings import RedisSettings, Settings


def _kbert(
    *arguments: str, stdin: str | bytes = b"", **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    env = {name: value for name, value in os.environ.items() if not name.startswith("KBERT_")} | environment
    given = stdin.encode() if isinstance(stdin, str) else stdin
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        input=given,
        env=env,
        capture_output=True,
        timeout=170,
        check=False,
    )


def _objects(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_classify_gives_what_a_reader_would_say() -> None:
    texts = {
        "비트 지금이라도 탑승해야됨 존나 간다": ("strong_pos", "buy", ["BTC"]),
        "해킹 터짐, 비상. 접근 금지": ("strong_neg", "avoid", []),
    }
    done = _kbert("classify", stdin="\n".join(texts))
    assert done.returncode == 0, done.stderr.decode()
    for line, (sentiment, action, coins) in zip(done.stdout.splitlines(), texts.values(), strict=True):
        said = CryptoSignal.model_validate_json(line)
        assert (said.sentiment_strength, said.action_signal, said.coins) == (sentiment, action, coins)
        assert said.model.name
        assert len(said.model.revision) == 12


def test_classify_keeps_order_and_ids_and_gives_every_line_an_answer() -> None:
    lines = [
        '{"id": "a", "text": "이더 떡상"}',
        '{"id": 7, "title": "[속보] 리플 상장 폐지", "published_at": "2026-01-05T09:30:00+09:00"}',
        "그냥 글",
        '{"id": "broken", "text": ',
        "",
        '{"id": "long", "text": "' + "솔라나 간다 " * 400 + '"}',
    ]
    done = _kbert("classify", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0
    answers = _objects(done.stdout)
    ids = [answer["id"] for answer in answers]
    assert [ids[place] for place in (0, 1, 5)] == ["a", "7", "long"]
    assert all(ids[place].startswith(f"line-{place + 1}-") for place in (2, 3, 4))
    assert answers[0]["coins"] == ["ETH"]
    assert answers[1]["kind"] == "news"
    assert answers[1]["published_at"] == "2026-01-05T00:30:00Z"
    assert answers[3]["error"]["reason"] == "invalid_json"
    assert answers[4]["error"]["reason"] == "empty_payload"
    assert answers[5]["truncated"] is True
    assert answers[0]["truncated"] is False
    assert "2 of 6 lines" in done.stderr.decode()
    for place in (0, 1, 2, 5):
        CryptoSignal.model_validate(answers[place])


def _with_output(output: str, *arguments: str, unbuffered: bool) -> "subprocess.CompletedProcess[bytes]":
    """A command with its output redirected by a shell, buffered by Python or not."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("KBERT_", "PYTHONUNBUF"))
    }
    command = f"set -o pipefail; echo 비트 간다 | {sys.executable} -m worker {' '.join(arguments)} {output}"
    return subprocess.run(
        ["bash", "-c", command],
        env=env | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
        capture_output=True,
        timeout=170,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [("config",), ("bot", "markets"), ("--help",), ("classify",)])
def test_output_on_a_full_disk_is_one_sentence(arguments: tuple[str, ...], unbuffered: bool) -> None:
    done = _with_output(">/dev/full", *arguments, unbuffered=unbuffered)
    assert done.stderr.decode() == "kbert: The output cannot be written: No space left on device.\n"
    assert done.returncode == 1


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("arguments", [("config",), ("bot", "markets"), ("classify",)])
def test_output_that_nobody_reads_ends_quietly(arguments: tuple[str, ...], unbuffered: bool) -> None:
    """typer made it status 1, and what was still in the buffer an error at the interpreter's end."""
    done = _with_output("| true", *arguments, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, b"")


def test_output_fails_while_more_input_may_come() -> None:
    """The thread that waited for it held standard input: the interpreter aborted at its end."""
    command = [sys.executable, "-m", "worker", "classify"]
    with (
        Path("/dev/full").open("wb") as full,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("비트 간다\n".encode())
        process.stdin.flush()
        assert process.stderr.read() == b"kbert: The output cannot be written: No space left on device.\n"
        assert process.wait(60) == 1


def test_a_closed_standard_input_is_one_sentence() -> None:
    done = _with_output("<&-", "classify", unbuffered=False)
    assert done.stderr.startswith(b"kbert: Standard input is closed")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "--model", "/nowhere/model"], "/nowhere/model"),
        (["classify", "--model", "nobody/no-such-model"], "nobody/no-such-model"),
        (["topics"], "kafka.bootstrap_servers"),
        (["watch", "--once"], "redis.url"),
        (["dead-letter", "list"], "kafka.bootstrap_servers"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_1(arguments: list[str], message: str) -> None:
    done = _kbert(
        *arguments,
        KBERT_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1",
        KBERT_REDIS__URL="redis://127.0.0.1:1/0",
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 1
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("kbert: ")
    assert message in last
    assert b"Traceback" not in done.stderr


async def test_topics_are_made_and_described(kafka: KafkaServer) -> None:
    names = {role: f"{role}-{os.getpid()}" for role in ("raw", "signals", "dead_letter")}
    kafka.made_topics.extend(names.values())
    settings = settings_for(kafka.bootstrap_servers, idempotence=kafka.idempotence, **names)
    environment = environment_of(settings)
    for role in ("raw", "signals"):
        name = environment[f"KBERT_TRAFFIC__{role.upper()}"] = f"traffic-{role}-{os.getpid()}"
        kafka.made_topics.append(name)
    before = json.loads(_kbert("topics", "--json", **environment).stdout)
    assert not any(topic["exists"] for topic in before)
    made = json.loads(_kbert("topics", "--create", "--json", **environment).stdout)
    assert all(topic["created"] and topic["partitions"] == 6 for topic in made)
    again = json.loads(_kbert("topics", "--create", "--json", **environment).stdout)
    assert all(topic["exists"] and not topic["created"] for topic in again)


def test_demo_counts_every_message_and_its_aggregates_equal_a_recount() -> None:
    production = {
        "KBERT_DELIVERY": "exactly_once",
        "KBERT_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "KBERT_KAFKA__SASL_USERNAME": "kbert",
        "KBERT_KAFKA__SASL_PASSWORD": "hush",
        "KBERT_REDIS__PASSWORD": "hush",
        "KBERT_TOPICS__REPLICATION_FACTOR": "3",
    }
    done = _kbert("demo", "--messages", "300", "--exit", "--json", **production)
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout)
    assert result["messages_in"] == 300
    assert result["signals_out"] + result["dead_letters"] == 300
    assert result["dead_letters"] == 3  # one in 97 is broken on purpose
    assert result["aggregates_equal_recount"] is True
    assert result["aggregates"]["BTC"]["messages"] > 0
    assert result["aggregates"]["MARKET"]["sentiment_index"] is not None


def test_demo_on_no_terminal_prints_signals_and_coins_until_it_is_interrupted() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    seen: list[str] = []
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            seen.append(process.stdout.readline().decode())
            if any("certainty" in line for line in seen) and any(line.startswith("MARKET") for line in seen):
                break
        else:
            raise AssertionError("".join(seen))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors.decode()
    finally:
        process.kill()


@pytest.mark.parametrize("pipeline", ["crypto", "traffic"])
def test_an_interrupted_demo_says_how_far_it_came(pipeline: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "demo", "--messages", "100000", "--exit", "--pipeline", pipeline],
        env=os.environ | {"KBERT_LOG__LEVEL": "info", "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    try:
        while b"worker.ready" not in said:
            line = process.stderr.readline()
            assert line, said.decode()
            said += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert b"Traceback" not in rest, rest.decode()
        assert rest.decode().strip().splitlines()[-1].startswith("kbert: Interrupted: ")
        assert b" of 100000 " in rest
        assert process.returncode == 130
    finally:
        process.kill()


async def test_watch_prints_a_board_a_second_where_there_is_no_terminal(
    redis_url: str, redis_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(redis=RedisSettings(url=SecretStr(redis_url), prefix=redis_prefix))
    stop = asyncio.Event()
    watching = asyncio.create_task(watch_board(settings, "1h", once=False, as_json=False, stop=stop))
    printed: list[str] = []

    def two_boards() -> bool:
        printed.append(capsys.readouterr().out)
        return "".join(printed).count("MARKET") >= 2

    await eventually(two_boards, timeout=30)
    stop.set()
    await watching


@pytest.mark.parametrize("arguments", [["--exit"], [], ["--pipeline", "traffic"]])
def test_a_demo_with_a_wrong_model_ends_with_one_sentence(arguments: list[str]) -> None:
    settings = {"KBERT_MODEL__REF": "/nowhere/model", "KBERT_TRAFFIC__MODEL__REF": "/nowhere/model"}
    done = _kbert("demo", *arguments, "--messages", "9", **settings, KBERT_SERVE__PORT="0")
    last = done.stderr.decode().strip().splitlines()[-1]
    assert last.startswith("kbert: "), done.stderr.decode()
    assert "/nowhere/model" in last
    assert done.returncode == 1


@pytest.mark.parametrize("messages", [None, 50_000])
async def test_a_demo_is_over_before_its_servers_go(
    messages: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = demo._servers
    left: list[set[str]] = []

    def running() -> set[str]:
        names = {getattr(task.get_coro(), "__name__", "") for task in asyncio.all_tasks()}
        return names & {"_feed", "follow", "_send", "_count"}

    @asynccontextmanager
    async def servers(settings: Settings) -> AsyncIterator[Settings]:
        async with embedded(settings) as local:
            try:
                yield local
            finally:
                left.append(running())

    async def services(*_: object) -> None:
        await eventually(lambda: len(running()) == 2, timeout=60)
        raise KbertError("A service has failed.")

    monkeypatch.setattr(demo, "_servers", servers)
    monkeypatch.setattr(demo, "run_services", services)
    with pytest.raises(ExceptionGroup) as failed:
        await demo.run_demo(Settings(), messages=messages, exit_when_done=messages is not None, as_json=False)
    assert str(failed.value.exceptions[0]) == "A service has failed."
    assert left == [set()]
