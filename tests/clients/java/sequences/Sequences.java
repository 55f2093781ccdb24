import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.util.*;
import java.util.stream.*;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.message.AlterPartitionReassignmentsRequestData.*;
import org.apache.kafka.common.message.CreateTopicsRequestData.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.requests.RequestHeader;

/**
 * Walks through the states that clients keep in a broker: each request depends on what came before it. Members of groups on connections
 * of their own, transactions, sessions of fetches, settings, topics, offsets; most steps are right, some are odd. Writes requests and
 * answers for tests/e2e/sweep/sequences.rs to replay, and prints the answers, with names for what is random, for people to compare.
 *
 * Arguments: address, seed, walks of each theme, file to write, themes (all if none are named).
 */
public class Sequences {
    static String host; static int port;
    static Random random;
    static PrintWriter lines; static String comma = "";
    static String walk; static int step;
    static final Conn[] conns = new Conn[3];

    public static void main(String[] a) throws Exception {
        host = a[0].split(":")[0]; port = Integer.parseInt(a[0].split(":")[1]);
        long seed = Long.parseLong(a[1]); int walks = Integer.parseInt(a[2]);
        lines = new PrintWriter(new BufferedWriter(new FileWriter(a[3])));
        List<String> themes = a.length > 4 ? List.of(a).subList(4, a.length) : List.of("groups", "transactions", "producers", "sessions", "settings", "topics", "offsets");
        // A broker's first block of producer ids takes a while.
        while (((InitProducerIdResponseData) quietly(ApiKeys.INIT_PRODUCER_ID, new InitProducerIdRequestData().setTransactionalId(null).setTransactionTimeoutMs(1000))).errorCode() != 0) Thread.sleep(50);
        lines.println("{\"varies\":{},\"cases\":[");
        for (String theme : themes) for (int number = 0; number < walks; number++) {
            random = new Random(seed * 1_000_003L + theme.hashCode() * 10_007L + number);
            walk = theme + "." + seed + "." + number; step = 0; names.clear();
            System.out.println("=== " + walk);
            for (int i = 0; i < conns.length; i++) { if (conns[i] != null) conns[i].close(); conns[i] = new Conn(); }
            switch (theme) {
                case "groups": groups(); break;
                case "transactions": transactions(true); break;
                case "producers": transactions(false); break;
                case "sessions": sessions(); break;
                case "settings": settings(); break;
                case "topics": topics(); break;
                case "offsets": offsets(); break;
                default: throw new IllegalArgumentException(theme);
            }
        }
        lines.println("]}");
        lines.close();
        System.exit(0);
    }

    // --- the wire

    static class Conn {
        Socket socket; DataInputStream in;
        ApiKeys pending; short version;
        void open() throws IOException { socket = new Socket(host, port); socket.setTcpNoDelay(true); in = new DataInputStream(new BufferedInputStream(socket.getInputStream())); }
        void close() throws IOException { if (socket != null) socket.close(); socket = null; pending = null; }
        void send(byte[] frame) throws IOException {
            if (socket == null) open();
            ByteBuffer b = ByteBuffer.allocate(4 + frame.length); b.putInt(frame.length).put(frame);
            socket.getOutputStream().write(b.array()); socket.getOutputStream().flush();
        }
        /** Null if closed, empty if there is nothing yet. */
        byte[] receive(int timeoutMs) throws IOException {
            try {
                socket.setSoTimeout(timeoutMs);
                in.mark(4);
                int size = in.readInt();
                socket.setSoTimeout(15000);
                byte[] answer = new byte[size]; in.readFully(answer); return answer;
            } catch (SocketTimeoutException e) { return new byte[0]; }
            catch (EOFException | SocketException e) { socket.close(); socket = null; return null; }
        }
    }

    static byte[] frame(ApiKeys api, short version, ApiMessage body) {
        RequestHeaderData header = new RequestHeaderData().setRequestApiKey(api.id).setRequestApiVersion(version).setCorrelationId(7).setClientId("probe");
        short hv = api.requestHeaderVersion(version);
        ObjectSerializationCache cache = new ObjectSerializationCache();
        int hs = header.size(cache, hv), bs = body.size(cache, version);
        ByteBuffer buffer = ByteBuffer.allocate(hs + bs);
        header.write(new ByteBufferAccessor(buffer), cache, hv);
        body.write(new ByteBufferAccessor(buffer), cache, version);
        return buffer.array();
    }
    static ApiMessage read(ApiKeys api, short version, byte[] answer) {
        ByteBuffer b = ByteBuffer.wrap(answer); b.getInt(); if (api.responseHeaderVersion(version) > 0) b.get();
        ApiMessage response = api.messageType.newResponse();
        response.read(new ByteBufferAccessor(b), version);
        return response;
    }
    static String hex(byte[] bytes) { StringBuilder b = new StringBuilder(); for (byte x : bytes) b.append(String.format("%02x", x)); return b.toString(); }

    /** A version that can say all that the body has; old ones now and then. */
    static short version(ApiKeys api, ApiMessage body, int lowest) {
        short latest = api.latestVersion(false);
        for (int tries = 0; tries < 20; tries++) {
            short v = (short) (lowest + random.nextInt(latest - lowest + 1));
            try { frame(api, v, body); return v; } catch (org.apache.kafka.common.errors.UnsupportedVersionException e) { /* another */ }
        }
        return latest;
    }
    static <T extends ApiMessage> T ask(int on, ApiKeys api, ApiMessage body) throws Exception { return ask(on, api, version(api, body, api.oldestVersion()), body); }

    /** Sends, and notes the answer, or that it takes time. */
    @SuppressWarnings("unchecked")
    static <T extends ApiMessage> T ask(int on, ApiKeys api, int v, ApiMessage body) throws Exception {
        Conn conn = conns[on]; short version = (short) v;
        byte[] frame = frame(api, version, body);
        conn.send(frame);
        boolean mayWait = api == ApiKeys.JOIN_GROUP || api == ApiKeys.SYNC_GROUP;
        byte[] answer = conn.receive(mayWait ? 300 : 15000);
        step++;
        String shown = walk + " " + step + " on " + on + " " + api.name + " v" + version + "  " + mask(body.toString());
        T response = null;
        if (answer == null) System.out.println(shown + "\n    CLOSED");
        else if (answer.length == 0) { if (!mayWait) throw new IllegalStateException("no answer to " + shown); conn.pending = api; conn.version = version; System.out.println(shown + "\n    ..."); }
        else { response = learn(on, (T) read(api, version, answer)); System.out.println(shown + "\n    " + mask(show(response))); }
        write(on, api, version, frame, answer);
        for (int i = 0; i < conns.length; i++) if (i != on) arrive(i);
        return response;
    }
    static void arrive(int on) throws Exception {
        Conn conn = conns[on];
        if (conn.pending == null) return;
        byte[] answer = conn.receive(200);
        if (answer != null && answer.length == 0) return;
        ApiKeys api = conn.pending; conn.pending = null;
        System.out.println("    then on " + on + ": " + (answer == null ? "CLOSED" : mask(show(learn(on, read(api, conn.version, answer))))));
        write(on, api, conn.version, null, answer);
    }
    static void write(int on, ApiKeys api, short version, byte[] frame, byte[] answer) {
        boolean later = answer != null && answer.length == 0;
        lines.println(comma + "{\"key\":" + api.id + ",\"api\":\"" + api.name + "\",\"version\":" + version + ",\"case\":\"" + walk + " " + step + "\",\"on\":" + on
            + (frame == null ? "" : ",\"request\":\"" + hex(frame) + "\"") + (answer == null || later ? "" : ",\"response\":\"" + hex(answer) + "\"")
            + (later ? ",\"name\":\"" + group + "\"" : "") + ",\"later\":" + later + ",\"closed\":" + (answer == null) + "}");
        comma = ",";
    }
    /** What a replay waits for in its own way: that something begun is done. */
    static void settle(String what, String name, String... id) { lines.println(comma + "{\"case\":\"" + walk + "\",\"closed\":false,\"settle\":\"" + what + "\",\"name\":\"" + name + "\"" + (id.length > 0 ? ",\"id\":\"" + id[0] + "\"" : "") + "}"); comma = ","; }
    /** Asks without noting it. */
    @SuppressWarnings("unchecked")
    static <T extends ApiMessage> T quietly(ApiKeys api, ApiMessage body) throws Exception {
        short version = api.latestVersion(false);
        try (Socket s = new Socket(host, port)) {
            byte[] frame = frame(api, version, body); s.setSoTimeout(15000);
            DataOutputStream out = new DataOutputStream(s.getOutputStream()); out.writeInt(frame.length); out.write(frame); out.flush();
            DataInputStream in = new DataInputStream(s.getInputStream()); byte[] answer = new byte[in.readInt()]; in.readFully(answer);
            return (T) read(api, version, answer);
        }
    }

