//! Groups: many members that join at once, offsets that are committed, and offsets that are loaded after a start.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::load;
use barnabas_tests::wire::WireClient;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::report::{Figure, Rows};
use crate::stages::{Sizes, cost, one_broker, wait_for_registration_to_go};

/// Answers after which a member joins again, and after which anybody asks again.
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;
const NOT_YET: [i16; 3] = [14, 15, 16];

/// How long a row may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Partitions in one commit of the loading row.
const OFFSETS_A_GROUP: i32 = 1_000;

/// Starts a broker of `kind` on nothing and reports the rows of groups.
pub(crate) fn run(
    kind: BrokerKind,
    sizes: &Sizes,
    rows: &Rows,
    note: &mut impl FnMut(Figure, f64),
) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let zookeeper = ZooKeeperServer::start()?;
    let options =
        one_broker(kind, directory.path(), &zookeeper).with("group.initial.rebalance.delay.ms", 0);
    let mut broker = options.start()?;
    let address = options.address();
    if rows.want(&[Figure::JoinStorm]) {
        // The first group makes a new process warm.
        storm(&address, "warm-up", sizes.members / 10 + 1)?;
        note(Figure::JoinStorm, storm(&address, "storm", sizes.members)?);
    }
    if rows.want(&[Figure::OffsetCommits]) {
        commits(&address, sizes.commits / 4)?;
        let (cpu, count) = cost(&mut broker, || commits(&address, sizes.commits))?;
        note(Figure::OffsetCommits, count as f64 / 1e3 / cpu);
    }
    if rows.want(&[Figure::OffsetsLoad]) {
        broker = loading(kind, &options, broker, sizes.loaded_groups, note)?;
    }
    broker.stop()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

/// Waits until the broker coordinates the group.
fn coordinate(client: &mut WireClient, group: &str) -> Result<()> {
    let find = FindCoordinatorRequest::default().with_key(text(group));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = client.request(&find, 1)?;
        if found.error_code == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no coordinator: {found:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// --- the storm ---

/// What the members of a storm have in common.
struct Storm<'a> {
    address: &'a str,
    group: &'a str,
    members: usize,
    /// How many know their part in the latest generation, and which that is.
    settled: std::sync::Mutex<(i32, usize)>,
    is_over: AtomicBool,
    failures: AtomicUsize,
}

/// Seconds until `members` that come at once all know their part in one generation.
fn storm(address: &str, group: &str, members: usize) -> Result<f64> {
    coordinate(&mut WireClient::connect(address)?, group)?;
    let storm = Storm {
        address,
        group,
        members,
        settled: std::sync::Mutex::new((-1, 0)),
        is_over: AtomicBool::new(false),
        failures: AtomicUsize::new(0),
    };
    let start = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..members {
            let member = std::thread::Builder::new().stack_size(256 << 10);
            member.spawn_scoped(scope, || {
                if let Err(error) = storm.be_member() {
                    if storm.failures.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("a member of the storm failed: {error:#}");
                    }
                    storm.is_over.store(true, Ordering::Relaxed);
                }
            })?;
        }
        Ok(())
    })?;
    ensure!(
        storm.failures.load(Ordering::Relaxed) == 0,
        "members failed"
    );
    Ok(start.elapsed().as_secs_f64())
}

