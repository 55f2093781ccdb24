import java.io.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.AuthorizationException;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.TimeoutException;

/**
 * A plain consumer group under fire: members come, commit, leave or vanish, while a producer writes and somebody else kills brokers.
 * What was acknowledged has to be consumed at least once, committed offsets never go back, and no partition is owned by two members
 * of one generation.
 *
 * Arguments: brokers, topic, partitions. A line of input is answered with "acknowledged consumed committed generation"; at the end of
 * the input it finishes, compares, says what it saw and ends with 0, or with 1 if something is wrong.
 */
public class PlainGroup {
    static final int MEMBERS = 3;
    static final ConcurrentSkipListSet<String> problems = new ConcurrentSkipListSet<>();
    static volatile boolean produces = true, consumes = true;
    static final AtomicLong acknowledged = new AtomicLong(), consumed = new AtomicLong(), commits = new AtomicLong();
    static final AtomicInteger generations = new AtomicInteger(), lives = new AtomicInteger();
    static final List<Set<Long>> written = new ArrayList<>(), seen = new ArrayList<>();
    static final ConcurrentMap<String, String> owners = new ConcurrentHashMap<>();
    static final ConcurrentMap<Integer, Long> committed = new ConcurrentHashMap<>();
    static String bootstrap, topic;

    public static void main(String[] a) throws Exception {
        bootstrap = a[0]; topic = a[1];
        int partitions = Integer.parseInt(a[2]);
        for (int i = 0; i < partitions; i++) { written.add(ConcurrentHashMap.newKeySet()); seen.add(ConcurrentHashMap.newKeySet()); }
        List<Thread> members = new ArrayList<>();
        Thread producer = start("producer", PlainGroup::produce);
        for (int i = 0; i < MEMBERS; i++) { Random random = new Random(i); members.add(start("member", () -> live(random))); }
        Thread observer = start("observer", PlainGroup::observe);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        while (input.readLine() != null) { System.out.println(acknowledged + " " + consumed + " " + commits + " " + generations); System.out.flush(); }
        produces = false;
        producer.join();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(120);
        while (missing() > 0 && System.nanoTime() < deadline) Thread.sleep(50);
        consumes = false;
        for (Thread member : members) member.join();
        observer.join();
        if (missing() > 0) problems.add(missing() + " acknowledged records were never consumed");
        if (generations.get() < 2) problems.add("there was no rebalance");
        problems.forEach(problem -> System.out.println("FAIL " + problem));
        System.out.println(acknowledged + " acknowledged, " + consumed + " consumed by " + lives + " members in " + generations + " generations, " + commits + " commits");
        System.exit(problems.isEmpty() ? 0 : 1);
    }

    static Thread start(String name, Runnable runnable) {
        Thread thread = new Thread(() -> {
            try { runnable.run(); }
            catch (Throwable e) { problems.add(name + " ended: " + e); }
        }, name);
        thread.start();
        return thread;
    }
    static long missing() { long n = 0; for (int i = 0; i < written.size(); i++) for (long offset : written.get(i)) if (!seen.get(i).contains(offset)) n++; return n; }

    static void produce() {
        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "acks", "all", "linger.ms", 5, "delivery.timeout.ms", 120000, "request.timeout.ms", 10000,
            "key.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer", "value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        try (Producer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            for (int n = 0; produces; n++) {
                producer.send(new ProducerRecord<>(topic, n % written.size(), null, ("record " + n).getBytes()), (metadata, error) -> {
                    if (error != null) { problems.add("not written: " + error); return; }
                    if (!written.get(metadata.partition()).add(metadata.offset())) problems.add("two records at " + metadata);
                    acknowledged.incrementAndGet();
                });
                pause(1);
            }
        }
    }

    /** One member after the other: some leave, others vanish without a word. */
    static void live(Random random) {
        while (consumes) {
            boolean leaves = random.nextBoolean();
            lives.incrementAndGet();
            Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "group.id", topic + "-group", "enable.auto.commit", false, "auto.offset.reset", "earliest",
                "session.timeout.ms", 6000, "heartbeat.interval.ms", 500, "request.timeout.ms", 10000, "default.api.timeout.ms", 30000,
                "key.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer", "value.deserializer", "org.apache.kafka.common.serialization.ByteArrayDeserializer"));
            settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor");
            settings.put("internal.leave.group.on.close", leaves);
            Consumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings);
            try {
                consumer.subscribe(List.of(topic));
                long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(1500 + random.nextInt(5000));
                while (consumes && System.nanoTime() < end) {
                    ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(50));
                    own(consumer);
                    for (ConsumerRecord<byte[], byte[]> record : records) { seen.get(record.partition()).add(record.offset()); consumed.incrementAndGet(); }
                    if (records.isEmpty()) continue;
                    try { consumer.commitSync(); commits.incrementAndGet(); }
                    // Another member goes on from what was committed before.
                    catch (CommitFailedException | RebalanceInProgressException | TimeoutException e) { }
                }
            } catch (TimeoutException | AuthorizationException | FencedInstanceIdException e) {
                problems.add("a member stumbled: " + e);
            } finally {
                consumer.close(Duration.ofSeconds(leaves ? 5 : 0));
            }
        }
    }
    static void own(Consumer<byte[], byte[]> consumer) {
        ConsumerGroupMetadata self = consumer.groupMetadata();
        if (self.generationId() < 0) return;
        generations.accumulateAndGet(self.generationId(), Math::max);
        for (TopicPartition partition : consumer.assignment()) {
            String other = owners.putIfAbsent(self.generationId() + "/" + partition, self.memberId());
            if (other != null && !other.equals(self.memberId())) problems.add(partition + " is owned by " + other + " and " + self.memberId() + " in generation " + self.generationId());
        }
    }

    static void observe() {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap, "default.api.timeout.ms", 60000, "request.timeout.ms", 5000))) {
            while (consumes) {
                try {
                    admin.listConsumerGroupOffsets(topic + "-group").partitionsToOffsetAndMetadata().get().forEach((partition, offset) -> {
                        if (offset == null) { if (committed.containsKey(partition.partition())) problems.add("the offset of " + partition + " is gone"); return; }
                        Long before = committed.put(partition.partition(), offset.offset());
                        if (before != null && before > offset.offset()) problems.add("the offset of " + partition + " went back from " + before + " to " + offset.offset());
                    });
                } catch (ExecutionException e) {
                    // Nobody coordinates the group for a moment.
                } catch (InterruptedException e) { return; }
                pause(50);
            }
        }
    }
    static void pause(long ms) { try { Thread.sleep(ms); } catch (InterruptedException e) { throw new IllegalStateException(e); } }
}
