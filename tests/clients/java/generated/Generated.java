import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.protocol.types.*;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.requests.RequestHeader;

/**
 * Requests of all APIs and versions, generated from the schemas of Kafka's own client library: well-formed but odd. Writes them
 * with a broker's answers, for tests/e2e/sweep/generated.rs to replay.
 *
 * Arguments: address, seed, requests for each version, file to write.
 */
public class Generated {
    static String host; static int port;
    static Socket socket; static DataInputStream in; static OutputStream out;
    static int correlation = 0;
    static Random random;
    static Map<String, Uuid> topicIds = new HashMap<>();
    static final Uuid NOBODY = new Uuid(0x1234567812345678L, 0x1234567812345678L);
    static ApiKeys current;
    /** Requests of the preparation that a replay sends as they are. */
    static final List<byte[]> prepared = new ArrayList<>();

    public static void main(String[] a) throws Exception {
        host = a[0].split(":")[0]; port = Integer.parseInt(a[0].split(":")[1]);
        long seed = Long.parseLong(a[1]); int perVersion = Integer.parseInt(a[2]);
        prepare();
        PrintWriter lines = new PrintWriter(new BufferedWriter(new FileWriter(a[3])));
        List<String> ids = new ArrayList<>(), steps = new ArrayList<>();
        new TreeMap<>(topicIds).forEach((name, id) -> ids.add(quote(name) + ":" + quote(id.toString())));
        prepared.forEach(step -> steps.add(quote(hex(step))));
        lines.println("{\"varies\":{" + String.join(",", ids) + "},\"prepare\":[" + String.join(",", steps) + "],\"cases\":[");
        String comma = "";
        List<ApiKeys> apis = new ArrayList<>(ApiKeys.zkBrokerApis());
        apis.sort(Comparator.comparingInt(key -> key.id));
        for (ApiKeys key : apis) {
            current = key;
            ApiMessageType api = key.messageType;
            for (short version = api.lowestSupportedVersion(); version <= api.highestSupportedVersion(false); version++) {
                Schema schema = api.requestSchemas()[version];
                if (schema == null) continue;
                for (int round = 0; round < perVersion; round++) {
                    // Each request follows from its own number, so that leaving some out changes no other.
                    random = new Random(seed * 1_000_003L + current.id * 10_007L + version * 101L + round);
                    Struct request = struct(schema, "");
                    if (spoils(request)) continue;
                    if (current == ApiKeys.PRODUCE && request.getShort("acks") == 0) continue;
                    byte[] frame = frame(current, version, schema, request);
                    byte[] answer = exchange(frame);
                    if (answer != null && answer.length == 0) throw new IllegalStateException("no answer to " + key + " v" + version + " " + request);
                    lines.println(comma + "{\"key\":" + key.id + ",\"api\":\"" + key.name + "\",\"version\":" + version + ",\"case\":\"" + seed + "." + round
                        + "\",\"request\":\"" + hex(frame) + "\",\"response\":" + (answer == null ? "null" : "\"" + hex(answer) + "\"") + ",\"closed\":" + (answer == null) + "}");
                    comma = ",";
                }
            }
        }
        lines.println("]}");
        lines.close();
    }

    @SuppressWarnings("unchecked")
    static Map<Integer, Field> tagged(TaggedFields type) {
        try {
            java.lang.reflect.Field field = TaggedFields.class.getDeclaredField("fields");
            field.setAccessible(true);
            return (Map<Integer, Field>) field.get(type);
        } catch (ReflectiveOperationException e) { throw new IllegalStateException(e); }
    }

    /** Requests that would change whom the broker obeys, or what the rest of the run depends on. */
    static boolean spoils(Struct r) {
        switch (current) {
            case CONTROLLED_SHUTDOWN: return r.getInt("broker_id") == 0;
            case PRODUCE: return hasNullRecords(r);
            case OFFSET_FETCH: return r.hasField("groups") && r.getArray("groups") != null && r.getArray("groups").length == 0 && r.schema().fields()[0].def.name.equals("groups");
            case ADD_PARTITIONS_TO_TXN: return r.hasField("transactions") && r.getArray("transactions").length == 0;
            // Others would see that topic go or not, as fast as the machine is.
            case DELETE_TOPICS: return r.toString().contains("__consumer_offsets");
            // Members have sessions: their groups would depend on how fast the machine is.
            case JOIN_GROUP: return true;
            case DESCRIBE_CONFIGS: return asksForAllSettings(r);
            case ALTER_CONFIGS: return namesTwice(r);
            default: return false;
        }
    }