    // --- what people read

    static final Map<String, String> names = new HashMap<>();
    static String named(String kind, String what) { return names.computeIfAbsent(kind + what, k -> kind + names.keySet().stream().filter(n -> n.startsWith(kind)).count()); }
    static String mask(String text) {
        text = java.util.regex.Pattern.compile("probe-[0-9a-f]{8}-[0-9a-f-]{27}").matcher(text).replaceAll(m -> named("MEMBER", m.group()));
        text = java.util.regex.Pattern.compile("\\bi\\d-[0-9a-f]{8}-[0-9a-f-]{27}").matcher(text).replaceAll(m -> named("STATIC-" + m.group().substring(0, 2) + "-", m.group()));
        text = java.util.regex.Pattern.compile("sessionId=(-?[1-9]\\d*)").matcher(text).replaceAll(m -> "sessionId=" + named("S", m.group(1)));
        text = java.util.regex.Pattern.compile("[pP]roducerId=(\\d+)").matcher(text).replaceAll(m -> "producerId=" + named("P", m.group(1)));
        text = java.util.regex.Pattern.compile("topicId=([\\w-]{22})").matcher(text).replaceAll(m -> m.group(1).equals("AAAAAAAAAAAAAAAAAAAAAA") ? "topicId=0" : "topicId=" + named("T", m.group(1)));
        return text.replaceAll("24181/[ko]", "ZK").replaceAll("\\b179\\d{10}\\b", "NOW").replaceAll("\\b2409\\d\\b", "PORT").replaceAll("clusterId='[^']*'", "clusterId").replaceAll("MemoryRecords\\(size=\\d+, buffer=java.nio.HeapByteBuffer[^)]*\\)", "RECORDS");
    }
    static String show(ApiMessage m) {
        if (m instanceof FetchResponseData) {
            FetchResponseData f = (FetchResponseData) m; StringBuilder b = new StringBuilder("error=" + f.errorCode() + " sessionId=" + f.sessionId());
            f.responses().forEach(t -> t.partitions().forEach(p -> {
                b.append("\n      " + t.topic() + " topicId=" + t.topicId() + " " + p.partitionIndex() + " error=" + p.errorCode() + " hw=" + p.highWatermark() + " lso=" + p.lastStableOffset() + " start=" + p.logStartOffset() + " diverging=" + p.divergingEpoch() + " leader=" + p.currentLeader() + " aborted=" + p.abortedTransactions() + " preferred=" + p.preferredReadReplica() + " records=");
                if (p.records() == null) b.append("null"); else ((Records) p.records()).batches().forEach(batch -> b.append(batch.baseOffset() + "-" + batch.lastOffset() + "@" + batch.magic() + " "));
            }));
            return b.toString();
        }
        if (m instanceof DescribeGroupsResponseData) ((DescribeGroupsResponseData) m).groups().forEach(g -> g.members().sort(Comparator.comparing(x -> mask(x.memberId()))));
        if (m instanceof JoinGroupResponseData) ((JoinGroupResponseData) m).members().sort(Comparator.comparing(x -> mask(x.memberId())));
        if (m instanceof ElectLeadersResponseData) ((ElectLeadersResponseData) m).replicaElectionResults().forEach(t -> t.partitionResult().sort(Comparator.comparing(p -> p.partitionId())));
        if (m instanceof AlterPartitionReassignmentsResponseData) ((AlterPartitionReassignmentsResponseData) m).responses().forEach(t -> t.partitions().sort(Comparator.comparing(p -> p.partitionIndex())));
        if (m instanceof DescribeProducersResponseData) ((DescribeProducersResponseData) m).topics().forEach(t -> t.partitions().forEach(p -> p.activeProducers().sort(Comparator.comparing(x -> x.producerId()))));
        if (m instanceof AddPartitionsToTxnResponseData) ((AddPartitionsToTxnResponseData) m).resultsByTransaction().forEach(x -> x.topicResults().forEach(t -> { List<AddPartitionsToTxnResponseData.AddPartitionsToTxnPartitionResult> sorted = new ArrayList<>(); t.resultsByPartition().forEach(r -> sorted.add(r.duplicate())); sorted.sort(Comparator.comparing(r -> r.partitionIndex())); t.resultsByPartition().clear(); t.resultsByPartition().addAll(sorted); }));
        if (m instanceof AlterReplicaLogDirsResponseData) ((AlterReplicaLogDirsResponseData) m).results().forEach(t -> t.partitions().sort(Comparator.comparing(p -> p.partitionIndex())));
        if (m instanceof MetadataResponseData) { MetadataResponseData r = (MetadataResponseData) m; r.topics().forEach(t -> t.partitions().sort(Comparator.comparing(p -> p.partitionIndex()))); return r.topics().toString() + r.controllerId(); }
        if (m instanceof CreateTopicsResponseData) return new ArrayList<>(((CreateTopicsResponseData) m).topics()).stream().map(t -> "\n      " + t.name() + " topicId=" + t.topicId() + " " + t.errorCode() + " " + t.errorMessage() + " " + t.numPartitions() + " " + t.replicationFactor() + " " + (t.configs() == null ? null : t.configs().stream().filter(c -> c.configSource() != 5).sorted(Comparator.comparing(c -> c.name())).collect(Collectors.toList()))).collect(Collectors.joining());
        if (m instanceof DescribeConfigsResponseData) return ((DescribeConfigsResponseData) m).results().stream().map(r -> r.configs().stream().sorted(Comparator.comparing(c -> c.name())).map(c -> "\n        " + c).collect(Collectors.joining("", "\n      " + r.resourceType() + " " + r.resourceName() + " " + r.errorCode() + " " + r.errorMessage(), ""))).collect(Collectors.joining());
        return m.toString();
    }

    // --- choices

    @SafeVarargs static <T> T one(T... of) { return of[random.nextInt(of.length)]; }
    static boolean seldom(int in) { return random.nextInt(in) == 0; }
    static String tag() { return walk.replace("groups", "g").replaceAll("[^a-z0-9]", "-"); }

