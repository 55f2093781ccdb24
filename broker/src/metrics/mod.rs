//! What the broker counts, under the names that Kafka operators know.
//!
//! A count is one relaxed atomic addition through a handle that the counting part holds: by index for
//! requests, by [`Arc`] for topics. Nothing is looked up by name while requests are served. What can be
//! read off the broker's state (log sizes, leaders) is not counted here but read when metrics are asked for.

mod exposition;
mod histogram;
mod process;
#[cfg(test)]
pub(crate) mod reference;
mod requests;
mod state;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub use exposition::Exposition;
pub use histogram::Histogram;
use requests::Requests;
pub use requests::{Fetcher, RequestMetrics, RequestTimes};
pub use state::write_all;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The present sum.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Traffic of one topic (`kafka.server:type=BrokerTopicMetrics`); the parts that move records hold it.
#[derive(Debug, Default)]
pub struct TopicMetrics {
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    pub bytes_rejected: Counter,
    pub messages_in: Counter,
    pub total_produce_requests: Counter,
    pub total_fetch_requests: Counter,
    pub failed_produce_requests: Counter,
    pub failed_fetch_requests: Counter,
    pub produce_message_conversions: Counter,
    pub fetch_message_conversions: Counter,
    pub invalid_message_crc_records: Counter,
    pub invalid_magic_number_records: Counter,
    pub invalid_offset_or_sequence_records: Counter,
    pub no_key_compacted_topic_records: Counter,
    pub replication_bytes_in: Counter,
    pub replication_bytes_out: Counter,
}

impl TopicMetrics {
    /// Each counter with the name it is shown under.
    fn counters(&self) -> [(&'static str, &Counter); 16] {
        [
            ("bytesin", &self.bytes_in),
            ("bytesout", &self.bytes_out),
            ("bytesrejected", &self.bytes_rejected),
            ("messagesin", &self.messages_in),
            ("totalproducerequests", &self.total_produce_requests),
            ("totalfetchrequests", &self.total_fetch_requests),
            ("failedproducerequests", &self.failed_produce_requests),
            ("failedfetchrequests", &self.failed_fetch_requests),
            (
                "producemessageconversions",
                &self.produce_message_conversions,
            ),
            ("fetchmessageconversions", &self.fetch_message_conversions),
            (
                "invalidmessagecrcrecords",
                &self.invalid_message_crc_records,
            ),
            (
                "invalidmagicnumberrecords",
                &self.invalid_magic_number_records,
            ),
            (
                "invalidoffsetorsequencerecords",
                &self.invalid_offset_or_sequence_records,
            ),
            (
                "nokeycompactedtopicrecords",
                &self.no_key_compacted_topic_records,
            ),
            ("replicationbytesin", &self.replication_bytes_in),
            ("replicationbytesout", &self.replication_bytes_out),
        ]
    }
}

/// Connections of one listener (`kafka.server:type=socket-server-metrics`).
#[derive(Debug, Default)]
pub struct ListenerMetrics {
    pub connections: Gauge,
    pub connections_created: Counter,
    pub connections_closed: Counter,
    /// Refused because of `max.connections*`.
    pub connections_rejected: Counter,
    /// Frames and requests that cost their connection.
    pub protocol_errors: Counter,
    pub authentication_failures: Counter,
}

#[derive(Debug, Default)]
struct Topics {
    live: BTreeMap<Arc<str>, Arc<TopicMetrics>>,
    /// Sums of topics that are gone, so that the totals never go back.
    gone: TopicMetrics,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Requests,
    topics: Mutex<Topics>,
    listeners: Mutex<BTreeMap<String, Arc<ListenerMetrics>>>,
    /// ISR changes that this broker asked for (`kafka.server:type=ReplicaManager`).
    pub isr_shrinks: Counter,
    pub isr_expands: Counter,
    pub failed_isr_updates: Counter,
    /// ZooKeeper session events (`kafka.server:type=SessionExpireListener`).
    pub zookeeper_disconnects: Counter,
    pub zookeeper_sync_connects: Counter,
    pub zookeeper_expires: Counter,
    pub zookeeper_auth_failures: Counter,
}

/// One counter of a listener.
type Pick = fn(&ListenerMetrics) -> &Counter;

impl Metrics {
    /// The counts of one API; unknown keys share one place that nobody sees.
    pub fn request(&self, api_key: i16) -> &RequestMetrics {
        self.requests.of(api_key)
    }

