"""One typed settings tree: keyword arguments over environment over .env over TOML.

Environment variables are ``KBERT_`` and the path joined by two underscores, for
example ``KBERT_KAFKA__BOOTSTRAP_SERVERS``. The TOML file is ``kbert.toml`` in the
working directory, or the one that ``KBERT_CONFIG`` names, in the environment or in
``.env``. README.md lists what most users set; ``kbert config`` prints the tree in force,
``kbert config --explain`` what each means.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args, get_origin
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from schemas import topics
from schemas.labels import Action, Sentiment
from schemas.windows import SYMBOL, Window
from worker.errors import ConfigurationError
from worker.tls import client_context

PipelineName = Literal["crypto", "traffic"]
PIPELINES: Final[tuple[PipelineName, ...]] = get_args(PipelineName)

_PREFIX: Final = "KBERT_"
_DOTENV: Final = ".env"
_CONFIG: Final = "KBERT_CONFIG"
_OTHER_VARIABLES: Final = (_CONFIG, "KBERT_SCREENSHOTS")
_OF_TESTS: Final = "KBERT_TEST_"
_ADDRESS: Final = re.compile(r"(\[[^\[\]\s]*:[^\[\]\s]*\]|[^\[\]:/@\s]+)(:(?P<port>[0-9]{1,5}))?")
_HEADER_TEXT: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_KAFKA_PORT: Final = 9_092
_LAST_PORT: Final = 65_535


def _sendable(token: SecretStr) -> SecretStr:
    if not _HEADER_TEXT.fullmatch(token.get_secret_value()):
        raise ValueError("no header carries it as it is: take printable ASCII, without spaces at its ends")
    return token


BearerToken = Annotated[SecretStr, AfterValidator(_sendable)]


def _readable(path: Path) -> Path:
    try:
        if path.is_file():
            with path.open("rb"):
                return path
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    raise ValueError(f"{path} is no file")


ReadableFile = Annotated[Path, AfterValidator(_readable)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """How to reach Kafka; shared by consumers, producers and admin."""

    bootstrap_servers: str = Field(
        default="127.0.0.1:9092",
        description="Brokers as host:port, joined by commas; port 9092 where absent.",
    )
    client_id: str = Field(default="kbert", description="Name of these clients in the brokers' logs.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = Field(
        default="PLAIN", description="With SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER."
    )
    sasl_username: str | None = Field(default=None, description="PLAIN and SCRAM: the user.")
    sasl_password: SecretStr | None = Field(default=None, description="PLAIN and SCRAM: the user's password.")
    oauth_token_url: str | None = Field(
        default=None, description="OAUTHBEARER: token endpoint of the client-credentials grant."
    )
    oauth_client_id: str | None = Field(default=None, description="OAUTHBEARER: id of this client.")
    oauth_client_secret: SecretStr | None = Field(
        default=None, description="OAUTHBEARER: secret of this client."
    )
    oauth_scope: str | None = Field(
        default=None, description="OAUTHBEARER: scope to ask for; none is named where absent."
    )
    oauth_cafile: ReadableFile | None = Field(
        default=None, description="Authorities of the token endpoint; the system's where absent."
    )
    ssl_cafile: ReadableFile | None = Field(
        default=None, description="Authorities to believe, PEM; the system's where absent."
    )
    ssl_certfile: ReadableFile | None = Field(default=None, description="Client certificate, PEM.")
    ssl_keyfile: ReadableFile | None = Field(default=None, description="Key of the client certificate, PEM.")
    ssl_keyfile_password: SecretStr | None = Field(
        default=None, description="Password of that key, where it has one."
    )
    ssl_check_hostname: bool = Field(
        default=True, description="Off: any name that an authority believed here has signed."
    )
    idempotent_producer: bool = Field(
        default=True,
        description="Off only for brokers that lack InitProducerId v0 (the embedded one).",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, servers: str) -> str:
        whole = []
        for server in map(str.strip, servers.split(",")):
            address = _ADDRESS.fullmatch(server)
            if address is None or not 0 < int(address["port"] or _KAFKA_PORT) <= _LAST_PORT:
                raise ValueError(
                    f"{server!r} is no host:port, such as kafka-1:9092 or [::1]:9092; "
                    "several are joined by commas"
                )
            whole.append(server if address["port"] else f"{server}:{_KAFKA_PORT}")
        return ",".join(whole)

    @model_validator(mode="after")
    def _credentials_complete(self) -> Self:
        sasl = self.security_protocol.startswith("SASL")
        if sasl and self.sasl_mechanism == "OAUTHBEARER":
            if not (self.oauth_token_url and self.oauth_client_id and self.oauth_client_secret):
                raise ValueError(
                    "kafka.sasl_mechanism=OAUTHBEARER needs kafka.oauth_token_url, kafka.oauth_client_id "
                    "and kafka.oauth_client_secret"
                )
            url = urlsplit(self.oauth_token_url)
            local = url.scheme == "http" and url.hostname in ("127.0.0.1", "::1", "localhost")
            if not (local or url.scheme == "https") or url.password:
                raise ValueError(
                    "kafka.oauth_token_url has to begin with https:// and to hold no password: the client's "
                    "secret goes there"
                )
        elif sasl and not (self.sasl_username and self.sasl_password):
            raise ValueError(
                f"kafka.security_protocol={self.security_protocol} needs "
                "kafka.sasl_username and kafka.sasl_password"
            )
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("kafka.ssl_certfile and kafka.ssl_keyfile go together: set both or neither")
        return self

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments that every aiokafka client takes."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "client_id": self.client_id,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL") and self.sasl_mechanism == "OAUTHBEARER":
            from worker.source.tokens import token_provider

            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_oauth_token_provider": token_provider(self),
            }
        elif self.security_protocol.startswith("SASL") and self.sasl_password is not None:
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password.get_secret_value(),
            }
        if self.security_protocol.endswith("SSL"):
            password = self.ssl_keyfile_password
            options["ssl_context"] = client_context(
                "kafka",
                cafile=self.ssl_cafile,
                certfile=self.ssl_certfile,
                keyfile=self.ssl_keyfile,
                password=password.get_secret_value() if password else None,
                check_hostname=self.ssl_check_hostname,
            )
        return options


class RedisSettings(_Section):
    """How to reach Redis. ``rediss://`` turns TLS on; user and password may stand in the URL instead."""

    url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="redis://host:port/database, or rediss:// for TLS; may hold user and password.",
    )
    username: str | None = Field(default=None, description="ACL user; the default user where absent.")
    password: SecretStr | None = Field(default=None, description="Password of that user.")
    ssl_cafile: ReadableFile | None = Field(
        default=None, description="Authorities to believe, PEM; the system's where absent."
    )
    ssl_certfile: ReadableFile | None = Field(default=None, description="Client certificate, PEM.")
    ssl_keyfile: ReadableFile | None = Field(default=None, description="Key of the client certificate, PEM.")
    ssl_keyfile_password: SecretStr | None = Field(
        default=None, description="Password of that key, where it has one."
    )
    ssl_check_hostname: bool = Field(
        default=True, description="Off: any name that an authority believed here has signed."
    )
    cluster: bool = Field(default=False, description="Whether the server is a Redis Cluster.")
    prefix: str = Field(default="kbert:", description="Put before every key and channel.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("redis.ssl_certfile and redis.ssl_keyfile go together: set both or neither")
        secure = self.url.get_secret_value().startswith("rediss://")
        if not secure and (self.ssl_cafile or self.ssl_certfile):
            raise ValueError("redis.ssl_cafile and redis.ssl_certfile need redis.url to begin with rediss://")
        return self

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments that a redis-py client takes beside the URL.

        Raises:
            ConfigurationError: a certificate or key cannot be read.
        """
        options: dict[str, Any] = {}
        if self.username is not None:
            options["username"] = self.username
        if self.password is not None:
            options["password"] = self.password.get_secret_value()
        if not self.url.get_secret_value().startswith("rediss://"):
            return options
        secret = self.ssl_keyfile_password.get_secret_value() if self.ssl_keyfile_password else None
        client_context(  # redis-py opens the files at the first call: what is wrong with them is said now
            "redis",
            cafile=self.ssl_cafile,
            certfile=self.ssl_certfile,
            keyfile=self.ssl_keyfile,
            password=secret,
        )
        files = {
            "ssl_ca_certs": self.ssl_cafile,
            "ssl_certfile": self.ssl_certfile,
            "ssl_keyfile": self.ssl_keyfile,
        }
        options |= {name: str(file) for name, file in files.items() if file is not None}
        if secret is not None:
            options["ssl_password"] = secret
        options["ssl_check_hostname"] = self.ssl_check_hostname
        return options


class TopicSettings(_Section):
    """Topic names, and how `kbert topics --create` makes topics."""

    raw: str = Field(default=topics.RAW_CRYPTO, description="Topic that raw crypto messages come from.")
    signals: str = Field(default=topics.SIGNALS_CRYPTO, description="Topic that crypto signals go to.")
    dead_letter: str = Field(
        default=topics.DEAD_LETTER, description="Topic for what cannot be read, of both pipelines."
    )
    partitions: PositiveInt = Field(
        default=6, description="Partitions of a topic that `kbert topics --create` makes."
    )
    replication_factor: PositiveInt = Field(
        default=1,
        description="Replicas of a topic that `kbert topics --create` makes; 3 on three brokers or more.",
    )


class ModelSettings(_Section):
    """Which weights, and where they run."""

    ref: str | None = Field(
        default=None,
        description="Directory, .pt file or Hub id (owner/name or owner/name@revision); the bundled model "
        "where absent.",
    )
    revision: str | None = Field(
        default=None, description="Hub commit, where `ref` has none after an @; pin it in production."
    )
    tokeniser_revision: str | None = Field(
        default=None,
        description="Hub commit of the encoder that a .pt file names, whose tokeniser and config are taken "
        "where none lie beside the weights; pin it likewise.",
    )
    offline: bool = Field(default=False, description="Use the local Hub cache only.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto, cpu or cuda; auto: CUDA where there is a GPU, else the CPU."
    )
    precision: Literal["auto", "fp32", "bf16", "int8", "fp16", "fp8"] = Field(
        default="auto",
        description="fp32, bf16, int8 (CPU), fp16, fp8 (GPU) or auto: on a CPU the fastest of fp32, bf16 and "
        "int8 that keeps the answers on the samples, on a GPU bf16 (fp16 before Ampere).",
    )
    threads: PositiveInt | None = Field(default=None, description="CPU threads; all cores where absent.")
    cuda_graphs: bool = Field(
        default=False,
        description="Launch small batches on a GPU as one graph each; not measured yet. Checked at start: it "
        "is refused where it changes the answers.",
    )


class TrafficModelSettings(ModelSettings):
    """As `ModelSettings`, in fp32 by default."""

    precision: Literal["auto", "fp32", "bf16", "int8", "fp16", "fp8"] = Field(
        default="fp32",
        description="As model.precision. With auto the next start may choose otherwise, and `kbert narrative "
        "build` give other probabilities than the stream.",
    )


class SourceSettings(_Section):
    """The consumer group that reads raw messages."""

    group_id: str = Field(default="kbert-worker", description="Consumer group of the crypto workers.")
    max_poll_records: PositiveInt = Field(default=1_000, description="Records of one poll at most.")
    fetch_max_wait: PositiveFloat = Field(
        default=0.1,
        description="Seconds that the broker may hold a fetch that finds nothing. Kafka answers as soon "
        "as something comes; the embedded broker looks only when it has waited.",
    )
    max_payload_bytes: PositiveInt = Field(default=262_144, description="Larger payloads are dead letters.")
    max_unfinished_bytes: PositiveInt = Field(
        default=67_108_864, description="Nothing more is read while so many bytes are read and not finished."
    )
    session_timeout: PositiveFloat = Field(
        default=10.0, description="Seconds without a heartbeat after which the group drops a member."
    )
    max_poll_interval: PositiveFloat = Field(
        default=300.0, description="Longest time (s) that the source may hold back before the group drops it."
    )
    drain_timeout: PositiveFloat = Field(
        default=10.0,
        description="Seconds in which a revoked partition, or a shutdown, finishes what was taken.",
    )
    commit_interval: PositiveFloat = Field(
        default=1.0,
        description="Seconds between commits; with delivery=exactly_once sink.transaction_interval rules.",
    )
    stall_limit: PositiveFloat = Field(
        default=180.0,
        description="Seconds without progress, while work is or may be there, after which the worker exits.",
    )
    max_future: float = Field(
        default=60.0,
        ge=0,
        description="A published_at this many seconds past the broker's timestamp is set back to it.",
    )


class BatchSettings(_Section):
    """The dynamic batcher."""

    max_batch_tokens: PositiveInt | None = Field(
        default=None,
        description="Tokens of one batch; where absent 1,024 a CPU thread, between 1,024 and 16,384, and "
        "16,384 on a GPU.",
    )
    max_queue_tokens: PositiveInt | None = Field(
        default=None, description="Hard bound of the queue; 16 batches where absent."
    )
    max_queue_delay: PositiveFloat = Field(
        default=2.0, description="Seconds that a message may wait for the engine, by its measured rate."
    )


class SinkSettings(_Section):
    """The producer of signals and dead letters."""

    publish_text: bool = Field(default=True, description="Put the first characters into the signal.")
    text_characters: PositiveInt = Field(
        default=500, description="Characters of the message that publish_text puts there."
    )
    author_key: SecretStr | None = Field(
        default=None,
        description="Key of the author hash; set it and keep it: the key used where absent is public, and "
        "known names can be found by their hashes.",
    )
    request_timeout: PositiveFloat = Field(
        default=40.0, description="Seconds in which the brokers have to answer a produce request or commit."
    )
    compression: Literal["gzip"] | None = Field(
        default=None, description="Of produce batches: gzip, or none where absent."
    )
    max_batch_bytes: PositiveInt = Field(default=262_144, description="Bytes of one produce batch.")
    max_unacknowledged: PositiveInt = Field(
        default=8, description="Batches on their way to the broker before the engine waits."
    )
    transaction_interval: PositiveFloat = Field(
        default=0.2, description="Exactly once: seconds between commits, the longest that a signal is hidden."
    )
    transaction_records: PositiveInt = Field(
        default=5_000, description="Exactly once: commit earlier when this many records wait."
    )
    transaction_bytes: PositiveInt = Field(
        default=16_777_216, description="Exactly once: commit earlier when so many bytes wait."
    )
    transaction_timeout: PositiveFloat = Field(
        default=60.0,
        description="Exactly once: seconds after which Kafka aborts what a dead worker left open.",
    )


class AggregateSettings(_Section):
    """From signals.crypto into Redis windows."""

    group_id: str = Field(default="kbert-aggregates", description="Consumer group of the aggregates.")
    max_poll_records: PositiveInt = Field(default=5_000, description="Records of one poll at most.")
    session_timeout: PositiveFloat = Field(
        default=10.0, description="Seconds without a heartbeat after which the group drops a member."
    )
    relevant_from: float = Field(default=0.4, ge=0, le=1, description="Relevance from which MARKET counts.")
    id_window: PositiveInt = Field(
        default=50_000, description="Offsets of a partition within which a repeated id counts once."
    )
    margin: int = Field(
        default=5_000,
        ge=0,
        description="Records before what is committed that are applied again on assignment where a coin's "
        "fence lacks them: they heal a Redis that lost its last writes. The ids of `id_window` records "
        "before them are read too, and count nowhere.",
    )


class NarrativeSettings(_Section):
    """From signals.traffic into the monthly narrative index in Redis."""

    group_id: str = Field(default="kbert-narrative", description="Consumer group of the narrative index.")
    max_poll_records: PositiveInt = Field(default=5_000, description="Records of one poll at most.")
    session_timeout: PositiveFloat = Field(
        default=10.0, description="Seconds without a heartbeat after which the group drops a member."
    )
    id_window: PositiveInt = Field(
        default=200_000, description="Offsets of a partition within which a repeated id counts once."
    )
    margin: int = Field(
        default=20_000,
        ge=0,
        description="Records before the committed offset that are read again on assignment, where that is "
        "more than `id_window`: they tell which ids were there, and change nothing.",
    )
    source_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={}, description="Weight of a source in the share and the mean; 1 where absent."
    )


class TrafficSettings(_Section):
    """What the traffic pipeline does not share with the crypto pipeline."""

    raw: str = Field(default=topics.RAW_TRAFFIC, description="Topic that raw traffic news comes from.")
    signals: str = Field(default=topics.SIGNALS_TRAFFIC, description="Topic that traffic signals go to.")
    group_id: str = Field(
        default="kbert-traffic-worker", description="Consumer group of the traffic workers."
    )
    model: TrafficModelSettings = TrafficModelSettings()


class CoinSettings(_Section):
    """The coin tagger."""

    user_file: ReadableFile | None = Field(default=None, description="TOML with names of your own.")


class ServeSettings(_Section):
    """HTTP API, live streams and the page."""

    host: str = Field(
        default="127.0.0.1", description="Address to bind; beyond this machine only with a token."
    )
    port: int = Field(default=8420, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    token: BearerToken | None = Field(
        default=None, min_length=16, description="Bearer token that the API then asks for."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Further names in the Host header, for a proxy before a server without token."
    )
    recent_signals: PositiveInt = Field(default=1_000, description="Latest signals that are kept.")
    recent_seconds: PositiveInt = Field(
        default=900, description="How far back they are read from the topic at start."
    )
    stream_queue: PositiveInt = Field(
        default=512, description="Events that may wait for one reader before it is cut off."
    )
    max_streams: PositiveInt = Field(default=1_000, description="Open streams.")
    max_streams_per_client: PositiveInt = Field(default=100, description="Open streams of one address.")
    requests_per_second: PositiveFloat = Field(
        default=1_000.0, description="Requests of one address; status 429 beyond. Streams do not count."
    )
    burst: PositiveInt = Field(default=2_000, description="Requests of one address at once, after a pause.")


class WebhookSettings(_Section):
    """`kbert bot webhook`: signals as signed POST requests."""

    url: SecretStr | None = Field(default=None, description="http(s)://...; may hold a token of its own.")
    secret: SecretStr | None = Field(default=None, min_length=16, description="Key of the HMAC signature.")
    group_id: str = Field(default="kbert-webhook", description="Its consumer group.")
    coins: tuple[str, ...] = Field(default=(), description="Only signals that name one of them.")
    actions: tuple[Action, ...] = Field(
        default=(), description="Only signals whose action_signal is one of them."
    )
    sentiments: tuple[Sentiment, ...] = Field(
        default=(), description="Only signals whose sentiment_strength is one of them."
    )
    min_certainty: float = Field(default=0.0, ge=0, le=1, description="Only signals at least as certain.")
    min_relevance: float = Field(default=0.0, ge=0, le=1, description="Only signals at least as relevant.")
    timeout: PositiveFloat = Field(default=10.0, description="Seconds for one whole attempt.")
    attempts: PositiveInt = Field(default=8, description="Tries before a signal goes to the dead letters.")
    backoff: PositiveFloat = Field(
        default=0.5, description="Longest pause (s) before the second try; doubled for each one after it."
    )
    max_backoff: PositiveFloat = Field(
        default=60.0, description="Longest pause (s) before any try, also where Retry-After asks for more."
    )
    queue: PositiveInt = Field(
        default=1_000, description="Signals that may wait here; more wait in Kafka, and none is dropped."
    )
    drain_timeout: PositiveFloat = Field(
        default=10.0, description="Seconds at shutdown to send what waits; the rest is sent after a restart."
    )
    dead_letters: Path = Field(
        default=Path("webhook-dead-letters.jsonl"), description="Where refused signals are appended."
    )

    @field_validator("coins")
    @classmethod
    def _symbols(cls, coins: tuple[str, ...]) -> tuple[str, ...]:
        for coin in coins:
            if not SYMBOL.fullmatch(coin):
                raise ValueError(f"{coin!r} is no coin symbol as signals have it, such as BTC")
        return coins


class FreqtradeSettings(_Section):
    """`kbert bot freqtrade`: what a freqtrade with `external_message_consumer` connects to."""

    host: str = Field(default="127.0.0.1", description="Address to bind.")
    port: int = Field(default=8421, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    ws_token: SecretStr | None = Field(
        default=None, min_length=16, description="The `ws_token` of the consumer's producer entry."
    )
    pairs: tuple[str, ...] = Field(default=("BTC/KRW",), min_length=1, description="As freqtrade names them.")
    timeframe: str = Field(default="5m", description="That of the consuming strategy.")
    candle_type: Literal["spot", "futures"] = Field(
        default="spot", description="spot or futures, as the consuming freqtrade trades."
    )
    metrics: tuple[str, ...] = Field(
        default=("sentiment_index", "messages", "action_balance"),
        description="Columns of each candle, named as in `kbert export aggregates --metric`.",
    )
    window: Window = Field(default="1h", description="Rolling window of each metric.")
    delay: int = Field(
        default=60, ge=0, description="Seconds before its close up to which a candle sees messages."
    )
    queue: PositiveInt = Field(
        default=256, description="Messages that may wait for one consumer before it is cut off."
    )


class HummingbotSettings(_Section):
    """`kbert bot hummingbot`: signals for its controller `ai_livestream` over MQTT."""

    host: str = Field(default="127.0.0.1", description="The MQTT broker.")
    port: int = Field(default=1883, ge=1, le=65535, description="Its port.")
    username: str | None = Field(default=None, description="User at the broker, where it asks for one.")
    password: SecretStr | None = Field(default=None, description="Password of that user.")
    tls: bool = Field(default=False, description="Whether to connect by TLS; the system's authorities count.")
    topic: str = Field(default="hbot/predictions", description="The controller's `topic`.")
    pairs: tuple[str, ...] = Field(default=("BTC-KRW",), min_length=1, description="Its trading pairs.")
    window: Window = Field(default="15m", description="Rolling window that the probabilities come from.")
    interval: PositiveFloat = Field(default=5.0, description="Seconds between messages of a pair.")
    least: PositiveInt = Field(default=5, description="Messages in the window below which it is neutral.")
    target_pct: PositiveFloat = Field(
        default=0.01, description="What the controller scales its barriers with; it knows the market, not we."
    )


class BotSettings(_Section):
    """What `kbert bot` hands signals to."""

    markets_file: ReadableFile | None = Field(
        default=None, description="TOML with market codes of your own; see worker/clients/README.md."
    )
    webhook: WebhookSettings = WebhookSettings()
    freqtrade: FreqtradeSettings = FreqtradeSettings()
    hummingbot: HummingbotSettings = HummingbotSettings()


class MetricsSettings(_Section):
    """Prometheus metrics and probes."""

    port: int | None = Field(default=None, ge=1, le=65535, description="Port to bind; off where absent.")
    host: str = Field(
        default="127.0.0.1", description="Address to bind; beyond this machine only with a token."
    )
    token: BearerToken | None = Field(
        default=None, min_length=16, description="Bearer token that /metrics then asks for; probes ask none."
    )


class LogSettings(_Section):
    """Logs go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, JSON elsewhere."
    )


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        env_file=_DOTENV,
        env_ignore_empty=True,
        extra="ignore",  # .env may hold other programs' variables; sections forbid unknown names
        frozen=True,
    )

    pipelines: list[PipelineName] = Field(
        default=["crypto"], min_length=1, description="What `kbert run` works on: crypto, traffic or both."
    )
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once",
        description="exactly_once: signals, dead letters and offsets in one Kafka transaction.",
    )
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    topics: TopicSettings = TopicSettings()
    model: ModelSettings = ModelSettings()
    source: SourceSettings = SourceSettings()
    batch: BatchSettings = BatchSettings()
    sink: SinkSettings = SinkSettings()
    aggregates: AggregateSettings = AggregateSettings()
    traffic: TrafficSettings = TrafficSettings()
    narrative: NarrativeSettings = NarrativeSettings()
    coins: CoinSettings = CoinSettings()
    serve: ServeSettings = ServeSettings()
    bot: BotSettings = BotSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _transactions_possible(self) -> Self:
        if self.delivery == "exactly_once" and not self.kafka.idempotent_producer:
            raise ValueError(
                "delivery=exactly_once needs kafka.idempotent_producer=true and a broker with transactions"
            )
        return self

    @model_validator(mode="after")
    def _topics_distinct(self) -> Self:
        inputs = [("topics.raw", self.topics.raw), ("traffic.raw", self.traffic.raw)]  # may be the same
        outputs = [
            ("topics.signals", self.topics.signals),
            ("traffic.signals", self.traffic.signals),
            ("topics.dead_letter", self.topics.dead_letter),
        ]
        for (one, name), (other, same) in (*product(inputs, outputs), *combinations(outputs, 2)):
            if name == same:
                why = "a worker would read what it writes" if one.endswith("raw") else "their records differ"
                raise ValueError(f"{one} and {other} are both {name!r}: name two topics, because {why}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the TOML file below the environment."""
        dotenv = dotenv_settings.env_vars if isinstance(dotenv_settings, DotEnvSettingsSource) else {}
        file = config_file(dotenv)
        toml = TomlConfigSettingsSource(settings_cls, toml_file=file)
        unknown = sorted(set(toml.toml_data) - set(cls.model_fields))
        if unknown:
            raise ConfigurationError(
                f"{file} has the unknown section {unknown[0]!r}: "
                f"the sections are {', '.join(cls.model_fields)}."
            )
        return init_settings, env_settings, dotenv_settings, toml

    def with_model(self, pipeline: PipelineName, ref: str) -> "Settings":
        """The settings with another checkpoint for one pipeline."""
        if pipeline == "crypto":
            return self.model_copy(update={"model": self.model.model_copy(update={"ref": ref})})
        model = self.traffic.model.model_copy(update={"ref": ref})
        return self.model_copy(update={"traffic": self.traffic.model_copy(update={"model": model})})

    def of(self, pipeline: PipelineName) -> "Settings":
        """The settings as one pipeline sees them: its topics, consumer group and model in their places."""
        if pipeline == "crypto":
            return self
        traffic = self.traffic
        return self.model_copy(
            update={
                "topics": self.topics.model_copy(update={"raw": traffic.raw, "signals": traffic.signals}),
                "source": self.source.model_copy(update={"group_id": traffic.group_id}),
                "model": traffic.model,
            }
        )


def topic_setting(pipeline: str, role: Literal["raw", "signals"]) -> str:
    """The name of the setting that holds a topic of a pipeline."""
    return f"traffic.{role}" if pipeline == "traffic" else f"topics.{role}"


def config_file(dotenv: Mapping[str, str | None]) -> Path:
    """The TOML file to read; ``KBERT_CONFIG`` of the environment names it, else that of ``.env``.

    Args:
        dotenv: the variables of ``.env``, in any case.

    Raises:
        ConfigurationError: it names none.
        OSError: it is in a directory that may not be searched.
    """
    given = (*os.environ.items(), *dotenv.items())
    named = next((value for name, value in given if name.upper() == _CONFIG and value), None)
    if named and not Path(named).is_file():
        raise ConfigurationError(f"{_CONFIG} names {named}, which is no file: correct it or unset it.")
    return Path(named or "kbert.toml")


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, or raise ConfigurationError with one sentence."""
    dotenv = _dotenv()
    _refuse_unknown(os.environ)
    _refuse_unknown(dotenv, f" of {Path(_DOTENV).resolve()}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(_wrong(error, dotenv)) from None
    except SettingsError as error:
        # It names the first part of the path only, in double quotes.
        field = str(error).split('"')[1]
        environment = {name: v for source in (dotenv, os.environ) for name, v in source.items() if v}
        raise ConfigurationError(_unreadable(field, environment)) from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename} cannot be read: {error.strerror}.") from None
    except ValueError as error:  # a TOML file that does not parse
        raise ConfigurationError(f"{config_file(dotenv)} is not valid TOML: {error}") from error


def _wrong(error: ValidationError, dotenv: Mapping[str, str]) -> str:
    """The sentence for the first thing that is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    path = [str(part) for part in first["loc"]]
    if not path:  # about several sections, whose settings the message names
        return f"The settings are wrong: {message}."
    if first["type"] == "extra_forbidden":
        return _no_setting(path, dotenv)
    return f"The setting {'.'.join(path)} ({_variable(path)}) is wrong: {message}."


def _no_setting(path: list[str], dotenv: Mapping[str, str]) -> str:
    """The sentence for a name that its section does not know: where it stands, and what may be meant."""
    variable = _variable(path)
    closest = _closest(variable)
    places = {name.upper(): f" of {Path(_DOTENV).resolve()}" for name, value in dotenv.items() if value}
    places |= {name.upper(): "" for name, value in os.environ.items() if value}
    if variable in places:
        return f"The variable {variable}{places[variable]} is no setting: the closest is {closest}."
    as_json = [name for end in range(1, len(path)) if (name := _variable(path[:end])) in places]
    place = as_json[-1] + places[as_json[-1]] if as_json else config_file(dotenv)
    closest = closest.removeprefix(_PREFIX).replace("__", ".").lower()
    return f"{'.'.join(path)} in {place} is no setting: the closest is {closest}."


def _variable(path: Iterable[str]) -> str:
    return _PREFIX + "__".join(path).upper()


def _closest(variable: str) -> str:
    """The variable of a setting that is most like one that is none."""
    known = [name for name, _ in _variables()]
    return difflib.get_close_matches(variable, known, n=1, cutoff=0.0)[0]


def _dotenv() -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(_DOTENV).items() if value is not None}
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{Path(_DOTENV).resolve()} is not UTF-8: save it as UTF-8 ({error})."
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{Path(_DOTENV).resolve()} cannot be read: {error.strerror}.") from None