    // --- groups

    static final String[] member = new String[3]; static final int[] generation = new int[3]; static final String[] instance = new String[3];
    static final boolean[] leads = new boolean[3]; static List<String> known = new ArrayList<>();
    static String group, leader = "";

    /** What a member takes from an answer. */
    static <T extends ApiMessage> T learn(int on, T m) {
        if (m instanceof JoinGroupResponseData) {
            JoinGroupResponseData j = (JoinGroupResponseData) m;
            if (j.errorCode() == 0 || j.errorCode() == 79) { member[on] = j.memberId(); names.computeIfAbsent("MEMBER" + j.memberId(), k -> "MEMBER" + on + "-" + names.size());  leader = j.errorCode() == 0 ? j.leader() : leader; if (!known.contains(j.memberId())) known.add(j.memberId()); }
            if (j.errorCode() == 0) { generation[on] = j.generationId(); leads[on] = j.leader().equals(j.memberId()); }
            if (j.errorCode() == 25) member[on] = "";
        }
        return m;
    }
    static String anyMember(int on) { return seldom(8) ? one("", "nope", known.isEmpty() ? "" : known.get(random.nextInt(known.size()))) : member[on]; }
    /** Who asks again while it waits is not answered by Kafka any more. */
    static String notWaiting(int on, String id) { for (int i = 0; i < 3; i++) if (i != on && conns[i].pending != null && id.equals(member[i])) return member[on]; return id; }
    static int anyGeneration(int on) { return seldom(8) ? one(-1, 0, generation[on] + 1, 77) : generation[on]; }
    static String anyInstance(int on) { return seldom(12) ? one(null, "i0", "i1", "i9") : instance[on]; }
    static JoinGroupRequestData.JoinGroupRequestProtocol protocol(String name) { return new JoinGroupRequestData.JoinGroupRequestProtocol().setName(name).setMetadata(one("", "m", "n").getBytes()); }

    static void groups() throws Exception {
        group = tag(); known.clear(); leader = "";
        Arrays.fill(member, ""); Arrays.fill(generation, -1); Arrays.fill(leads, false);
        boolean statics = seldom(3);
        for (int i = 0; i < 3; i++) instance[i] = statics ? "i" + i : null;
        createTopic(group, 2);
        coordinator((byte) 0, group);
        for (int n = 0; n < 28; n++) {
            List<Integer> free = IntStream.range(0, 3).filter(i -> conns[i].pending == null).boxed().collect(Collectors.toList());
            if (free.isEmpty()) return;
            int on = free.get(random.nextInt(free.size()));
            int what = random.nextInt(100);
            // A member that has none joins, and one that has joined is synchronized.
            if (generation[on] < 0 && !seldom(4)) what = 0;
            if (what < 28) {
                JoinGroupRequestData j = new JoinGroupRequestData().setGroupId(seldom(30) ? "" : group).setMemberId(notWaiting(on, anyMember(on))).setGroupInstanceId(anyInstance(on))
                    .setProtocolType(seldom(15) ? one("connect", "") : "consumer").setSessionTimeoutMs(seldom(15) ? one(0, -1, 999, Integer.MAX_VALUE) : 60000).setRebalanceTimeoutMs(60000);
                List<String> protocols = seldom(12) ? one(List.<String>of(), List.of("sticky"), List.of("range", "range")) : one(List.of("range"), List.of("range", "roundrobin"));
                protocols.forEach(p -> { if (j.protocols().find(p) == null) j.protocols().add(protocol(p)); });
                int lowest = j.groupInstanceId() != null ? 5 : 0;
                ask(on, ApiKeys.JOIN_GROUP, version(ApiKeys.JOIN_GROUP, j, lowest), j);
            } else if (what < 50) {
                SyncGroupRequestData s = new SyncGroupRequestData().setGroupId(group).setMemberId(notWaiting(on, anyMember(on))).setGenerationId(anyGeneration(on)).setGroupInstanceId(anyInstance(on));
                s.setProtocolType(seldom(8) ? one("connect", "") : seldom(5) ? null : "consumer").setProtocolName(seldom(8) ? one("nope", "") : seldom(3) ? null : "range");
                if (leads[on] && !seldom(8)) for (String m : known) if (!seldom(8)) s.assignments().add(new SyncGroupRequestData.SyncGroupRequestAssignment().setMemberId(m).setAssignment(("a" + n + m.length()).getBytes()));
                if (seldom(15)) s.assignments().add(new SyncGroupRequestData.SyncGroupRequestAssignment().setMemberId("nope").setAssignment("n".getBytes()));
                ask(on, ApiKeys.SYNC_GROUP, version(ApiKeys.SYNC_GROUP, s, s.groupInstanceId() != null ? 3 : 0), s);
            } else if (what < 60) {
                HeartbeatRequestData h = new HeartbeatRequestData().setGroupId(group).setMemberId(anyMember(on)).setGenerationId(anyGeneration(on)).setGroupInstanceId(anyInstance(on));
                ask(on, ApiKeys.HEARTBEAT, h);
            } else if (what < 66) {
                LeaveGroupRequestData l = new LeaveGroupRequestData().setGroupId(group);
                int v;
                if (seldom(2)) { l.setMemberId(anyMember(on)); v = random.nextInt(3); }
                else { v = 3 + random.nextInt(3); for (int i = one(0, 1, 1, 2); i > 0; i--) { int who = seldom(3) ? random.nextInt(3) : on; l.members().add(new LeaveGroupRequestData.MemberIdentity().setMemberId(anyMember(who)).setGroupInstanceId(anyInstance(who)).setReason(v == 5 ? one(null, "because") : null)); } }
                boolean leaves = l.memberId().equals(leader) || l.members().stream().anyMatch(m -> m.memberId().equals(leader) || m.groupInstanceId() != null);
                ask(on, ApiKeys.LEAVE_GROUP, v, l);
                // Kafka's choice of the next leader follows from the hashes of random ids.
                if (leaves) return;
            } else if (what < 76) {
                OffsetCommitRequestData c = new OffsetCommitRequestData().setGroupId(group).setMemberId(anyMember(on)).setGenerationIdOrMemberEpoch(anyGeneration(on)).setGroupInstanceId(anyInstance(on));
                c.topics().add(new OffsetCommitRequestData.OffsetCommitRequestTopic().setName(seldom(8) ? "nope" : group).setPartitions(List.of(new OffsetCommitRequestData.OffsetCommitRequestPartition().setPartitionIndex(one(0, 1, 1, 7)).setCommittedOffset(one(0L, 5L, -1L, (long) n)).setCommittedMetadata(one("", "m", null)))));
                ask(on, ApiKeys.OFFSET_COMMIT, version(ApiKeys.OFFSET_COMMIT, c, 1), c);
            } else if (what < 82) {
                OffsetFetchRequestData f = new OffsetFetchRequestData();
                int v = 1 + random.nextInt(9);
                if (v < 8) f.setGroupId(group).setTopics(v > 1 && seldom(2) ? null : List.of(new OffsetFetchRequestData.OffsetFetchRequestTopic().setName(group).setPartitionIndexes(List.of(0, 1))));
                else f.groups().add(new OffsetFetchRequestData.OffsetFetchRequestGroup().setGroupId(group).setTopics(seldom(2) ? null : List.of(new OffsetFetchRequestData.OffsetFetchRequestTopics().setName(group).setPartitionIndexes(List.of(0, 1)))));
                if (v >= 9 && seldom(2)) f.groups().get(0).setMemberId(member[on]).setMemberEpoch(generation[on]);
                ask(on, ApiKeys.OFFSET_FETCH, v, f);
            } else if (what < 90) {
                ask(on, ApiKeys.DESCRIBE_GROUPS, new DescribeGroupsRequestData().setGroups(List.of(group)));
            } else if (what < 93) {
                ask(on, ApiKeys.DELETE_GROUPS, new DeleteGroupsRequestData().setGroupsNames(List.of(group)));
            } else if (what < 96) {
                OffsetDeleteRequestData d = new OffsetDeleteRequestData().setGroupId(group);
                d.topics().add(new OffsetDeleteRequestData.OffsetDeleteRequestTopic().setName(group).setPartitions(List.of(new OffsetDeleteRequestData.OffsetDeleteRequestPartition().setPartitionIndex(1))));
                ask(on, ApiKeys.OFFSET_DELETE, d);
            } else {
                TxnOffsetCommitRequestData c = new TxnOffsetCommitRequestData().setGroupId(group).setTransactionalId("nobody").setProducerId(77).setProducerEpoch((short) 0).setMemberId(anyMember(on)).setGenerationId(anyGeneration(on)).setGroupInstanceId(anyInstance(on));
                c.topics().add(new TxnOffsetCommitRequestData.TxnOffsetCommitRequestTopic().setName(group).setPartitions(List.of(new TxnOffsetCommitRequestData.TxnOffsetCommitRequestPartition().setPartitionIndex(0).setCommittedOffset(3))));
                ask(on, ApiKeys.TXN_OFFSET_COMMIT, version(ApiKeys.TXN_OFFSET_COMMIT, c, 3), c);
            }
        }
    }

