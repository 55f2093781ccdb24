//! What the operator counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::admin::{AdminError, KafkaError, Observer, error_name};

/// Upper bounds of histograms, in seconds.
const BOUNDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

#[derive(Clone, Debug, Default)]
struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

#[derive(Debug, Default)]
struct Values {
    counters: BTreeMap<(&'static str, String), u64>,
    gauges: BTreeMap<(&'static str, String), f64>,
    histograms: BTreeMap<(&'static str, String), Histogram>,
}

/// All figures; names come with their prefix.
#[derive(Debug, Default)]
pub struct Metrics {
    values: Mutex<Values>,
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n")
    };
    let pairs = pairs.iter();
    let pairs = pairs.map(|(key, value)| format!("{key}=\"{}\"", escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

impl Metrics {
    fn values(&self) -> std::sync::MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a counter.
    pub fn count(&self, name: &'static str, pairs: &[(&str, &str)], amount: u64) {
        *self
            .values()
            .counters
            .entry((name, labels(pairs)))
            .or_default() += amount;
    }

    /// A counter's value.
    pub fn counted(&self, name: &'static str, pairs: &[(&str, &str)]) -> u64 {
        let key = (name, labels(pairs));
        self.values().counters.get(&key).copied().unwrap_or(0)
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, pairs: &[(&str, &str)], value: f64) {
        self.values().gauges.insert((name, labels(pairs)), value);
    }

    /// Forgets a gauge with these labels.
    pub fn unset(&self, name: &'static str, pairs: &[(&str, &str)]) {
        self.values().gauges.remove(&(name, labels(pairs)));
    }

    /// Forgets all gauges of a name, before they are set anew.
    pub fn clear(&self, name: &'static str) {
        self.values().gauges.retain(|(one, _), _| *one != name);
    }

    /// Notes a value of a histogram.
    pub fn observe(&self, name: &'static str, pairs: &[(&str, &str)], value: f64) {
        let mut values = self.values();
        let histogram = values.histograms.entry((name, labels(pairs))).or_default();
        histogram.count += 1;
        histogram.sum += value;
        for (bound, count) in BOUNDS.iter().zip(&mut histogram.counts) {
            *count += u64::from(value <= *bound);
        }
    }

    /// Everything, for a scrape.
    pub fn exposition(&self) -> String {
        let values = self.values();
        let mut text = String::new();
        let mut last = "";
        let mut head = |text: &mut String, name: &'static str, kind: &str| {
            if last != name {
                let _ = writeln!(text, "# TYPE {name} {kind}");
                last = name;
            }
        };
        let braced = |labels: &str| match labels {
            "" => String::new(),
            labels => format!("{{{labels}}}"),
        };
        for ((name, labels), value) in &values.counters {
            head(&mut text, name, "counter");
            let _ = writeln!(text, "{name}{} {value}", braced(labels));
        }
        for ((name, labels), value) in &values.gauges {
            head(&mut text, name, "gauge");
            let _ = writeln!(text, "{name}{} {value}", braced(labels));
        }
        for ((name, labels), histogram) in &values.histograms {
            head(&mut text, name, "histogram");
            let comma = if labels.is_empty() { "" } else { "," };
            for (bound, count) in BOUNDS.iter().zip(histogram.counts) {
                let _ = writeln!(
                    text,
                    "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
                );
            }
            let count = histogram.count;
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "{name}_sum{} {}", braced(labels), histogram.sum);
            let _ = writeln!(text, "{name}_count{} {count}", braced(labels));
        }
        text
    }
}

impl Observer for Metrics {
    fn request(&self, api: i16, took: Duration, error: Option<&AdminError>) {
        let api = api.to_string();
        let pairs = [("api", api.as_str())];
        let name = "barnabas_operator_kafka_request_duration_seconds";
        self.observe(name, &pairs, took.as_secs_f64());
        if let Some(error) = error {
            let error = match error {
                AdminError::Unreachable(_) => "unreachable".to_owned(),
                AdminError::Unanswered { .. } => "unanswered".to_owned(),
                AdminError::Unsupported { .. } => "unsupported".to_owned(),
                AdminError::Refused { error, .. } => error_name(*error),
                AdminError::Authentication { .. } => "authentication".to_owned(),
                AdminError::Malformed { .. } => "malformed".to_owned(),
                AdminError::Options(_) => "options".to_owned(),
            };
            let pairs = [("api", api.as_str()), ("error", error.as_str())];
            self.count("barnabas_operator_kafka_errors_total", &pairs, 1);
        }
    }

    fn item(&self, api: i16, error: KafkaError) {
        let (api, error) = (api.to_string(), error_name(error));
        let pairs = [("api", api.as_str()), ("error", error.as_str())];
        self.count("barnabas_operator_kafka_errors_total", &pairs, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_prometheus_wants_them() {
        let metrics = Metrics::default();
        metrics.count("a_total", &[("x", "1")], 2);
        metrics.count("a_total", &[("x", "\"")], 1);
        metrics.set("b", &[], 0.5);
        metrics.observe("c_seconds", &[], 0.02);
        let text = metrics.exposition();
        assert!(
            text.contains("# TYPE a_total counter\na_total{x=\"1\"} 2\na_total{x=\"\\\"\"} 1\n")
        );
        assert!(text.contains("# TYPE b gauge\nb 0.5\n"));
        assert!(text.contains("c_seconds_bucket{le=\"0.025\"} 1\n"));
        assert!(text.contains("c_seconds_bucket{le=\"0.01\"} 0\n"));
        assert!(text.contains("c_seconds_count 1\n"));
    }
}
