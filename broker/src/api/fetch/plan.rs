//! How a request is to be read: who reads, within which limits and quotas, and how long it waits.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::{BrokerId, TopicId};
use kafka_protocol::messages::FetchRequest;

use super::read::Read;
use super::{SOFT_LIMITS, replica_id};
use crate::api::Context;
use crate::clock;
use crate::metrics::Fetcher;
use crate::replica::PartitionError;
use crate::replica::partition::{Isolation, Partition, ReadFrom, ReadOutcome, ReadRequest, Reader};
use crate::replica::waiters::{WaitFor, Waiter};

/// First version whose clients may read from followers (KIP-392).
const FOLLOWER_READS: i16 = 11;
/// Value of `replica.selector.class` that sends consumers to the replica in their rack.
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// What a response has beside records: for itself, and for each partition.
const RESPONSE_BYTES: usize = 20;
const PARTITION_BYTES: usize = 48;

/// The result of reading all partitions once.
pub(super) struct Pass {
    bytes: usize,
    /// Something happened that the client should know at once.
    is_news: bool,
}

impl Pass {
    pub(super) fn is_enough(&self, plan: &Plan) -> bool {
        self.is_news || self.bytes >= plan.min_bytes
    }
}

/// How a request is to be read.
pub(super) struct Plan {
    pub(super) version: i16,
    reader: Reader,
    min_bytes: usize,
    max_bytes: usize,
    /// Rack and listener of a consumer that may be sent to another replica.
    rack: Option<(String, Arc<str>)>,
    /// Followers have used up what this broker sends to throttled replicas.
    is_quota_exceeded: bool,
}

impl Plan {
    pub(super) fn new(request: &FetchRequest, context: &Context<'_>) -> Self {
        let version = context.version;
        let replica_id = replica_id(request, version);
        let reader = if replica_id >= 0 {
            Reader::Follower {
                id: BrokerId(replica_id),
                log_start_offset: -1,
            }
        } else {
            Reader::Consumer {
                isolation: if request.isolation_level == 1 {
                    Isolation::ReadCommitted
                } else {
                    Isolation::ReadUncommitted
                },
                from: if version >= FOLLOWER_READS {
                    ReadFrom::AnyReplica
                } else {
                    ReadFrom::Leader
                },
            }
        };
        let most = context.broker.config.broker().fetch_max_bytes;
        let max_bytes = if version >= SOFT_LIMITS {
            request.max_bytes.min(most)
        } else {
            most
        };
        let is_follower = replica_id >= 0;
        let max_bytes = match context.broker.quotas.fetch.allowance(context.client()) {
            Some(allowance) if !is_follower => max_bytes.min(allowance as i32),
            Some(_) | None => max_bytes,
        };
        let selector = context.broker.config.broker();
        let selector = selector.replica_selector_class.as_deref();
        let is_rack_aware = selector == Some(RACK_AWARE_SELECTOR);
        let may_be_sent_on = is_rack_aware && !is_follower && version >= FOLLOWER_READS;
        let quota = context.broker.replicas.leader_quota();
        Self {
            version,
            reader,
            rack: (may_be_sent_on && !request.rack_id.is_empty()).then(|| {
                let listener = Arc::clone(&context.connection.listener);
                (request.rack_id.to_string(), listener)
            }),
            is_quota_exceeded: is_follower && quota.is_exceeded(clock::now()),
            min_bytes: usize::try_from(request.min_bytes.min(max_bytes)).unwrap_or(0),
            max_bytes: usize::try_from(max_bytes).unwrap_or(0),
        }
    }

    /// Counts what was read against the client's quotas. Returns for how many milliseconds the client is throttled:
    /// then it is not given what was read, and what it did not get is not counted.
    pub(super) fn charge(&self, reads: &[Read], context: &Context<'_>) -> u32 {
        if self.is_follower() {
            context.charge_exempt();
            return 0;
        }
        let quota = &context.broker.quotas.fetch;
        if !quota.is_enabled() {
            return context.charge();
        }
        let now = clock::now().monotonic;
        let with_records = reads.iter().map(Read::bytes).filter(|bytes| *bytes > 0);
        let bytes: usize = with_records.map(|bytes| bytes + PARTITION_BYTES).sum();
        let bytes = (bytes + RESPONSE_BYTES) as f64;
        context
            .call
            .throttle(quota.record(context.client(), bytes, now));
        let throttle_ms = context.charge();
        if throttle_ms > 0 {
            quota.note(context.client(), -bytes, now);
        }
        throttle_ms
    }

    pub(super) fn is_follower(&self) -> bool {
        matches!(self.reader, Reader::Follower { .. })
    }