    static void coordinator(byte kind, String key) throws Exception {
        for (;;) {
            FindCoordinatorResponseData f = quietly(ApiKeys.FIND_COORDINATOR, new FindCoordinatorRequestData().setKeyType(kind).setCoordinatorKeys(List.of(key)));
            if (f.coordinators().get(0).errorCode() == 0) break;
            Thread.sleep(50);
        }
        for (;;) {
            boolean ready = kind == 0
                ? ((DescribeGroupsResponseData) quietly(ApiKeys.DESCRIBE_GROUPS, new DescribeGroupsRequestData().setGroups(List.of(key)))).groups().get(0).errorCode() == 0
                : ((DescribeTransactionsResponseData) quietly(ApiKeys.DESCRIBE_TRANSACTIONS, new DescribeTransactionsRequestData().setTransactionalIds(List.of(key)))).transactionStates().get(0).errorCode() == 105;
            if (ready) break;
            Thread.sleep(50);
        }
        settle(kind == 0 ? "group" : "transaction", key);
    }

    // --- topics that the walks need

    static void createTopic(String name, int partitions, String... configs) throws Exception {
        CreatableTopic topic = new CreatableTopic().setName(name).setNumPartitions(partitions).setReplicationFactor((short) 1);
        for (int i = 0; i < configs.length; i += 2) topic.configs().add(new CreatableTopicConfig().setName(configs[i]).setValue(configs[i + 1]));
        CreateTopicsRequestData create = new CreateTopicsRequestData().setTimeoutMs(20000); create.topics().add(topic);
        ask(0, ApiKeys.CREATE_TOPICS, 4, create);
        there(name, true);
    }
    static Uuid there(String name, boolean led) throws Exception {
        for (int n = 0; n < 400; n++) {
            MetadataResponseData m = quietly(ApiKeys.METADATA, new MetadataRequestData().setAllowAutoTopicCreation(false).setTopics(List.of(new MetadataRequestData.MetadataRequestTopic().setName(name))));
            MetadataResponseData.MetadataResponseTopic t = m.topics().iterator().next();
            boolean is = t.errorCode() == 0 && t.partitions().stream().allMatch(p -> p.errorCode() == 0);
            if (is == led && !led) {
                CreateTopicsRequestData create = new CreateTopicsRequestData().setTimeoutMs(20000).setValidateOnly(true);
                create.topics().add(new CreatableTopic().setName(name).setNumPartitions(1).setReplicationFactor((short) 1));
                is = ((CreateTopicsResponseData) quietly(ApiKeys.CREATE_TOPICS, create)).topics().iterator().next().errorCode() == 36;
            }
            if (is == led) { settle(led ? "led" : "gone", name, t.topicId().toString()); return t.topicId(); }
            Thread.sleep(25);
        }
        throw new IllegalStateException(name + " is not " + led);
    }

    // --- transactions and idempotent producers

    static String id; static List<long[]> identities = new ArrayList<>(); static Map<String, Integer> sequences = new HashMap<>();

