"""Each adapter is imported without the bot that it is for."""

import subprocess
import sys

HEAVY = "httpx aiomqtt pandas numpy pyarrow torch freqtrade nautilus_trader ccxt"
MODULES = "markets candles recorded rolling relay webhook hummingbot freqtrade"


def test_no_adapter_imports_what_an_extra_brings() -> None:
    imports = ", ".join(f"worker.clients.bots.{name}" for name in MODULES.split())
    code = f"import sys, {imports}, worker.commands.bot\nprint(set({HEAVY.split()}) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
