"""Write the JSON Schema files and the AsyncAPI 3 document beside the models.

Run ``python -m schemas.generate`` after a change; a test fails while they differ.
"""

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from schemas import topics
from schemas.aggregates import AggregateChange, CoinAggregates
from schemas.dead_letters import DeadLetterHeaders
from schemas.messages import RawMessage
from schemas.signals import CryptoSignal, TrafficSignal

CONTRACT_VERSION: Final = "1.0.0"
_DIRECTORY: Final = Path(__file__).parent
_MODELS: Final[dict[str, type[BaseModel]]] = {
    "raw-message": RawMessage,
    "crypto-signal": CryptoSignal,
    "traffic-signal": TrafficSignal,
    "dead-letter-headers": DeadLetterHeaders,
    "coin-aggregates": CoinAggregates,
    "aggregate-change": AggregateChange,
}


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a message: what a writer of raw messages has to
    give, and what a reader of everything else gets.
    """
    schema = model.model_json_schema(
        mode="validation" if model is RawMessage else "serialization", by_alias=True
    )
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: every topic, its messages, and who sends and receives."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "kbert-stream",
            "version": CONTRACT_VERSION,
            "description": "Korean crypto chatter and traffic news in, structured signals out.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "rawCrypto": _channel(topics.RAW_CRYPTO, "rawMessage", "One chat message or news item."),
            "rawTraffic": _channel(topics.RAW_TRAFFIC, "rawMessage", "One traffic news item."),
            "signalsCrypto": _channel(
                topics.SIGNALS_CRYPTO, "cryptoSignal", "One signal a message, keyed by its first coin."
            ),
            "signalsTraffic": _channel(
                topics.SIGNALS_TRAFFIC, "trafficSignal", "One signal an article, keyed by its id."
            ),
            "deadLetter": _channel(
                topics.DEAD_LETTER, "deadLetter", "Original bytes and key of what has no signal."
            ),
        },
        "operations": {
            "receiveRawCrypto": _operation("receive", "rawCrypto", "rawMessage"),
            "receiveRawTraffic": _operation("receive", "rawTraffic", "rawMessage"),
            "sendSignalsCrypto": _operation("send", "signalsCrypto", "cryptoSignal"),
            "sendSignalsTraffic": _operation("send", "signalsTraffic", "trafficSignal"),
            "sendDeadLetter": _operation("send", "deadLetter", "deadLetter"),
        },
        "components": {
            "messages": {
                "rawMessage": {"name": "RawMessage", "payload": _payload("raw-message")},
                "cryptoSignal": _versioned("CryptoSignal", "crypto-signal", topics.CRYPTO_SIGNAL_V1),
                "trafficSignal": _versioned("TrafficSignal", "traffic-signal", topics.TRAFFIC_SIGNAL_V1),
                "deadLetter": {
                    "name": "DeadLetter",
                    "contentType": "application/octet-stream",
                    "headers": _payload("dead-letter-headers"),
                },
            }
        },
    }


def documents() -> dict[Path, str]:
    """Every generated file and its content."""
    files = {f"json/{name}.schema.json": json_schema(model) for name, model in _MODELS.items()}
    files["asyncapi.json"] = asyncapi()
    return {
        _DIRECTORY / name: json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        for name, document in files.items()
    }


def main() -> None:
    """Write them all."""
    for path, content in documents().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")


def _channel(address: str, message: str, description: str) -> dict[str, Any]:
    return {
        "address": address,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
    }


def _operation(action: str, channel: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _payload(name: str) -> dict[str, Any]:
    return {
        "schemaFormat": "application/schema+json;version=draft-2020-12",
        "schema": {"$ref": f"json/{name}.schema.json"},
    }


def _versioned(title: str, schema: str, version: str) -> dict[str, Any]:
    return {
        "name": title,
        "payload": _payload(schema),
        "headers": {
            "type": "object",
            "properties": {topics.SCHEMA_HEADER: {"type": "string", "const": version}},
            "required": [topics.SCHEMA_HEADER],
        },
    }


if __name__ == "__main__":
    main()
