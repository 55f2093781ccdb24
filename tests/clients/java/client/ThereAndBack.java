import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** Writes records with acks=all to a topic and reads them from its start, in a group: arguments are address and topic. */
public class ThereAndBack {
    static final int COUNT = 100;

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("acks", "all");
        settings.put("compression.type", "lz4");
        settings.put("group.id", topic + "-readers");
        settings.put("auto.offset.reset", "earliest");
        for (String what : new String[] {"key", "value"}) {
            settings.put(what + ".serializer", "org.apache.kafka.common.serialization.StringSerializer");
            settings.put(what + ".deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        }
        List<String> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            List<Future<RecordMetadata>> futures = new ArrayList<>();
            for (int i = 0; i < COUNT; i++) {
                sent.add("record " + i);
                futures.add(producer.send(new ProducerRecord<>(topic, 0, null, sent.get(i))));
            }
            for (Future<RecordMetadata> future : futures) {
                future.get(30, TimeUnit.SECONDS);
            }
        }
        List<String> found = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(Collections.singletonList(topic));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
            while (found.size() < COUNT && System.nanoTime() < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    found.add(record.value());
                }
            }
        }
        if (!found.equals(sent)) {
            throw new AssertionError("found " + found);
        }
        System.out.println("PASS " + topic);
    }
}
