import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.Future;
import java.util.function.BiConsumer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client, releases 2.8 to 4: only what all of them have is called. */
public class Client {
    static final int COUNT = 100;
    static final int SPLIT = 40;
    static final long BASE_TIME = System.currentTimeMillis() - 3_600_000;
    static final Duration PATIENCE = Duration.ofSeconds(20);

    static String address;
    static String prefix;
    static boolean failed;

    public static void main(String[] arguments) {
        address = arguments[0];
        prefix = arguments[1] + "-";
        if (arguments.length > 2) {
            beMember(arguments[2], Arrays.copyOfRange(arguments, 3, arguments.length));
        }
        for (String codec : Arrays.asList("none", "gzip", "snappy", "lz4", "zstd")) {
            check(codec, () -> produceAndConsume(codec, "compression.type", codec, "enable.idempotence", "false"));
        }
        check("idempotent", () -> produceAndConsume("idempotent", "enable.idempotence", "true", "acks", "all"));
        check("fire and forget", Client::fireAndForget);
        check("admin", Client::administrate);
        check("group", () -> shareInGroup("group"));
        check("cooperative group", () -> shareInGroup("cooperative", "partition.assignment.strategy",
                "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"));
        System.exit(failed ? 1 : 0);
    }

    interface Step {
        void run() throws Exception;
    }

    static void check(String name, Step step) {
        try {
            step.run();
            System.out.println("PASS " + name);
        } catch (Throwable problem) {
            failed = true;
            problem.printStackTrace();
            System.out.println("FAIL " + name + ": " + problem);
        }
    }

    static void equal(Object found, Object wanted) {
        if (!found.equals(wanted)) {
            throw new AssertionError("found " + found + ", wanted " + wanted);
        }
    }

