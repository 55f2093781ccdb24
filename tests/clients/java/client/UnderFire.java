import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Works while a cluster is hurt, until its standard input ends; then proves that nothing was lost, doubled or half done.
 *
 * <p>`UnderFire steady ADDRESSES TOPIC`: an idempotent producer with default settings; to each line of input it answers with
 * the longest time without an acknowledgement since the line before.
 *
 * <p>`UnderFire follow ADDRESSES TOPIC RACK`: a consumer in a rack, of numbers in their order in partition 0; to each line it
 * answers how many it has read, and the bytes that came from brokers 1, 2 and 3.
 *
 * <p>`UnderFire exactly-once ADDRESSES IN OUT`: transactional producers write to IN, and abort some; a group reads what is
 * committed, and copies it to OUT within transactions.
 */
public class UnderFire {
    static final int SOURCES = 2;
    static final int WORKERS = 2;
    static final int RECORDS = 6;
    /** How long the group may take to copy what is left once all is well. */
    static final long PATIENCE_MS = 180_000;

    static String servers;
    static volatile boolean isToStop;
    static volatile boolean isToEnd;
    static final List<String> problems = Collections.synchronizedList(new ArrayList<>());

    public static void main(String[] arguments) throws Exception {
        servers = arguments[1];
        if (arguments[0].equals("steady")) {
            steady(arguments[2]);
        } else if (arguments[0].equals("follow")) {
            follow(arguments[2], arguments[3]);
        } else {
            exactlyOnce(arguments[2], arguments[3]);
        }
        for (String problem : problems) {
            System.out.println("FAIL " + problem);
        }
        System.exit(problems.isEmpty() ? 0 : 1);
    }

    static Map<String, Object> properties() {
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", servers);
        properties.put("key.serializer", StringSerializer.class.getName());
        properties.put("value.serializer", StringSerializer.class.getName());
        properties.put("key.deserializer", StringDeserializer.class.getName());
        properties.put("value.deserializer", StringDeserializer.class.getName());
        return properties;
    }

    // ---- steady

    static void steady(String topic) throws Exception {
        Map<String, Object> properties = properties();
        properties.put("enable.idempotence", "true");
        properties.put("acks", "all");
        AtomicLong last = new AtomicLong(System.nanoTime());
        AtomicLong longest = new AtomicLong();
        AtomicInteger acknowledged = new AtomicInteger();
        KafkaProducer<String, String> producer = new KafkaProducer<>(properties);
        Thread sender = new Thread(() -> {
            for (int number = 0; !isToStop; number++) {
                producer.send(new ProducerRecord<>(topic, 0, null, Integer.toString(number)), (metadata, error) -> {
                    if (error != null) {
                        problems.add("not sent: " + error);
                        return;
                    }
                    long now = System.nanoTime();
                    longest.accumulateAndGet(now - last.getAndSet(now), Math::max);
                    acknowledged.incrementAndGet();
                });
                sleep(5);
            }
        });
        sender.start();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        while (input.readLine() != null) {
            long silent = System.nanoTime() - last.get();
            long gap = Math.max(silent, longest.getAndSet(0));
            System.out.println("acknowledged " + acknowledged.get() + " longest-gap-ms " + gap / 1_000_000);
        }
        isToStop = true;
        sender.join();
        producer.close();
        int count = acknowledged.get();
        List<String> found = readAll(topic);
        for (int number = 0; number < found.size(); number++) {
            if (!found.get(number).equals(Integer.toString(number))) {
                problems.add("record " + number + " is " + found.get(number));
                break;
            }
        }
        if (found.size() != count) {
            problems.add(found.size() + " records, " + count + " acknowledged");
        }
        System.out.println("PASS steady: " + count + " records");
    }

    // ---- follow

