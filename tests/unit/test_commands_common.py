"""What a task group wraps reaches main as it is."""

import asyncio
import io
import sys

import pytest

from worker import cli
from worker.commands.common import InterruptedEarlyError, run_async
from worker.errors import KbertError


async def _fail_in_groups(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
        outer.create_task(asyncio.sleep(0))
        for error in errors:
            inner.create_task(fail(error))


@pytest.mark.parametrize(
    "error", [KbertError("port 1 is taken"), BrokenPipeError(), ModuleNotFoundError("x")]
)
def test_a_known_error_of_a_task_group_is_raised_bare(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        run_async(_fail_in_groups(error, KbertError("another")))
    assert raised.value is error


def test_an_unknown_error_beside_a_known_one_is_not_hidden() -> None:
    with pytest.raises(ExceptionGroup):
        run_async(_fail_in_groups(KbertError("known"), ZeroDivisionError()))


def test_an_interrupted_command_is_one_sentence_and_status_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise InterruptedEarlyError("Interrupted: 3 of 5 messages had an outcome.")

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "kbert: Interrupted: 3 of 5 messages had an outcome.\n"


@pytest.mark.parametrize(
    ("option", "written"),
    [("--table", b"\\ube44 \\U0001f680 caf\\xe9\n"), ("--json", "비 🚀 café\n".encode())],
)
def test_an_output_that_is_not_utf_8_ends_no_command(
    option: str, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", outputs[0])
    monkeypatch.setattr(sys, "stderr", outputs[1])
    monkeypatch.setattr(sys, "argv", ["kbert", option])

    def say(**_: object) -> None:
        print("비 🚀 café")
        print("없음", file=sys.stderr)

    monkeypatch.setattr(cli, "app", say)
    cli.main()
    for output in outputs:
        output.flush()
    assert [output.buffer.getvalue() for output in outputs] == [written, b"\\uc5c6\\uc74c\n"]