    static MemoryRecords batch(long producer, short epoch, int sequence, boolean transactional, int count) {
        SimpleRecord[] records = new SimpleRecord[count];
        for (int i = 0; i < count; i++) records[i] = new SimpleRecord(1700000000000L + 1000L * step + i, ("k" + i).getBytes(), ("v" + step).getBytes());
        return transactional ? MemoryRecords.withTransactionalRecords(Compression.NONE, producer, epoch, sequence, records)
            : producer < 0 ? MemoryRecords.withRecords(Compression.NONE, records) : MemoryRecords.withIdempotentRecords(Compression.NONE, producer, epoch, sequence, records);
    }
    static void produce(int on, String topic, int partition, String transactionalId, MemoryRecords records) throws Exception {
        ProduceRequestData p = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(10000).setTransactionalId(transactionalId);
        p.topicData().add(new ProduceRequestData.TopicProduceData().setName(topic).setPartitionData(List.of(new ProduceRequestData.PartitionProduceData().setIndex(partition).setRecords(records))));
        ask(on, ApiKeys.PRODUCE, version(ApiKeys.PRODUCE, p, 3), p);
    }
    /** Until no transaction is on its way to its end. */
    static void ended() throws Exception {
        for (;;) {
            DescribeTransactionsResponseData d = quietly(ApiKeys.DESCRIBE_TRANSACTIONS, new DescribeTransactionsRequestData().setTransactionalIds(List.of(id)));
            if (!d.transactionStates().get(0).transactionState().startsWith("Prepare")) break;
            Thread.sleep(10);
        }
        // Offsets become the group's behind the marker.
        Thread.sleep(40);
        settle("ended", id);
    }
    static void transactions(boolean transactional) throws Exception {
        id = tag(); group = id + "-group"; identities.clear(); sequences.clear();
        createTopic(id, 2);
        coordinator((byte) 1, id); coordinator((byte) 0, group);
        long[] current = null; boolean open = false;
        for (int n = 0; n < 30; n++) {
            int on = random.nextInt(2);
            int what = random.nextInt(100);
            if (current == null) what = 0;
            else if (open && seldom(2)) what = 20 + random.nextInt(60);
            long[] who = current == null || !seldom(8) ? current : one(identities.get(random.nextInt(identities.size())), new long[] {current[0], current[1] + 1}, new long[] {current[0], -1}, new long[] {current[0], Short.MAX_VALUE}, new long[] {999999999L, 0}, new long[] {-1, -1});
            String of = seldom(20) ? one("", "nope-" + id) : id;
            int partition = random.nextInt(2);
            if (what < 12) {
                InitProducerIdRequestData i = new InitProducerIdRequestData().setTransactionalId(transactional ? of : seldom(6) ? "" : null).setTransactionTimeoutMs(seldom(8) ? one(0, -1, Integer.MAX_VALUE, 1) : 60000);
                if (seldom(3) && current != null) { long[] e = seldom(2) ? current : one(identities.get(random.nextInt(identities.size())), new long[] {current[0], -1}, new long[] {-1, 3}, new long[] {current[0], current[1] + 1}, new long[] {current[0], -5}); i.setProducerId(e[0]).setProducerEpoch((short) e[1]); }
                InitProducerIdResponseData r = ask(on, ApiKeys.INIT_PRODUCER_ID, i);
                if (transactional) ended();
                if (r != null && r.errorCode() == 0) { current = new long[] {r.producerId(), r.producerEpoch()}; identities.add(current); sequences.clear(); open = false; }
            } else if (what < 30 && transactional) {
                AddPartitionsToTxnRequestData p = new AddPartitionsToTxnRequestData();
                AddPartitionsToTxnRequestData.AddPartitionsToTxnTopicCollection topics = new AddPartitionsToTxnRequestData.AddPartitionsToTxnTopicCollection();
                topics.add(new AddPartitionsToTxnRequestData.AddPartitionsToTxnTopic().setName(seldom(12) ? "nope" : id).setPartitions(one(List.of(0), List.of(1), List.of(0, 1), List.of(partition), seldom(3) ? List.of(7) : List.of(1))));
                int v = random.nextInt(6);
                if (v < 4) p.setV3AndBelowTransactionalId(of).setV3AndBelowProducerId(who[0]).setV3AndBelowProducerEpoch((short) who[1]).setV3AndBelowTopics(topics);
                else p.transactions().add(new AddPartitionsToTxnRequestData.AddPartitionsToTxnTransaction().setTransactionalId(of).setProducerId(who[0]).setProducerEpoch((short) who[1]).setVerifyOnly(seldom(2)).setTopics(topics));
                ask(on, ApiKeys.ADD_PARTITIONS_TO_TXN, v, p);
                open = true;
            } else if (what < 34 && transactional) {
                ask(on, ApiKeys.ADD_OFFSETS_TO_TXN, new AddOffsetsToTxnRequestData().setTransactionalId(of).setProducerId(who[0]).setProducerEpoch((short) who[1]).setGroupId(group));
                open = true;
            } else if (what < 60) {
                String key = who[0] + "/" + who[1] + "/" + partition;
                int next = sequences.getOrDefault(key, 0), count = 1 + random.nextInt(2);
                int sequence = seldom(5) ? one(0, next + 1, Math.max(0, next - count), Integer.MAX_VALUE, Math.max(0, next - 1), 5) : next;
                boolean asTransaction = transactional;
                if (who[0] < 0) asTransaction = false;
                produce(on, id, partition, transactional && !seldom(12) ? of : null, batch(who[0], (short) Math.max(who[1], who[0] < 0 ? -1 : 0), who[0] < 0 ? -1 : sequence, asTransaction, count));
                if (sequence == next) sequences.put(key, next + count);
            } else if (what < 66 && transactional) {
                TxnOffsetCommitRequestData c = new TxnOffsetCommitRequestData().setTransactionalId(of).setGroupId(group).setProducerId(who[0]).setProducerEpoch((short) who[1]);
                c.topics().add(new TxnOffsetCommitRequestData.TxnOffsetCommitRequestTopic().setName(id).setPartitions(List.of(new TxnOffsetCommitRequestData.TxnOffsetCommitRequestPartition().setPartitionIndex(one(0, 1, 1, 7)).setCommittedOffset(n))));
                ask(on, ApiKeys.TXN_OFFSET_COMMIT, c);
            } else if (what < 76 && transactional) {
                ask(on, ApiKeys.END_TXN, new EndTxnRequestData().setTransactionalId(of).setProducerId(who[0]).setProducerEpoch((short) who[1]).setCommitted(random.nextBoolean()));
                ended(); open = false;
            } else if (what < 80) ask(on, ApiKeys.DESCRIBE_TRANSACTIONS, new DescribeTransactionsRequestData().setTransactionalIds(List.of(id)));
            else if (what < 86) ask(on, ApiKeys.DESCRIBE_PRODUCERS, new DescribeProducersRequestData().setTopics(List.of(new DescribeProducersRequestData.TopicRequest().setName(id).setPartitionIndexes(List.of(0, 1)))));
            else if (what < 90) { listOffsets(on, id, one(-1L, -2L, -3L, 1700000000000L + 1000L * random.nextInt(40)), (byte) random.nextInt(2)); }
            else if (what < 96) fetch(on, id, (long) random.nextInt(20), (byte) random.nextInt(2));
            else if (transactional) {
                OffsetFetchRequestData f = new OffsetFetchRequestData().setRequireStable(random.nextBoolean());
                f.groups().add(new OffsetFetchRequestData.OffsetFetchRequestGroup().setGroupId(group).setTopics(null));
                ask(on, ApiKeys.OFFSET_FETCH, 8, f);
            }
        }
    }
    static void listOffsets(int on, String topic, long timestamp, byte isolation) throws Exception {
        ListOffsetsRequestData l = new ListOffsetsRequestData().setReplicaId(-1).setIsolationLevel(isolation);
        List<ListOffsetsRequestData.ListOffsetsPartition> partitions = new ArrayList<>();
        for (int p = 0; p < 2; p++) partitions.add(new ListOffsetsRequestData.ListOffsetsPartition().setPartitionIndex(p).setTimestamp(timestamp).setCurrentLeaderEpoch(seldom(10) ? one(0, 1, 5, -2) : -1));
        l.topics().add(new ListOffsetsRequestData.ListOffsetsTopic().setName(topic).setPartitions(partitions));
        ask(on, ApiKeys.LIST_OFFSETS, version(ApiKeys.LIST_OFFSETS, l, 1), l);
    }
    static void fetch(int on, String topic, long offset, byte isolation) throws Exception {
        FetchRequestData f = new FetchRequestData().setMaxWaitMs(0).setMinBytes(0).setMaxBytes(1 << 20).setIsolationLevel(isolation).setReplicaId(-1);
        List<FetchRequestData.FetchPartition> partitions = new ArrayList<>();
        for (int p = 0; p < 2; p++) partitions.add(new FetchRequestData.FetchPartition().setPartition(p).setFetchOffset(offset).setPartitionMaxBytes(seldom(5) ? 100 : 1 << 20).setCurrentLeaderEpoch(seldom(10) ? one(0, 1, 5) : -1));
        f.topics().add(new FetchRequestData.FetchTopic().setTopic(topic).setPartitions(partitions));
        ask(on, ApiKeys.FETCH, 4 + random.nextInt(9), f);
    }

    // --- sessions of fetches

