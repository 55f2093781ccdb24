"""Transactions with aiokafka: aborts, consume-process-produce, and a producer that has been replaced."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from story import Story, address, equal

INPUT, OUTPUT, GROUP = 'aiokafka-in', 'aiokafka-out', 'aiokafka-transactions'


async def transactional(identity):
    producer = AIOKafkaProducer(bootstrap_servers=address(), transactional_id=identity)
    await producer.start()
    return producer


async def read(isolation, count):
    """The first `count` values of the output; none may come after them."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address(), isolation_level=isolation)
    await consumer.start()
    partition = TopicPartition(OUTPUT, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    found = []
    async with asyncio.timeout(30):
        while len(found) < count:
            for messages in (await consumer.getmany(timeout_ms=500)).values():
                found.extend(int(message.value) for message in messages)
    for messages in (await consumer.getmany(timeout_ms=500)).values():
        found.extend(int(message.value) for message in messages)
    await consumer.stop()
    return found


async def abort():
    producer = await transactional('aiokafka-a')
    await producer.begin_transaction()
    for value in range(10):
        await producer.send_and_wait(OUTPUT, b'%d' % value)
    equal(await read('read_uncommitted', 10), list(range(10)))
    equal(await read('read_committed', 0), [])
    await producer.abort_transaction()
    equal(await read('read_uncommitted', 10), list(range(10)))
    equal(await read('read_committed', 0), [])
    await producer.stop()


async def consume_process_produce():
    plain = AIOKafkaProducer(bootstrap_servers=address())
    await plain.start()
    for value in range(30):
        await plain.send_and_wait(INPUT, b'%d' % value)
    await plain.stop()
    producer = await transactional('aiokafka-b')
    partition = TopicPartition(INPUT, 0)
    rounds = 0
    done = 0
    while done < 30:
        # Whoever comes after an abort begins at what was committed.
        consumer = AIOKafkaConsumer(
            INPUT, bootstrap_servers=address(), group_id=GROUP, enable_auto_commit=False,
            auto_offset_reset='earliest', isolation_level='read_committed')
        await consumer.start()
        aborted = False
        while done < 30 and not aborted:
            async with asyncio.timeout(30):
                messages = [await consumer.getone() for _ in range(5)]
            await producer.begin_transaction()
            for message in messages:
                await producer.send(OUTPUT, b'%d' % (1000 + int(message.value)))
            await producer.send_offsets_to_transaction({partition: messages[-1].offset + 1}, GROUP)
            rounds += 1
            aborted = rounds % 3 == 0
            if aborted:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
                done += 5
        await consumer.stop()
    equal(await read('read_committed', 30), list(range(1000, 1030)))
    consumer = AIOKafkaConsumer(bootstrap_servers=address(), group_id=GROUP)
    await consumer.start()
    # The transaction is committed before its offsets are seen.
    async with asyncio.timeout(30):
        while await consumer.committed(partition) != 30:
            await asyncio.sleep(0.05)
    await consumer.stop()
    await producer.stop()


async def fence():
    zombie = await transactional('aiokafka-c')
    await zombie.begin_transaction()
    await zombie.send_and_wait(OUTPUT, b'2000')
    producer = await transactional('aiokafka-c')
    try:
        await zombie.commit_transaction()
        raise AssertionError('the zombie has committed')
    except KafkaError:
        pass
    await producer.begin_transaction()
    await producer.send_and_wait(OUTPUT, b'2001')
    await producer.commit_transaction()
    equal((await read('read_committed', 31))[30:], [2001])
    await producer.stop()


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=address())
    await admin.start()
    await admin.create_topics([NewTopic(INPUT, 1, 1), NewTopic(OUTPUT, 1, 1)])
    await admin.close()
    story = Story()
    await story.check_async('abort', abort)
    await story.check_async('consume process produce', consume_process_produce)
    await story.check_async('fence', fence)
    story.end()


asyncio.run(main())
