//! The partitions of an internal topic that this broker leads, and what its coordinator keeps for each of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use barnabas_core::ids::{LeaderEpoch, coordinator_partition};

use crate::host;
use crate::log::{LogError, PartitionLog};
use crate::replica::Partition;
use crate::replica::partition::partition_error;

/// How long a load that failed waits before it is tried again.
const LOAD_RETRY: Duration = Duration::from_secs(1);

/// A shard: what a coordinator keeps for one partition of its topic, from one election to the next.
pub trait Coordinated: Send + Sync + 'static {
    /// The epoch of the election.
    fn leader_epoch(&self) -> LeaderEpoch;

    /// Whether the log is still being read.
    fn is_loading(&self) -> bool;

    /// Another broker leads the partition from now on; whoever waits is told to look for it.
    fn resign(self: &Arc<Self>);
}

/// All shards of a coordinator.
pub struct Shards<S> {
    /// How many partitions the topic has; fixed while the broker runs.
    partitions: AtomicI32,
    is_active: AtomicBool,
    led: RwLock<BTreeMap<i32, Arc<S>>>,
}

impl<S: Coordinated> Shards<S> {
    pub fn new(partitions: i32) -> Self {
        Self {
            partitions: AtomicI32::new(partitions),
            is_active: AtomicBool::new(false),
            led: RwLock::default(),
        }
    }

    /// Begins to serve; the topic has, or will have, so many partitions.
    pub fn start(&self, partitions: i32) {
        self.partitions.store(partitions, Ordering::SeqCst);
        self.is_active.store(true, Ordering::SeqCst);
    }

    /// Answers everybody who waits, and nobody from now on.
    pub fn stop(&self) {
        self.is_active.store(false, Ordering::SeqCst);
        let shards = std::mem::take(&mut *self.write());
        for shard in shards.values() {
            shard.resign();
        }
    }

    pub fn is_active(&self) -> bool {
        self.is_active.load(Ordering::SeqCst)
    }

    /// The partition of the topic that `key`, a group or a transactional id, belongs to.
    pub fn partition_for(&self, key: &str) -> i32 {
        coordinator_partition(key, self.partitions.load(Ordering::SeqCst))
    }

    /// This broker leads a partition of the topic from now on; `start` begins to load it.
    pub fn elected(
        &self,
        partition: i32,
        leader_epoch: LeaderEpoch,
        start: impl FnOnce() -> Arc<S>,
    ) {
        let mut led = self.write();
        if let Some(known) = led.get(&partition) {
            if known.leader_epoch() >= leader_epoch {
                return;
            }
            known.resign();
        }
        led.insert(partition, start());
    }

    /// This broker does not lead it any more; without an epoch it is deleted. Returns whether it was led.
    pub fn resigned(&self, partition: i32, leader_epoch: Option<LeaderEpoch>) -> bool {
        let mut led = self.write();
        let is_newer =
            |shard: &Arc<S>| leader_epoch.is_some_and(|epoch| shard.leader_epoch() > epoch);
        if led.get(&partition).is_none_or(is_newer) {
            return false;
        }
        let shard = led.remove(&partition);
        drop(led);
        if let Some(shard) = &shard {
            shard.resign();
        }
        shard.is_some()
    }

    /// The shard of a partition, if this broker leads it.
    pub fn get(&self, partition: i32) -> Option<Arc<S>> {
        self.read().get(&partition).cloned()
    }

    pub fn all(&self) -> Vec<Arc<S>> {
        self.read().values().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<i32, Arc<S>>> {
        self.led.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<i32, Arc<S>>> {
        self.led.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the log of a shard's partition with `read`, beside everything else, and again if that fails. `None` if the
/// shard does not wait for it any more.
pub async fn load<S: Coordinated, T: Send + 'static>(
    shard: &Arc<S>,
    partition: &Arc<Partition>,
    read: impl Fn(&S, &Arc<PartitionLog>) -> Result<T, LogError> + Copy + Send + 'static,
) -> Option<T> {
    loop {
        let (reader, from) = (Arc::clone(shard), Arc::clone(partition));
        let loaded = host::blocking(move || {
            let log = from.log()?;
            read(&reader, &log).map_err(|error| partition_error(&error))
        });
        let error = match loaded.await {
            Ok(Ok(loaded)) => return Some(loaded),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !shard.is_loading() {
            return None;
        }
        tracing::error!(partition = %partition.topic_partition, %error, "cannot load what is coordinated; trying again");
        tokio::time::sleep(LOAD_RETRY).await;
    }
}