    /** Of a broker, which has paths and ports in them, or of its loggers. */
    static boolean asksForAllSettings(Struct r) {
        for (Object resource : r.getArray("resources")) {
            Struct of = (Struct) resource;
            Object[] keys = of.getArray("configuration_keys");
            if ((of.getByte("resource_type") == 4 || of.getByte("resource_type") == 8) && (keys == null || keys.length == 0)) return true;
        }
        return false;
    }

    static boolean namesTwice(Struct r) {
        Set<Object> seen = new HashSet<>();
        for (Object resource : r.getArray("resources")) {
            Struct of = (Struct) resource;
            if (!seen.add(of.get("resource_type") + "/" + of.get("resource_name"))) return true;
            Set<Object> keys = new HashSet<>();
            for (Object config : of.getArray("configs")) if (!keys.add(((Struct) config).get("name"))) return true;
        }
        return false;
    }

    static boolean hasNullRecords(Struct r) {
        for (Object topic : r.getArray("topic_data")) for (Object data : ((Struct) topic).getArray("partition_data")) if (((Struct) data).get("records") == null) return true;
        return false;
    }

    static String quote(String s) {
        StringBuilder b = new StringBuilder("\"");
        for (char c : s.toCharArray()) { if (c == '"' || c == '\\') b.append('\\').append(c); else if (c < 32 || c > 126) b.append(String.format("\\u%04x", (int) c)); else b.append(c); }
        return b.append('"').toString();
    }
    static String hex(byte[] bytes) { StringBuilder b = new StringBuilder(); for (byte x : bytes) b.append(String.format("%02x", x)); return b.toString(); }

