//! All fetchers of this broker: `num.replica.fetchers` for each leader, started and ended as they are needed
//! (Kafka: `ReplicaFetcherManager`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use barnabas_core::ids::{BrokerId, TopicPartition};
use barnabas_core::partition::fetcher::{Fetcher, fetcher_of};
use tokio::task::JoinHandle;

use super::fetcher::{Board, FetcherTask};
use super::partition::Partition;
use super::throttle::ReplicationQuota;
use crate::config::LiveConfig;
use crate::host;
use crate::metadata_cache::MetadataCache;
use crate::peer::leader::{FetchingReplica, LeaderClient, LeaderVersions};
use crate::peer::{Peer, PeerNetwork};

/// What all fetchers have in common.
pub(super) struct FetcherContext {
    pub(super) broker_id: BrokerId,
    pub(super) broker_epoch: Arc<AtomicI64>,
    pub(super) config: Arc<LiveConfig>,
    pub(super) metadata: Arc<MetadataCache>,
    pub(super) network: Arc<dyn PeerNetwork>,
    pub(super) quota: Arc<ReplicationQuota>,
    /// Where leaders were when the controller named them.
    addresses: Mutex<BTreeMap<BrokerId, BrokerAddress>>,
    failed: Mutex<BTreeSet<TopicPartition>>,
}

impl FetcherContext {
    /// Where other brokers reach `leader`.
    pub(super) fn address_of(&self, leader: i32) -> Option<BrokerAddress> {
        let listener = &self.config.broker().listeners.inter_broker;
        let id = BrokerId(leader);
        let image = self.metadata.image();
        let endpoint = image.endpoint(id, listener).map(|endpoint| BrokerAddress {
            id,
            host: endpoint.host.clone(),
            port: endpoint.port,
        });
        endpoint.or_else(|| lock(&self.addresses).get(&id).cloned())
    }

    pub(super) fn client(&self, address: BrokerAddress, number: i32) -> LeaderClient {
        let config = self.config.broker();
        let client_id = format!("broker-{}-fetcher-{number}", self.broker_id);
        let timeout = u64::try_from(config.replica_socket_timeout_ms).unwrap_or(0);
        LeaderClient::new(
            Peer::new(Arc::clone(&self.network), address, client_id),
            LeaderVersions::of(&config.inter_broker_protocol_version),
            FetchingReplica {
                broker: self.broker_id,
                broker_epoch: self.broker_epoch.load(Ordering::SeqCst),
            },
            Duration::from_millis(timeout),
        )
    }

    pub(super) fn note_failed(&self, topic_partition: &TopicPartition) {
        lock(&self.failed).insert(topic_partition.clone());
    }
}

struct Running {
    board: Arc<Board>,
    task: JoinHandle<()>,
}

type FetcherId = (i32, i32);

#[derive(Default)]
struct State {
    /// Nothing is fetched before the start and after the end.
    is_open: bool,
    fetchers: BTreeMap<FetcherId, Running>,
    /// Which fetcher has a partition.
    assigned: BTreeMap<TopicPartition, FetcherId>,
    count: i32,
    /// What was fetched by fetchers that are about to end, and has no new one yet.
    moving: BTreeMap<TopicPartition, Arc<Partition>>,
    /// Waits for those to end.
    resizing: Option<JoinHandle<()>>,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetcherCounts {
    /// The largest distance of a followed log from its leader's high watermark.
    pub max_lag: i64,
    /// Partitions that are not fetched any more because of an error.
    pub failed_partitions: usize,
    pub fetchers: usize,
}

/// The fetchers of this broker.
pub struct Fetchers {
    context: Arc<FetcherContext>,
    state: Arc<Mutex<State>>,
}

impl Fetchers {
    pub(super) fn new(
        broker_id: BrokerId,
        broker_epoch: Arc<AtomicI64>,
        config: Arc<LiveConfig>,
        metadata: Arc<MetadataCache>,
        network: Arc<dyn PeerNetwork>,
        quota: Arc<ReplicationQuota>,
    ) -> Self {
        Self {
            context: Arc::new(FetcherContext {
                broker_id,
                broker_epoch,
                config,
                metadata,
                network,
                quota,
                addresses: Mutex::default(),
                failed: Mutex::default(),
            }),
            state: Arc::default(),
        }
    }

    /// Lets fetchers begin. Must be called within the runtime that they are to run on.
    pub(super) fn open(&self) {
        let mut state = lock(&self.state);
        state.is_open = true;
        state.count = self.context.config.broker().num_replica_fetchers.max(1);
    }

    /// Takes on nothing new; what is fetched goes on being fetched until it is given up.
    pub(super) fn take_no_more(&self) {
        lock(&self.state).is_open = false;
    }

    /// Ends all fetchers for good.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_open = false;
        state.assigned.clear();
        state.moving.clear();
        for (_, running) in std::mem::take(&mut state.fetchers) {
            running.task.abort();
        }
        if let Some(resizing) = state.resizing.take() {
            resizing.abort();
        }
    }