    static void follow(String topic, String rack) throws Exception {
        Map<String, Object> properties = properties();
        properties.put("client.rack", rack);
        properties.put("enable.auto.commit", "false");
        // How long a follower may be silent until the leader is asked.
        properties.put("request.timeout.ms", "4000");
        AtomicInteger expected = new AtomicInteger();
        AtomicLong[] bytes = {new AtomicLong(), new AtomicLong(), new AtomicLong()};
        TopicPartition partition = new TopicPartition(topic, 0);
        Thread reader = start(() -> {
            try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
                consumer.assign(Arrays.asList(partition));
                consumer.seekToBeginning(Arrays.asList(partition));
                long end = Long.MAX_VALUE;
                while (consumer.position(partition) < end) {
                    if (isToStop && end == Long.MAX_VALUE) {
                        end = highWatermarks(Arrays.asList(partition)).get(partition);
                    }
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                        int number = Integer.parseInt(record.value().split(" ")[0]);
                        if (number != expected.getAndIncrement()) {
                            throw new IllegalStateException(number + " at offset " + record.offset());
                        }
                    }
                    consumer.metrics().forEach((name, metric) -> {
                        if (name.name().equals("incoming-byte-total") && name.group().endsWith("node-metrics")) {
                            int node = Integer.parseInt(name.tags().get("node-id").substring("node-".length()));
                            if (1 <= node && node <= 3) {
                                bytes[node - 1].set(((Double) metric.metricValue()).longValue());
                            }
                        }
                    });
                }
            }
        });
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        while (input.readLine() != null) {
            System.out.println("read " + expected.get() + " from " + bytes[0] + " " + bytes[1] + " " + bytes[2]);
        }
        isToStop = true;
        reader.join();
        System.out.println("PASS follow: " + expected.get() + " records");
    }

    // ---- exactly once

    enum Fate { COMMITTED, ABORTED, UNKNOWN }

    /** Of each transaction of the sources, by `source/number`. */
    static final Map<String, Fate> fates = new ConcurrentHashMap<>();
    static final AtomicInteger committed = new AtomicInteger();
    static final AtomicInteger aborted = new AtomicInteger();
    static final AtomicInteger copied = new AtomicInteger();
    static final AtomicInteger rebalances = new AtomicInteger();
    static final AtomicInteger renewed = new AtomicInteger();

    static void exactlyOnce(String in, String out) throws Exception {
        List<Thread> sources = new ArrayList<>();
        List<Thread> workers = new ArrayList<>();
        for (int number = 0; number < SOURCES; number++) {
            int source = number;
            sources.add(start(() -> source(source, in)));
        }
        for (int number = 0; number < WORKERS; number++) {
            int worker = number;
            workers.add(start(() -> work(worker, in, out)));
        }
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        while (input.readLine() != null) {
            System.out.println("committed " + committed.get() + " copied " + copied.get());
        }
        isToStop = true;
        for (Thread source : sources) {
            source.join();
        }
        List<String> read = readAll(in);
        waitForGroup(out);
        isToEnd = true;
        for (Thread worker : workers) {
            worker.join();
        }
        compare(read, readAll(out));
        int unknown = Collections.frequency(fates.values(), Fate.UNKNOWN);
        System.out.println("PASS exactly once: " + committed.get() + " committed, " + aborted.get() + " aborted, " + unknown
                + " unknown, " + read.size() + " records copied, " + rebalances.get() + " assignments, " + renewed.get()
                + " producers renewed");
    }

    static Thread start(Runnable work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Throwable problem) {
                problem.printStackTrace();
                problems.add(problem.toString());
            }
        });
        thread.start();
        return thread;
    }

    static KafkaProducer<String, String> transactional(String id) {
        Map<String, Object> properties = properties();
        properties.put("transactional.id", id);
        // A broker that is frozen does not answer: nobody waits for it as long as by default.
        properties.put("request.timeout.ms", "5000");
        // What a producer had open that ends by a fatal error is not to hold up readers for a minute.
        properties.put("transaction.timeout.ms", "20000");
        while (true) {
            KafkaProducer<String, String> producer = new KafkaProducer<>(properties);
            try {
                producer.initTransactions();
                return producer;
            } catch (KafkaException problem) {
                note(id + " cannot begin: " + problem);
                producer.close(Duration.ZERO);
                renewed.incrementAndGet();
            }
        }
    }

    static void source(int source, String topic) {
        String id = topic + "-source-" + source;
        KafkaProducer<String, String> producer = transactional(id);
        for (int number = 0; !isToStop; number++) {
            String name = source + "/" + number;
            boolean isToAbort = number % 4 == 3;
            boolean isDecided = false;
            try {
                producer.beginTransaction();
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int record = 0; record < RECORDS; record++) {
                    sent.add(producer.send(new ProducerRecord<>(topic, record % 3, name, name + "/" + record)));
                }
                if (isToAbort) {
                    producer.flush();
                    producer.abortTransaction();
                    fates.put(name, Fate.ABORTED);
                    aborted.incrementAndGet();
                } else {
                    isDecided = true;
                    commit(producer);
                    fates.put(name, Fate.COMMITTED);
                    committed.incrementAndGet();
                }
            } catch (KafkaException problem) {
                note(id + " " + number + ": " + problem + " because of " + problem.getCause());
                // A commit that failed may have been decided; whatever did not get there may not appear.
                fates.put(name, isDecided ? Fate.UNKNOWN : Fate.ABORTED);
                producer.close(Duration.ZERO);
                renewed.incrementAndGet();
                producer = transactional(id);
            }
            sleep(10);
        }
        producer.close();
    }

    /** A commit whose answer did not come in time is asked for again, as the documentation says. */
    static void commit(KafkaProducer<String, String> producer) {
        while (true) {
            try {
                producer.commitTransaction();
                return;
            } catch (org.apache.kafka.common.errors.TimeoutException problem) {
                note("a commit takes long: " + problem.getMessage());
            }
        }
    }

    static void work(int worker, String in, String out) {
        String id = out + "-worker-" + worker;
        KafkaProducer<String, String> producer = transactional(id);
        Map<String, Object> properties = properties();
        properties.put("group.id", out);
        properties.put("isolation.level", "read_committed");
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("session.timeout.ms", "10000");
        properties.put("request.timeout.ms", "5000");
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties);
        consumer.subscribe(Arrays.asList(in), new ConsumerRebalanceListener() {
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}

            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                rebalances.incrementAndGet();
            }
        });
        while (!isToEnd) {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            int count = 0;
            try {
                List<ConsumerRecord<String, String>> records = new ArrayList<>();
                consumer.poll(Duration.ofMillis(200)).forEach(records::add);
                if (records.isEmpty()) {
                    continue;
                }
                producer.beginTransaction();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(out, record.partition(), record.key(), record.value()));
                    TopicPartition partition = new TopicPartition(record.topic(), record.partition());
                    offsets.put(partition, new OffsetAndMetadata(record.offset() + 1));
                    count++;
                }
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                commit(producer);
                copied.addAndGet(count);
            } catch (KafkaException problem) {
                note(id + ": " + problem + " because of " + problem.getCause());
                try {
                    producer.abortTransaction();
                } catch (KafkaException | IllegalStateException worse) {
                    producer.close(Duration.ZERO);
                    renewed.incrementAndGet();
                    producer = transactional(id);
                }
                rewind(consumer);
            }
        }
        producer.close();
        consumer.close();
    }

    /** Back to what the group has committed; what was copied since was aborted. */
    static void rewind(KafkaConsumer<String, String> consumer) {
        while (true) {
            try {
                Set<TopicPartition> assigned = consumer.assignment();
                Map<TopicPartition, OffsetAndMetadata> offsets = consumer.committed(assigned);
                for (TopicPartition partition : assigned) {
                    OffsetAndMetadata offset = offsets.get(partition);
                    if (offset == null) {
                        consumer.seekToBeginning(Arrays.asList(partition));
                    } else {
                        consumer.seek(partition, offset.offset());
                    }
                }
                return;
            } catch (KafkaException problem) {
                note("no offsets yet: " + problem);
            }
        }
    }

    /** Waits until the group has been everywhere where {@link #readAll} has. */
    static void waitForGroup(String group) {
        Map<String, Object> properties = properties();
        properties.put("group.id", group);
        properties.put("enable.auto.commit", "false");
        long deadline = System.currentTimeMillis() + PATIENCE_MS;
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
            while (problems.isEmpty()) {
                Map<TopicPartition, OffsetAndMetadata> offsets = consumer.committed(ends.keySet());
                boolean isDone = true;
                for (Map.Entry<TopicPartition, Long> end : ends.entrySet()) {
                    OffsetAndMetadata offset = offsets.get(end.getKey());
                    isDone &= offset != null && offset.offset() >= end.getValue();
                }
                if (isDone) {
                    return;
                }
                if (System.currentTimeMillis() > deadline) {
                    problems.add("the group is at " + offsets + " of " + ends);
                }
                sleep(100);
            }
        }
    }

    static void compare(List<String> read, List<String> copies) {
        Map<String, Integer> counts = new TreeMap<>();
        Set<String> seen = new HashSet<>();
        Map<String, Integer> last = new HashMap<>();
        for (String value : read) {
            String[] parts = value.split("/");
            String name = parts[0] + "/" + parts[1];
            counts.merge(name, 1, Integer::sum);
            if (!seen.add(value)) {
                problems.add(value + " is there twice");
            }
            String lane = parts[0] + "/" + Integer.parseInt(parts[2]) % 3;
            Integer before = last.put(lane, Integer.parseInt(parts[1]));
            if (before != null && before > Integer.parseInt(parts[1])) {
                problems.add(value + " comes after transaction " + before);
            }
        }
        for (Map.Entry<String, Fate> entry : fates.entrySet()) {
            int count = counts.getOrDefault(entry.getKey(), 0);
            boolean isWell = entry.getValue() == Fate.COMMITTED ? count == RECORDS
                    : entry.getValue() == Fate.ABORTED ? count == 0 : count == 0 || count == RECORDS;
            if (!isWell) {
                problems.add("transaction " + entry.getKey() + ", " + entry.getValue() + ", has " + count + " records");
            }
        }
        List<String> wanted = new ArrayList<>(read);
        List<String> found = new ArrayList<>(copies);
        Collections.sort(wanted);
        Collections.sort(found);
        if (!wanted.equals(found)) {
            Set<String> missing = new HashSet<>(wanted);
            missing.removeAll(found);
            Set<String> doubled = new HashSet<>();
            Set<String> once = new HashSet<>();
            for (String value : found) {
                if (!once.add(value)) {
                    doubled.add(value);
                }
            }
            problems.add(found.size() + " copies of " + wanted.size() + " records; missing " + missing + ", twice " + doubled);
        }
    }

    // ---- both

    /** Behind the last record of each partition that {@link #readAll} saw. */
    static final Map<TopicPartition, Long> ends = new HashMap<>();

    /** Everything that is committed, in the order of each partition. */
    static List<String> readAll(String topic) {
        ends.clear();
        Map<String, Object> properties = properties();
        properties.put("isolation.level", "read_committed");
        properties.put("enable.auto.commit", "false");
        List<String> values = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(info -> partitions.add(new TopicPartition(topic, info.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            long deadline = System.currentTimeMillis() + PATIENCE_MS;
            // Transactions that nobody ends any more end by their time-out: until then the last stable offset lies before them.
            Map<TopicPartition, Long> highWatermarks = highWatermarks(partitions);
            while (true) {
                consumer.poll(Duration.ofMillis(200)).forEach(record -> {
                    values.add(record.value());
                    ends.put(new TopicPartition(record.topic(), record.partition()), record.offset() + 1);
                });
                boolean isDone = true;
                for (TopicPartition partition : partitions) {
                    isDone &= consumer.position(partition) >= highWatermarks.get(partition);
                }
                if (isDone) {
                    return values;
                }
                if (System.currentTimeMillis() > deadline) {
                    problems.add(topic + " cannot be read to its ends " + highWatermarks);
                    return values;
                }
            }
        }
    }

    static Map<TopicPartition, Long> highWatermarks(List<TopicPartition> partitions) {
        Map<String, Object> properties = properties();
        properties.put("enable.auto.commit", "false");
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(properties)) {
            return consumer.endOffsets(partitions);
        }
    }

    static void note(String text) {
        System.err.println(System.currentTimeMillis() + " " + text);
    }

    static void sleep(int ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException problem) {
            throw new IllegalStateException(problem);
        }
    }
}