    /// Counts a fetch once more, by who sent it.
    pub fn fetched(&self, fetcher: Fetcher, version: i16, times: &RequestTimes) {
        self.requests.fetched(fetcher, version, times);
    }

    /// The counts of a topic. Takes a lock: ask once and keep the handle.
    pub fn topic(&self, topic: &str) -> Arc<TopicMetrics> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = topics.live.get(topic) {
            return metrics.clone();
        }
        let metrics = Arc::new(TopicMetrics::default());
        topics.live.insert(Arc::from(topic), metrics.clone());
        metrics
    }

    /// Forgets a topic that this broker hosts no longer; the totals keep what it counted.
    pub fn remove_topic(&self, topic: &str) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = topics.live.remove(topic) {
            for ((_, sum), (_, counter)) in topics.gone.counters().iter().zip(metrics.counters()) {
                sum.add(counter.get());
            }
        }
    }

    /// The counts of a listener. Takes a lock: ask once and keep the handle.
    pub fn listener(&self, listener: &str) -> Arc<ListenerMetrics> {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.entry(listener.to_owned()).or_default().clone()
    }

    /// Writes everything that is counted; `api_name` names an API key, `error_name` an error code.
    pub fn write(
        &self,
        out: &mut Exposition,
        api_name: impl Fn(i16) -> Option<&'static str>,
        error_name: impl Fn(i16) -> String,
    ) {
        self.requests.write(out, &api_name, &error_name);
        self.write_topics(out);
        self.write_listeners(out);
        let counters = [
            (
                "kafka_server_replicamanager_isrshrinks_total",
                &self.isr_shrinks,
            ),
            (
                "kafka_server_replicamanager_isrexpands_total",
                &self.isr_expands,
            ),
            (
                "kafka_server_replicamanager_failedisrupdates_total",
                &self.failed_isr_updates,
            ),
            (
                "kafka_server_sessionexpirelistener_zookeeperdisconnects_total",
                &self.zookeeper_disconnects,
            ),
            (
                "kafka_server_sessionexpirelistener_zookeepersyncconnects_total",
                &self.zookeeper_sync_connects,
            ),
            (
                "kafka_server_sessionexpirelistener_zookeeperexpires_total",
                &self.zookeeper_expires,
            ),
            (
                "kafka_server_sessionexpirelistener_zookeeperauthfailures_total",
                &self.zookeeper_auth_failures,
            ),
        ];
        for (name, counter) in counters {
            out.counter(name, &[], counter.get());
        }
    }

    fn write_topics(&self, out: &mut Exposition) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, (name, gone)) in topics.gone.counters().iter().enumerate() {
            let metric = format!("kafka_server_brokertopicmetrics_{name}_total");
            let counts = topics.live.iter();
            let counts: Vec<_> = counts
                .map(|(topic, metrics)| (topic, metrics.counters()[index].1.get()))
                .collect();
            let live: u64 = counts.iter().map(|(_, count)| count).sum();
            out.counter(&metric, &[], gone.get() + live);
            for (topic, count) in counts {
                out.counter(&metric, &[("topic", topic)], count);
            }
        }
    }

    fn write_listeners(&self, out: &mut Exposition) {
        let listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let prefix = "kafka_server_socket_server_metrics";
        for (listener, metrics) in listeners.iter() {
            let name = format!("{prefix}_connection_count");
            out.gauge(&name, &[("listener", listener)], metrics.connections.get());
        }
        let counters: [(&str, Pick); 5] = [
            ("connection_creation", |one| &one.connections_created),
            ("connection_close", |one| &one.connections_closed),
            ("connection_rejected", |one| &one.connections_rejected),
            ("protocol_error", |one| &one.protocol_errors),
            ("failed_authentication", |one| &one.authentication_failures),
        ];
        for (name, pick) in counters {
            for (listener, metrics) in listeners.iter() {
                let name = format!("{prefix}_{name}_total");
                out.counter(&name, &[("listener", listener)], pick(metrics).get());
            }
        }
    }
}
