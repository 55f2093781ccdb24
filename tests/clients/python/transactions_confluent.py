"""Transactions with confluent-kafka: aborts, consume-process-produce, and a producer that has been replaced."""

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from story import Story, address, equal, until

INPUT, OUTPUT, GROUP = 'confluent-in', 'confluent-out', 'confluent-transactions'


def transactional(identity):
    producer = Producer({'bootstrap.servers': address(), 'transactional.id': identity, 'linger.ms': 5})
    producer.init_transactions(30)
    return producer


def read(isolation, count):
    """The first `count` values of the output; none may come after them."""
    consumer = Consumer({'bootstrap.servers': address(), 'group.id': 'unused', 'enable.auto.commit': False,
                         'isolation.level': isolation, 'enable.partition.eof': True})
    consumer.assign([TopicPartition(OUTPUT, 0, 0)])
    found = []

    def at_end():
        message = consumer.poll(1)
        if message is None:
            return False
        if message.error():
            return len(found) >= count
        found.append(int(message.value()))
        return False

    until(at_end)
    consumer.close()
    return found


def abort():
    producer = transactional('confluent-a')
    producer.begin_transaction()
    for value in range(10):
        producer.produce(OUTPUT, b'%d' % value)
    equal(producer.flush(30), 0)
    equal(read('read_uncommitted', 10), list(range(10)))
    equal(read('read_committed', 0), [])
    producer.abort_transaction(30)
    equal(read('read_uncommitted', 10), list(range(10)))
    equal(read('read_committed', 0), [])


def consume_process_produce():
    plain = Producer({'bootstrap.servers': address()})
    for value in range(30):
        plain.produce(INPUT, b'%d' % value)
    equal(plain.flush(30), 0)
    producer = transactional('confluent-b')
    rounds = 0
    done = 0
    while done < 30:
        # Whoever comes after an abort begins at what was committed.
        consumer = Consumer({'bootstrap.servers': address(), 'group.id': GROUP, 'enable.auto.commit': False,
                             'auto.offset.reset': 'earliest', 'isolation.level': 'read_committed'})
        consumer.subscribe([INPUT])
        aborted = False
        while done < 30 and not aborted:
            messages = []
            until(lambda: messages.extend(consumer.consume(5 - len(messages), 0.5)) or len(messages) == 5)
            producer.begin_transaction()
            for message in messages:
                producer.produce(OUTPUT, b'%d' % (1000 + int(message.value())))
            # An abort drops what is still queued.
            equal(producer.flush(30), 0)
            offsets = [TopicPartition(INPUT, 0, messages[-1].offset() + 1)]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
            rounds += 1
            aborted = rounds % 3 == 0
            if aborted:
                producer.abort_transaction(30)
            else:
                producer.commit_transaction(30)
                done += 5
        consumer.close()
    equal(read('read_committed', 30), list(range(1000, 1030)))
    equal(len(read('read_uncommitted', 10 + 5 * rounds)), 10 + 5 * rounds)
    consumer = Consumer({'bootstrap.servers': address(), 'group.id': GROUP})
    [committed] = consumer.committed([TopicPartition(INPUT, 0)], timeout=30)
    consumer.close()
    equal(committed.offset, 30)


def fence():
    zombie = transactional('confluent-c')
    zombie.begin_transaction()
    zombie.produce(OUTPUT, b'2000')
    equal(zombie.flush(30), 0)
    producer = transactional('confluent-c')
    try:
        zombie.commit_transaction(30)
        raise AssertionError('the zombie has committed')
    except KafkaException as error:
        if not error.args[0].fatal():
            raise
    producer.begin_transaction()
    producer.produce(OUTPUT, b'2001')
    producer.commit_transaction(30)
    equal(read('read_committed', 31)[30:], [2001])


admin = AdminClient({'bootstrap.servers': address()})
for future in admin.create_topics([NewTopic(INPUT, 1, 1), NewTopic(OUTPUT, 1, 1)]).values():
    future.result(30)
until(lambda: OUTPUT in admin.list_topics(timeout=20).topics)
story = Story()
story.check('abort', abort)
story.check('consume process produce', consume_process_produce)
story.check('fence', fence)
story.end()