    static void sessions() throws Exception {
        String a = tag() + "-a", b = tag() + "-b", c = tag() + "-c";
        createTopic(a, 2); createTopic(b, 1);
        Map<String, Uuid> ids = new HashMap<>();
        ids.put(a, there(a, true)); ids.put(b, there(b, true)); ids.put(c, new Uuid(7, 7));
        Map<String, Long> offsets = new HashMap<>();
        int session = 0, epoch = 0; boolean byId = seldom(2); boolean isThere = true;
        for (int n = 0; n < 30; n++) {
            int what = random.nextInt(100);
            if (what < 20) { produce(1, isThere ? one(a, a, b) : a, 0, null, batch(-1, (short) -1, -1, false, 1 + random.nextInt(2))); continue; }
            if (what < 24) {
                if (isThere) { ask(1, ApiKeys.DELETE_TOPICS, 5, new DeleteTopicsRequestData().setTimeoutMs(10000).setTopicNames(List.of(b))); there(b, false); }
                else { createTopic(b, 1); if (seldom(2)) ids.put(b, there(b, true)); }
                isThere = !isThere; continue;
            }
            if (seldom(15)) byId = !byId;
            int v = byId ? 13 + random.nextInt(5) : 7 + random.nextInt(6);
            FetchRequestData f = new FetchRequestData().setMaxWaitMs(0).setMinBytes(0).setMaxBytes(seldom(10) ? one(0, 1, 80) : 1 << 20);
            int[] id = seldom(6) ? one(new int[] {session, 0}, new int[] {session, -1}, new int[] {session, epoch + 1}, new int[] {session + 1, epoch}, new int[] {0, 1}, new int[] {0, -1}, new int[] {session, Integer.MAX_VALUE}, new int[] {session, Math.max(1, epoch - 1)}) : new int[] {session, session == 0 ? 0 : epoch};
            f.setSessionId(id[0]).setSessionEpoch(id[1]);
            boolean full = id[1] <= 0;
            for (String topic : List.of(a, b, c)) {
                if (!full && !seldom(4) || full && seldom(4)) continue;
                FetchRequestData.FetchTopic t = new FetchRequestData.FetchTopic().setTopic(v < 13 ? topic : "").setTopicId(v < 13 ? Uuid.ZERO_UUID : ids.get(topic));
                List<FetchRequestData.FetchPartition> partitions = new ArrayList<>();
                for (int p : one(List.of(0), List.of(0, 1), List.of(1), List.of(0, 7))) partitions.add(new FetchRequestData.FetchPartition().setPartition(p).setFetchOffset(one(0L, 1L, 2L, 5L, -1L, 100L)).setPartitionMaxBytes(1 << 20).setCurrentLeaderEpoch(seldom(10) ? one(0, 1, 7) : -1));
                f.topics().add(t.setPartitions(partitions));
            }
            if (!full && seldom(4)) { String topic = one(a, b, c); f.forgottenTopicsData().add(new FetchRequestData.ForgottenTopic().setTopic(v < 13 ? topic : "").setTopicId(v < 13 ? Uuid.ZERO_UUID : ids.get(topic)).setPartitions(one(List.of(0), List.of(0, 1), List.of(9)))); }
            FetchResponseData r = ask(0, ApiKeys.FETCH, v, f);
            if (r == null) { session = 0; continue; }
            if (id[1] == 0 && r.errorCode() == 0 && r.sessionId() != 0) { session = r.sessionId(); epoch = 1; }
            else if (id[0] == session && id[1] == epoch && r.errorCode() == 0 && session != 0) epoch++;
            if (r.sessionId() == 0 && r.errorCode() == 0 && id[1] > 0) session = 0;
            if (r.errorCode() == 70 && seldom(2)) session = 0;
        }
    }

    // --- settings

    static void settings() throws Exception {
        String t = tag();
        createTopic(t, 1);
        String[] topicKeys = {"retention.ms", "cleanup.policy", "compression.type", "leader.replication.throttled.replicas", "follower.replication.throttled.replicas", "min.insync.replicas", "message.timestamp.type", "min.cleanable.dirty.ratio", "preallocate", "unclean.leader.election.enable", "segment.bytes", "max.message.bytes", "message.format.version", "index.interval.bytes", "nope", "", "compression.gzip.level", "remote.storage.enable", "local.retention.ms", "message.timestamp.difference.max.ms", "message.timestamp.before.max.ms", "flush.messages"};
        String[] brokerKeys = {"log.retention.ms", "log.cleanup.policy", "max.connections", "num.io.threads", "background.threads", "compression.type", "message.max.bytes", "log.cleaner.threads", "leader.replication.throttled.rate", "follower.replication.throttled.rate", "max.connections.per.ip", "max.connections.per.ip.overrides", "num.replica.fetchers", "log.segment.bytes", "min.insync.replicas", "unclean.leader.election.enable", "broker.id", "nope", "log.message.timestamp.type", "log.cleaner.io.buffer.size", "producer.id.expiration.ms", "transaction.partition.verification.enable", "principal.builder.class", "ssl.keystore.password", "sasl.jaas.config", "listener.name.x.ssl.keystore.password", "log.retention.hours", "remote.log.manager.copy.max.bytes.per.second", "num.network.threads"};
        String[] loggers = {"kafka.server.KafkaApis", "root", "kafka.nope", "kafka.server.ReplicaManager"};
        List<Object[]> touched = new ArrayList<>();
        for (int n = 0; n < 25; n++) {
            byte type = one((byte) 2, (byte) 2, (byte) 2, (byte) 4, (byte) 4, (byte) 4, (byte) 8);
            // What loggers begin with is a matter of how the broker was started.
            String name = type == 2 ? (seldom(15) ? one("nope", "", "bad/topic") : t) : type == 4 ? one("0", "0", "", seldom(4) ? "1" : "0", seldom(6) ? "x" : "") : one("0", "0", seldom(4) ? "1" : "0", seldom(4) ? "" : "0");
            String[] keys = type == 2 ? topicKeys : type == 4 ? brokerKeys : loggers;
            List<String> used = new ArrayList<>();
            // Of several flaws Kafka tells the one whose setting it knows first.
            int count = type == 4 ? 1 : one(1, 1, 1, 2, 3);
            for (int i = 0; i < count; i++) { String key = keys[random.nextInt(keys.length)]; if (!used.contains(key)) used.add(key); }
            if (!seldom(5)) {
                IncrementalAlterConfigsRequestData r = new IncrementalAlterConfigsRequestData().setValidateOnly(seldom(5));
                IncrementalAlterConfigsRequestData.AlterConfigsResource resource = new IncrementalAlterConfigsRequestData.AlterConfigsResource().setResourceType(type).setResourceName(name);
                for (String key : used) {
                    byte op = type == 8 ? one((byte) 0, (byte) 0, (byte) 1, (byte) 2) : one((byte) 0, (byte) 0, (byte) 0, (byte) 1, (byte) 2, (byte) 2, (byte) 3, (byte) 3, seldom(5) ? (byte) 4 : (byte) 0);
                    resource.configs().add(new IncrementalAlterConfigsRequestData.AlterableConfig().setName(key).setConfigOperation(op).setValue(value(key, type, op)));
                    if (type == 4) touched.add(new Object[] {name, key});
                }
                r.resources().add(resource);
                if (seldom(8) && type == 2) r.resources().add(new IncrementalAlterConfigsRequestData.AlterConfigsResource().setResourceType((byte) 2).setResourceName("nope-" + n));
                ask(0, ApiKeys.INCREMENTAL_ALTER_CONFIGS, r);
            } else if (type != 8) {
                AlterConfigsRequestData r = new AlterConfigsRequestData().setValidateOnly(seldom(4));
                AlterConfigsRequestData.AlterConfigsResource resource = new AlterConfigsRequestData.AlterConfigsResource().setResourceType(type).setResourceName(name);
                for (String key : used) { resource.configs().add(new AlterConfigsRequestData.AlterableConfig().setName(key).setValue(value(key, type, (byte) 0))); if (type == 4) touched.add(new Object[] {name, key}); }
                r.resources().add(resource);
                ask(0, ApiKeys.ALTER_CONFIGS, r);
            }
            // A change arrives by way of ZooKeeper.
            Thread.sleep(type == 4 ? 500 : 150);
            settle("pause", "");
            if (type == 8) continue;
            int v = random.nextInt(5);
            DescribeConfigsRequestData d = new DescribeConfigsRequestData().setIncludeSynonyms(v >= 1 && seldom(2)).setIncludeDocumentation(false);
            d.resources().add(new DescribeConfigsRequestData.DescribeConfigsResource().setResourceType(type).setResourceName(name).setConfigurationKeys(used));
            ask(0, ApiKeys.DESCRIBE_CONFIGS, v, d);
        }
        for (String name : List.of("0", "")) {
            List<String> used = touched.stream().filter(x -> x[0].equals(name)).map(x -> (String) x[1]).distinct().sorted().collect(Collectors.toList());
            for (String key : used) {
                IncrementalAlterConfigsRequestData r = new IncrementalAlterConfigsRequestData();
                IncrementalAlterConfigsRequestData.AlterConfigsResource resource = new IncrementalAlterConfigsRequestData.AlterConfigsResource().setResourceType((byte) 4).setResourceName(name);
                resource.configs().add(new IncrementalAlterConfigsRequestData.AlterableConfig().setName(key).setConfigOperation((byte) 1));
                r.resources().add(resource);
                ask(0, ApiKeys.INCREMENTAL_ALTER_CONFIGS, 1, r);
            }
        }
    }
    static String value(String key, byte type, byte op) {
        if (type == 8) return op == 1 ? null : one("INFO", "DEBUG", "nope", "WARN", "trace");
        if (op == 1) return seldom(2) ? null : "x";
        if (seldom(12)) return one(null, "", " ", "nope", "-5", "1.5");
        if (key.contains("policy")) return one("compact", "delete", "compact,delete", "delete,compact", "delete,delete");
        if (key.contains("throttled.replicas")) return one("*", "0:0", "0:0,0:1", "none", "0", "0:0,0:0");
        if (key.contains("compression.type")) return one("gzip", "producer", "zstd", "uncompressed");
        if (key.endsWith("timestamp.type")) return one("LogAppendTime", "CreateTime", "logappendtime");
        if (key.contains("ratio")) return one("0.5", "1", "1.1", "0", "1e-1");
        if (key.contains("enable") || key.contains("preallocate")) return one("true", "false", "TRUE", "yes", " true ");
        if (key.contains("overrides")) return one("127.0.0.1:100", "localhost:50,127.0.0.1:60", "127.0.0.1");
        if (key.contains("threads") || key.contains("fetchers")) return one("1", "2", "3", "0", "100", "8");
        if (key.contains("format")) return one("3.0", "2.0", "0.9.0", "9.9");
        if (key.contains("password") || key.contains("jaas") || key.contains("class") || key.contains("reporters")) return one("secret", "", "a.b.C");
        if (key.contains("level")) return one("1", "9", "-1", "0", "10");
        return one("1", "100", "1048576", "-1", "0", "2147483647", "2147483648", " 7 ", "10,20", "9223372036854775807");
    }

