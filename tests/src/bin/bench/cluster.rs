//! What three brokers of one kind are put through in one round.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use barnabas_tests::broker::BrokerKind;
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::load::{self, Produce};
use barnabas_tests::verify::{PartitionView, TopicPlan, Verifier, VerifierOptions, create_topic};
use tempfile::TempDir;

use crate::SETTLE;
use crate::report::{Figure, Rows};
use crate::stages::{
    GIB, JAVA_OPTIONS, MIB, Sizes, cpu_seconds, memory, wait_for_registration_to_go,
};

/// Long enough for Kafka with many partitions on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// Batches that must be acknowledged before and after something is done to the leader.
const PROGRESS: usize = 200;

type View = BTreeMap<i32, PartitionView>;

/// Three brokers, stage by stage, each stage on a cluster of its own.
///
/// Directories with many files go to `kept`: ext4 does not use an inode again within minutes of its deletion, and
/// searches past every one of them whenever it makes a file, which would be counted against whoever comes next.
pub(crate) fn run(
    kind: BrokerKind,
    sizes: &Sizes,
    rows: &Rows,
    kept: &mut Vec<TempDir>,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    use Figure::{
        ControllerFailOver, FailOverAfterKill, FailOverAtStop, ManyIdleCpu, ManyInSync, ManyMemory,
        ManyRestart, ReplicatedCpu, ReplicatedThroughput,
    };
    if rows.want(&[ReplicatedCpu, ReplicatedThroughput]) {
        replicated(kind, sizes, note).context("replicated throughput")?;
    }
    if rows.want(&[FailOverAfterKill, FailOverAtStop]) {
        fail_over(kind, note).context("fail-over")?;
    }
    if rows.want(&[ManyInSync, ManyMemory, ManyIdleCpu, ManyRestart]) {
        many_partitions(kind, sizes, kept, note).context("many partitions")?;
    }
    if rows.want(&[ControllerFailOver]) {
        controller(kind, sizes, kept, note).context("fail-over of the controller")?;
    }
    Ok(())
}

fn options(kind: BrokerKind) -> ClusterOptions {
    let mut options = ClusterOptions::of(&[kind; 3])
        .with("log.retention.check.interval.ms", 3_600_000)
        .with("barnabas.admin.listener", "");
    options.java_options = JAVA_OPTIONS.map(str::to_owned).to_vec();
    options
}

/// One partition with three replicas, at full speed.
fn replicated(kind: BrokerKind, sizes: &Sizes, note: &mut impl FnMut(Figure, f64)) -> Result<()> {
    let mut cluster = Cluster::start(&options(kind))?;
    cluster.create_topic("replicated", 1, &[("min.insync.replicas", "2")])?;
    let leader = cluster.leader("replicated", 0)?;
    let address = cluster.options(leader).address();
    let load = |total_bytes| {
        let what = Produce {
            topic: "replicated".to_owned(),
            partitions: 1,
            record_size: 1024,
            records_per_batch: 100,
            total_bytes,
            connections: 1,
            in_flight: 5,
            acks: -1,
        };
        load::produce(&address, &what)
    };
    load(sizes.replicated / 8)?;
    let before = cpu_of_all(&mut cluster)?;
    let produced = load(sizes.replicated)?;
    let cpu = cpu_of_all(&mut cluster)? - before;
    note(Figure::ReplicatedCpu, cpu / (produced.bytes as f64 / GIB));
    note(
        Figure::ReplicatedThroughput,
        produced.bytes as f64 / MIB / produced.seconds,
    );
    Ok(())
}

/// What an idempotent producer with acks=all and Kafka's own timeouts sees of its leader's end.
fn fail_over(kind: BrokerKind, note: &mut impl FnMut(Figure, f64)) -> Result<()> {
    let options = options(kind).with_default("zookeeper.session.timeout.ms");
    let mut cluster = Cluster::start(&options)?;
    cluster.create_topic("led", 1, &[("min.insync.replicas", "2")])?;
    let verifier = Verifier::start(VerifierOptions::new(cluster.bootstrap(), "led", 1));
    verifier.wait_for_progress(PROGRESS, PATIENCE)?;

    let leader = cluster.leader("led", 0)?;
    let since = Instant::now();
    cluster.kill(leader);
    verifier.wait_for_progress(PROGRESS, PATIENCE)?;
    note(
        Figure::FailOverAfterKill,
        verifier.longest_gap(since).as_secs_f64(),
    );
    cluster.start_broker(leader)?;
    let ids = cluster.ids();
    cluster.view().wait_for_isr("led", &ids, PATIENCE)?;

    let leader = cluster.leader("led", 0)?;
    let since = Instant::now();
    cluster.stop(leader)?;
    verifier.wait_for_progress(PROGRESS, PATIENCE)?;
    note(
        Figure::FailOverAtStop,
        verifier.longest_gap(since).as_secs_f64(),
    );
    let verified = verifier.stop().context("what was acknowledged")?;
    ensure!(verified.records > 0, "nothing was acknowledged");
    Ok(())
}