impl Storm<'_> {
    fn be_member(&self) -> Result<()> {
        let mut client = WireClient::connect(self.address)?;
        let mut id = StrBytes::default();
        let deadline = Instant::now() + PATIENCE;
        'joining: while !self.is_over.load(Ordering::Relaxed) {
            ensure!(Instant::now() < deadline, "the group does not settle");
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(subscription());
            let join = JoinGroupRequest::default()
                .with_group_id(group_id(self.group))
                .with_session_timeout_ms(60_000)
                .with_rebalance_timeout_ms(60_000)
                .with_member_id(id.clone())
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol]);
            let joined = client.request(&join, 5)?;
            id = joined.member_id.clone();
            match joined.error_code {
                0 => {}
                MEMBER_ID_REQUIRED | REBALANCE_IN_PROGRESS => continue,
                code => bail!("joining: {code}"),
            }
            let generation_id = joined.generation_id;
            let of = |(number, member): (usize, StrBytes)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(member)
                    .with_assignment(assignment(number as i32 * 2))
            };
            let members = joined.members.into_iter().map(|member| member.member_id);
            let sync = SyncGroupRequest::default()
                .with_group_id(group_id(self.group))
                .with_generation_id(generation_id)
                .with_member_id(id.clone())
                .with_assignments(members.enumerate().map(of).collect());
            match client.request(&sync, 3)?.error_code {
                0 => self.settle(generation_id),
                REBALANCE_IN_PROGRESS => continue,
                code => bail!("syncing: {code}"),
            }
            let heartbeat = HeartbeatRequest::default()
                .with_group_id(group_id(self.group))
                .with_generation_id(generation_id)
                .with_member_id(id.clone());
            while !self.is_over.load(Ordering::Relaxed) {
                ensure!(Instant::now() < deadline, "the group does not settle");
                std::thread::sleep(Duration::from_millis(50));
                match client.request(&heartbeat, 3)?.error_code {
                    0 => {}
                    REBALANCE_IN_PROGRESS => continue 'joining,
                    code => bail!("heartbeat: {code}"),
                }
            }
        }
        Ok(())
    }

    fn settle(&self, generation_id: i32) {
        let mut settled = self
            .settled
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if settled.0 < generation_id {
            *settled = (generation_id, 0);
        }
        if settled.0 == generation_id {
            settled.1 += 1;
            if settled.1 == self.members {
                self.is_over.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// What a consumer says that it wants: `ConsumerProtocolSubscription` v0 of one topic.
fn subscription() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(5);
    bytes.put_slice(b"storm");
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Two partitions for a member: `ConsumerProtocolAssignment` v0.
fn assignment(first: i32) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(5);
    bytes.put_slice(b"storm");
    bytes.put_i32(2);
    bytes.put_i32(first);
    bytes.put_i32(first + 1);
    bytes.put_i32(-1);
    bytes.freeze()
}

// --- commits ---

fn commit(group: &str, topic: &str, partitions: std::ops::Range<i32>) -> OffsetCommitRequest {
    let partitions = partitions.map(|partition| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(1_000_000)
            .with_committed_metadata(Some(StrBytes::default()))
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(topic)))
        .with_partitions(partitions.collect());
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

fn commit_until_taken(client: &mut WireClient, request: &OffsetCommitRequest) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = client.request(request, 7)?;
        let code = answer.topics[0].partitions[0].error_code;
        if code == 0 {
            return Ok(());
        }
        let may_retry = code == 3 || NOT_YET.contains(&code);
        ensure!(may_retry && Instant::now() < deadline, "committing: {code}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Commits one offset a request, for several groups at once; gives back how many.
fn commits(address: &str, count: usize) -> Result<usize> {
    const CONNECTIONS: usize = 4;
    load::ensure_topic(address, "commits", 10)?;
    let each = count / CONNECTIONS;
    std::thread::scope(|scope| {
        let committers: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                scope.spawn(move || -> Result<()> {
                    let group = format!("committer-{number}");
                    let mut client = WireClient::connect(address)?;
                    coordinate(&mut client, &group)?;
                    for i in 0..each {
                        let partition = (i % 10) as i32;
                        let request = commit(&group, "commits", partition..partition + 1);
                        commit_until_taken(&mut client, &request)?;
                    }
                    Ok(())
                })
            })
            .collect();
        for committer in committers {
            let committed = committer.join();
            committed.map_err(|_| anyhow::anyhow!("a committer panicked"))??;
        }
        Ok(each * CONNECTIONS)
    })
}

// --- loading ---

/// Commits many offsets, restarts the broker, and reports how long it takes until it serves all of them.
fn loading(
    kind: BrokerKind,
    options: &BrokerOptions,
    broker: Broker,
    groups: usize,
    note: &mut impl FnMut(Figure, f64),
) -> Result<Broker> {
    let address = options.address();
    load::ensure_topic(&address, "loaded", OFFSETS_A_GROUP)?;
    let mut client = WireClient::connect(&address)?;
    coordinate(&mut client, "loaded-0")?;
    for number in 0..groups {
        let request = commit(&format!("loaded-{number}"), "loaded", 0..OFFSETS_A_GROUP);
        commit_until_taken(&mut client, &request)?;
    }
    drop(client);
    broker.stop()?;
    wait_for_registration_to_go(kind);
    let broker = options.start()?;
    let start = Instant::now();
    let mut client = WireClient::connect(&address)?;
    for number in 0..groups {
        wait_for_offset(&mut client, &format!("loaded-{number}"), start)?;
    }
    note(Figure::OffsetsLoad, start.elapsed().as_secs_f64());
    Ok(broker)
}

fn wait_for_offset(client: &mut WireClient, group: &str, start: Instant) -> Result<()> {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(TopicName(text("loaded")))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group_id(group))
        .with_topics(Some(vec![topic]));
    loop {
        let answer = client.request(&request, 5)?;
        if answer.error_code == 0 {
            let partition = answer.topics.first().and_then(|of| of.partitions.first());
            let partition = partition.context("an answer without the partition")?;
            ensure!(
                partition.committed_offset == 1_000_000,
                "an offset was lost: {partition:?}"
            );
            return Ok(());
        }
        let may_retry = NOT_YET.contains(&answer.error_code);
        ensure!(
            may_retry && start.elapsed() < PATIENCE,
            "fetching offsets: {}",
            answer.error_code
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
