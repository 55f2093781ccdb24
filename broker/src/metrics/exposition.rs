//! The text that Prometheus reads (exposition format 0.0.4).

use std::fmt::{Display, Write as _};

use super::Histogram;

/// Collects metrics as text; samples of one name must come one after the other.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    last_name: String,
}

type Labels<'a> = [(&'a str, &'a str)];

impl Exposition {
    /// Writes a number that only grows; `name` ends in `_total`.
    pub fn counter(&mut self, name: &str, labels: &Labels<'_>, value: u64) {
        self.announce(name, "counter");
        self.sample(name, labels, None, value);
    }

    /// Writes seconds that only grow; `name` ends in `_total`.
    pub fn counter_seconds(&mut self, name: &str, seconds: f64) {
        self.announce(name, "counter");
        self.sample(name, &[], None, seconds);
    }

    /// Writes a number that goes up and down.
    pub fn gauge(&mut self, name: &str, labels: &Labels<'_>, value: impl Display) {
        self.announce(name, "gauge");
        self.sample(name, labels, None, value);
    }

    /// Writes counts by duration; bounds and sum are in milliseconds.
    pub fn histogram(&mut self, name: &str, labels: &Labels<'_>, histogram: &Histogram) {
        self.announce(name, "histogram");
        let mut count = 0;
        for (bound, cumulative) in histogram.cumulative() {
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| bound.to_string());
            let bucket = format!("{name}_bucket");
            self.sample(&bucket, labels, Some(&bound), cumulative);
            count = cumulative;
        }
        self.sample(&format!("{name}_sum"), labels, None, histogram.sum_ms());
        self.sample(&format!("{name}_count"), labels, None, count);
    }

    /// Writes how often something happened and the sum of its sizes.
    pub fn summary(&mut self, name: &str, labels: &Labels<'_>, sum: u64, count: u64) {
        self.announce(name, "summary");
        self.sample(&format!("{name}_sum"), labels, None, sum);
        self.sample(&format!("{name}_count"), labels, None, count);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    fn announce(&mut self, name: &str, kind: &str) {
        if self.last_name != name {
            name.clone_into(&mut self.last_name);
            let _ = writeln!(self.text, "# TYPE {name} {kind}");
        }
    }

    fn sample(&mut self, name: &str, labels: &Labels<'_>, le: Option<&str>, value: impl Display) {
        self.text.push_str(name);
        let labels = labels.iter().copied().chain(le.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (label, text) in labels {
            self.text.push(separator);
            separator = ',';
            let _ = write!(self.text, "{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;

    use super::*;

    #[test]
    fn samples_of_a_name_share_a_type_line() {
        let mut out = Exposition::default();
        out.counter("a_total", &[("topic", "x\"y\\z")], 1);
        out.counter("a_total", &[("topic", "t"), ("partition", "0")], 2);
        out.gauge("b", &[], 2.5);
        expect![[r#"
            # TYPE a_total counter
            a_total{topic="x\"y\\z"} 1
            a_total{topic="t",partition="0"} 2
            # TYPE b gauge
            b 2.5
        "#]]
        .assert_eq(&out.into_text());
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let histogram = Histogram::default();
        for micros in [50, 100, 101, 40_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut out = Exposition::default();
        out.histogram("h", &[], &histogram);
        let text = out.into_text();
        let picked: Vec<_> = text
            .lines()
            .filter(|line| {
                ["0.1\"", "0.25\"", "30000\"", "Inf\"", "sum", "count"]
                    .iter()
                    .any(|part| line.contains(part))
            })
            .collect();
        expect![[r#"
            h_bucket{le="0.1"} 2
            h_bucket{le="0.25"} 3
            h_bucket{le="30000"} 3
            h_bucket{le="+Inf"} 4
            h_sum 40000.251
            h_count 4"#]]
        .assert_eq(&picked.join("\n"));
    }
}
