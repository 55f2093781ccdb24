"""Sends numbered records until standard input ends, and writes down each one that was acknowledged.

usage: acknowledged.py HOST:PORT TOPIC PARTITIONS FILE

Record i goes to partition i modulo PARTITIONS with i as its text. A line of FILE is "partition offset i".
Ends with PASS only if everything that was sent is acknowledged in the end.
"""

import sys
import threading

from confluent_kafka import KafkaException, Producer

address, topic, partitions, file = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
problems = []
acknowledged = open(file, 'w', buffering=1)


def delivered(error, message):
    if error:
        problems.append(str(error))
    else:
        acknowledged.write(f'{message.partition()} {message.offset()} {message.value().decode()}\n')


producer = Producer({
    'bootstrap.servers': address,
    'enable.idempotence': True,
    'acks': 'all',
    'log_level': 0,
    'linger.ms': 1,
    'batch.num.messages': 50,
    # As long as it takes: the broker is away most of the time.
    'message.timeout.ms': 0,
    'socket.timeout.ms': 10000,
    'retry.backoff.ms': 20,
    'retry.backoff.max.ms': 100,
    'reconnect.backoff.ms': 20,
    'reconnect.backoff.max.ms': 100,
    # What a round may have in doubt when the broker dies.
    'queue.buffering.max.messages': 2000,
})

i = 0
while not ended.is_set() and not problems:
    try:
        producer.produce(topic, str(i), partition=i % partitions, on_delivery=delivered)
        i += 1
        producer.poll(0)
    except BufferError:
        producer.poll(0.01)
    except KafkaException as error:
        problems.append(str(error))
unsent = producer.flush(120)
if problems or unsent:
    print(f'FAIL {unsent} unsent, {problems[:3]}')
    sys.exit(1)
print(f'PASS {i}')
