//! The figures of a run: per figure and broker the median over the rounds, and their ratio.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use barnabas_tests::broker::BrokerKind;
use serde_json::json;

/// What is measured, in the order of the table. All are "less is better" except throughput.
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
}

impl Figure {
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
            "{:<60} {:>10} {:>10} {:>7}\n",
            "", "Kafka", "Barnabas", "ratio"
        );
        for (figure, kafka, ours) in self.rows() {
            let _ = writeln!(
                table,
                "{:<60} {kafka:>10.2} {ours:>10.2} {:>7.2}",
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
        json!(rows).to_string()
    }

    fn rows(&self) -> impl Iterator<Item = (Figure, f64, f64)> {
        self.kafka.iter().filter_map(|(figure, kafka)| {
            Some((*figure, median(kafka), median(self.barnabas.get(figure)?)))
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
