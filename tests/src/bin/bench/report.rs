//! The figures of a run: per figure and broker the median over the rounds, and their ratio.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use barnabas_tests::broker::BrokerKind;
use serde_json::json;

/// The rows that were asked for.
pub(crate) struct Rows(Vec<Figure>);

impl Rows {
    /// A word chooses the rows whose name is the word or begins with it; no word chooses all.
    pub(crate) fn chosen(words: &[String]) -> anyhow::Result<Self> {
        let mut rows = Vec::new();
        for word in words {
            let group = format!("{word}-");
            let is_meant =
                |figure: &Figure| figure.name() == word || figure.name().starts_with(&group);
            let before = rows.len();
            rows.extend(Figure::ALL.into_iter().filter(is_meant));
            anyhow::ensure!(
                rows.len() > before,
                "there is no row `{word}`; the rows are {}",
                Figure::ALL.map(Figure::name).join(", ")
            );
        }
        Ok(if rows.is_empty() {
            Self(Figure::ALL.to_vec())
        } else {
            Self(rows)
        })
    }

    /// Whether any of these was asked for.
    pub(crate) fn want(&self, figures: &[Figure]) -> bool {
        figures.iter().any(|figure| self.0.contains(figure))
    }
}

/// What is measured, in the order of the table. All are "less is better" except throughput
/// and offset commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    ProduceCpu,
    ProduceThroughput,
    SmallRecordCpu,
    SmallRecordThroughput,
    ConsumeCpu,
    ConsumeThroughput,
    PerfToolThroughput,
    PerfToolCpu,
    LatencyP50,
    LatencyP99,
    LatencyP999,
    MemoryIdle,
    MemoryLoaded,
    Start,
    StartAfterKill,
    Size,
    ReplicatedCpu,
    ReplicatedThroughput,
    FailOverAfterKill,
    FailOverAtStop,
    ManyInSync,
    ManyMemory,
    ManyIdleCpu,
    ManyRestart,
    ControllerFailOver,
    JoinStorm,
    OffsetCommits,
    OffsetsLoad,
    CleanerCpu,
    CleanerThroughput,
}

impl Figure {
    pub(crate) const ALL: [Figure; 30] = [
        Figure::ProduceCpu,
        Figure::ProduceThroughput,
        Figure::SmallRecordCpu,
        Figure::SmallRecordThroughput,
        Figure::ConsumeCpu,
        Figure::ConsumeThroughput,
        Figure::PerfToolThroughput,
        Figure::PerfToolCpu,
        Figure::LatencyP50,
        Figure::LatencyP99,
        Figure::LatencyP999,
        Figure::MemoryIdle,
        Figure::MemoryLoaded,
        Figure::Start,
        Figure::StartAfterKill,
        Figure::Size,
        Figure::ReplicatedCpu,
        Figure::ReplicatedThroughput,
        Figure::FailOverAfterKill,
        Figure::FailOverAtStop,
        Figure::ManyInSync,
        Figure::ManyMemory,
        Figure::ManyIdleCpu,
        Figure::ManyRestart,
        Figure::ControllerFailOver,
        Figure::JoinStorm,
        Figure::OffsetCommits,
        Figure::OffsetsLoad,
        Figure::CleanerCpu,
        Figure::CleanerThroughput,
    ];

