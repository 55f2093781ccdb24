//! A producer and a consumer that prove what a cluster promises while it is being hurt.
//!
//! One idempotent producer a partition sends numbered records with acks=all, one batch at a time, and tries each
//! again until it is acknowledged, as Kafka's own client does: new metadata after every surprise, another broker
//! when one is gone. What was acknowledged, where and when, is the oracle. A consumer follows each partition
//! meanwhile and must see every number once and in order; at the end the whole log is read again and compared
//! with the oracle.

mod cluster_view;
mod consumer;
mod producer;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use barnabas_core::records::Record;

pub use cluster_view::{ClusterView, Leader, PartitionView, TopicPlan, create_topic};

use crate::wait;

/// How hard the verifier works, and how patient it is.
#[derive(Clone, Debug)]
pub struct VerifierOptions {
    /// Brokers to ask for metadata, `host:port`.
    pub bootstrap: Vec<String>,
    pub topic: String,
    pub partitions: i32,
    pub records_per_batch: usize,
    /// Between an acknowledgement and the next batch.
    pub pause: Duration,
    /// `request.timeout.ms` of the client.
    pub request_timeout: Duration,
    /// Between two attempts, as `retry.backoff.ms`.
    pub retry_backoff: Duration,
    /// How long a batch may wait for its acknowledgement before the test has failed.
    pub delivery_timeout: Duration,
}

impl VerifierOptions {
    /// With the timeouts of Kafka's producer, except that nothing is given up for two minutes.
    pub fn new(bootstrap: Vec<String>, topic: &str, partitions: i32) -> Self {
        Self {
            bootstrap,
            topic: topic.to_owned(),
            partitions,
            records_per_batch: 10,
            pause: Duration::from_millis(2),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A batch that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    at: Instant,
    first_number: i64,
    /// `None`: the broker only said that it has the batch already.
    base_offset: Option<i64>,
}

/// What one partition's threads have to say.
#[derive(Debug, Default)]
struct PartitionJournal {
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// Records that the following consumer has seen.
    consumed: AtomicI64,
    consumed_at: Mutex<Vec<Instant>>,
}

impl PartitionJournal {
    fn acknowledge(&self, acknowledged: Acknowledged) {
        lock(&self.acknowledged).push(acknowledged);
    }
}

/// Runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Verifier {
    options: VerifierOptions,
    stop_producing: Arc<AtomicBool>,
    stop_consuming: Arc<AtomicBool>,
    journals: Vec<Arc<PartitionJournal>>,
    producers: Vec<JoinHandle<Result<()>>>,
    consumers: Vec<JoinHandle<Result<()>>>,
}

/// What a run has shown.
#[derive(Clone, Copy, Debug)]
pub struct Verified {
    /// Records acknowledged, all of which were found once and in order.
    pub records: i64,
    /// The longest time in which a partition had no acknowledgement.
    pub longest_gap: Duration,
}

impl Verifier {
    /// Starts on a topic that exists.
    pub fn start(options: VerifierOptions) -> Verifier {
        let stop_producing = Arc::new(AtomicBool::new(false));
        let stop_consuming = Arc::new(AtomicBool::new(false));
        let journals: Vec<Arc<PartitionJournal>> = (0..options.partitions)
            .map(|_| Arc::new(PartitionJournal::default()))
            .collect();
        let spawn = |stop: &Arc<AtomicBool>,
                     work: fn(
            &VerifierOptions,
            i32,
            &AtomicBool,
            &PartitionJournal,
        ) -> Result<()>| {
            (0..)
                .zip(&journals)
                .map(|(partition, journal)| {
                    let (options, stop, journal) = (options.clone(), stop.clone(), journal.clone());
                    std::thread::spawn(move || work(&options, partition, &stop, &journal))
                })
                .collect::<Vec<_>>()
        };
        let producers = spawn(&stop_producing, producer::produce);
        let consumers = spawn(&stop_consuming, consumer::follow);
        Verifier {
            options,
            stop_producing,
            stop_consuming,
            journals,
            producers,
            consumers,
        }
    }

