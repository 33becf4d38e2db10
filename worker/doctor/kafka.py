"""Kafka: connection, protocol, topics, and what this user may do."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from worker.doctor.finding import Finding, fail, ok, warn
from worker.errors import KbertError
from worker.settings import PipelineName, Settings
from worker.sink.topics import TopicState, describe_topics
from worker.sink.transactions import TransactionalSink
from worker.source.header_names import escape_header_names
from worker.source.reaching import open_connection

_NEEDED: Final = {
    0: "Produce",
    1: "Fetch",
    2: "ListOffsets",
    3: "Metadata",
    8: "OffsetCommit",
    9: "OffsetFetch",
    10: "FindCoordinator",
    11: "JoinGroup",
    14: "SyncGroup",
}
_TRANSACTIONS: Final = {
    24: "AddPartitionsToTxn",
    25: "AddOffsetsToTxn",
    26: "EndTxn",
    28: "TxnOffsetCommit",
}


_PRODUCER_TIMEOUT_MS: Final = 60_000


async def check_kafka(settings: Settings) -> AsyncIterator[Finding]:
    """Everything about Kafka; stops after the connection where there is none."""
    servers = settings.kafka.bootstrap_servers.split(",")
    answers = await asyncio.gather(*(_connection(settings, server) for server in servers))
    reached = any(isinstance(answer, Finding) and answer.outcome != "fail" for answer in answers)
    for answer in answers:
        if isinstance(answer, Finding):
            yield answer
        else:  # a client that starts goes on to the next server
            yield (warn if reached else fail)("kafka", str(answer))
    if not reached:
        return
    async for finding in _topics(settings):
        yield finding
    for name in settings.pipelines:
        yield await _group(settings, settings.of(name).source.group_id, name)
        yield await _group(settings, _projection_group(settings, name), f"the aggregates of {name}")
    if settings.delivery == "exactly_once":
        for name in settings.pipelines:
            yield await _transactions(settings.of(name), name)
    else:
        yield await _producer(settings)


async def _connection(settings: Settings, server: str) -> Finding | KbertError:
    """What the server is, or why it cannot be reached."""
    check, kafka = "kafka", settings.kafka
    try:
        connection = await open_connection(kafka, server)
    except KbertError as error:
        return error
    versions: dict[int, tuple[int, int]] = connection._versions
    connection.close()
    needed = _NEEDED | (_TRANSACTIONS if settings.delivery == "exactly_once" else {})
    missing = [name for key, name in needed.items() if key not in versions]
    if missing:
        return fail(check, f"{server} lacks {', '.join(missing)}", "use Apache Kafka 2.1 or newer")
    how: str = kafka.security_protocol
    if how.startswith("SASL"):
        how += f" {kafka.sasl_mechanism}"
    if how.endswith("SSL") and not kafka.ssl_check_hostname:
        return warn(
            check,
            f"{server} answers ({how}), and its name is not checked",
            "set kafka.ssl_check_hostname=true",
        )
    return ok(check, f"{server} answers ({how}, {len(versions)} APIs)")


async def _topics(settings: Settings) -> AsyncIterator[Finding]:
    try:
        states = {state.name: state for state in await describe_topics(settings)}
    except (KafkaError, KbertError) as error:
        yield fail(
            "topics", f"the topics cannot be described ({error!r})", "allow this user Describe on them"
        )
        return
    seen: set[str] = set()
    for pipeline in settings.pipelines:
        topics = settings.of(pipeline).topics
        for name in (topics.raw, topics.signals, topics.dead_letter):
            if name in seen:
                continue
            seen.add(name)
            yield topic_finding(states[name])
            if states[name].exists and name != topics.dead_letter:  # only `kbert dead-letter` reads that
                yield await _read(settings, states[name])


def topic_finding(state: TopicState) -> Finding:
    """Whether a topic is there, and outlives a broker."""
    check = f"topic {state.name}"
    if not state.exists:
        return fail(
            check,
            "is not there, or this user may not see it",
            "run kbert topics --create, or allow this user Describe on it",
        )
    if state.replicas < 2:
        return warn(
            check,
            f"{state.partitions} partitions on one broker",
            "a lost disk takes the topic with it: where there are three brokers, set "
            "topics.replication_factor=3 (KBERT_TOPICS__REPLICATION_FACTOR) before kbert topics --create "
            "makes it, or give it more replicas with kafka-reassign-partitions.sh",
        )
    return ok(check, f"{state.partitions} partitions, {state.replicas} replicas")


async def _read(settings: Settings, state: TopicState) -> Finding:
    """Read the newest record of one partition: the right to, and whose clock it carries."""
    check = f"read {state.name}"
    escape_header_names()
    consumer = AIOKafkaConsumer(enable_auto_commit=False, **settings.kafka.client_options())
    try:
        await consumer.start()
        partition = TopicPartition(state.name, 0)
        consumer.assign([partition])
        begin = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        if end <= begin:
            return ok(check, "nothing on partition 0 yet")
        consumer.seek(partition, end - 1)
        polled = await consumer.getmany(partition, timeout_ms=3_000, max_records=1)
    except TopicAuthorizationFailedError:
        return fail(check, "this user may not read it", f"allow this user Read on {state.name}")
    except KafkaError as error:
        return fail(check, f"cannot be read ({error!r})")
    finally:
        await consumer.stop()
    newest = next((records[-1] for records in polled.values() if records), None)
    if newest is None:
        return ok(check, "readable; the end of partition 0 is a transaction's marker")
    ahead = newest.timestamp / 1000 - datetime.now(UTC).timestamp()
    if ahead > settings.source.max_future:
        return warn(
            check,
            f"its newest record is {timedelta(seconds=round(ahead))} ahead of this machine's clock",
            "set the clocks of this machine, the brokers and the producers by NTP",
        )
    return ok(check, f"readable; newest record {timedelta(seconds=round(max(0.0, -ahead)))} old")


def _projection_group(settings: Settings, pipeline: PipelineName) -> str:
    """Who reads its signals into Redis."""
    return (settings.aggregates if pipeline == "crypto" else settings.narrative).group_id


async def _group(settings: Settings, group: str, members_of: str) -> Finding:
    check = f"group {group}"
    forbidden = fail(check, "this user may not use it", f"allow this user Read on the group {group}")
    admin = AIOKafkaAdminClient(**settings.kafka.client_options())
    try:
        await admin.start()
        coordinator = await admin.find_coordinator(group)
        described: Any = (await admin.describe_consumer_groups([group], coordinator))[0].groups[0]
    except GroupAuthorizationFailedError:
        return forbidden
    except KafkaError as error:
        return fail(check, f"has no coordinator ({error!r})")
    finally:
        await admin.close()
    code, state, members = described[0], described[2], described[5]
    if code == GroupAuthorizationFailedError.errno:
        return forbidden
    return ok(
        check, f"coordinator {coordinator}, {state or 'no state'}, {len(members)} members of {members_of}"
    )


async def _producer(settings: Settings) -> Finding:
    if not settings.kafka.idempotent_producer:
        return warn(
            "producer",
            "it is not idempotent, so a retry may write a signal twice",
            "set kafka.idempotent_producer=true, on any broker but the embedded one",
        )
    admin = AIOKafkaAdminClient(**settings.kafka.client_options())
    try:
        await admin.start()
        answer: Any = await admin._send_request(InitProducerIdRequest(None, _PRODUCER_TIMEOUT_MS))
    except KafkaError as error:
        return fail("producer", f"cannot ask for a producer id ({error!r})")
    finally:
        await admin.close()
    if answer.error_code == ClusterAuthorizationFailedError.errno:
        signals = [settings.of(name).topics.signals for name in settings.pipelines]
        return fail(
            "producer",
            "this user may not open idempotent producers",
            f"allow it Write on {' and '.join((*signals, settings.topics.dead_letter))}, or "
            "IdempotentWrite on the cluster before Kafka 2.8",
        )
    if answer.error_code:
        return fail(
            "producer",
            f"the broker gives no id to an idempotent producer ({for_code(answer.error_code).__name__})",
            "set kafka.idempotent_producer=false and delivery=at_least_once, or use Apache Kafka",
        )
    return ok("producer", "idempotent producers are opened; the right to Write shows at the first signal")


async def _transactions(settings: Settings, pipeline: PipelineName) -> Finding:
    sink = TransactionalSink(settings, pipeline)
    try:
        await sink.start()
    except KbertError as error:
        return fail("transactions", str(error))
    finally:
        await sink.stop()
    group = settings.source.group_id
    return ok("transactions", f"the broker opens transactional producers of {group} for this user")