    pub(super) fn fetcher(&self) -> Fetcher {
        match self.reader {
            Reader::Follower { .. } => Fetcher::Follower,
            Reader::Consumer { .. } => Fetcher::Consumer,
        }
    }

    /// Reads all partitions in order, within the limits of the request.
    pub(super) fn read(&self, reads: &mut [Read]) -> Pass {
        let mut pass = Pass {
            bytes: 0,
            is_news: false,
        };
        let mut left = self.max_bytes;
        let mut minimum_one_batch = self.version >= SOFT_LIMITS;
        for read in reads {
            read.outcome = self.read_one(read, left, minimum_one_batch);
            if self.version >= SOFT_LIMITS
                && let Ok(ReadOutcome { records, .. }) = &mut read.outcome
            {
                // A batch that does not fit is not sent in part, but before version 3 it is.
                records.take_if(|slice| slice.first_batch_incomplete);
            }
            let bytes = read.bytes();
            pass.bytes += bytes;
            pass.is_news |= match &read.outcome {
                Ok(outcome) => {
                    outcome.diverging_epoch.is_some() || outcome.preferred_replica.is_some()
                }
                Err(_) => true,
            };
            minimum_one_batch &= bytes == 0;
            left = left.saturating_sub(bytes);
        }
        pass
    }

    fn read_one(
        &self,
        read: &Read,
        left: usize,
        minimum_one_batch: bool,
    ) -> Result<ReadOutcome, PartitionError> {
        let target = &read.target.target;
        let partition = read.partition.as_ref().map_err(|error| *error)?;
        let preferred_replica = self.rack.as_ref().and_then(|(rack, listener)| {
            partition.preferred_replica(target.fetch_offset, rack, listener)
        });
        // Neither who is sent elsewhere nor who has to wait for the quota is given records.
        let is_empty_handed = preferred_replica.is_some() || self.is_throttled(partition);
        let (left, minimum_one_batch) = if is_empty_handed {
            (0, false)
        } else {
            (left, minimum_one_batch)
        };
        let outcome = partition.read(&ReadRequest {
            topic_id: (!target.topic_id.is_nil()).then_some(TopicId(target.topic_id)),
            fetch_offset: target.fetch_offset,
            max_bytes: usize::try_from(target.max_bytes).unwrap_or(0).min(left),
            minimum_one_batch,
            current_leader_epoch: target.current_leader_epoch,
            last_fetched_epoch: target.last_fetched_epoch,
            reader: self.reader,
        })?;
        Ok(ReadOutcome {
            preferred_replica,
            ..outcome
        })
    }

    /// Whether a follower that is not in sync has to wait because the leader's quota is used up (KIP-73).
    fn is_throttled(&self, partition: &Partition) -> bool {
        let Reader::Follower { id, .. } = self.reader else {
            return false;
        };
        self.is_quota_exceeded
            && partition.is_throttled_as_leader()
            && partition
                .in_sync_replicas()
                .is_some_and(|isr| !isr.contains(&id))
    }

    /// Tells the partitions how far a follower has got. Kafka: only after the first read of a fetch.
    pub(super) fn note_follower(&self, reads: &[Read], now: barnabas_core::time::Now) {
        let Reader::Follower { id, .. } = self.reader else {
            return;
        };
        for read in reads {
            if let (Ok(partition), Ok(outcome)) = (&read.partition, &read.outcome)
                && outcome.diverging_epoch.is_none()
            {
                let target = &read.target.target;
                partition.follower_fetched(
                    id,
                    outcome.leader_epoch,
                    target.fetch_offset,
                    target.log_start_offset,
                    outcome.log_end_offset,
                    now,
                );
            }
        }
    }

    /// Waits until there is enough to read or the time is over, and reads again.
    pub(super) async fn wait(&self, reads: &mut [Read], longest: Duration) {
        let deadline = tokio::time::Instant::now() + longest;
        let wait_for = if self.is_follower() {
            WaitFor::AppendedBytes
        } else {
            WaitFor::CommittedBytes
        };
        let waiter = Waiter::new(self.min_bytes);
        let registrations: Vec<_> = reads
            .iter()
            .filter_map(|read| read.partition.as_ref().ok())
            .map(|partition| partition.wait(wait_for, &waiter))
            .collect();
        // What moved before the registration woke nobody.
        let mut is_due = reads.iter().any(|read| read.has_moved(self.reader));
        loop {
            let is_over = !is_due
                && tokio::time::timeout_at(deadline, waiter.woken())
                    .await
                    .is_err();
            is_due = false;
            waiter.expect(self.min_bytes);
            let pass = self.read(reads);
            if is_over || pass.is_enough(self) {
                break;
            }
            waiter.credit(pass.bytes);
        }
        drop(registrations);
    }
}
