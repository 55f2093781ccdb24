//! From a decision to its completion: markers in all partitions of a transaction, then the record that says so.
//!
//! Each transaction has a task that asks the leaders of its partitions again and again, as long as this broker is the
//! coordinator that it was. What goes to the same broker at the same time goes in one request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_core::transaction::{Completion, Outcome, TransactionError};
use barnabas_core::znodes::TopicAssignment;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::destination::Destination;
use super::metrics::TransactionMetrics;
use super::shard::{Cell, Shard, Step};
use crate::config::LiveConfig;
use crate::coordinator::markers::{Marker, MarkerError, MarkerWriter};
use crate::coordinator::shards::Coordinated as _;
use crate::host;
use crate::metadata_cache::MetadataCache;
use crate::peer::PeerNetwork;
use crate::peer::markers::MarkerResults;
use crate::zookeeper::{TopicStoreError, ZooKeeper};

/// Before the first retry, and at most between two.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What markers are written with.
pub struct CompleterOptions {
    pub broker_id: BrokerId,
    pub config: Arc<LiveConfig>,
    pub metadata: Arc<MetadataCache>,
    pub zookeeper: Arc<ZooKeeper>,
    pub network: Arc<dyn PeerNetwork>,
    /// For partitions that this broker leads.
    pub local: MarkerWriter,
}

/// Completes transactions.
pub(super) struct Completer {
    options: CompleterOptions,
    destinations: Mutex<BTreeMap<BrokerId, Arc<Destination>>>,
    pub(super) metrics: TransactionMetrics,
}

/// Where the markers of some partitions go.
enum Way {
    Local,
    Remote(BrokerAddress),
    /// There is no leader now.
    NoLeader,
    /// The metadata does not know the partitions of this topic.
    Unknown(TopicName),
}

/// Which of some partitions have to be asked again.
struct Round {
    again: Vec<TopicPartition>,
    /// Another coordinator or a newer producer has taken over.
    is_fenced: bool,
}

impl Round {
    fn again(partitions: Vec<TopicPartition>) -> Self {
        Self {
            again: partitions,
            is_fenced: false,
        }
    }
}

impl Completer {
    pub(super) fn new(options: CompleterOptions) -> Arc<Self> {
        Arc::new(Self {
            options,
            destinations: Mutex::default(),
            metrics: TransactionMetrics::default(),
        })
    }

    /// Begins to complete a transaction.
    pub(super) fn begin(
        self: &Arc<Self>,
        shard: &Arc<Shard>,
        cell: &Arc<Cell>,
        completion: Completion,
    ) {
        let (completer, shard, cell) = (Arc::clone(self), Arc::clone(shard), Arc::clone(cell));
        host::spawn(async move {
            if completer.write_markers(&shard, completion).await {
                completer.write_completion(&shard, &cell).await;
            }
        });
    }

