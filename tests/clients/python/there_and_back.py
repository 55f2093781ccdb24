"""kafka-python writes records with acks=all to a topic and reads them from its start: arguments are address and topic."""

import sys

from kafka import KafkaConsumer, KafkaProducer

COUNT = 100

address, topic = sys.argv[1:3]
producer = KafkaProducer(bootstrap_servers=address, acks='all', compression_type='gzip')
sent = [producer.send(topic, value=b'record %d' % i, partition=0) for i in range(COUNT)]
offsets = [future.get(timeout=30).offset for future in sent]
producer.close()
assert offsets == list(range(COUNT)), offsets

consumer = KafkaConsumer(topic, bootstrap_servers=address, group_id=topic + '-readers', auto_offset_reset='earliest',
                         consumer_timeout_ms=30000)
found = []
for message in consumer:
    found.append(message.value)
    if len(found) == COUNT:
        break
consumer.close()
assert found == [b'record %d' % i for i in range(COUNT)], found
print('PASS', topic)