    /// Waits until every partition has acknowledged `batches` more batches than now.
    pub fn wait_for_progress(&self, batches: usize, patience: Duration) -> Result<()> {
        let all: Vec<i32> = (0..self.options.partitions).collect();
        self.wait_for_progress_of(&all, batches, patience)
    }

    /// Waits until each of the partitions has acknowledged `batches` more batches than now.
    pub fn wait_for_progress_of(
        &self,
        partitions: &[i32],
        batches: usize,
        patience: Duration,
    ) -> Result<()> {
        let counts = || -> Vec<usize> {
            let journals = partitions
                .iter()
                .map(|partition| &self.journals[*partition as usize]);
            journals
                .map(|journal| lock(&journal.acknowledged).len())
                .collect()
        };
        let start = counts();
        let done = wait::until(patience, || {
            let mut threads = self.producers.iter().chain(&self.consumers);
            if threads.any(JoinHandle::is_finished) {
                return Some(false);
            }
            let mut progress = start.iter().zip(counts());
            progress
                .all(|(before, now)| now >= before + batches)
                .then_some(true)
        });
        match done {
            Some(true) => Ok(()),
            Some(false) => bail!("a producer or consumer ended early: stop() says why"),
            None => bail!(
                "not {batches} more batches for partitions {partitions:?} in {patience:?}: {start:?} then, {:?} now",
                counts()
            ),
        }
    }

    /// The longest time without an acknowledgement in any partition since `since`, up to now.
    pub fn longest_gap(&self, since: Instant) -> Duration {
        let now = Instant::now();
        let gaps = self.journals.iter().map(|journal| {
            let times = lock(&journal.acknowledged);
            longest(times.iter().map(|one| one.at), since, now)
        });
        gaps.max().unwrap_or_default()
    }

    /// The longest time without news for a consumer in any partition since `since`, up to now.
    pub fn longest_consumer_gap(&self, since: Instant) -> Duration {
        let now = Instant::now();
        let gaps = self.journals.iter().map(|journal| {
            let times = lock(&journal.consumed_at);
            longest(times.iter().copied(), since, now)
        });
        gaps.max().unwrap_or_default()
    }