    // --- topics

    static void topics() throws Exception {
        String t = tag(); boolean isThere = false; int partitions = 0;
        for (int n = 0; n < 22; n++) {
            int what = random.nextInt(100);
            if (!isThere || what < 15) {
                CreatableTopic topic = new CreatableTopic().setName(t);
                if (seldom(3)) {
                    topic.setNumPartitions(seldom(6) ? 2 : -1).setReplicationFactor((short) -1);
                    List<List<Integer>> replicas = one(List.of(List.of(0)), List.of(List.of(0), List.of(0)), List.of(List.of(0, 0)), List.of(List.<Integer>of()), List.of(List.of(1)), List.of(List.of(-1)), List.of(List.of(0), List.of(0, 1)));
                    int first = seldom(6) ? 1 : 0;
                    for (int i = 0; i < replicas.size(); i++) topic.assignments().add(new CreatableReplicaAssignment().setPartitionIndex(first + (seldom(12) ? i + 1 : i)).setBrokerIds(replicas.get(i)));
                } else topic.setNumPartitions(seldom(5) ? one(0, -1, -2) : one(1, 2, 3)).setReplicationFactor(seldom(6) ? one((short) 0, (short) 2, (short) -1, (short) -2) : (short) 1);
                for (int i = one(0, 0, 1, 2); i > 0; i--) { String key = one("retention.ms", "cleanup.policy", "nope", "segment.bytes", "", "compression.type", "min.insync.replicas", "segment.ms", "max.compaction.lag.ms", "min.compaction.lag.ms", "remote.storage.enable"); topic.configs().add(new CreatableTopicConfig().setName(key).setValue(seldom(8) ? null : value(key, (byte) 2, (byte) 0))); }
                CreateTopicsRequestData create = new CreateTopicsRequestData().setTimeoutMs(10000).setValidateOnly(seldom(5)); create.topics().add(topic);
                CreateTopicsResponseData r = ask(0, ApiKeys.CREATE_TOPICS, create);
                if (r != null && r.topics().iterator().next().errorCode() == 0 && !create.validateOnly()) { there(t, true); isThere = true; partitions = Math.max(1, Math.max(topic.assignments().size(), topic.numPartitions())); }
            } else if (what < 30) {
                CreatePartitionsRequestData.CreatePartitionsTopic topic = new CreatePartitionsRequestData.CreatePartitionsTopic().setName(seldom(10) ? "nope" : t).setCount(seldom(3) ? one(0, -1, partitions, partitions - 1) : partitions + 1 + random.nextInt(2)).setAssignments(null);
                if (seldom(3)) topic.setAssignments(one(List.of(List.of(0)), List.of(List.of(0), List.of(0)), List.of(List.of(0, 0)), List.of(List.<Integer>of()), List.of(List.of(5)), List.<List<Integer>>of()).stream().map(l -> new CreatePartitionsRequestData.CreatePartitionsAssignment().setBrokerIds(l)).collect(Collectors.toList()));
                CreatePartitionsRequestData p = new CreatePartitionsRequestData().setTimeoutMs(10000).setValidateOnly(seldom(4)); p.topics().add(topic);
                CreatePartitionsResponseData r = ask(0, ApiKeys.CREATE_PARTITIONS, p);
                if (r != null && r.results().get(0).errorCode() == 0 && !p.validateOnly()) { partitions = topic.count(); Thread.sleep(150); settle("pause", ""); }
            } else if (what < 50) {
                AlterPartitionReassignmentsRequestData r = new AlterPartitionReassignmentsRequestData().setTimeoutMs(10000);
                ReassignableTopic topic = new ReassignableTopic().setName(seldom(8) ? "nope" : t);
                for (int p : one(List.of(0), List.of(0, 1), List.of(9), List.of(-1))) topic.partitions().add(new ReassignablePartition().setPartitionIndex(p).setReplicas(one(null, null, List.<Integer>of(), List.of(0), List.of(0, 0), List.of(0, 1), List.of(-1), List.of(7), List.of(0, -2))));
                r.topics().add(topic);
                ask(0, ApiKeys.ALTER_PARTITION_REASSIGNMENTS, 0, r);
            } else if (what < 58) {
                ListPartitionReassignmentsRequestData r = new ListPartitionReassignmentsRequestData().setTopics(seldom(2) ? null : List.of(new ListPartitionReassignmentsRequestData.ListPartitionReassignmentsTopics().setName(one(t, "nope")).setPartitionIndexes(List.of(0, 9))));
                ask(0, ApiKeys.LIST_PARTITION_REASSIGNMENTS, 0, r);
            } else if (what < 68) {
                ElectLeadersRequestData e = new ElectLeadersRequestData().setTimeoutMs(10000); int v = random.nextInt(3);
                if (v > 0) e.setElectionType(one((byte) 0, (byte) 1, seldom(3) ? (byte) 2 : (byte) 0));
                ElectLeadersRequestData.TopicPartitionsCollection of = new ElectLeadersRequestData.TopicPartitionsCollection(); of.add(new ElectLeadersRequestData.TopicPartitions().setTopic(seldom(5) ? "nope" : t).setPartitions(List.of(0, 9)));
                ask(0, ApiKeys.ELECT_LEADERS, v, e.setTopicPartitions(of));
            } else if (what < 78) {
                int v = random.nextInt(13);
                ask(0, ApiKeys.METADATA, v, new MetadataRequestData().setAllowAutoTopicCreation(true).setTopics(List.of(new MetadataRequestData.MetadataRequestTopic().setName(t), new MetadataRequestData.MetadataRequestTopic().setName("nope"))));
            } else if (what < 86) {
                DescribeConfigsRequestData d = new DescribeConfigsRequestData();
                d.resources().add(new DescribeConfigsRequestData.DescribeConfigsResource().setResourceType((byte) 2).setResourceName(t).setConfigurationKeys(null));
                ask(0, ApiKeys.DESCRIBE_CONFIGS, d);
            } else if (what < 92) {
                int v = 1 + random.nextInt(4);
                DescribeLogDirsRequestData d = new DescribeLogDirsRequestData();
                DescribeLogDirsRequestData.DescribableLogDirTopicCollection of = new DescribeLogDirsRequestData.DescribableLogDirTopicCollection(); of.add(new DescribeLogDirsRequestData.DescribableLogDirTopic().setTopic(t).setPartitions(List.of(0, 1, 9)));
                AlterReplicaLogDirsRequestData m = new AlterReplicaLogDirsRequestData();
                AlterReplicaLogDirsRequestData.AlterReplicaLogDir dir = new AlterReplicaLogDirsRequestData.AlterReplicaLogDir().setPath(one("/nope", "relative"));
                dir.topics().add(new AlterReplicaLogDirsRequestData.AlterReplicaLogDirTopic().setName(t).setPartitions(List.of(0, 9)));
                m.dirs().add(dir);
                ask(0, ApiKeys.ALTER_REPLICA_LOG_DIRS, m);
            } else {
                int v = random.nextInt(7); DeleteTopicsRequestData d = new DeleteTopicsRequestData().setTimeoutMs(10000);
                List<String> of = seldom(4) ? List.of(t, "nope") : seldom(8) ? List.of(t, t) : List.of(t);
                if (v < 6) d.setTopicNames(of); else of.forEach(name -> d.topics().add(new DeleteTopicsRequestData.DeleteTopicState().setName(name)));
                DeleteTopicsResponseData r = ask(0, ApiKeys.DELETE_TOPICS, v, d);
                if (r != null && r.responses().iterator().next().errorCode() == 0) { there(t, false); isThere = false; }
            }
        }
    }

