//! The clients of a world at work, and what has to be well once everything is healed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use barnabas_core::ids::{Offset, TopicPartition};
use tokio::time::{Instant, sleep};

use super::clients::{self, Client, Progress};
use super::{TOPIC, World, compactions, deletions, members, offsets, transactions};

/// In simulated time: what a healed cluster may take until all is well.
const PATIENCE: Duration = Duration::from_secs(90);

/// The clients of a world, at work.
pub(crate) struct Load {
    pub(crate) partitions: Vec<TopicPartition>,
    producers: Vec<Arc<Progress>>,
    consumers: Vec<Arc<Progress>>,
    positions: Vec<Arc<Mutex<BTreeMap<TopicPartition, Offset>>>>,
    probe: Client,
}

impl Load {
    /// Creates the topic and lets clients write and read.
    pub(crate) async fn start(world: &Arc<World>) -> Self {
        let plan = &world.plan;
        let mut probe = world.client();
        probe
            .create_topic(TOPIC, plan.partitions, plan.replicas)
            .await;
        let partitions = world.topic_partitions();
        let (mut producers, mut consumers, mut positions) = (vec![], vec![], vec![]);
        for _ in 0..plan.producers {
            let progress = Arc::new(Progress::default());
            let work = clients::produce(world.client(), partitions.clone(), progress.clone());
            tokio::spawn(work);
            producers.push(progress);
        }
        for _ in 0..plan.transactional_producers {
            let progress = Arc::new(Progress::default());
            let work = transactions::transact(world.client(), partitions.clone(), progress.clone());
            tokio::spawn(work);
            producers.push(progress);
        }
        for _ in 0..plan.groups {
            let progress = Arc::new(Progress::default());
            tokio::spawn(offsets::commit(world.client(), TOPIC, progress.clone()));
            producers.push(progress);
        }
        for _ in 0..plan.members {
            let progress = Arc::new(Progress::default());
            let count = plan.partitions;
            let work = members::take_part(world.client(), TOPIC, count, progress.clone());
            tokio::spawn(work);
            producers.push(progress);
        }
        if plan.compacts {
            let progress = Arc::new(Progress::default());
            let work = compactions::write_and_read(world.client(), plan.replicas, progress.clone());
            tokio::spawn(work);
            producers.push(progress);
        }
        if plan.deletes_topics {
            let progress = Arc::new(Progress::default());
            let work =
                deletions::create_and_delete(world.client(), plan.replicas, progress.clone());
            tokio::spawn(work);
            producers.push(progress);
        }
        for _ in 0..plan.consumers {
            let progress = Arc::new(Progress::default());
            let at = Arc::new(Mutex::default());
            let work = clients::consume(
                world.client(),
                partitions.clone(),
                Arc::clone(&at),
                progress.clone(),
            );
            tokio::spawn(work);
            consumers.push(progress);
            positions.push(at);
        }
        Self {
            partitions,
            producers,
            consumers,
            positions,
            probe,
        }
    }

    /// All is healed: requires that all is well before long.
    pub(crate) async fn require_liveness(mut self, world: &Arc<World>) {
        world.trace.note("everything is healed");
        let partitions = self.partitions.clone();
        world
            .wait_until_well("AllInSync", PATIENCE, || {
                world.look_after_processes();
                world.ailment(&partitions)
            })
            .await;
        let steps = |progress: &Arc<Progress>| progress.steps.load(Ordering::SeqCst);
        let before: Vec<u64> = self.producers.iter().map(steps).collect();
        world
            .wait_until_well("WritesAreAcknowledged", PATIENCE, || {
                let stuck = self.producers.iter().zip(&before);
                let stuck = stuck
                    .filter(|(progress, before)| steps(progress) < *before + 5)
                    .count();
                (stuck > 0).then(|| format!("{stuck} producers wait"))
            })
            .await;
        for progress in &self.producers {
            progress.is_to_stop.store(true, Ordering::SeqCst);
        }
        world
            .wait_until_well("WritesAreAcknowledged", PATIENCE, || {
                let stopped =
                    |progress: &Arc<Progress>| progress.has_stopped.load(Ordering::SeqCst);
                (!self.producers.iter().all(stopped)).then(|| "a producer waits".to_owned())
            })
            .await;
        world
            .wait_until_well("TransactionsEnd", PATIENCE, || {
                world.checks.open_transaction()
            })
            .await;
        world
            .wait_until_well("DeletedTopicsGo", PATIENCE, || deletions::leftover(world))
            .await;
        world
            .wait_until_well("ReplicasAgree", PATIENCE, || {
                let uncommitted = world.checks.uncommitted();
                if let Some(first) = uncommitted.first() {
                    return Some(format!("{first:?} is acknowledged and not committed"));
                }
                let compacted = world.plan.compacts.then(compactions::partitions);
                let partitions = partitions.iter().chain(compacted.iter().flatten());
                partitions
                    .into_iter()
                    .find_map(|partition| world.difference(partition))
            })
            .await;
        if world.plan.compacts {
            world
                .wait_until_well("LatestValuesStay", PATIENCE, || compactions::lost(world))
                .await;
        }
        world
            .wait_until_well("EverythingIsConsumed", PATIENCE, || self.behind(world))
            .await;
        for progress in &self.consumers {
            progress.is_to_stop.store(true, Ordering::SeqCst);
        }
        for partition in &partitions {
            let end = world.checks.committed_end(partition);
            let deadline = Instant::now() + PATIENCE;
            loop {
                let latest = clients::latest_offset(&mut self.probe, partition).await;
                if latest == Some(end) {
                    break;
                }
                if Instant::now() > deadline {
                    world.trace.violated(&format!(
                        "OffsetsAreReadable: {partition} has latest offset {latest:?}, not {end}"
                    ));
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn behind(&self, world: &World) -> Option<String> {
        for positions in &self.positions {
            let positions = positions.lock().unwrap_or_else(PoisonError::into_inner);
            for partition in &self.partitions {
                let end = world.checks.committed_end(partition);
                let at = positions.get(partition).copied().unwrap_or(0);
                if at < end {
                    return Some(format!("a consumer of {partition} is at {at} of {end}"));
                }
            }
        }
        None
    }
}
