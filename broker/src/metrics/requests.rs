//! What becomes of requests, by API (`kafka.network:type=RequestMetrics`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Counter, Exposition, Histogram};

/// Highest API key that is counted, and how many versions of each and error codes (from -1 on).
const API_KEYS: usize = 96;
const VERSIONS: usize = 24;
const ERROR_CODES: usize = 160;

const PREFIX: &str = "kafka_network_requestmetrics";

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimes {
    /// In this broker's hands.
    pub local: Duration,
    /// Waiting for others: replicas, records to come, ZooKeeper.
    pub remote: Duration,
    /// For how long the client was told to wait, after its answer.
    pub throttle: Duration,
    /// Handing the answer to the socket, which a slow client makes long.
    pub response_send: Duration,
}

impl RequestTimes {
    /// From the last byte of the request to the last one of the answer.
    pub fn total(&self) -> Duration {
        self.local + self.remote + self.response_send
    }
}

/// Who fetches: Kafka counts both apart, beside the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetcher {
    Consumer,
    Follower,
}

/// Requests of one API.
#[derive(Debug)]
pub struct RequestMetrics {
    by_version: [AtomicU64; VERSIONS],
    error_codes: OnceLock<Box<[AtomicU64]>>,
    total_time: Histogram,
    local_time: Histogram,
    remote_time: Histogram,
    throttle_time: Histogram,
    response_send_time: Histogram,
    /// Size of requests in bytes, summed.
    pub request_bytes: Counter,
    /// Size of answers in bytes, summed.
    pub response_bytes: Counter,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        Self {
            by_version: [const { AtomicU64::new(0) }; VERSIONS],
            error_codes: OnceLock::new(),
            total_time: Histogram::default(),
            local_time: Histogram::default(),
            remote_time: Histogram::default(),
            throttle_time: Histogram::default(),
            response_send_time: Histogram::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
        }
    }
}

impl RequestMetrics {
    /// Counts a request that is over and done with.
    pub fn done(&self, version: i16, times: &RequestTimes) {
        let index = usize::try_from(version).unwrap_or(0).min(VERSIONS - 1);
        self.by_version[index].fetch_add(1, Ordering::Relaxed);
        self.total_time.observe(times.total());
        self.local_time.observe(times.local);
        self.remote_time.observe(times.remote);
        self.throttle_time.observe(times.throttle);
        self.response_send_time.observe(times.response_send);
    }

    /// Counts `times` error codes of one kind in answers (0 is "no error").
    pub fn errors(&self, code: i16, times: u64) {
        let errors = self
            .error_codes
            .get_or_init(|| (0..ERROR_CODES).map(|_| AtomicU64::new(0)).collect());
        let index = usize::try_from(i32::from(code) + 1).unwrap_or(0);
        errors[index.min(ERROR_CODES - 1)].fetch_add(times, Ordering::Relaxed);
    }

    fn versions(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.by_version.iter().enumerate();
        counts
            .map(|(version, count)| (version, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }

    fn error_counts(&self) -> impl Iterator<Item = (i16, u64)> {
        let counts = self
            .error_codes
            .get()
            .into_iter()
            .flat_map(|all| all.iter());
        counts
            .zip(-1_i16..)
            .map(|(count, code)| (code, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
    }
}

/// One of the times of an API's requests.
type Pick = fn(&RequestMetrics) -> &Histogram;

/// Requests of all APIs.
#[derive(Debug)]
pub(super) struct Requests {
    by_key: Vec<RequestMetrics>,
    fetches_of_consumers: RequestMetrics,
    fetches_of_followers: RequestMetrics,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            by_key: (0..API_KEYS).map(|_| RequestMetrics::default()).collect(),
            fetches_of_consumers: RequestMetrics::default(),
            fetches_of_followers: RequestMetrics::default(),
        }
    }
}

impl Requests {
    /// The counts of one API; unknown keys share one place that nobody sees.
    pub(super) fn of(&self, api_key: i16) -> &RequestMetrics {
        let index = usize::try_from(api_key).unwrap_or(API_KEYS);
        &self.by_key[index.min(API_KEYS - 1)]
    }

    pub(super) fn fetched(&self, fetcher: Fetcher, version: i16, times: &RequestTimes) {
        let fetches = match fetcher {
            Fetcher::Consumer => &self.fetches_of_consumers,
            Fetcher::Follower => &self.fetches_of_followers,
        };
        fetches.done(version, times);
    }

    /// Writes the families; `api_name` names an API key, `error_name` an error code.
    pub(super) fn write(
        &self,
        out: &mut Exposition,
        api_name: &impl Fn(i16) -> Option<&'static str>,
        error_name: &impl Fn(i16) -> String,
    ) {
        let by_key = self.by_key.iter().zip(0_i16..);
        let named = by_key.filter_map(|(request, key)| Some((api_name(key)?, request)));
        let fetches = [
            ("FetchConsumer", &self.fetches_of_consumers),
            ("FetchFollower", &self.fetches_of_followers),
        ];
        let named: Vec<_> = named
            .chain(fetches)
            .filter(|(_, request)| request.total_time.count() > 0)
            .collect();
        let family = format!("{PREFIX}_requests_total");
        for (name, request) in &named {
            for (version, count) in request.versions() {
                let labels = [("request", *name), ("version", &version.to_string())];
                out.counter(&family, &labels, count);
            }
        }
        let family = format!("{PREFIX}_errors_total");
        for (name, request) in &named {
            for (code, count) in request.error_counts() {
                let labels = [("request", *name), ("error", &error_name(code))];
                out.counter(&family, &labels, count);
            }
        }
        let times: [(&str, Pick); 5] = [
            ("totaltimems", |request| &request.total_time),
            ("localtimems", |request| &request.local_time),
            ("remotetimems", |request| &request.remote_time),
            ("throttletimems", |request| &request.throttle_time),
            ("responsesendtimems", |request| &request.response_send_time),
        ];
        for (name, pick) in times {
            let family = format!("{PREFIX}_{name}");
            for (request, metrics) in &named {
                out.histogram(&family, &[("request", request)], pick(metrics));
            }
        }
        // There are no queues.
        for name in ["requestqueuetimems", "responsequeuetimems"] {
            let family = format!("{PREFIX}_{name}");
            for (request, metrics) in &named {
                let count = metrics.total_time.count();
                out.summary(&family, &[("request", request)], 0, count);
            }
        }
        let family = format!("{PREFIX}_requestbytes");
        for (request, metrics) in &named {
            let (bytes, count) = (metrics.request_bytes.get(), metrics.total_time.count());
            out.summary(&family, &[("request", request)], bytes, count);
        }
        let family = format!("{PREFIX}_responsebytes_total");
        for (request, metrics) in &named {
            let bytes = metrics.response_bytes.get();
            out.counter(&family, &[("request", request)], bytes);
        }
    }
}
