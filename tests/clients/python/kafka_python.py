"""kafka-python: the classic pure Python client."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewPartitions, NewTopic

import sys

from story import COUNT, EXPECTED, SPLIT, OtherMember, Story, address, equal, is_member, records, until


def hello_world():
    producer = KafkaProducer(bootstrap_servers=address())
    producer.send('test_topic', b'hello, world!')
    producer.flush()
    producer.close()

    consumer = KafkaConsumer('test_topic', bootstrap_servers=[address()], auto_offset_reset='earliest')
    for message in consumer:
        equal((message.topic, message.offset, message.value), ('test_topic', 0, b'hello, world!'))
        break
    consumer.close()


def hello_from_now_on():
    """The same consumer without a position: it sees what comes after it."""
    consumer = KafkaConsumer('test_topic', bootstrap_servers=[address()])
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)
    partition = TopicPartition('test_topic', 0)
    position = consumer.position(partition)
    producer = KafkaProducer(bootstrap_servers=address())
    producer.send('test_topic', b'hello again')
    producer.flush()
    producer.close()
    message = next(consumer)
    equal((message.offset, message.value), (position, b'hello again'))
    consumer.close()


def consume(topic, seek):
    consumer = KafkaConsumer(bootstrap_servers=address(), consumer_timeout_ms=20000)
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    seek(consumer, partition)
    found = []
    for message in consumer:
        found.append((message.offset, message.key, message.value, message.timestamp, list(message.headers)))
        if message.offset == COUNT - 1:
            break
    consumer.close()
    return found


def produce_and_consume(topic, **settings):
    producer = KafkaProducer(bootstrap_servers=address(), linger_ms=5, **settings)
    sent = [
        producer.send(topic, key=key, value=value, timestamp_ms=timestamp, headers=headers, partition=0)
        for key, value, timestamp, headers in records()
    ]
    equal([future.get(timeout=30).offset for future in sent], list(range(COUNT)))
    producer.close()

    equal(consume(topic, lambda consumer, partition: consumer.seek_to_beginning(partition)), EXPECTED)
    equal(consume(topic, lambda consumer, partition: consumer.seek(partition, SPLIT)), EXPECTED[SPLIT:])

    def to_time(consumer, partition):
        found = consumer.offsets_for_times({partition: EXPECTED[SPLIT][3]})[partition]
        equal((found.offset, found.timestamp), (SPLIT, EXPECTED[SPLIT][3]))
        consumer.seek(partition, found.offset)

    equal(consume(topic, to_time), EXPECTED[SPLIT:])


def administrate():
    topic = 'kafka-python-admin'
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.create_topics([NewTopic(topic, 2, 1, topic_configs={'retention.ms': '7200000'})])
    until(lambda: topic in admin.list_topics())

    def retention():
        found = str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        return found

    until(lambda: '7200000' in retention())
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {'retention.ms': '3600000'})])
    until(lambda: '3600000' in retention())

    admin.create_partitions({topic: NewPartitions(4)})
    until(lambda: len(admin.describe_topics([topic])[0]['partitions']) == 4)

    producer = KafkaProducer(bootstrap_servers=address())
    for _ in range(10):
        producer.send(topic, b'value', partition=3).get(timeout=30)
    producer.close()
    partition = TopicPartition(topic, 3)
    admin.delete_records({partition: 7})
    consumer = KafkaConsumer(bootstrap_servers=address())
    equal(consumer.beginning_offsets([partition]), {partition: 7})
    equal(consumer.end_offsets([partition]), {partition: 10})
    consumer.close()

    admin.delete_topics([topic])
    until(lambda: topic not in admin.list_topics())
    admin.close()


def group_member(topic, group):
    return KafkaConsumer(topic, bootstrap_servers=address(), group_id=group, enable_auto_commit=False,
                         auto_offset_reset='earliest', session_timeout_ms=6000, heartbeat_interval_ms=500,
                         metadata_max_age_ms=1000)


def share_in_group():
    topic, group = 'kafka-python-group', 'kafka-python'
    admin = KafkaAdminClient(bootstrap_servers=address())
    admin.create_topics([NewTopic(topic, 4, 1)])
    producer = KafkaProducer(bootstrap_servers=address())

    def produce(values):
        for value in values:
            producer.send(topic, b'%d' % value, partition=value % 4).get(timeout=30)

    produce(range(40))
    found = set()
    consumer = group_member(topic, group)

    def poll():
        for messages in consumer.poll(timeout_ms=200).values():
            found.update(int(message.value) for message in messages)

    def has(partitions):
        poll()
        return len(consumer.assignment()) == partitions

    until(lambda: has(4))
    with OtherMember(topic, group) as other:
        until(lambda: has(2))
        other.die()
        until(lambda: has(4))
    # What was read before the rebalance is read again: only what comes now shows where the member is.
    produce(range(40, 44))
    until(lambda: poll() or found == set(range(44)))
    consumer.commit()
    consumer.close()

    consumer = group_member(topic, group)
    equal({consumer.committed(TopicPartition(topic, partition)) for partition in range(4)}, {11})
    found.clear()
    produce(range(44, 48))
    until(lambda: poll() or len(found) == 4)
    equal(found, set(range(44, 48)))
    consumer.close()
    producer.close()
    admin.close()


if is_member():
    member = group_member(*sys.argv[2:])
    while True:
        member.poll(timeout_ms=200)

story = Story()
story.check('hello world', hello_world)
story.check('hello from now on', hello_from_now_on)
for codec in (None, 'gzip', 'snappy', 'lz4', 'zstd'):
    name = codec or 'none'
    story.check(name, lambda: produce_and_consume(
        f'kafka-python-{name}', compression_type=codec, enable_idempotence=False, acks='all'))
story.check('idempotent', lambda: produce_and_consume('kafka-python-idempotent', enable_idempotence=True))
story.check('admin', administrate)
story.check('group', share_in_group)
story.end()
