//! What one broker is put through in one round.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::load::{self, Produce};
use barnabas_tests::tools::{broker_binary, kafka_java, test_tool};
use barnabas_tests::zookeeper_server::ZooKeeperServer;

use crate::SETTLE;
use crate::report::{Figure, Rows};

pub(crate) const MIB: f64 = 1024.0 * 1024.0;
pub(crate) const GIB: f64 = 1024.0 * MIB;
/// What Kafka's own start script gives its virtual machine.
pub(crate) const JAVA_OPTIONS: [&str; 7] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// How much is sent.
pub(crate) struct Sizes {
    pub(crate) rounds: usize,
    warm_up: u64,
    large: u64,
    small: u64,
    perf_records: u64,
    latency_records: usize,
    pub(crate) replicated: u64,
    /// Partitions with three replicas.
    pub(crate) many: usize,
    /// Partitions with one replica.
    pub(crate) of_controller: usize,
    /// How long idle brokers are watched.
    pub(crate) idle_seconds: u64,
    /// Members of a group that join at once.
    pub(crate) members: usize,
    pub(crate) commits: usize,
    /// Groups with a thousand offsets each.
    pub(crate) loaded_groups: usize,
    /// Bytes of a log that is cleaned.
    pub(crate) dirty: u64,
}

impl Sizes {
    pub(crate) fn full() -> Self {
        Self {
            rounds: 3,
            warm_up: 256 << 20,
            large: 2 << 30,
            small: 512 << 20,
            perf_records: 1_000_000,
            latency_records: 20_000,
            replicated: 1 << 30,
            many: 3_000,
            of_controller: 10_000,
            idle_seconds: 30,
            members: 500,
            commits: 100_000,
            loaded_groups: 1_000,
            dirty: 1 << 30,
        }
    }

    /// Small enough to see that the bench runs; the figures mean little.
    pub(crate) fn quick() -> Self {
        Self {
            rounds: 1,
            warm_up: 64 << 20,
            large: 256 << 20,
            small: 64 << 20,
            perf_records: 100_000,
            latency_records: 3_000,
            replicated: 128 << 20,
            many: 300,
            of_controller: 1_000,
            idle_seconds: 5,
            members: 50,
            commits: 4_000,
            loaded_groups: 20,
            dirty: 64 << 20,
        }
    }
}

/// A broker in `directory` that is measured: nothing runs at times of its own.
pub(crate) fn one_broker(
    kind: BrokerKind,
    directory: &Path,
    zookeeper: &ZooKeeperServer,
) -> BrokerOptions {
    let options = BrokerOptions::new(&directory.join("broker"), &zookeeper.connect());
    let mut options = options
        .of_kind(kind)
        .with("log.retention.check.interval.ms", 3_600_000);
    options.java_options = JAVA_OPTIONS.map(str::to_owned).to_vec();
    options
}

/// Starts a broker of `kind` on nothing, loads it stage by stage, and reports every figure to `note`.
pub(crate) fn run(
    kind: BrokerKind,
    sizes: &Sizes,
    rows: &Rows,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    use Figure::{
        LatencyP50, LatencyP99, LatencyP999, MemoryIdle, MemoryLoaded, Size, Start, StartAfterKill,
    };
    let directory = tempfile::tempdir()?;
    let zookeeper = ZooKeeperServer::start()?;
    let options = one_broker(kind, directory.path(), &zookeeper);
    let start = Instant::now();
    let mut broker = options.start()?;
    note(Start, start.elapsed().as_secs_f64());
    note(Size, program_bytes(kind)? / MIB);
    if rows.want(&[MemoryIdle]) {
        std::thread::sleep(SETTLE);
        note(MemoryIdle, memory(&mut broker, "VmRSS")?);
    }
    load_stages(&mut broker, sizes, rows, note)?;
    if rows.want(&[LatencyP50, LatencyP99, LatencyP999, MemoryLoaded]) {
        let latency = latency(&options.address(), sizes)?;
        note(LatencyP50, latency.p50_ms);
        note(LatencyP99, latency.p99_ms);
        note(LatencyP999, latency.p999_ms);
    }
    if rows.want(&[MemoryLoaded]) {
        note(MemoryLoaded, memory(&mut broker, "VmHWM")?);
    }
    if rows.want(&[StartAfterKill]) {
        broker.kill();
        wait_for_registration_to_go(kind);
        let start = Instant::now();
        broker = options.start()?;
        note(StartAfterKill, start.elapsed().as_secs_f64());
    }
    broker.stop()
}