    // --- the wire
    static byte[] exchange(byte[] frame) throws Exception {
        for (int attempt = 0; ; attempt++) {
            try {
                if (socket == null) { socket = new Socket(host, port); socket.setSoTimeout(15000); socket.setTcpNoDelay(true); in = new DataInputStream(new BufferedInputStream(socket.getInputStream())); out = socket.getOutputStream(); }
                ByteBuffer b = ByteBuffer.allocate(4 + frame.length); b.putInt(frame.length).put(frame);
                out.write(b.array()); out.flush();
                byte[] answer = new byte[in.readInt()];
                in.readFully(answer);
                return answer;
            } catch (SocketTimeoutException e) { return new byte[0]; }
            catch (EOFException | SocketException e) { if (socket != null) socket.close(); socket = null; return null; }
        }
    }
    static byte[] frame(ApiKeys api, short version, Schema schema, Struct body) {
        RequestHeaderData header = new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion(version).setCorrelationId(7).setClientId("generated");
        short hv = api.requestHeaderVersion(version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        int hs = header.size(cache, hv);
        ByteBuffer buffer = ByteBuffer.allocate(hs + schema.sizeOf(body));
        header.write(new ByteBufferAccessor(buffer), cache, hv);
        schema.write(buffer, body);
        return buffer.array();
    }
    static Message call(ApiKeys api, int version, ApiMessage body) throws Exception {
        RequestHeaderData header = new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion((short) version).setCorrelationId(7).setClientId("prepare");
        short hv = api.requestHeaderVersion((short) version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        int hs = header.size(cache, hv); int bs = body.size(cache, (short) version);
        ByteBuffer buffer = ByteBuffer.allocate(hs + bs);
        header.write(new ByteBufferAccessor(buffer), cache, hv);
        body.write(new ByteBufferAccessor(buffer), cache, (short) version);
        byte[] answer = exchange(buffer.array());
        if (api == ApiKeys.PRODUCE || api == ApiKeys.OFFSET_COMMIT) prepared.add(buffer.array());
        if (answer == null || answer.length == 0) throw new IllegalStateException("no answer to " + api);
        ByteBuffer b = ByteBuffer.wrap(answer); b.getInt(); if (api.responseHeaderVersion((short) version) > 0) b.get();
        ApiMessage response = api.messageType.newResponse();
        response.read(new ByteBufferAccessor(b), (short) version);
        return response;
    }

    // --- the state
    static void prepare() throws Exception {
        CreateTopicsRequestData create = new CreateTopicsRequestData().setTimeoutMs(20000);
        for (String[] t : new String[][] {{"t", "2"}, {"compact", "1"}, {"c_c", "1"}, {"ap0", "1"}, {"ap1", "1"}, {"ap2", "1"}, {"ap3", "1"}}) {
            CreateTopicsRequestData.CreatableTopic topic = new CreateTopicsRequestData.CreatableTopic().setName(t[0]).setNumPartitions(Integer.parseInt(t[1])).setReplicationFactor((short) 1);
            if (t[0].equals("compact")) topic.configs().add(new CreateTopicsRequestData.CreatableTopicConfig().setName("cleanup.policy").setValue("compact"));
            create.topics().add(topic);
        }
        call(ApiKeys.CREATE_TOPICS, 5, create);
        for (int tries = 0; ; tries++) {
            MetadataResponseData m = (MetadataResponseData) call(ApiKeys.METADATA, 12, new MetadataRequestData().setTopics(null));
            boolean led = m.topics().size() >= 7 && m.topics().stream().allMatch(x -> x.partitions().stream().allMatch(p -> p.errorCode() == 0));
            if (led) { m.topics().forEach(x -> topicIds.put(x.name(), x.topicId())); break; }
            Thread.sleep(50);
        }
        for (byte kind = 0; kind < 2; kind++) for (;;) {
            FindCoordinatorResponseData f = (FindCoordinatorResponseData) call(ApiKeys.FIND_COORDINATOR, 4, new FindCoordinatorRequestData().setKeyType(kind).setCoordinatorKeys(List.of("g")));
            if (f.coordinators().get(0).errorCode() == 0) break;
            Thread.sleep(50);
        }
        for (String id : new String[] {null, "x"}) for (;;) {
            InitProducerIdResponseData r = (InitProducerIdResponseData) call(ApiKeys.INIT_PRODUCER_ID, 4, new InitProducerIdRequestData().setTransactionalId(id).setTransactionTimeoutMs(60000));
            if (r.errorCode() == 0) { System.err.println(id + " has " + r.producerId()); break; }
            Thread.sleep(50);
        }
        for (int n = 0; n < 5; n++) {
            ProduceRequestData p = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(10000);
            p.topicData().add(new ProduceRequestData.TopicProduceData().setName("t").setPartitionData(List.of(new ProduceRequestData.PartitionProduceData().setIndex(0).setRecords(batch(2, 3, n)))));
            call(ApiKeys.PRODUCE, 8, p);
        }
        for (;;) {
            OffsetCommitRequestData c = new OffsetCommitRequestData().setGroupId("g");
            c.topics().add(new OffsetCommitRequestData.OffsetCommitRequestTopic().setName("t").setPartitions(List.of(new OffsetCommitRequestData.OffsetCommitRequestPartition().setPartitionIndex(0).setCommittedOffset(4).setCommittedMetadata("m"))));
            OffsetCommitResponseData r = (OffsetCommitResponseData) call(ApiKeys.OFFSET_COMMIT, 8, c);
            if (r.topics().get(0).partitions().get(0).errorCode() == 0) break;
            prepared.remove(prepared.size() - 1);
            Thread.sleep(50);
        }
    }
    static MemoryRecords batch(int magic, int count, int n) {
        SimpleRecord[] records = new SimpleRecord[count];
        for (int i = 0; i < count; i++) records[i] = new SimpleRecord(1700000000000L + n * 1000 + i, ("k" + i).getBytes(), ("v" + n).getBytes());
        return MemoryRecords.withRecords((byte) magic, 0L, Compression.NONE, TimestampType.CREATE_TIME, records);
    }

    // --- generated values
    @SafeVarargs static <T> T one(T... of) { return of[random.nextInt(of.length)]; }

    static Struct struct(Schema schema, String path) {
        Struct struct = new Struct(schema);
        for (BoundField bound : schema.fields()) struct.set(bound, value(bound.def.type, bound.def.name, path));
        return struct;
    }
    static Object value(Type type, String name, String path) {
        if (type instanceof TaggedFields) {
            NavigableMap<Integer, Object> tagged = new TreeMap<>();
            for (Map.Entry<Integer, Field> e : tagged((TaggedFields) type).entrySet())
                if (random.nextInt(3) == 0) tagged.put(e.getKey(), value(e.getValue().type, e.getValue().name, path));
            return tagged;
        }
        if (type instanceof Schema) return struct((Schema) type, path + "/" + name);
        if (type.arrayElementType().isPresent()) {
            if (type.isNullable() && random.nextInt(5) == 0) return null;
            int size = one(0, 1, 1, 1, 2, 2, 3);
            Object[] elements = new Object[size];
            for (int i = 0; i < size; i++) elements[i] = i > 0 && random.nextInt(4) == 0 ? elements[i - 1] : value(type.arrayElementType().get(), name + "[]", path);
            return elements;
        }
        switch (type.toString()) {
            case "BOOLEAN": return random.nextBoolean();
            case "INT8": return int8(name);
            case "INT16": return int16(name);
            case "UINT16": return one(0, 1, 65535);
            case "INT32": return int32(name);
            case "UINT32": return one(0L, 1L);
            case "INT64": return int64(name);
            case "FLOAT64": return one(0.0, 1.0, -1.0, 1000.5, Double.NaN, Double.MAX_VALUE);
            case "UUID": return uuid();
            case "STRING": case "COMPACT_STRING": return text(name);
            case "NULLABLE_STRING": case "COMPACT_NULLABLE_STRING": return random.nextInt(5) == 0 ? null : text(name);
            case "BYTES": case "COMPACT_BYTES": return bytes(name);
            case "NULLABLE_BYTES": case "COMPACT_NULLABLE_BYTES": return random.nextInt(5) == 0 ? null : bytes(name);
            case "RECORDS": case "COMPACT_RECORDS": return records();
            default: throw new IllegalStateException(type.toString());
        }
    }
    static Object records() {
        switch (random.nextInt(8)) {
            case 0: return null;
            case 1: return MemoryRecords.EMPTY;
            case 2: return batch(1, 2, 1);
            case 3: return batch(0, 2, 1);
            case 4: return MemoryRecords.readableRecords(ByteBuffer.wrap(new byte[random.nextInt(80)]));
            default: return batch(2, 1 + random.nextInt(3), random.nextInt(5));
        }
    }
    static ByteBuffer bytes(String name) { return ByteBuffer.wrap(one("", "x", "abc\0def", "{\"version\":1}").getBytes()); }
    static Uuid uuid() {
        switch (random.nextInt(5)) { case 0: return Uuid.ZERO_UUID; case 1: return NOBODY; case 2: return topicIds.get("compact"); default: return topicIds.get("t"); }
    }
    static byte int8(String name) {
        if (name.contains("isolation_level")) return one((byte) 0, (byte) 1, (byte) 2, (byte) -1);
        if (name.contains("resource_type")) return one((byte) 2, (byte) 4, (byte) 8, (byte) 16, (byte) 0, (byte) 1, (byte) 3, (byte) 127, (byte) -1);
        return one((byte) 0, (byte) 1, (byte) 2, (byte) 3, (byte) 4, (byte) 5, (byte) -1, (byte) 127);
    }
    static short int16(String name) {
        if (name.equals("acks")) return one((short) -1, (short) 1, (short) 2, (short) -2);
        if (name.contains("replication_factor")) return one((short) 1, (short) 1, (short) -1, (short) 0, (short) 3, (short) -2, Short.MAX_VALUE);
        return one((short) 0, (short) 1, (short) -1, (short) 5, Short.MAX_VALUE);
    }
    static int int32(String name) {
        if (name.contains("controller_epoch")) return one(-1, 0);
        if (name.contains("timeout_ms") && !name.contains("session") && !name.contains("transaction") && !name.contains("rebalance")) return one(5000, 10000);
        if (name.contains("max_wait")) return one(0, 10);
        if (name.equals("min_bytes")) return one(0, 1);
        if (name.contains("max_bytes")) return one(1 << 20, 1, 0, 60);
        if (name.contains("session_timeout")) return one(6000, 10000, 0, -1, Integer.MAX_VALUE);
        if (name.contains("rebalance_timeout")) return one(1000, 0);
        if (name.contains("partition") && (name.contains("count") || name.contains("num"))) return one(1, 2, 0, -1, -2, 3);
        if (name.equals("count")) return one(1, 2, 3, 0, -1, 4);
        if (name.contains("partition") || name.contains("index")) return one(0, 0, 0, 1, 2, 7, -1, Integer.MAX_VALUE, Integer.MIN_VALUE);
        if (name.contains("broker") || name.contains("replica") || name.contains("node") || name.contains("leader") && !name.contains("epoch")) return one(0, 0, 1, -1, 99, Integer.MAX_VALUE);
        if (name.contains("epoch")) return one(-1, 0, 0, 1, 5, -2, Integer.MAX_VALUE);
        if (name.contains("generation")) return one(-1, 0, 1, 5);
        return one(0, 1, -1, 5, 100, Integer.MAX_VALUE, Integer.MIN_VALUE);
    }
    static long int64(String name) {
        if (name.contains("retention")) return one(-1L, 0L, 86400000L);
        if (name.contains("producer_id")) return one(-1L, 0L, 1L, 77L, Long.MAX_VALUE);
        return one(-1L, -2L, -3L, -4L, -5L, 0L, 1L, 3L, 4L, 14L, 15L, 16L, 1000L, 1700000001000L, Long.MAX_VALUE, Long.MIN_VALUE);
    }
    static final String LONG = "a".repeat(250);
    static String text(String name) {
        String path = current.name;
        if (name.contains("group") || current == ApiKeys.DESCRIBE_GROUPS && name.startsWith("group") || current == ApiKeys.DELETE_GROUPS && name.startsWith("groups_names"))
            return one("g", "g", "nope-g", "", "g2");
        if (name.contains("transactional")) return one("x", "x", "nope-x", "");
        if (name.contains("member")) return one("", "nope-member");
        if (name.contains("protocol")) return one("consumer", "range", "", "connect");
        if (name.contains("states_filter")) return one("Empty", "Stable", "Dead", "nope", "", "empty", "Ongoing", "CompleteCommit");
        if (name.contains("types_filter")) return one("classic", "consumer", "nope", "");
        if (name.contains("config") && current != ApiKeys.CREATE_TOPICS || current == ApiKeys.ALTER_CONFIGS && name.equals("name") || current == ApiKeys.INCREMENTAL_ALTER_CONFIGS && name.equals("name"))
            return one("retention.ms", "cleanup.policy", "nope", "", "segment.bytes", "log.retention.ms", "max.connections", "num.io.threads", "min.insync.replicas", "compression.type");
        if (name.equals("value")) return one("1000", "x", "", "-1", "compact", "delete", "producer", "0");
        if (name.contains("resource_name")) return one("t", "compact", "0", "1", "", "nope", "kafka.server", "x", "User:alice", "bad/topic");
        if (name.contains("resource_pattern") ) return one("t", "*", "");
        if (name.contains("principal")) return one("User:alice", "User:ANONYMOUS", "alice", "", "User:");
        if (name.contains("host")) return one("*", "localhost", "");
        if (name.contains("entity_type")) return one("user", "client-id", "ip", "nope", "");
        if (name.contains("entity_name") || name.equals("match")) return one("alice", "127.0.0.1", "", "nope-host.invalid");
        if (current == ApiKeys.ALTER_CLIENT_QUOTAS && name.equals("key")) return one("producer_byte_rate", "consumer_byte_rate", "request_percentage", "connection_creation_rate", "controller_mutation_rate", "nope", "");
        if (name.equals("path")) return one("/nope", "relative", "");
        if (name.contains("mechanism")) return one("PLAIN", "SCRAM-SHA-256", "", "nope");
        if (name.contains("rack")) return one("", "r1");
        if (name.contains("client_software")) return one("apache-kafka-java", "", "bad name!", "-x");
        if (name.equals("reason")) return one("", "because");
        if (name.contains("metadata")) return one("", "m", "x".repeat(5000));
        if (current == ApiKeys.DESCRIBE_USER_SCRAM_CREDENTIALS || current == ApiKeys.ALTER_USER_SCRAM_CREDENTIALS) return one("alice", "bob", "");
        if (current == ApiKeys.CREATE_TOPICS && name.equals("name")) return one("t", "new-1", "new-2", "new-3", "new-4", "", ".", "..", "bad/topic", "new.5", "new_5", "__consumer_offsets", LONG);
        if (name.contains("topic") || name.equals("name")) return one("t", "t", "t", "compact", "nope", "", "bad/topic", "__consumer_offsets", LONG, "..");
        return one("t", "", "nope", "g", "x");
    }
}
