import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams with exactly_once_v2: counts words through a repartition topic and a changelog.
 *
 * <p>Arguments: bootstrap servers, directory for state, replication factor, how often all lines have been counted
 * before this run. The first run writes lines until a file named stop is in the directory, later runs write none. Then
 * every word's count has to have been sent exactly once for each of its occurrences, in order, once per run.
 */
public class WordCount {
    static final String INPUT = "lines";
    static final String OUTPUT = "counts";
    static final int PARTITIONS = 3;
    static final int WORDS = 50;
    /** After as many acknowledged lines a line says so. */
    static final int STEP = 200;
    static final Duration PATIENCE = Duration.ofSeconds(120);

    static String address;

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        int runsBefore = Integer.parseInt(arguments[3]);
        boolean failed;
        try (KafkaStreams streams = new KafkaStreams(topology(), settings(arguments[1], arguments[2]))) {
            if (runsBefore > 0) {
                streams.cleanUp();
            }
            CountDownLatch running = new CountDownLatch(1);
            streams.setStateListener((now, before) -> {
                if (now == KafkaStreams.State.RUNNING) {
                    running.countDown();
                }
            });
            streams.setUncaughtExceptionHandler(problem -> {
                problem.printStackTrace();
                return StreamThreadExceptionResponse.REPLACE_THREAD;
            });
            streams.start();
            running.await();
            System.out.println("PASS running");
            if (runsBefore == 0) {
                write(Path.of(arguments[1], "stop"));
                System.out.println("PASS written");
            }
            failed = !isExact(runsBefore + 1);
        }
        System.exit(failed ? 1 : 0);
    }

    static org.apache.kafka.streams.Topology topology() {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<String, String>stream(INPUT)
                .flatMapValues(line -> Arrays.asList(line.split(" ")))
                .groupBy((key, word) -> word)
                .count(Materialized.as("words"))
                .toStream()
                .to(OUTPUT, Produced.with(Serdes.String(), Serdes.Long()));
        return builder.build();
    }

    static Properties settings(String directory, String replicas) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", address);
        settings.put("application.id", "word-count");
        settings.put("processing.guarantee", "exactly_once_v2");
        settings.put("default.key.serde", Serdes.StringSerde.class);
        settings.put("default.value.serde", Serdes.StringSerde.class);
        settings.put("num.stream.threads", 2);
        settings.put("replication.factor", replicas);
        settings.put("commit.interval.ms", 100);
        // Every count is sent, not only the last before a commit.
        settings.put("statestore.cache.max.bytes", 0);
        settings.put("state.dir", directory);
        settings.put("consumer.auto.offset.reset", "earliest");
        settings.put("consumer.session.timeout.ms", 6000);
        return settings;
    }

    static void write(Path stop) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", address);
        settings.put("key.serializer", StringSerializer.class);
        settings.put("value.serializer", StringSerializer.class);
        Random random = new Random(1);
        AtomicLong written = new AtomicLong();
        try (Producer<String, String> producer = new KafkaProducer<>(settings)) {
            for (int line = 0; !Files.exists(stop); line++) {
                List<String> words = new ArrayList<>();
                for (int i = 0; i <= line % 5; i++) {
                    words.add("word-" + random.nextInt(WORDS));
                }
                String value = String.join(" ", words);
                producer.send(new ProducerRecord<>(INPUT, "line-" + line, value), (metadata, problem) -> {
                    if (problem != null) {
                        System.out.println("FAIL written: " + problem);
                        System.exit(1);
                    }
                    if (written.incrementAndGet() % STEP == 0) {
                        System.out.println("STEP");
                    }
                });
                Thread.sleep(2);
            }
        }
    }

    /** All of a topic, by partition, up to its end. */
    static <V> List<ConsumerRecord<String, V>> read(String topic, Class<?> deserializer) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("bootstrap.servers", address);
        settings.put("isolation.level", "read_committed");
        settings.put("auto.offset.reset", "earliest");
        settings.put("key.deserializer", StringDeserializer.class);
        settings.put("value.deserializer", deserializer);
        List<TopicPartition> partitions = new ArrayList<>();
        for (int partition = 0; partition < PARTITIONS; partition++) {
            partitions.add(new TopicPartition(topic, partition));
        }
        List<ConsumerRecord<String, V>> records = new ArrayList<>();
        try (Consumer<String, V> consumer = new KafkaConsumer<>(settings)) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                consumer.poll(Duration.ofMillis(100)).forEach(records::add);
            }
        }
        return records;
    }

    static boolean isExact(int runs) throws Exception {
        Map<String, List<Long>> wanted = new TreeMap<>();
        Map<String, Long> occurrences = new TreeMap<>();
        long total = 0;
        for (ConsumerRecord<String, String> line : WordCount.<String>read(INPUT, StringDeserializer.class)) {
            for (String word : line.value().split(" ")) {
                occurrences.merge(word, 1L, Long::sum);
                total += runs;
            }
        }
        occurrences.forEach((word, count) -> {
            List<Long> counts = new ArrayList<>();
            for (int run = 0; run < runs; run++) {
                for (long i = 1; i <= count; i++) {
                    counts.add(i);
                }
            }
            wanted.put(word, counts);
        });
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        List<ConsumerRecord<String, Long>> counted;
        do {
            Thread.sleep(200);
            counted = read(OUTPUT, LongDeserializer.class);
        } while (counted.size() < total && System.nanoTime() < deadline);
        Map<String, List<Long>> found = new TreeMap<>();
        for (ConsumerRecord<String, Long> record : counted) {
            found.computeIfAbsent(record.key(), word -> new ArrayList<>()).add(record.value());
        }
        System.out.println(counted.size() + " counts of " + total + " words");
        if (found.equals(wanted)) {
            System.out.println("PASS exact");
            return true;
        }
        wanted.forEach((word, counts) -> {
            if (!counts.equals(found.get(word))) {
                System.out.println(word + ": " + counts.size() + " wanted, found " + found.get(word));
            }
        });
        System.out.println("FAIL exact");
        return false;
    }
}