/// Produce and consume, at full speed.
fn load_stages(
    broker: &mut Broker,
    sizes: &Sizes,
    rows: &Rows,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    use Figure::{
        ConsumeCpu, ConsumeThroughput, MemoryLoaded, PerfToolCpu, PerfToolThroughput, ProduceCpu,
        ProduceThroughput, SmallRecordCpu, SmallRecordThroughput,
    };
    let address = broker.address();
    let loaded = rows.want(&[MemoryLoaded]);
    let consumes = loaded || rows.want(&[ConsumeCpu, ConsumeThroughput]);
    let produces = consumes || rows.want(&[ProduceCpu, ProduceThroughput]);
    if produces || rows.want(&[SmallRecordCpu, SmallRecordThroughput]) {
        load_with(&address, "warm-up", 1024, sizes.warm_up)?;
    }
    let mut produced_records = 0;
    if produces {
        let (cpu, produced) = cost(broker, || load_with(&address, "large", 1024, sizes.large))?;
        note(ProduceCpu, cpu / (produced.bytes as f64 / GIB));
        note(
            ProduceThroughput,
            produced.bytes as f64 / MIB / produced.seconds,
        );
        produced_records = i64::try_from(produced.records)?;
    }
    if loaded || rows.want(&[SmallRecordCpu, SmallRecordThroughput]) {
        let (cpu, small) = cost(broker, || load_with(&address, "small", 100, sizes.small))?;
        note(SmallRecordCpu, cpu * 1e6 / small.records as f64);
        note(
            SmallRecordThroughput,
            small.records as f64 / 1e3 / small.seconds,
        );
    }
    if consumes {
        let (cpu, consumed) = cost(broker, || {
            load::consume(&address, "large", 0, 0, produced_records, 1 << 20)
        })?;
        note(ConsumeCpu, cpu / (consumed.bytes as f64 / GIB));
        note(
            ConsumeThroughput,
            consumed.bytes as f64 / MIB / consumed.seconds,
        );
    }
    if loaded || rows.want(&[PerfToolThroughput, PerfToolCpu]) {
        let (cpu, rate) = cost(broker, || perf_tool(&address, sizes.perf_records))?;
        note(PerfToolThroughput, rate);
        note(
            PerfToolCpu,
            cpu / (sizes.perf_records as f64 * 1024.0 / GIB),
        );
    }
    Ok(())
}

fn latency(address: &str, sizes: &Sizes) -> Result<load::Latency> {
    load::ensure_topic(address, "latency", 1)?;
    let warm = sizes.latency_records / 10;
    load::latency(address, "latency", 0, warm, 100, 1000.0)?;
    let from = i64::try_from(warm)?;
    load::latency(address, "latency", from, sizes.latency_records, 100, 1000.0)
}

fn load_with(
    address: &str,
    topic: &str,
    record_size: usize,
    total_bytes: u64,
) -> Result<load::Throughput> {
    load::ensure_topic(address, topic, 1)?;
    let what = Produce {
        topic: topic.to_owned(),
        partitions: 1,
        record_size,
        records_per_batch: (100 << 10) / record_size,
        total_bytes,
        connections: 1,
        in_flight: 5,
        acks: -1,
    };
    load::produce(address, &what)
}

/// Megabytes a second as `kafka-producer-perf-test` measures them.
fn perf_tool(address: &str, records: u64) -> Result<f64> {
    load::ensure_topic(address, "perf", 1)?;
    let output = kafka_java(&["-Xmx512m"])
        .args([
            "org.apache.kafka.tools.ProducerPerformance",
            "--topic",
            "perf",
        ])
        .args(["--record-size", "1024", "--throughput", "-1"])
        .args(["--num-records", &records.to_string()])
        .args([
            "--producer-props",
            "acks=all",
            "batch.size=65536",
            "linger.ms=5",
        ])
        .arg(format!("bootstrap.servers={address}"))
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = text.lines().last().unwrap_or_default();
    let rate = last
        .split('(')
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    rate.and_then(|rate| rate.parse().ok())
        .with_context(|| format!("no rate in `{last}`"))
}

/// Kafka refuses to start while the znode of its former life is there; ours does not mind.
pub(crate) fn wait_for_registration_to_go(kind: BrokerKind) {
    if kind == BrokerKind::Kafka {
        std::thread::sleep(std::time::Duration::from_secs(8));
    }
}

/// CPU seconds (user and system) that the broker spends while `work` is done.
pub(crate) fn cost<T>(broker: &mut Broker, work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let before = cpu_seconds(broker)?;
    let outcome = work()?;
    Ok((cpu_seconds(broker)? - before, outcome))
}

pub(crate) fn cpu_seconds(broker: &mut Broker) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", broker.process().id()))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| {
        fields
            .split_whitespace()
            .nth(at)
            .and_then(|n| n.parse::<f64>().ok())
    };
    let (user, system) = ticks(11).zip(ticks(12)).context("no times in /proc")?;
    Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

/// A memory figure of `/proc/<pid>/status` in MiB.
pub(crate) fn memory(broker: &mut Broker, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.process().id()))?;
    let line = status
        .lines()
        .find(|line| line.starts_with(key))
        .context("no memory in /proc")?;
    let kib: f64 = line.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok(kib / 1024.0)
}

fn program_bytes(kind: BrokerKind) -> Result<f64> {
    match kind {
        BrokerKind::Barnabas => Ok(fs::metadata(broker_binary())?.len() as f64),
        BrokerKind::Kafka => {
            let mut bytes = 0;
            for entry in fs::read_dir(test_tool("kafka"))? {
                bytes += entry?.metadata()?.len();
            }
            Ok(bytes as f64)
        }
    }
}
