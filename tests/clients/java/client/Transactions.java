import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Callable;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Transactions with the Java client: aborts, consume-process-produce, and a producer that has been replaced. */
public class Transactions {
    static final Duration PATIENCE = Duration.ofSeconds(30);

    static String address;
    static String prefix;
    static String input;
    static String output;

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        prefix = arguments[1];
        input = prefix + "-in";
        output = prefix + "-out";
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", address);
        try (Admin admin = Admin.create(properties)) {
            admin.createTopics(Arrays.asList(new NewTopic(input, 1, (short) 1), new NewTopic(output, 1, (short) 1)))
                    .all().get();
            until(() -> admin.listTopics().names().get().contains(output));
        }
        boolean failed = !check("abort", Transactions::abort);
        failed |= !check("consume process produce", Transactions::consumeProcessProduce);
        failed |= !check("fence", Transactions::fence);
        System.exit(failed ? 1 : 0);
    }

    interface Step {
        void run() throws Exception;
    }

    static boolean check(String name, Step step) {
        try {
            step.run();
            System.out.println("PASS " + name);
            return true;
        } catch (Throwable problem) {
            problem.printStackTrace();
            System.out.println("FAIL " + name + ": " + problem);
            return false;
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

    static Producer<String, String> transactional(String name) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("transactional.id", prefix + name);
        properties.put("linger.ms", "5");
        Producer<String, String> producer =
                new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer());
        producer.initTransactions();
        return producer;
    }

    static Consumer<String, String> consumer(String isolation) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        properties.put("group.id", prefix + "-transactions");
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "earliest");
        properties.put("isolation.level", isolation);
        properties.put("max.poll.records", "5");
        return new KafkaConsumer<>(properties, new StringDeserializer(), new StringDeserializer());
    }

    /** All values of the output. */
    static List<Integer> read(String isolation) throws Exception {
        TopicPartition partition = new TopicPartition(output, 0);
        List<Integer> found = new ArrayList<>();
        try (Consumer<String, String> consumer = consumer(isolation)) {
            consumer.assign(Collections.singletonList(partition));
            consumer.seekToBeginning(Collections.singletonList(partition));
            long end = consumer.endOffsets(Collections.singletonList(partition)).get(partition);
            until(() -> {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    found.add(Integer.parseInt(record.value()));
                }
                return consumer.position(partition) >= end;
            });
        }
        return found;
    }

    static List<Integer> range(int from, int to) {
        List<Integer> numbers = new ArrayList<>();
        for (int i = from; i < to; i++) {
            numbers.add(i);
        }
        return numbers;
    }

    static void abort() throws Exception {
        try (Producer<String, String> producer = transactional("-a")) {
            producer.beginTransaction();
            for (int i = 0; i < 10; i++) {
                producer.send(new ProducerRecord<>(output, Integer.toString(i))).get();
            }
            equal(read("read_uncommitted"), range(0, 10));
            equal(read("read_committed"), range(0, 0));
            producer.abortTransaction();
            equal(read("read_uncommitted"), range(0, 10));
            equal(read("read_committed"), range(0, 0));
        }
    }

    static void consumeProcessProduce() throws Exception {
        TopicPartition partition = new TopicPartition(input, 0);
        Properties properties = new Properties();
        properties.put("bootstrap.servers", address);
        try (Producer<String, String> plain =
                new KafkaProducer<>(properties, new StringSerializer(), new StringSerializer())) {
            for (int i = 0; i < 30; i++) {
                plain.send(new ProducerRecord<>(input, Integer.toString(i)));
            }
        }
        int rounds = 0;
        int done = 0;
        try (Producer<String, String> producer = transactional("-b");
                Consumer<String, String> consumer = consumer("read_committed")) {
            consumer.subscribe(Collections.singletonList(input));
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (done < 30) {
                if (System.nanoTime() > deadline) {
                    throw new AssertionError("only " + done);
                }
                long next = -1;
                producer.beginTransaction();
                int count = 0;
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                    int value = 1000 + Integer.parseInt(record.value());
                    producer.send(new ProducerRecord<>(output, Integer.toString(value)));
                    next = record.offset() + 1;
                    count += 1;
                }
                if (count == 0) {
                    producer.abortTransaction();
                    continue;
                }
                // An abort drops what is still queued.
                producer.flush();
                producer.sendOffsetsToTransaction(
                        Collections.singletonMap(partition, new OffsetAndMetadata(next)), consumer.groupMetadata());
                rounds += 1;
                if (rounds % 3 == 0) {
                    producer.abortTransaction();
                    // Asks with RequireStable.
                    OffsetAndMetadata committed =
                            consumer.committed(Collections.singleton(partition)).get(partition);
                    consumer.seek(partition, committed.offset());
                } else {
                    producer.commitTransaction();
                    done += count;
                }
            }
            equal(consumer.committed(Collections.singleton(partition)).get(partition).offset(), 30L);
        }
        equal(read("read_committed"), range(1000, 1030));
        equal(read("read_uncommitted").size() > 40, true);
    }

    static void fence() throws Exception {
        try (Producer<String, String> zombie = transactional("-c")) {
            zombie.beginTransaction();
            zombie.send(new ProducerRecord<>(output, "2000")).get();
            try (Producer<String, String> producer = transactional("-c")) {
                try {
                    zombie.commitTransaction();
                    throw new AssertionError("the zombie has committed");
                } catch (ProducerFencedException | InvalidProducerEpochException expected) {
                    // Which of both depends on the release.
                }
                producer.beginTransaction();
                producer.send(new ProducerRecord<>(output, "2001"));
                producer.commitTransaction();
            }
        }
        List<Integer> found = read("read_committed");
        equal(found.subList(30, found.size()), Collections.singletonList(2001));
    }
}
