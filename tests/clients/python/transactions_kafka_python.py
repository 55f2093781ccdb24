"""Transactions with kafka-python: aborts, consume-process-produce, and a producer that has been replaced."""

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from story import Story, address, equal, until

INPUT, OUTPUT, GROUP = 'kafka-python-in', 'kafka-python-out', 'kafka-python-transactions'


def transactional(identity):
    producer = KafkaProducer(bootstrap_servers=address(), transactional_id=identity)
    producer.init_transactions()
    return producer


def read(isolation, count):
    """The first `count` values of the output; none may come after them."""
    consumer = KafkaConsumer(bootstrap_servers=address(), isolation_level=isolation)
    partition = TopicPartition(OUTPUT, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    found = []

    def poll():
        for messages in consumer.poll(timeout_ms=500).values():
            found.extend(int(message.value) for message in messages)
        return len(found) >= count

    until(poll)
    poll()
    consumer.close()
    return found


def abort():
    producer = transactional('kafka-python-a')
    producer.begin_transaction()
    for value in range(10):
        producer.send(OUTPUT, b'%d' % value).get(timeout=30)
    equal(read('read_uncommitted', 10), list(range(10)))
    equal(read('read_committed', 0), [])
    producer.abort_transaction()
    equal(read('read_uncommitted', 10), list(range(10)))
    equal(read('read_committed', 0), [])
    producer.close()


def consume_process_produce():
    plain = KafkaProducer(bootstrap_servers=address())
    for value in range(30):
        plain.send(INPUT, b'%d' % value).get(timeout=30)
    plain.close()
    producer = transactional('kafka-python-b')
    partition = TopicPartition(INPUT, 0)
    rounds = 0
    done = 0
    while done < 30:
        # Whoever comes after an abort begins at what was committed.
        consumer = KafkaConsumer(INPUT, bootstrap_servers=address(), group_id=GROUP, enable_auto_commit=False,
                                 auto_offset_reset='earliest', isolation_level='read_committed')
        aborted = False
        while done < 30 and not aborted:
            messages = [next(consumer) for _ in range(5)]
            producer.begin_transaction()
            for message in messages:
                producer.send(OUTPUT, b'%d' % (1000 + int(message.value)))
            offsets = {partition: OffsetAndMetadata(messages[-1].offset + 1, '', -1)}
            producer.send_offsets_to_transaction(offsets, GROUP)
            rounds += 1
            aborted = rounds % 3 == 0
            if aborted:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
                done += 5
        consumer.close(autocommit=False)
    equal(read('read_committed', 30), list(range(1000, 1030)))
    consumer = KafkaConsumer(bootstrap_servers=address(), group_id=GROUP)
    # The transaction is committed before its offsets are seen.
    until(lambda: consumer.committed(partition) == 30)
    consumer.close()
    producer.close()


def fence():
    zombie = transactional('kafka-python-c')
    zombie.begin_transaction()
    zombie.send(OUTPUT, b'2000').get(timeout=30)
    producer = transactional('kafka-python-c')
    try:
        zombie.commit_transaction()
        raise AssertionError('the zombie has committed')
    except KafkaError:
        pass
    producer.begin_transaction()
    producer.send(OUTPUT, b'2001').get(timeout=30)
    producer.commit_transaction()
    equal(read('read_committed', 31)[30:], [2001])
    producer.close()


admin = KafkaAdminClient(bootstrap_servers=address())
admin.create_topics([NewTopic(INPUT, 1, 1), NewTopic(OUTPUT, 1, 1)])
until(lambda: OUTPUT in admin.list_topics())
admin.close()
story = Story()
story.check('abort', abort)
story.check('consume process produce', consume_process_produce)
story.check('fence', fence)
story.end()
