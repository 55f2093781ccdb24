//! Makes the replicas of this broker do what the controller says, and finds them for requests.
//!
//! `LeaderAndIsr`, `StopReplica` and `UpdateMetadata` are taken one at a time under one lock and share
//! the highest controller epoch seen. Kafka: `ReplicaManager`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use barnabas_core::config::{BrokerConfig, TopicConfig};
use barnabas_core::control::{
    ControlError, ControlHeader, ControlOutcome, ControlRequest, EPOCH_DURING_DELETE,
    LEADER_DURING_DELETE, LeaderAndIsr, LeaderAndIsrPartition, StopReplica, StopReplicaPartition,
    UpdateMetadata,
};
use barnabas_core::ids::{BrokerId, ControllerEpoch, TopicName, TopicPartition, is_internal_topic};
use barnabas_core::partition::{PartitionError, Verdict};
use barnabas_core::time::Now;
use futures::future::{BoxFuture, FutureExt as _};
use tokio::task::JoinHandle;

use super::fetchers::Fetchers;
use super::hosted::{Hosted, Replica};
use super::isr_changer::IsrChanger;
use super::isr_changes::IsrChanges;
use super::partition::{Neighbourhood, Partition};
use super::roles::RoleListener;
use super::throttle::ReplicationQuota;
use super::topic_configs::TopicConfigs;
use crate::config::LiveConfig;
use crate::controller::ControlTarget;
use crate::log::{LogError, LogManager, PartitionLog};
use crate::metadata_cache::MetadataCache;
use crate::metrics::Metrics;
use crate::peer::PeerNetwork;
use crate::{clock, host};

/// What a [`ReplicaManager`] is made of.
pub struct ReplicaManagerOptions {
    pub broker_id: BrokerId,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
    pub logs: Arc<LogManager>,
    pub metadata: Arc<MetadataCache>,
    pub topic_configs: Arc<dyn TopicConfigs>,
    /// The way to the controller, for changes of ISRs.
    pub isr: Arc<dyn IsrChanges>,
    /// The way to other brokers, for followers.
    pub network: Arc<dyn PeerNetwork>,
    pub config: Arc<LiveConfig>,
    pub metrics: Arc<Metrics>,
}

/// Numbers for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    pub partitions: usize,
    pub leaders: usize,
    pub offline: usize,
    pub under_replicated: usize,
    pub under_min_isr: usize,
    pub at_min_isr: usize,
    pub reassigning: usize,
}

