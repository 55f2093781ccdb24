"""confluent-kafka: librdkafka under Python."""

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, ResourceType)

import sys

from story import COUNT, EXPECTED, SPLIT, OtherMember, Story, address, equal, is_member, records, until


def consumer():
    return Consumer({'bootstrap.servers': address(), 'group.id': 'unused', 'enable.auto.commit': False,
                     'auto.offset.reset': 'error'})


def consume(topic, offset):
    client = consumer()
    client.assign([TopicPartition(topic, 0, offset)])
    found = []
    while len(found) == 0 or found[-1][0] < COUNT - 1:
        message = client.poll(20)
        if message is None:
            raise AssertionError(f'nothing more after {len(found)} records')
        if message.error():
            raise AssertionError(message.error())
        found.append((message.offset(), message.key(), message.value(), message.timestamp()[1], message.headers()))
    client.close()
    return found


def produce_and_consume(topic, **settings):
    offsets = []

    def delivered(error, message):
        if error:
            raise AssertionError(error)
        offsets.append(message.offset())

    settings = {key.replace('_', '.'): value for key, value in settings.items()}
    producer = Producer({'bootstrap.servers': address(), 'linger.ms': 5, **settings})
    for key, value, timestamp, headers in records():
        producer.produce(topic, key=key, value=value, timestamp=timestamp, headers=headers, partition=0,
                         on_delivery=delivered)
    equal(producer.flush(30), 0)
    equal(offsets, list(range(COUNT)))

    equal(consume(topic, OFFSET_BEGINNING), EXPECTED)
    equal(consume(topic, SPLIT), EXPECTED[SPLIT:])
    client = consumer()
    [found] = client.offsets_for_times([TopicPartition(topic, 0, EXPECTED[SPLIT][3])], timeout=20)
    equal(client.get_watermark_offsets(TopicPartition(topic, 0), timeout=20), (0, COUNT))
    client.close()
    equal(found.offset, SPLIT)
    equal(consume(topic, found.offset), EXPECTED[SPLIT:])


def results(futures):
    return {key: future.result(30) for key, future in futures.items()}


def administrate():
    topic = 'confluent-admin'
    admin = AdminClient({'bootstrap.servers': address()})
    results(admin.create_topics([NewTopic(topic, 2, 1, config={'retention.ms': '7200000'})]))
    until(lambda: topic in admin.list_topics(timeout=20).topics)

    def retention():
        resource = ConfigResource(ResourceType.TOPIC, topic)
        return results(admin.describe_configs([resource]))[resource]['retention.ms'].value

    until(lambda: retention() == '7200000')
    change = ConfigEntry('retention.ms', '3600000', incremental_operation=AlterConfigOpType.SET)
    results(admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])]))
    until(lambda: retention() == '3600000')

    results(admin.create_partitions([NewPartitions(topic, 4)]))
    until(lambda: len(admin.list_topics(topic, timeout=20).topics[topic].partitions) == 4)

    producer = Producer({'bootstrap.servers': address()})
    for _ in range(10):
        producer.produce(topic, b'value', partition=3)
    equal(producer.flush(30), 0)
    results(admin.delete_records([TopicPartition(topic, 3, 7)]))
    client = consumer()
    equal(client.get_watermark_offsets(TopicPartition(topic, 3), timeout=20), (7, 10))
    client.close()

    results(admin.delete_topics([topic]))
    until(lambda: topic not in admin.list_topics(timeout=20).topics)


def group_member(topic, group, strategy='range'):
    client = Consumer({'bootstrap.servers': address(), 'group.id': group, 'enable.auto.commit': False,
                       'auto.offset.reset': 'earliest', 'session.timeout.ms': 6000, 'heartbeat.interval.ms': 500,
                       'partition.assignment.strategy': strategy})
    client.subscribe([topic])
    return client


def share_in_group(topic, group, strategy):
    admin = AdminClient({'bootstrap.servers': address()})
    results(admin.create_topics([NewTopic(topic, 4, 1)]))
    until(lambda: topic in admin.list_topics(timeout=20).topics)
    producer = Producer({'bootstrap.servers': address()})

    def produce(values):
        for value in values:
            producer.produce(topic, b'%d' % value, partition=value % 4)
        equal(producer.flush(30), 0)

    produce(range(40))
    found = set()
    client = group_member(topic, group, strategy)

    def poll():
        message = client.poll(0.2)
        if message is not None and not message.error():
            found.add(int(message.value()))

    def has(partitions):
        poll()
        return len(client.assignment()) == partitions

    until(lambda: has(4))
    with OtherMember(topic, group) as other:
        until(lambda: has(2))
        described = results(admin.describe_consumer_groups([group]))[group]
        equal(len(described.members), 2)
        other.die()
        until(lambda: has(4))
    # What was read before the rebalance is read again: only what comes now shows where the member is.
    produce(range(40, 44))
    until(lambda: poll() or found == set(range(44)))
    client.commit(asynchronous=False)
    client.close()

    client = group_member(topic, group, strategy)
    partitions = [TopicPartition(topic, partition) for partition in range(4)]
    equal([partition.offset for partition in client.committed(partitions, timeout=20)], [11] * 4)
    found.clear()
    produce(range(44, 48))
    until(lambda: poll() or len(found) == 4)
    equal(found, set(range(44, 48)))
    client.close()
    results(admin.delete_consumer_groups([group]))


if is_member():
    member = group_member(*sys.argv[2:4], *(['cooperative-sticky'] if 'cooperative' in sys.argv[2] else []))
    while True:
        member.poll(0.2)

story = Story()
for codec in ('none', 'gzip', 'snappy', 'lz4', 'zstd'):
    story.check(codec, lambda: produce_and_consume(f'confluent-{codec}', compression_type=codec))
story.check('idempotent', lambda: produce_and_consume('confluent-idempotent', enable_idempotence=True))
story.check('admin', administrate)
story.check('group', lambda: share_in_group('confluent-group', 'confluent', 'range'))
story.check('cooperative group', lambda: share_in_group('confluent-cooperative', 'confluent-c', 'cooperative-sticky'))
story.end()