def _variables(model: type[BaseModel] = Settings, prefix: str = _PREFIX) -> Iterator[tuple[str, Any]]:
    """The variable of every setting and section, and its type."""
    for name, field in model.model_fields.items():
        variable, kind = prefix + name.upper(), field.annotation
        yield variable, kind
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _variables(kind, f"{variable}__")


def explained(model: type[BaseModel] = Settings, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Every setting: its name, its default as JSON ("" for none), and what it means."""
    for name, field in model.model_fields.items():
        kind, default = field.annotation, field.default
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from explained(kind, f"{path}{name}.")
            continue
        if isinstance(default, SecretStr):  # a default is no secret
            default = default.get_secret_value()
        shown = "" if default is None else json.dumps(default, default=str)
        yield path + name, shown, field.description or ""


def _refuse_unknown(environment: Mapping[str, str], of: str = "") -> None:
    """Sections refuse names that they do not know; what is meant for no section would pass in silence.

    ``of``: the file that the variables stand in, for the sentence.
    """
    given = {n.upper() for n, value in environment.items() if value and n.upper().startswith(_PREFIX)}
    # Kubernetes tells each pod of the services of its namespace, such as one named kbert.
    services = [name.removesuffix("_SERVICE_HOST") for name in given if name.endswith("_SERVICE_HOST")]
    links = tuple(f"{service}_{part}" for service in services for part in ("SERVICE_", "PORT"))
    for variable in sorted(given):
        field = variable.removeprefix(_PREFIX).partition("__")[0].lower()
        ours = field in Settings.model_fields or variable in _OTHER_VARIABLES
        if not ours and not variable.startswith((_OF_TESTS, *links)):
            raise ConfigurationError(
                f"The variable {variable}{of} is no setting: the closest is {_closest(variable)}."
            )


def _unreadable(field: str, environment: Mapping[str, str]) -> str:
    """The sentence for a variable of a field that holds no JSON where it should: a list, table or section."""
    first = _PREFIX + field.upper()
    given = {name.upper(): value for name, value in environment.items()}
    variable, kind = first, Settings.model_fields[field].annotation
    for part, its_kind in _variables():
        whole = part.startswith(first) and get_origin(its_kind) in (list, tuple, dict)
        if whole and part in given and not _is_json(given[part]):
            variable, kind = part, its_kind
    setting = variable.removeprefix(_PREFIX).replace("__", ".").lower()
    if get_origin(kind) in (list, tuple):
        example = json.dumps(get_args(get_args(kind)[0])[:2] or ("one", "two"))
        what = f"is a list: write it as JSON, such as {variable}='{example}'"
    elif get_origin(kind) is dict:
        what = f"is a table: write it as JSON, such as {variable}='{{\"one\": 1.5}}'"
    else:
        what = f"is a section: set its parts ({variable}__...), and write those that are lists as JSON"
    return f"The setting {setting} ({variable}) {what}."


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