    /// Stops once everything sent is acknowledged, reads all back, and compares it with what was acknowledged.
    pub fn stop(mut self) -> Result<Verified> {
        self.stop_producing.store(true, Ordering::Release);
        for producer in self.producers.drain(..) {
            join(producer, "producer")?;
        }
        let records_per_batch = self.options.records_per_batch as i64;
        let expected: Vec<i64> = self
            .journals
            .iter()
            .map(|journal| lock(&journal.acknowledged).len() as i64 * records_per_batch)
            .collect();
        // The followers must get to the end by themselves.
        let caught_up = wait::until(self.options.delivery_timeout, || {
            let mut journals = self.journals.iter().zip(&expected);
            let is_done = journals
                .all(|(journal, expected)| journal.consumed.load(Ordering::Acquire) >= *expected);
            (is_done || self.consumers.iter().any(JoinHandle::is_finished)).then_some(())
        });
        self.stop_consuming.store(true, Ordering::Release);
        for consumer in self.consumers.drain(..) {
            join(consumer, "consumer")?;
        }
        ensure!(caught_up.is_some(), "the consumers did not get to the end");
        for (partition, journal) in (0..).zip(&self.journals) {
            let records = consumer::read_all(&self.options, partition)?;
            check(partition, &records, journal, records_per_batch)?;
        }
        let start = self
            .journals
            .iter()
            .filter_map(|journal| lock(&journal.acknowledged).first().map(|one| one.at))
            .min()
            .unwrap_or_else(Instant::now);
        let longest_gap = self.journals.iter().map(|journal| {
            let times = lock(&journal.acknowledged);
            let last = times.last().map_or(start, |one| one.at);
            longest(times.iter().map(|one| one.at), start, last)
        });
        Ok(Verified {
            records: expected.iter().sum(),
            longest_gap: longest_gap.max().unwrap_or_default(),
        })
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.stop_producing.store(true, Ordering::Release);
        self.stop_consuming.store(true, Ordering::Release);
    }
}

fn join(thread: JoinHandle<Result<()>>, what: &str) -> Result<()> {
    thread
        .join()
        .map_err(|_| anyhow!("a {what} panicked"))?
        .map_err(|error| error.context(format!("a {what} failed")))
}

fn longest(times: impl Iterator<Item = Instant>, since: Instant, until: Instant) -> Duration {
    let mut last = since;
    let mut longest = Duration::ZERO;
    for at in times.filter(|at| *at >= since).chain([until]) {
        longest = longest.max(at.saturating_duration_since(last));
        last = at;
    }
    longest
}

/// Every number once and in order, and every acknowledged batch at the offset that was acknowledged.
fn check(
    partition: i32,
    records: &[Record],
    journal: &PartitionJournal,
    records_per_batch: i64,
) -> Result<()> {
    let numbers: Vec<(i64, i64)> = records
        .iter()
        .map(|record| Ok((record.offset, producer::number_of(record)?)))
        .collect::<Result<_>>()?;
    for (expected, (offset, number)) in (0..).zip(&numbers) {
        ensure!(
            *number == expected,
            "partition {partition}: record {number} at offset {offset} where {expected} belongs"
        );
    }
    for acknowledged in lock(&journal.acknowledged).iter() {
        let first = acknowledged.first_number;
        let last = first + records_per_batch - 1;
        ensure!(
            (last as usize) < numbers.len(),
            "partition {partition}: records {first} to {last} were acknowledged and are lost; the log ends with {}",
            numbers.len()
        );
        if let Some(base_offset) = acknowledged.base_offset {
            let (offset, _) = numbers[first as usize];
            ensure!(
                offset == base_offset,
                "partition {partition}: record {first} is at offset {offset}, acknowledged was {base_offset}"
            );
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, number: i64) -> Record {
        Record {
            offset,
            timestamp: 0,
            sequence: 0,
            key: None,
            value: Some(producer::value_of(number).into()),
            headers: barnabas_core::records::Headers::default(),
        }
    }

    fn journal(acknowledged: &[(i64, Option<i64>)]) -> PartitionJournal {
        let journal = PartitionJournal::default();
        for (first_number, base_offset) in acknowledged {
            journal.acknowledge(Acknowledged {
                at: Instant::now(),
                first_number: *first_number,
                base_offset: *base_offset,
            });
        }
        journal
    }

    #[test]
    fn what_is_lost_doubled_or_elsewhere_is_told() {
        let log = [record(0, 0), record(1, 1), record(2, 2), record(3, 3)];
        let told = |log: &[Record], acknowledged: &[(i64, Option<i64>)]| {
            check(7, log, &journal(acknowledged), 2)
                .map_err(|error| error.to_string())
                .err()
        };
        assert_eq!(told(&log, &[(0, Some(0)), (2, Some(2))]), None);
        assert_eq!(told(&log, &[(0, Some(0))]), None, "more than acknowledged");
        assert_eq!(told(&log, &[(2, None)]), None);
        let lost = told(&log[..3], &[(2, Some(2))]).unwrap();
        assert!(lost.contains("records 2 to 3 were acknowledged and are lost"));
        let elsewhere = told(&log, &[(2, Some(5))]).unwrap();
        assert!(elsewhere.contains("acknowledged was 5"), "{elsewhere}");
        let doubled = told(&[record(0, 0), record(1, 0)], &[]).unwrap();
        assert!(
            doubled.contains("record 0 at offset 1 where 1 belongs"),
            "{doubled}"
        );
    }

    #[test]
    fn the_time_before_the_first_and_after_the_last_counts() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let gap = |times: &[u64], until| longest(times.iter().map(|ms| at(*ms)), at(10), at(until));
        assert_eq!(gap(&[], 50), Duration::from_millis(40));
        assert_eq!(gap(&[5, 20, 45], 50), Duration::from_millis(25));
        assert_eq!(gap(&[20], 90), Duration::from_millis(70));
    }
}