/// A topic of very many partitions with three replicas each.
fn many_partitions(
    kind: BrokerKind,
    sizes: &Sizes,
    kept: &mut Vec<TempDir>,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    let mut cluster = Cluster::start(&options(kind))?;
    let ids = cluster.ids();
    let start = Instant::now();
    create_topic(
        &cluster.bootstrap(),
        &plan("many", sizes.many, 3, &ids),
        PATIENCE,
    )?;
    note(Figure::ManyInSync, start.elapsed().as_secs_f64());

    std::thread::sleep(SETTLE);
    let mut before = BTreeMap::new();
    let mut largest: f64 = 0.0;
    for id in &ids {
        before.insert(*id, cpu_seconds(cluster.broker(*id))?);
        largest = largest.max(memory(cluster.broker(*id), "VmRSS")?);
    }
    note(Figure::ManyMemory, largest);
    let watched = Instant::now();
    std::thread::sleep(Duration::from_secs(sizes.idle_seconds));
    let mut busiest: f64 = 0.0;
    for id in &ids {
        let spent = cpu_seconds(cluster.broker(*id))? - before[id];
        busiest = busiest.max(100.0 * spent / watched.elapsed().as_secs_f64());
    }
    note(Figure::ManyIdleCpu, busiest);

    // Not the controller, whose own fail-over is another row.
    let controller = cluster.controller()?;
    let victim = ids.iter().copied().find(|id| *id != controller);
    let victim = victim.context("a broker that is not controller")?;
    cluster.kill(victim);
    wait_for_registration_to_go(kind);
    let start = Instant::now();
    cluster.start_broker(victim)?;
    cluster.view().wait_for_isr("many", &ids, PATIENCE)?;
    note(Figure::ManyRestart, start.elapsed().as_secs_f64());
    kept.push(cluster.abandon());
    Ok(())
}

/// The controller dies, and the partitions that it led have no other replica: the next one has read everything
/// and told everybody when clients see who is controller and which partitions are offline.
fn controller(
    kind: BrokerKind,
    sizes: &Sizes,
    kept: &mut Vec<TempDir>,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    let mut cluster = Cluster::start(&options(kind))?;
    let ids = cluster.ids();
    let count = sizes.of_controller;
    create_topic(
        &cluster.bootstrap(),
        &plan("wide", count, 1, &ids),
        PATIENCE,
    )?;
    let old = cluster.controller()?;
    let survivor = ids.iter().copied().find(|id| *id != old);
    let survivor = survivor.context("a broker that is not controller")?;
    let address = cluster.options(survivor).address();
    let mut view = barnabas_tests::verify::ClusterView::new(vec![address]);
    let start = Instant::now();
    cluster.kill(old);
    let is_told = |partitions: &View| {
        partitions.len() == count
            && partitions
                .values()
                .all(|one| one.leader.is_none() == one.replicas.contains(&old))
    };
    loop {
        if let Ok((_, new)) = view.brokers()
            && new >= 0
            && new != old
            && view.partitions("wide").is_ok_and(|found| is_told(&found))
        {
            break;
        }
        ensure!(start.elapsed() < PATIENCE, "no controller has told of it");
        std::thread::sleep(Duration::from_millis(20));
    }
    note(Figure::ControllerFailOver, start.elapsed().as_secs_f64());
    kept.push(cluster.abandon());
    Ok(())
}

/// A topic whose partitions are spread over the brokers in turn.
fn plan(name: &str, partitions: usize, replicas: usize, ids: &[i32]) -> TopicPlan {
    let assignment = (0..partitions).map(|partition| {
        let mut brokers = ids.to_vec();
        brokers.rotate_left(partition % ids.len());
        brokers.truncate(replicas);
        brokers
    });
    TopicPlan {
        name: name.to_owned(),
        assignment: assignment.collect(),
        configs: Vec::new(),
    }
}

fn cpu_of_all(cluster: &mut Cluster) -> Result<f64> {
    let mut sum = 0.0;
    for id in cluster.ids() {
        sum += cpu_seconds(cluster.broker(id))?;
    }
    Ok(sum)
}