    static void until(Callable<Boolean> condition) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (!condition.call()) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("still not so after " + PATIENCE);
            }
            Thread.sleep(50);
        }
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static ProducerRecord<byte[], byte[]> record(String topic, int i) {
        byte[] key = i == 3 ? null : bytes("key-" + i);
        byte[] value = i == 5 ? null : bytes("value-" + i + " " + String.join("", Collections.nCopies(i, "x")));
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, 0, BASE_TIME + 1000L * i, key, value);
        record.headers().add("header", bytes("h" + i));
        return record;
    }

    static String text(long offset, long timestamp, byte[] key, byte[] value, byte[] header) {
        return offset + " " + timestamp + " " + Arrays.toString(key) + " " + Arrays.toString(value) + " "
                + Arrays.toString(header);
    }

    static List<String> expected(int from) {
        List<String> expected = new ArrayList<>();
        for (int i = from; i < COUNT; i++) {
            ProducerRecord<byte[], byte[]> record = record("any", i);
            expected.add(text(i, record.timestamp(), record.key(), record.value(),
                    record.headers().lastHeader("header").value()));
        }
        return expected;
    }

    static Producer<byte[], byte[]> producer(String... settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("linger.ms", "5");
        for (int i = 0; i < settings.length; i += 2) {
            properties.put(settings[i], settings[i + 1]);
        }
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static Consumer<byte[], byte[]> consumer() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static List<String> consume(String topic, BiConsumer<Consumer<?, ?>, TopicPartition> seek) {
        TopicPartition partition = new TopicPartition(topic, 0);
        List<String> found = new ArrayList<>();
        try (Consumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(Collections.singletonList(partition));
            seek.accept(consumer, partition);
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (consumer.position(partition) < COUNT) {
                if (System.nanoTime() > deadline) {
                    throw new AssertionError("nothing more after " + found.size() + " records");
                }
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
                    found.add(text(record.offset(), record.timestamp(), record.key(), record.value(),
                            record.headers().lastHeader("header").value()));
                }
            }
        }
        return found;
    }

    static void produceAndConsume(String name, String... settings) throws Exception {
        String topic = prefix + name;
        try (Producer<byte[], byte[]> producer = producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < COUNT; i++) {
                sent.add(producer.send(record(topic, i)));
            }
            for (int i = 0; i < COUNT; i++) {
                equal(sent.get(i).get().offset(), (long) i);
            }
        }
        equal(consume(topic, (consumer, partition) ->
                consumer.seekToBeginning(Collections.singletonList(partition))), expected(0));
        equal(consume(topic, (consumer, partition) -> consumer.seek(partition, SPLIT)), expected(SPLIT));
        equal(consume(topic, (consumer, partition) -> {
            long time = BASE_TIME + 1000L * SPLIT;
            OffsetAndTimestamp found =
                    consumer.offsetsForTimes(Collections.singletonMap(partition, time)).get(partition);
            equal(found.offset() + " " + found.timestamp(), SPLIT + " " + time);
            consumer.seek(partition, found.offset());
        }), expected(SPLIT));
    }

    static void fireAndForget() throws Exception {
        String topic = prefix + "forget";
        try (Producer<byte[], byte[]> producer = producer("acks", "0", "enable.idempotence", "false")) {
            for (int i = 0; i < COUNT; i++) {
                equal(producer.send(record(topic, i)).get().hasOffset(), false);
            }
        }
        equal(consume(topic, (consumer, partition) ->
                consumer.seekToBeginning(Collections.singletonList(partition))), expected(0));
    }

    static void administrate() throws Exception {
        String topic = prefix + "admin";
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", address);
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        TopicPartition last = new TopicPartition(topic, 3);
        try (Admin admin = Admin.create(properties)) {
            NewTopic wanted = new NewTopic(topic, 2, (short) 1);
            wanted.configs(Collections.singletonMap("retention.ms", "7200000"));
            admin.createTopics(Collections.singletonList(wanted)).all().get();
            until(() -> admin.listTopics().names().get().contains(topic));
            equal(admin.describeCluster().nodes().get().size(), 1);

            Callable<String> retention = () -> admin.describeConfigs(Collections.singletonList(resource)).all()
                    .get().get(resource).get("retention.ms").value();
            until(() -> retention.call().equals("7200000"));
            AlterConfigOp change =
                    new AlterConfigOp(new ConfigEntry("retention.ms", "3600000"), AlterConfigOp.OpType.SET);
            admin.incrementalAlterConfigs(Collections.singletonMap(resource, Collections.singletonList(change)))
                    .all().get();
            until(() -> retention.call().equals("3600000"));

            admin.createPartitions(Collections.singletonMap(topic, NewPartitions.increaseTo(4))).all().get();
            try (Consumer<byte[], byte[]> consumer = consumer()) {
                until(() -> consumer.partitionsFor(topic).size() == 4);
            }

            try (Producer<byte[], byte[]> producer = producer()) {
                for (int i = 0; i < 10; i++) {
                    producer.send(new ProducerRecord<>(topic, 3, null, bytes("value"))).get();
                }
            }
            admin.deleteRecords(Collections.singletonMap(last, RecordsToDelete.beforeOffset(7))).all().get();
            equal(admin.listOffsets(Collections.singletonMap(last, OffsetSpec.earliest())).all().get().get(last)
                    .offset(), 7L);
            equal(admin.listOffsets(Collections.singletonMap(last, OffsetSpec.latest())).all().get().get(last)
                    .offset(), 10L);

            admin.deleteTopics(Collections.singletonList(topic)).all().get();
            until(() -> !admin.listTopics().names().get().contains(topic));
        }
    }

    static Consumer<byte[], byte[]> groupMember(String name, String... settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("group.id", prefix + name);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("session.timeout.ms", "6000");
        properties.put("heartbeat.interval.ms", "500");
        for (int i = 0; i < settings.length; i += 2) {
            properties.put(settings[i], settings[i + 1]);
        }
        Consumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(Collections.singletonList(prefix + name));
        return consumer;
    }

    /** Belongs to a group until the process is killed. */
    static void beMember(String name, String... settings) {
        Consumer<byte[], byte[]> consumer = groupMember(name, settings);
        while (true) {
            consumer.poll(Duration.ofMillis(200));
        }
    }

    static Process otherMember(String name, String... settings) throws Exception {
        List<String> command = new ArrayList<>(Arrays.asList(
                System.getProperty("java.home") + "/bin/java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-cp", System.getProperty("java.class.path"), "Client", address,
                prefix.substring(0, prefix.length() - 1), name));
        command.addAll(Arrays.asList(settings));
        return new ProcessBuilder(command).inheritIO().start();
    }

    static void shareInGroup(String name, String... settings) throws Exception {
        String topic = prefix + name;
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", address);
        Set<Integer> found = new TreeSet<>();
        try (Admin admin = Admin.create(properties); Producer<byte[], byte[]> producer = producer()) {
            admin.createTopics(Collections.singletonList(new NewTopic(topic, 4, (short) 1))).all().get();
            produce(producer, topic, 0, 40);
            try (Consumer<byte[], byte[]> consumer = groupMember(name, settings)) {
                until(() -> poll(consumer, found) == 4);
                Process other = otherMember(name, settings);
                try {
                    until(() -> poll(consumer, found) == 2);
                } finally {
                    other.destroyForcibly().waitFor();
                }
                until(() -> poll(consumer, found) == 4);
                // What was read before the rebalance is read again: only what comes now shows where the member is.
                produce(producer, topic, 40, 44);
                until(() -> poll(consumer, found) == 4 && found.size() == 44);
                consumer.commitSync();
            }
            try (Consumer<byte[], byte[]> consumer = groupMember(name, settings)) {
                found.clear();
                produce(producer, topic, 44, 48);
                until(() -> poll(consumer, found) == 4 && found.size() == 4);
                equal(found, new TreeSet<>(Arrays.asList(44, 45, 46, 47)));
                consumer.commitSync();
            }
            equal(admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata().get()
                    .get(new TopicPartition(topic, 0)).offset(), 12L);
            equal(admin.describeConsumerGroups(Collections.singletonList(topic)).all().get().get(topic).members()
                    .size(), 0);
            admin.deleteConsumerGroups(Collections.singletonList(topic)).all().get();
        }
    }

    static void produce(Producer<byte[], byte[]> producer, String topic, int from, int to) throws Exception {
        for (int i = from; i < to; i++) {
            producer.send(new ProducerRecord<>(topic, i % 4, null, bytes(Integer.toString(i)))).get();
        }
    }

    /** Adds what came to {@code found} and returns how many partitions the member has. */
    static int poll(Consumer<byte[], byte[]> consumer, Set<Integer> found) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
            found.add(Integer.parseInt(new String(record.value(), StandardCharsets.UTF_8)));
        }
        return consumer.assignment().size();
    }
}
