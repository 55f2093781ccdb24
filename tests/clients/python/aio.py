"""aiokafka: the asyncio client."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from story import COUNT, EXPECTED, SPLIT, OtherMember, Story, address, equal, is_member, records


async def consume(topic, seek):
    consumer = AIOKafkaConsumer(bootstrap_servers=address())
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await seek(consumer, partition)
        found = []
        while len(found) == 0 or found[-1][0] < COUNT - 1:
            message = await asyncio.wait_for(consumer.getone(), 20)
            found.append((message.offset, message.key, message.value, message.timestamp, list(message.headers)))
        return found
    finally:
        await consumer.stop()


async def produce_and_consume(topic, **settings):
    producer = AIOKafkaProducer(bootstrap_servers=address(), linger_ms=5, **settings)
    await producer.start()
    try:
        sent = [
            await producer.send(topic, key=key, value=value, timestamp_ms=timestamp, headers=headers, partition=0)
            for key, value, timestamp, headers in records()
        ]
        equal([(await future).offset for future in sent], list(range(COUNT)))
    finally:
        await producer.stop()

    async def to_beginning(consumer, partition):
        await consumer.seek_to_beginning(partition)

    async def to_offset(consumer, partition):
        consumer.seek(partition, SPLIT)

    async def to_time(consumer, partition):
        found = (await consumer.offsets_for_times({partition: EXPECTED[SPLIT][3]}))[partition]
        equal((found.offset, found.timestamp), (SPLIT, EXPECTED[SPLIT][3]))
        consumer.seek(partition, found.offset)

    equal(await consume(topic, to_beginning), EXPECTED)
    equal(await consume(topic, to_offset), EXPECTED[SPLIT:])
    equal(await consume(topic, to_time), EXPECTED[SPLIT:])


async def until(condition, seconds=30):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def administrate():
    topic = 'aiokafka-admin'
    admin = AIOKafkaAdminClient(bootstrap_servers=address())
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 2, 1, topic_configs={'retention.ms': '7200000'})])

        async def listed():
            return topic in await admin.list_topics()

        async def retention_is(value):
            found = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
            return value in str(found)

        await until(listed)
        await until(lambda: retention_is('7200000'))
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {'retention.ms': '3600000'})])
        await until(lambda: retention_is('3600000'))

        await admin.create_partitions({topic: NewPartitions(4)})

        async def four_partitions():
            return len((await admin.describe_topics([topic]))[0]['partitions']) == 4

        await until(four_partitions)

        producer = AIOKafkaProducer(bootstrap_servers=address())
        await producer.start()
        for _ in range(10):
            await producer.send_and_wait(topic, b'value', partition=3)
        await producer.stop()
        partition = TopicPartition(topic, 3)
        await admin.delete_records({partition: RecordsToDelete(before_offset=7)})
        consumer = AIOKafkaConsumer(bootstrap_servers=address())
        await consumer.start()
        equal(await consumer.beginning_offsets([partition]), {partition: 7})
        equal(await consumer.end_offsets([partition]), {partition: 10})
        await consumer.stop()

        await admin.delete_topics([topic])

        async def gone():
            return not await listed()

        await until(gone)
    finally:
        await admin.close()


async def group_member(topic, group):
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=address(), group_id=group, enable_auto_commit=False, auto_offset_reset='earliest',
        session_timeout_ms=6000, heartbeat_interval_ms=500)
    await consumer.start()
    return consumer


async def share_in_group():
    topic, group = 'aiokafka-group', 'aiokafka'
    admin = AIOKafkaAdminClient(bootstrap_servers=address())
    await admin.start()
    await admin.create_topics([NewTopic(topic, 4, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=address())
    await producer.start()

    async def produce(values):
        for value in values:
            await producer.send_and_wait(topic, b'%d' % value, partition=value % 4)

    await produce(range(40))
    found = set()
    consumer = await group_member(topic, group)

    async def poll():
        for messages in (await consumer.getmany(timeout_ms=200)).values():
            found.update(int(message.value) for message in messages)

    async def has(partitions):
        await poll()
        return len(consumer.assignment()) == partitions

    async def has_found(wanted):
        await poll()
        return found == wanted

    await until(lambda: has(4))
    with OtherMember(topic, group) as other:
        await until(lambda: has(2))
        other.die()
        await until(lambda: has(4))
    # What was read before the rebalance is read again: only what comes now shows where the member is.
    await produce(range(40, 44))
    await until(lambda: has_found(set(range(44))))
    await consumer.commit()
    await consumer.stop()

    consumer = await group_member(topic, group)
    for partition in range(4):
        equal(await consumer.committed(TopicPartition(topic, partition)), 11)
    found.clear()
    await produce(range(44, 48))
    await until(lambda: has_found(set(range(44, 48))))
    await consumer.stop()
    await producer.stop()


async def be_member():
    member = await group_member(*sys.argv[2:])
    while True:
        await member.getmany(timeout_ms=200)


async def main():
    story = Story()
    for codec in (None, 'gzip', 'snappy', 'lz4', 'zstd'):
        name = codec or 'none'
        await story.check_async(
            name, lambda: produce_and_consume(f'aiokafka-{name}', compression_type=codec))
    await story.check_async(
        'idempotent', lambda: produce_and_consume('aiokafka-idempotent', enable_idempotence=True))
    await story.check_async('admin', administrate)
    await story.check_async('group', share_in_group)
    story.end()


asyncio.run(be_member() if is_member() else main())