    /// Whether all partitions have their markers; `false` if that is no concern of this broker any more.
    async fn write_markers(&self, shard: &Shard, completion: Completion) -> bool {
        let marker = Marker {
            producer_id: completion.producer_id,
            producer_epoch: completion.producer_epoch,
            coordinator_epoch: shard.leader_epoch(),
            commit: completion.outcome == Outcome::Commit,
            partitions: Vec::new(),
        };
        let mut backoff = BACKOFF_FIRST;
        let mut rounds: FuturesUnordered<BoxFuture<'_, Round>> = FuturesUnordered::new();
        let mut next: Vec<TopicPartition> = completion.partitions.into_iter().collect();
        loop {
            if !shard.is_active() {
                return false;
            }
            for (way, partitions) in self.ways(next) {
                let marker = Marker {
                    partitions,
                    ..marker.clone()
                };
                rounds.push(self.send(way, marker, backoff).boxed());
            }
            let Some(round) = rounds.next().await else {
                return true;
            };
            if round.is_fenced {
                tracing::error!(
                    producer_id = completion.producer_id,
                    producer_epoch = completion.producer_epoch,
                    "markers are refused: somebody else has taken over the transaction"
                );
                return false;
            }
            if !round.again.is_empty() {
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
            next = round.again;
        }
    }

    /// Partitions by the broker that leads them.
    fn ways(&self, partitions: Vec<TopicPartition>) -> Vec<(Way, Vec<TopicPartition>)> {
        let image = self.options.metadata.image();
        let listener = &self.options.config.broker().listeners.inter_broker;
        let mut led: BTreeMap<Option<BrokerId>, Vec<TopicPartition>> = BTreeMap::new();
        let mut unknown: BTreeMap<TopicName, Vec<TopicPartition>> = BTreeMap::new();
        for of in partitions {
            match image.partition(&of.topic, of.partition) {
                Some(known) => led.entry(known.leader()).or_default().push(of),
                None => unknown
                    .entry(TopicName::clone(&of.topic))
                    .or_default()
                    .push(of),
            }
        }
        let mut ways: Vec<(Way, Vec<TopicPartition>)> = Vec::new();
        for (leader, partitions) in led {
            let endpoint = leader.and_then(|id| Some((id, image.endpoint(id, listener)?)));
            let way = match endpoint {
                _ if leader == Some(self.options.broker_id) => Way::Local,
                Some((id, endpoint)) => Way::Remote(BrokerAddress {
                    id,
                    host: endpoint.host.clone(),
                    port: endpoint.port,
                }),
                None => Way::NoLeader,
            };
            ways.push((way, partitions));
        }
        let unknown = unknown.into_iter();
        ways.extend(unknown.map(|(topic, partitions)| (Way::Unknown(topic), partitions)));
        ways
    }

    /// Sends a marker and tells which partitions have to be asked again, which `backoff` was waited for then.
    async fn send(&self, way: Way, marker: Marker, backoff: Duration) -> Round {
        let partitions = marker.partitions.clone();
        let round = match way {
            Way::Local => {
                let outcomes = self.options.local.write(vec![marker]).await;
                let results = outcomes.into_iter().flat_map(|outcome| outcome.partitions);
                judge(partitions, results.collect())
            }
            Way::Remote(address) => {
                let leader = address.id;
                let answer = self.destination(address).order(marker);
                tokio::select! {
                    biased;
                    answer = answer => match answer {
                        Ok(results) => judge(partitions, results),
                        Err(_) => Round::again(partitions),
                    },
                    () = self.leads_none(leader, &partitions) => Round::again(partitions),
                }
            }
            Way::NoLeader => {
                let _waiting = Waiting::new(&self.metrics.unknown_destinations);
                tokio::time::sleep(backoff).await;
                return Round::again(partitions);
            }
            Way::Unknown(topic) => self.remaining_of(&topic, partitions).await,
        };
        if !round.again.is_empty() && !round.is_fenced {
            tokio::time::sleep(backoff).await;
        }
        round
    }

    /// Returns when a broker that does not answer leads none of the partitions any more.
    async fn leads_none(&self, leader: BrokerId, partitions: &[TopicPartition]) {
        let mut changed = self.options.metadata.changed();
        loop {
            changed.mark_unchanged();
            let image = self.options.metadata.image();
            let is_led = partitions.iter().any(|of| {
                let known = image.partition(&of.topic, of.partition);
                known.is_some_and(|partition| partition.leader() == Some(leader))
            });
            if !is_led {
                return;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Those partitions of a topic that exist although the metadata does not know them. Kafka takes them for
    /// deleted; but a broker that has just started may simply not have been told.
    async fn remaining_of(&self, topic: &TopicName, partitions: Vec<TopicPartition>) -> Round {
        let known = match self.assignment_of(topic).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%topic, %error, "cannot tell whether a topic still exists");
                return Round::again(partitions);
            }
        };
        let exists = |of: &TopicPartition| {
            let known = known.as_ref().map(|known| &known.partitions);
            known.is_some_and(|known| known.contains_key(&of.partition))
        };
        let (again, gone): (Vec<_>, Vec<_>) = partitions.into_iter().partition(exists);
        if !gone.is_empty() {
            tracing::info!(%topic, partitions = gone.len(), "partitions of a transaction are deleted");
        }
        Round::again(again)
    }

    /// The partitions of a topic, unless it is being deleted: that may wait for a dead broker for ever.
    async fn assignment_of(
        &self,
        topic: &TopicName,
    ) -> Result<Option<TopicAssignment>, TopicStoreError> {
        let zookeeper = &self.options.zookeeper;
        let marked = zookeeper.topics_marked_for_deletion().await?;
        if marked.iter().any(|marked| **marked == **topic) {
            return Ok(None);
        }
        zookeeper.topic_assignment(topic).await
    }

    fn destination(&self, address: BrokerAddress) -> Arc<Destination> {
        let mut destinations = self
            .destinations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = destinations.get(&address.id);
        if let Some(known) = known.filter(|known| known.address() == &address) {
            return Arc::clone(known);
        }
        let id = address.id;
        let destination = Destination::start(
            self.options.broker_id,
            address,
            &self.options.network,
            &self.options.config,
        );
        destinations.insert(id, Arc::clone(&destination));
        destination
    }

    async fn write_completion(&self, shard: &Arc<Shard>, cell: &Arc<Cell>) {
        let mut backoff = BACKOFF_FIRST;
        while shard.is_active() {
            let written = shard.change(cell, |transaction, _| {
                Ok(Step {
                    write: transaction.complete(),
                    then: (),
                })
            });
            match written.await {
                Ok(()) | Err(TransactionError::NotCoordinator) => return,
                Err(_) => {
                    let _waiting = Waiting::new(&self.metrics.append_retries);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }
}

/// What the results of a marker mean for its partitions.
fn judge(partitions: Vec<TopicPartition>, results: MarkerResults) -> Round {
    let mut round = Round::again(partitions);
    for (of, result) in results {
        let is_done = match result {
            // There is nothing to end in such a log.
            Ok(()) | Err(MarkerError::UnsupportedForMessageFormat) => true,
            Err(MarkerError::InvalidProducerEpoch | MarkerError::CoordinatorFenced) => {
                tracing::warn!(partition = %of, ?result, "a marker is refused");
                round.is_fenced = true;
                false
            }
            Err(MarkerError::Partition(_) | MarkerError::Unexpected) => {
                tracing::debug!(partition = %of, ?result, "a marker has to be sent again");
                false
            }
        };
        if is_done {
            round.again.retain(|one| *one != of);
        }
    }
    round
}

/// Counts one that waits, as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