/// All replicas of this broker.
pub struct ReplicaManager {
    neighbourhood: Arc<Neighbourhood>,
    logs: Arc<LogManager>,
    topic_configs: Arc<dyn TopicConfigs>,
    isr: Arc<dyn IsrChanges>,
    fetchers: Fetchers,
    leader_quota: Arc<ReplicationQuota>,
    follower_quota: Arc<ReplicationQuota>,
    metrics: Arc<Metrics>,
    hosted: ArcSwap<Hosted>,
    role_listener: OnceLock<Arc<dyn RoleListener>>,
    /// The highest controller epoch seen. Its lock makes control requests take turns.
    control: Mutex<ControllerEpoch>,
    /// Czxid of this broker's registration; -1 before it.
    broker_epoch: Arc<AtomicI64>,
    /// The controller has spoken: high watermarks are worth a checkpoint.
    has_roles: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl ReplicaManager {
    pub fn new(options: ReplicaManagerOptions) -> Arc<Self> {
        let broker_epoch = Arc::new(AtomicI64::new(-1));
        let config = options.config.broker();
        let leader_quota = ReplicationQuota::new("leader.replication.throttled.rate", &config);
        let follower_quota = ReplicationQuota::new("follower.replication.throttled.rate", &config);
        let follower_quota = Arc::new(follower_quota);
        let fetchers = Fetchers::new(
            options.broker_id,
            Arc::clone(&broker_epoch),
            options.config,
            Arc::clone(&options.metadata),
            options.network,
            Arc::clone(&follower_quota),
        );
        Arc::new(Self {
            neighbourhood: Arc::new(Neighbourhood {
                broker_id: options.broker_id,
                replica_lag_max: options.replica_lag_max,
                metadata: options.metadata,
                isr_queue: Arc::default(),
            }),
            logs: options.logs,
            topic_configs: options.topic_configs,
            isr: options.isr,
            fetchers,
            leader_quota: Arc::new(leader_quota),
            follower_quota,
            metrics: options.metrics,
            hosted: ArcSwap::default(),
            role_listener: OnceLock::new(),
            control: Mutex::new(0),
            broker_epoch,
            has_roles: AtomicBool::new(false),
            tasks: Mutex::default(),
        })
    }

    /// Begins to fetch, and to look after ISRs. Must be called within the runtime; before it nothing happens
    /// by itself.
    pub fn start(self: &Arc<Self>) {
        self.fetchers.open();
        let changer = IsrChanger {
            broker_id: self.neighbourhood.broker_id,
            broker_epoch: Arc::clone(&self.broker_epoch),
            queue: Arc::clone(&self.neighbourhood.isr_queue),
            changes: Arc::clone(&self.isr),
            metrics: Arc::clone(&self.metrics),
        };
        let interval = self.neighbourhood.replica_lag_max / 2;
        let tasks = [
            host::spawn(changer.run()),
            host::spawn(shrink_isrs(Arc::downgrade(self), interval)),
        ];
        self.lock_tasks().extend(tasks);
    }

    /// This broker is about to stop: it does not begin to follow those who take over what it leads. If it did, they
    /// would wait for it: a replica that has caught up and is alive holds the high watermark, and joins the ISR.
    pub fn begin_to_leave(&self) {
        self.fetchers.take_no_more();
    }

    /// Ends fetchers and tasks. What is led is still served.
    pub fn stop(&self) {
        self.fetchers.close();
        for task in self.lock_tasks().drain(..) {
            task.abort();
        }
    }

    fn lock_tasks(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker has other settings from now on.
    pub fn broker_config_changed(&self, config: &BrokerConfig) {
        self.leader_quota.configure(config);
        self.follower_quota.configure(config);
        self.fetchers.resize();
    }

    /// The fetchers, for metrics.
    pub fn fetchers(&self) -> &Fetchers {
        &self.fetchers
    }

    /// What this broker may send to throttled replicas.
    pub fn leader_quota(&self) -> &ReplicationQuota {
        &self.leader_quota
    }

    /// What this broker may fetch for throttled replicas.
    pub fn follower_quota(&self) -> &ReplicationQuota {
        &self.follower_quota
    }

    /// Which registration of this broker is the current one, for whoever registers it.
    pub fn broker_epoch(&self) -> Arc<AtomicI64> {
        self.broker_epoch.clone()
    }

    /// Whom to tell of the leaders of internal topics; to be called once, before the controller can be heard.
    pub fn set_role_listener(&self, listener: Arc<dyn RoleListener>) {
        let _ = self.role_listener.set(listener);
    }

    pub fn metadata(&self) -> &Arc<MetadataCache> {
        &self.neighbourhood.metadata
    }

    // --- looking up ---

    /// The partition, if this broker hosts it and can use it.
    ///
    /// # Errors
    /// `StorageError` if its directory failed; `NotLeaderOrFollower` if others host it;
    /// `UnknownTopicOrPartition` if nobody does.
    pub fn partition(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, PartitionError> {
        match self.hosted.load().get(topic, partition) {
            Some(Replica::Online(partition)) => Ok(Arc::clone(partition)),
            Some(Replica::Offline) => Err(PartitionError::StorageError),
            None if self.is_known(topic, partition) => Err(PartitionError::NotLeaderOrFollower),
            None => Err(PartitionError::UnknownTopicOrPartition),
        }
    }

    /// Whether the cluster has such a partition, wherever it is.
    pub fn is_known(&self, topic: &str, partition: i32) -> bool {
        self.metadata()
            .image()
            .topics
            .get(topic)
            .is_some_and(|topic| topic.partitions.contains_key(&partition))
    }

    /// All partitions that are hosted and online.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.hosted.load().online().cloned().collect()
    }

    pub fn counts(&self) -> ReplicaCounts {
        let hosted = self.hosted.load();
        let mut counts = ReplicaCounts {
            offline: hosted.offline_count(),
            ..ReplicaCounts::default()
        };
        for partition in hosted.online() {
            counts.partitions += 1;
            let health = partition.health();
            counts.leaders += usize::from(health.is_leader);
            counts.under_replicated += usize::from(health.is_under_replicated);
            counts.under_min_isr += usize::from(health.is_under_min_isr);
            counts.at_min_isr += usize::from(health.is_at_min_isr);
            counts.reassigning += usize::from(health.is_reassigning);
        }
        counts
    }

    // --- what the controller says ---

    /// Carries out a control request, with the settings of topics as they are known.
    pub fn obey(&self, request: &ControlRequest) -> ControlOutcome {
        match request {
            ControlRequest::LeaderAndIsr(request) => self.apply_leader_and_isr(request),
            ControlRequest::UpdateMetadata(request) => ControlOutcome {
                result: self.apply_update_metadata(request),
                partitions: Vec::new(),
            },
            ControlRequest::StopReplica(request) => self.apply_stop_replica(request),
        }
    }

    fn admit(
        &self,
        header: &ControlHeader,
        controller_epoch: &mut ControllerEpoch,
    ) -> Result<(), ControlError> {
        let own_epoch = self.broker_epoch.load(Ordering::SeqCst);
        if header.broker_epoch != -1 && header.broker_epoch < own_epoch {
            return Err(ControlError::StaleBrokerEpoch);
        }
        if header.controller_epoch < *controller_epoch {
            return Err(ControlError::StaleControllerEpoch);
        }
        *controller_epoch = header.controller_epoch;
        Ok(())
    }

    /// Topics that a request brings and this broker did not host so far.
    fn new_topics(&self, request: &ControlRequest) -> BTreeSet<TopicName> {
        let ControlRequest::LeaderAndIsr(request) = request else {
            return BTreeSet::new();
        };
        let hosted = self.hosted.load();
        request
            .partitions
            .iter()
            .map(|partition| &partition.topic_partition.topic)
            .filter(|topic| !hosted.has_topic(topic))
            .cloned()
            .collect()
    }

    /// "Lead or follow these partitions": leaders first, then followers.
    pub fn apply_leader_and_isr(&self, request: &LeaderAndIsr) -> ControlOutcome {
        let mut controller_epoch = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.admit(&request.header, &mut controller_epoch) {
            return refused(error);
        }
        let now = clock::now();
        let local = self.neighbourhood.broker_id;
        let mut hosted = Hosted::clone(&self.hosted.load());
        let led = self.led_internal_partitions(&request.partitions);
        let mut results = vec![Ok(()); request.partitions.len()];
        for leads in [true, false] {
            for (partition, result) in request.partitions.iter().zip(&mut results) {
                if (partition.leadership.leader == local.0) == leads {
                    *result = self.take_role(partition, &mut hosted, now);
                }
            }
        }
        self.hosted.store(Arc::new(hosted));
        self.has_roles.store(true, Ordering::Release);
        self.update_fetchers(request, &results);
        self.tell_roles(&request.partitions, &led);
        let partitions = request
            .partitions
            .iter()
            .map(|partition| partition.topic_partition.clone())
            .zip(results)
            .collect();
        ControlOutcome {
            result: Ok(()),
            partitions,
        }
    }

    /// Fetches what is followed from its leader of now, and nothing else.
    fn update_fetchers(&self, request: &LeaderAndIsr, results: &[Result<(), ControlError>]) {
        self.fetchers.note_addresses(&request.live_leaders);
        for (partition, result) in request.partitions.iter().zip(results) {
            let of = &partition.topic_partition;
            match self.partition(&of.topic, of.partition) {
                Ok(hosted) if result.is_ok() => self.fetchers.follow(&hosted),
                Ok(_) | Err(_) => {}
            }
        }
        self.fetchers.end_idle();
    }

    /// Those of `partitions` that belong to internal topics and are led by this broker now.
    fn led_internal_partitions(
        &self,
        partitions: &[LeaderAndIsrPartition],
    ) -> BTreeSet<TopicPartition> {
        let internal = partitions
            .iter()
            .map(|partition| &partition.topic_partition)
            .filter(|partition| is_internal_topic(&partition.topic));
        let led = internal.filter(|partition| {
            self.partition(&partition.topic, partition.partition)
                .is_ok_and(|partition| partition.view().is_leader)
        });
        led.cloned().collect()
    }

    fn tell_roles(&self, partitions: &[LeaderAndIsrPartition], led: &BTreeSet<TopicPartition>) {
        let Some(listener) = self.role_listener.get() else {
            return;
        };
        for request in partitions {
            let topic_partition = &request.topic_partition;
            if !is_internal_topic(&topic_partition.topic) {
                continue;
            }
            let found = self.partition(&topic_partition.topic, topic_partition.partition);
            let leader = found.ok().filter(|partition| partition.view().is_leader);
            match leader {
                Some(partition) if !led.contains(topic_partition) => {
                    listener.elected(&partition, partition.leader_epoch());
                }
                Some(_) => {}
                None => {
                    listener.resigned(topic_partition, Some(request.leadership.leader_epoch));
                }
            }
        }
    }

    fn take_role(
        &self,
        request: &LeaderAndIsrPartition,
        hosted: &mut Hosted,
        now: Now,
    ) -> Result<(), ControlError> {
        let topic_partition = &request.topic_partition;
        let partition = match hosted.get(&topic_partition.topic, topic_partition.partition) {
            Some(Replica::Online(partition)) => Arc::clone(partition),
            Some(Replica::Offline) => return Err(ControlError::StorageError),
            None => Arc::new(Partition::new(
                topic_partition.clone(),
                self.topic_configs.current(&topic_partition.topic),
                self.metrics.topic(&topic_partition.topic),
                Arc::clone(&self.neighbourhood),
            )),
        };
        let existing = self.logs.log(topic_partition);
        let topic_id = existing.as_ref().and_then(|log| log.topic_id());
        match partition.examine(request, topic_id)? {
            Verdict::AssignTopicId => {
                if let (Some(log), Some(topic_id)) = (existing, request.topic_id) {
                    log.assign_topic_id(topic_id)
                        .map_err(|error| control_error(&error))?;
                }
                Ok(())
            }
            Verdict::Apply => {
                let applied = self.apply_role(&partition, request, now);
                if let Err(error) = &applied {
                    tracing::error!(partition = %topic_partition, %error, "cannot take a role");
                }
                let replica = match &applied {
                    Err(LogError::Storage(_) | LogError::LogDirOffline { .. }) => {
                        partition.close(PartitionError::StorageError);
                        Replica::Offline
                    }
                    Ok(()) | Err(_) => Replica::Online(partition),
                };
                hosted.insert(topic_partition, replica);
                applied.map_err(|error| control_error(&error))
            }
        }
    }

    fn apply_role(
        &self,
        partition: &Partition,
        request: &LeaderAndIsrPartition,
        now: Now,
    ) -> Result<(), LogError> {
        if !partition.has_log() {
            let log = self.open_log(request, partition)?;
            let checkpoint = self
                .logs
                .high_watermark_checkpoint(&request.topic_partition);
            partition.open_log(&log, checkpoint);
        }
        let leadership = &request.leadership;
        let applied = if leadership.leader == self.neighbourhood.broker_id.0 {
            partition.become_leader(request, now)?
        } else {
            partition.become_follower(request)
        };
        if applied {
            tracing::info!(
                partition = %request.topic_partition,
                leader = leadership.leader,
                leader_epoch = leadership.leader_epoch,
                isr = ?leadership.isr,
                "partition has a leader"
            );
        }
        Ok(())
    }

    fn open_log(
        &self,
        request: &LeaderAndIsrPartition,
        partition: &Partition,
    ) -> Result<Arc<PartitionLog>, LogError> {
        let log = self.logs.create_log(
            &request.topic_partition,
            request.is_new,
            request.topic_id,
            partition.config(),
        )?;
        if let Some(topic_id) = request.topic_id
            && log.topic_id().is_none()
        {
            log.assign_topic_id(topic_id)?;
        }
        Ok(log)
    }

    /// "Stop these replicas, and delete some of them."
    pub fn apply_stop_replica(&self, request: &StopReplica) -> ControlOutcome {
        let mut controller_epoch = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.admit(&request.header, &mut controller_epoch) {
            return refused(error);
        }
        let mut hosted = Hosted::clone(&self.hosted.load());
        let partitions = request
            .partitions
            .iter()
            .map(|partition| {
                let stopped = self.stop_one(partition, &mut hosted);
                (partition.topic_partition.clone(), stopped)
            })
            .collect();
        self.hosted.store(Arc::new(hosted));
        self.fetchers.end_idle();
        if let Some(listener) = self.role_listener.get() {
            for stopped in &request.partitions {
                let topic_partition = &stopped.topic_partition;
                if stopped.delete && is_internal_topic(&topic_partition.topic) {
                    let epoch = Some(stopped.leader_epoch).filter(|epoch| *epoch >= 0);
                    listener.resigned(topic_partition, epoch);
                }
            }
        }
        ControlOutcome {
            result: Ok(()),
            partitions,
        }
    }

    fn stop_one(
        &self,
        request: &StopReplicaPartition,
        hosted: &mut Hosted,
    ) -> Result<(), ControlError> {
        let topic_partition = &request.topic_partition;
        match hosted.get(&topic_partition.topic, topic_partition.partition) {
            Some(Replica::Offline) => return Err(ControlError::StorageError),
            Some(Replica::Online(partition)) => {
                let is_current = matches!(request.leader_epoch, EPOCH_DURING_DELETE | -1)
                    || request.leader_epoch >= partition.leader_epoch();
                if !is_current {
                    return Err(ControlError::FencedLeaderEpoch);
                }
                self.fetchers.unfollow(topic_partition);
                if request.delete {
                    partition.close(PartitionError::NotLeaderOrFollower);
                    hosted.remove(topic_partition);
                } else {
                    partition.wake_waiters();
                }
            }
            None => {}
        }
        if request.delete && self.logs.log(topic_partition).is_some() {
            tracing::info!(partition = %topic_partition, "replica is deleted");
            self.logs
                .delete_log_async(topic_partition)
                .map_err(|error| control_error(&error))?;
        }
        Ok(())
    }

    /// "This is the cluster."
    pub fn apply_update_metadata(&self, request: &UpdateMetadata) -> Result<(), ControlError> {
        let mut controller_epoch = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        self.admit(&request.header, &mut controller_epoch)?;
        self.metadata().update(request);
        if let Some(listener) = self.role_listener.get() {
            let gone = request
                .partitions
                .iter()
                .filter(|partition| partition.leadership.leader == LEADER_DURING_DELETE);
            let gone: Vec<TopicPartition> = gone
                .map(|partition| partition.topic_partition.clone())
                .collect();
            if !gone.is_empty() {
                listener.deleted(&gone);
            }
        }
        Ok(())
    }

    // --- what else happens ---

    /// A topic has other settings from now on.
    pub fn topic_config_changed(&self, topic: &str, config: &Arc<TopicConfig>) {
        for partition in self.hosted.load().topic(topic) {
            partition.set_config(Arc::clone(config));
        }
        self.logs.update_topic_config(topic, config);
    }

    /// Some log directory failed: the replicas whose logs it held are offline from now on. Returns
    /// them.
    pub fn directories_failed(&self) -> Vec<TopicPartition> {
        let _control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.hosted.load();
        let lost: Vec<TopicPartition> = current
            .online()
            .filter(|partition| partition.has_failed())
            .map(|partition| partition.topic_partition.clone())
            .collect();
        if lost.is_empty() {
            return lost;
        }
        let mut hosted = Hosted::clone(&current);
        for topic_partition in &lost {
            self.fetchers.unfollow(topic_partition);
            if let Ok(partition) = self.partition(&topic_partition.topic, topic_partition.partition)
            {
                partition.close(PartitionError::StorageError);
            }
            hosted.insert(topic_partition, Replica::Offline);
        }
        self.hosted.store(Arc::new(hosted));
        lost
    }

    /// Writes all high watermarks to the checkpoint files of their directories, once the controller
    /// has given out roles. To be called every `replica.high.watermark.checkpoint.interval.ms` and
    /// at the end.
    pub fn checkpoint_high_watermarks(&self) {
        if self.has_roles.load(Ordering::Acquire) {
            let hosted = self.hosted.load();
            let high_watermarks = hosted.online().map(|partition| {
                (
                    partition.topic_partition.clone(),
                    partition.high_watermark(),
                )
            });
            self.logs.checkpoint_high_watermarks(high_watermarks);
        }
    }
}

/// Looks twice within `replica.lag.time.max.ms` who has fallen behind.
async fn shrink_isrs(replicas: Weak<ReplicaManager>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(replicas) = replicas.upgrade() else {
            return;
        };
        let now = clock::now();
        for partition in replicas.hosted.load().online() {
            partition.shrink_isr(now);
        }
    }
}

impl ControlTarget for Arc<ReplicaManager> {
    fn deliver(&self, request: ControlRequest) -> BoxFuture<'_, ControlOutcome> {
        async move {
            let new_topics = self.new_topics(&request);
            if !new_topics.is_empty() {
                self.topic_configs.load(new_topics).await;
            }
            // Thousands of logs may have to be made.
            let replicas = Self::clone(self);
            let obeyed = host::blocking(move || replicas.obey(&request)).await;
            obeyed.expect("a panic ends the process")
        }
        .boxed()
    }
}

fn refused(error: ControlError) -> ControlOutcome {
    ControlOutcome {
        result: Err(error),
        partitions: Vec::new(),
    }
}

fn control_error(error: &LogError) -> ControlError {
    match error {
        LogError::InconsistentTopicId { .. } => ControlError::InconsistentTopicId,
        LogError::OffsetOutOfRange { .. }
        | LogError::UnknownPartition { .. }
        | LogError::LogDirNotFound { .. }
        | LogError::LogDirOffline { .. }
        | LogError::CorruptBatch { .. }
        | LogError::NoTimestamps { .. }
        | LogError::Storage(_) => ControlError::StorageError,
    }
}
