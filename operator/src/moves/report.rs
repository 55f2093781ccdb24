//! Who is told: events for people, figures for dashboards.

use std::fmt::Write as _;

use barnabas_core::ids::{BrokerId, TopicName};

use super::evidence::BrokerState;
use super::machine::Status;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Cluster,
    Broker(BrokerId),
    Topic(TopicName),
}

/// Something that a person may want to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Unique, in `CamelCase`.
    pub reason: &'static str,
    pub is_warning: bool,
    pub subject: Subject,
    pub message: String,
}

impl Event {
    pub(super) fn normal(reason: &'static str, subject: Subject, message: &str) -> Self {
        Self {
            reason,
            is_warning: false,
            subject,
            message: message.to_owned(),
        }
    }

    pub(super) fn warning(reason: &'static str, subject: Subject, message: &str) -> Self {
        Self {
            is_warning: true,
            ..Self::normal(reason, subject, message)
        }
    }
}

/// Who is told of events.
pub trait Reporter: Send + Sync {
    fn event(&self, event: &Event);
}

/// Into the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogReporter;

impl Reporter for LogReporter {
    fn event(&self, event: &Event) {
        let Event {
            reason,
            subject,
            message,
            ..
        } = event;
        if event.is_warning {
            tracing::warn!(reason, ?subject, "{message}");
        } else {
            tracing::info!(reason, ?subject, "{message}");
        }
    }
}

/// The balancer's figures in Prometheus' text format. `now` is on the monotonic clock.
pub fn metrics(status: &Status, now: std::time::Duration) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    family(
        "barnabas_balance_score",
        "gauge",
        "How balanced the cluster is, 0 to 100; 50 at most while something is broken.",
        &one(status.score as f64),
    );
    let mut states = Vec::new();
    for (id, state) in &status.brokers {
        for known in BrokerState::ALL {
            let labels = format!("{{broker=\"{id}\",state=\"{}\"}}", known.name());
            states.push((labels, f64::from(u8::from(known == *state))));
        }
    }
    family(
        "barnabas_broker_state",
        "gauge",
        "1 for the state that a broker is in.",
        &states,
    );
    family(
        "barnabas_moves_running",
        "gauge",
        "Reassignments of ours that run.",
        &one(status.running.len() as f64),
    );
    family(
        "barnabas_moves_foreign",
        "gauge",
        "Reassignments of others that run.",
        &one(status.foreign as f64),
    );
    let finished = status.finished.iter().map(|((reason, outcome), count)| {
        let labels = format!("{{reason=\"{reason}\",result=\"{}\"}}", outcome.name());
        (labels, *count as f64)
    });
    family(
        "barnabas_moves_total",
        "counter",
        "Reassignments of ours that ended.",
        &finished.collect::<Vec<_>>(),
    );
    let bytes = status.bytes_moved.iter();
    let bytes = bytes.map(|(reason, bytes)| (format!("{{reason=\"{reason}\"}}"), *bytes as f64));
    family(
        "barnabas_move_bytes_total",
        "counter",
        "Bytes of replicas that were moved.",
        &bytes.collect::<Vec<_>>(),
    );
    let remaining: u64 = status
        .running
        .iter()
        .map(|one| one.planned.bytes.saturating_sub(one.bytes_done))
        .chain(status.planned.iter().map(|one| one.bytes))
        .sum();
    family(
        "barnabas_move_bytes_remaining",
        "gauge",
        "Bytes that moves which run or wait have yet to copy.",
        &one(remaining as f64),
    );
    let throttles = status.throttles.iter();
    let throttles = throttles.map(|(id, rate)| (format!("{{broker=\"{id}\"}}"), *rate as f64));
    family(
        "barnabas_throttle_bytes_per_second",
        "gauge",
        "How fast a broker may copy replicas that move, in each direction.",
        &throttles.collect::<Vec<_>>(),
    );
    family(
        "barnabas_plan_duration_seconds",
        "gauge",
        "How long the last planning took.",
        &one(status.plan_seconds),
    );
    let mut waiting = std::collections::BTreeMap::<_, u64>::new();
    for planned in &status.planned {
        *waiting.entry(planned.reason).or_default() += 1;
    }
    let waiting = waiting.iter();
    let waiting =
        waiting.map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), *count as f64));
    family(
        "barnabas_plan_moves",
        "gauge",
        "Moves that wait for their turn.",
        &waiting.collect::<Vec<_>>(),
    );
    family(
        "barnabas_replicas_stuck",
        "gauge",
        "Replicas that ought to move and that no broker can take.",
        &one(status.stuck.len() as f64),
    );
    let deadlines = status.due_at.iter().map(|(id, at)| {
        let left = at.saturating_sub(now).as_secs_f64();
        (format!("{{broker=\"{id}\"}}"), left)
    });
    family(
        "barnabas_heal_deadline_seconds",
        "gauge",
        "How long a broker that is gone is still waited for.",
        &deadlines.collect::<Vec<_>>(),
    );
    text
}