    /// What the row is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Figure::ProduceCpu => "produce-cpu",
            Figure::ProduceThroughput => "produce-throughput",
            Figure::SmallRecordCpu => "small-cpu",
            Figure::SmallRecordThroughput => "small-throughput",
            Figure::ConsumeCpu => "consume-cpu",
            Figure::ConsumeThroughput => "consume-throughput",
            Figure::PerfToolThroughput => "perf-throughput",
            Figure::PerfToolCpu => "perf-cpu",
            Figure::LatencyP50 => "latency-p50",
            Figure::LatencyP99 => "latency-p99",
            Figure::LatencyP999 => "latency-p999",
            Figure::MemoryIdle => "memory-idle",
            Figure::MemoryLoaded => "memory-loaded",
            Figure::Start => "start",
            Figure::StartAfterKill => "start-after-kill",
            Figure::Size => "size",
            Figure::ReplicatedCpu => "replicated-cpu",
            Figure::ReplicatedThroughput => "replicated-throughput",
            Figure::FailOverAfterKill => "failover-kill",
            Figure::FailOverAtStop => "failover-stop",
            Figure::ManyInSync => "many-in-sync",
            Figure::ManyMemory => "many-memory",
            Figure::ManyIdleCpu => "many-idle-cpu",
            Figure::ManyRestart => "many-restart",
            Figure::ControllerFailOver => "controller-failover",
            Figure::JoinStorm => "groups-join-storm",
            Figure::OffsetCommits => "groups-commits",
            Figure::OffsetsLoad => "groups-load",
            Figure::CleanerCpu => "cleaner-cpu",
            Figure::CleanerThroughput => "cleaner-throughput",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Figure::ProduceCpu => "produce 1 KiB records, acks=all: broker CPU-seconds per GiB",
            Figure::ProduceThroughput => "produce 1 KiB records, acks=all: MiB/s",
            Figure::SmallRecordCpu => "produce 100 B records: broker CPU microseconds per record",
            Figure::SmallRecordThroughput => "produce 100 B records: thousand records/s",
            Figure::ConsumeCpu => "consume: broker CPU-seconds per GiB",
            Figure::ConsumeThroughput => "consume: MiB/s",
            Figure::PerfToolThroughput => "Kafka's producer perf tool, 1 KiB, acks=all: MiB/s",
            Figure::PerfToolCpu => "Kafka's producer perf tool: broker CPU-seconds per GiB",
            Figure::LatencyP50 => "end to end latency p50, ms",
            Figure::LatencyP99 => "end to end latency p99, ms",
            Figure::LatencyP999 => "end to end latency p99.9, ms",
            Figure::MemoryIdle => "resident memory idle, MiB",
            Figure::MemoryLoaded => "resident memory loaded (highest), MiB",
            Figure::Start => "start until it serves, s",
            Figure::StartAfterKill => "start after kill -9 under load, s",
            Figure::Size => "program on disk, MiB",
            Figure::ReplicatedCpu => "3 brokers, RF 3, acks=all: CPU-seconds per GiB, all brokers",
            Figure::ReplicatedThroughput => "3 brokers, RF 3, acks=all: MiB/s",
            Figure::FailOverAfterKill => "leader killed with -9: s without acknowledgement",
            Figure::FailOverAtStop => "leader stopped with SIGTERM: s without acknowledgement",
            Figure::ManyInSync => "create 3,000 partitions x 3 until all are in sync, s",
            Figure::ManyMemory => "the same: resident memory of the largest broker, MiB",
            Figure::ManyIdleCpu => "the same, idle: % of a core of the busiest broker",
            Figure::ManyRestart => "the same: broker killed with -9, start until in sync, s",
            Figure::ControllerFailOver => {
                "controller of 10,000 partitions killed: s until all is told"
            }
            Figure::JoinStorm => "500 members join at once, 1,000 partitions: s until stable",
            Figure::OffsetCommits => "offset commits: thousands per CPU-second of the broker",
            Figure::OffsetsLoad => "load 1,000,000 offsets after a restart: s until all are served",
            Figure::CleanerCpu => "clean a compacted log: broker CPU-seconds per GiB",
            Figure::CleanerThroughput => "clean a compacted log: MiB/s",
        }
    }
}

#[derive(Default)]
pub(crate) struct Report {
    kafka: BTreeMap<Figure, Vec<f64>>,
    barnabas: BTreeMap<Figure, Vec<f64>>,
}

impl Report {
    pub(crate) fn note(&mut self, kind: BrokerKind, figure: Figure, value: f64) {
        let figures = match kind {
            BrokerKind::Kafka => &mut self.kafka,
            BrokerKind::Barnabas => &mut self.barnabas,
        };
        figures.entry(figure).or_default().push(value);
    }

    /// One row a figure: Kafka, ours, ours divided by Kafka's.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{}\n{:<62} {:>10} {:>10} {:>7}\n",
            machine(),
            "",
            "Kafka",
            "Barnabas",
            "ratio"
        );
        for (figure, kafka, ours) in self.rows() {
            let _ = writeln!(
                table,
                "{:<62} {kafka:>10.2} {ours:>10.2} {:>7.2}",
                figure.title(),
                ours / kafka
            );
        }
        table
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<_> = self
            .rows()
            .map(|(figure, kafka, ours)| {
                json!({
                    "figure": figure.title(),
                    "kafka": kafka,
                    "barnabas": ours,
                    "ratio": ours / kafka,
                    "kafka_rounds": self.kafka[&figure],
                    "barnabas_rounds": self.barnabas[&figure],
                })
            })
            .collect();
        json!({ "machine": machine(), "rows": rows }).to_string()
    }

    fn rows(&self) -> impl Iterator<Item = (Figure, f64, f64)> {
        self.kafka.iter().filter_map(|(figure, kafka)| {
            Some((*figure, median(kafka), median(self.barnabas.get(figure)?)))
        })
    }
}

/// What the figures depend on besides the brokers. BBR paces even what stays on the machine, with a
/// timer for every few packets: consuming costs a broker two or three times as much in some rounds.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{cores} cores, Linux {}, TCP congestion control {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/sys/net/ipv4/tcp_congestion_control").trim()
    )
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