    // --- offsets

    static void offsets() throws Exception {
        String t = tag();
        String[] configs = one(new String[0], new String[] {"cleanup.policy", "compact"}, new String[] {"message.timestamp.type", "LogAppendTime"}, new String[] {"cleanup.policy", "compact,delete"});
        createTopic(t, 2, configs);
        id = t; coordinator((byte) 1, id);
        InitProducerIdResponseData who = ask(0, ApiKeys.INIT_PRODUCER_ID, 4, new InitProducerIdRequestData().setTransactionalId(id).setTransactionTimeoutMs(60000));
        ended();
        boolean open = false; int sequence = 0;
        for (int n = 0; n < 30; n++) {
            int what = random.nextInt(100);
            if (what < 22) {
                SimpleRecord[] records = new SimpleRecord[1 + random.nextInt(3)];
                for (int i = 0; i < records.length; i++) records[i] = new SimpleRecord(1700000000000L + 1000L * one(0, 1, 5, 9, n), ("k" + i).getBytes(), seldom(6) ? null : ("v" + n).getBytes());
                CompressionType codec = one(CompressionType.NONE, CompressionType.NONE, CompressionType.GZIP, CompressionType.LZ4);
                produce(0, t, random.nextInt(2), null, MemoryRecords.withRecords(Compression.of(codec).build(), records));
            } else if (what < 30) {
                if (!open) { AddPartitionsToTxnRequestData p = new AddPartitionsToTxnRequestData().setV3AndBelowTransactionalId(id).setV3AndBelowProducerId(who.producerId()).setV3AndBelowProducerEpoch(who.producerEpoch()); p.v3AndBelowTopics().add(new AddPartitionsToTxnRequestData.AddPartitionsToTxnTopic().setName(t).setPartitions(List.of(0))); ask(0, ApiKeys.ADD_PARTITIONS_TO_TXN, 3, p); }
                open = true;
                produce(0, t, 0, id, batch(who.producerId(), who.producerEpoch(), sequence++, true, 1));
            } else if (what < 36 && open) {
                ask(0, ApiKeys.END_TXN, 3, new EndTxnRequestData().setTransactionalId(id).setProducerId(who.producerId()).setProducerEpoch(who.producerEpoch()).setCommitted(random.nextBoolean())); ended(); open = false;
            } else if (what < 60) {
                listOffsets(1, t, one(-1L, -2L, -3L, -4L, -5L, -6L, 1700000000000L, 1700000000000L + 1000L * random.nextInt(30), 1700000000001L, 0L, Long.MAX_VALUE), (byte) random.nextInt(2));
            } else if (what < 72) {
                DeleteRecordsRequestData d = new DeleteRecordsRequestData().setTimeoutMs(5000);
                d.topics().add(new DeleteRecordsRequestData.DeleteRecordsTopic().setName(seldom(10) ? "nope" : t).setPartitions(List.of(new DeleteRecordsRequestData.DeleteRecordsPartition().setPartitionIndex(one(0, 0, 1, 7)).setOffset(one(-1L, 0L, 1L, 2L, 3L, 5L, 100L, -2L, Long.MAX_VALUE)))));
                ask(1, ApiKeys.DELETE_RECORDS, d);
            } else if (what < 80) {
                OffsetForLeaderEpochRequestData o = new OffsetForLeaderEpochRequestData(); int v = random.nextInt(5); if (v >= 3) o.setReplicaId(one(-1, -2, 5));
                OffsetForLeaderEpochRequestData.OffsetForLeaderTopic topic = new OffsetForLeaderEpochRequestData.OffsetForLeaderTopic().setTopic(seldom(10) ? "nope" : t);
                for (int p : List.of(0, 1)) topic.partitions().add(new OffsetForLeaderEpochRequestData.OffsetForLeaderPartition().setPartition(p).setLeaderEpoch(one(0, 0, 1, -1, 5)).setCurrentLeaderEpoch(v >= 2 ? one(-1, 0, 1, 5) : -1));
                o.topics().add(topic); ask(1, ApiKeys.OFFSET_FOR_LEADER_EPOCH, v, o);
            } else fetch(1, t, one(0L, 1L, 2L, 3L, 5L, 10L, -1L, 100L), (byte) random.nextInt(2));
        }
    }
}