    /// Remembers where the controller says that leaders are.
    pub(super) fn note_addresses(&self, leaders: &[BrokerAddress]) {
        let mut addresses = lock(&self.context.addresses);
        for leader in leaders {
            addresses.insert(leader.id, leader.clone());
        }
    }

    /// Stops fetching a partition.
    pub(super) fn unfollow(&self, topic_partition: &TopicPartition) {
        let mut state = lock(&self.state);
        lock(&self.context.failed).remove(topic_partition);
        unfollow(&mut state, topic_partition);
    }

    /// Fetches a partition from the leader that it follows, and from no other.
    pub(super) fn follow(&self, partition: &Arc<Partition>) {
        let mut state = lock(&self.state);
        lock(&self.context.failed).remove(&partition.topic_partition);
        follow(&self.context, &mut state, partition);
    }

    /// Ends the fetchers that have no partitions left.
    pub(super) fn end_idle(&self) {
        let mut state = lock(&self.state);
        state.fetchers.retain(|_, running| {
            let is_used = !running.board.is_empty();
            if !is_used {
                running.task.abort();
            }
            is_used
        });
    }

    /// Spreads the partitions anew if `num.replica.fetchers` has changed. The fetchers of before may be in the middle
    /// of an append: the new ones begin when they have ended.
    pub(super) fn resize(&self) {
        let count = self.context.config.broker().num_replica_fetchers.max(1);
        let mut state = lock(&self.state);
        if !state.is_open || state.count == count {
            return;
        }
        tracing::info!(from = state.count, to = count, "fetchers are spread anew");
        state.count = count;
        state.assigned.clear();
        let mut ending: Vec<JoinHandle<()>> = state.resizing.take().into_iter().collect();
        for (_, running) in std::mem::take(&mut state.fetchers) {
            running.task.abort();
            let partitions = std::mem::take(&mut running.board.lock().partitions);
            state.moving.extend(partitions);
            ending.push(running.task);
        }
        let (context, shared) = (Arc::clone(&self.context), Arc::clone(&self.state));
        state.resizing = Some(host::spawn(async move {
            for task in ending {
                // Being cancelled is how it ends.
                let _ = task.await;
            }
            let mut state = lock(&shared);
            for partition in std::mem::take(&mut state.moving).into_values() {
                follow(&context, &mut state, &partition);
            }
        }));
    }

    pub fn counts(&self) -> FetcherCounts {
        let state = lock(&self.state);
        let max_lag = state
            .fetchers
            .values()
            .filter_map(|running| {
                let content = running.board.lock();
                let lags = content.fetcher.partitions().filter_map(|(_, one)| one.lag);
                lags.max()
            })
            .max();
        FetcherCounts {
            max_lag: max_lag.unwrap_or(0),
            failed_partitions: lock(&self.context.failed).len(),
            fetchers: state.fetchers.len(),
        }
    }

    /// How far each followed log is behind its leader's high watermark, by fetcher, for metrics.
    pub fn lags(&self) -> Vec<(String, TopicPartition, i64)> {
        let state = lock(&self.state);
        let mut lags = Vec::new();
        for ((leader, number), running) in &state.fetchers {
            let client = format!("ReplicaFetcherThread-{number}-{leader}");
            let content = running.board.lock();
            for (topic_partition, one) in content.fetcher.partitions() {
                if let Some(lag) = one.lag {
                    lags.push((client.clone(), topic_partition.clone(), lag));
                }
            }
        }
        lags
    }
}

impl Drop for Fetchers {
    fn drop(&mut self) {
        self.close();
    }
}

fn follow(context: &Arc<FetcherContext>, state: &mut State, partition: &Arc<Partition>) {
    let topic_partition = &partition.topic_partition;
    unfollow(state, topic_partition);
    let Some(following) = partition.following() else {
        return;
    };
    if !state.is_open || following.leader < 0 {
        return;
    }
    let number = fetcher_of(topic_partition, state.count);
    let id = (following.leader, number);
    let running = state
        .fetchers
        .entry(id)
        .or_insert_with(|| start_fetcher(context, id));
    running.board.follow(Arc::clone(partition), &following);
    state.assigned.insert(topic_partition.clone(), id);
}

fn start_fetcher(context: &Arc<FetcherContext>, (leader, number): FetcherId) -> Running {
    let config = context.config.broker();
    let versions = LeaderVersions::of(&config.inter_broker_protocol_version);
    let board = Arc::new(Board::new(Fetcher::new(versions.divergence())));
    let task = FetcherTask::new(Arc::clone(context), leader, number, board.clone());
    Running {
        board,
        task: host::spawn(task.run()),
    }
}

fn unfollow(state: &mut State, topic_partition: &TopicPartition) {
    state.moving.remove(topic_partition);
    if let Some(id) = state.assigned.remove(topic_partition)
        && let Some(running) = state.fetchers.get(&id)
    {
        running.board.unfollow(topic_partition);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
