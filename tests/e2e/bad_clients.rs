//! Members of groups and producers that do what they should not, or nothing any more: what each is told, as by Kafka.

use std::time::Duration;

use barnabas_core::records::{BatchBuilder, Compression};
use barnabas_tests::load::ensure_topic;
use barnabas_tests::wait::until;
use barnabas_tests::wire::{Answer, WireClient, decode_response, encode_request};
use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, GroupId, HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest,
    LeaveGroupRequest, OffsetCommitRequest, ProduceRequest, ProducerId, SyncGroupRequest,
    TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};

use crate::client_program::OneBroker;

const PATIENCE: Duration = Duration::from_secs(30);
const SESSION_MS: i32 = 1000;
const CORRELATION_ID: i32 = 7;

const NONE: i16 = 0;
const UNKNOWN_SERVER_ERROR: i16 = -1;
const OFFSET_METADATA_TOO_LARGE: i16 = 12;
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const OUT_OF_ORDER_SEQUENCE_NUMBER: i16 = 45;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const MEMBER_ID_REQUIRED: i16 = 79;
const FENCED_INSTANCE_ID: i16 = 82;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A member, or who would be one. Dropping it closes its connection without a farewell.
struct Member {
    client: WireClient,
    group: GroupId,
    instance: Option<StrBytes>,
    id: StrBytes,
    generation: i32,
    members: usize,
}

impl Member {
    fn new(address: &str, group: &str) -> Member {
        Member {
            client: WireClient::connect(address).unwrap(),
            group: GroupId(text(group)),
            instance: None,
            id: StrBytes::default(),
            generation: -1,
            members: 0,
        }
    }

    fn of_instance(address: &str, group: &str, instance: &str) -> Member {
        let mut member = Member::new(address, group);
        member.instance = Some(text(instance));
        member
    }

    fn send<R: Request>(&mut self, request: &R, version: i16) {
        let frame = encode_request(request, version, CORRELATION_ID).unwrap();
        self.client.send_frame(&frame).unwrap();
    }

    fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        match self.client.receive().unwrap() {
            Answer::Frame(frame) => decode_response(frame, version, CORRELATION_ID).unwrap(),
            Answer::Closed => panic!("the broker hung up"),
        }
    }

    fn send_join(&mut self) {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"metadata"));
        let request = JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(20_000)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            // Of consumers Kafka would read the metadata.
            .with_protocol_type(text("other"))
            .with_protocols(vec![protocol]);
        self.send(&request, 5);
    }

    fn joined(&mut self) -> i16 {
        let answer = self.receive::<JoinGroupRequest>(5);
        self.id = answer.member_id;
        self.generation = answer.generation_id;
        self.members = answer.members.len();
        answer.error_code
    }

    /// Is given an id, then joins with it.
    fn join(&mut self) -> i16 {
        self.begin_to_join();
        self.joined()
    }

    /// Is given an id and sends the request that waits for the others.
    fn begin_to_join(&mut self) {
        if self.id.is_empty() && self.instance.is_none() {
            self.send_join();
            assert_eq!(self.joined(), MEMBER_ID_REQUIRED);
        }
        self.send_join();
    }

    /// As the leader with an assignment of so many bytes for itself; 0 as a follower.
    fn send_sync(&mut self, bytes: usize) {
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(self.id.clone())
            .with_assignment(vec![1; bytes].into());
        let assignments = if bytes > 0 {
            vec![assignment]
        } else {
            Vec::new()
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_assignments(assignments);
        self.send(&request, 3);
    }

    fn synced(&mut self) -> i16 {
        self.receive::<SyncGroupRequest>(3).error_code
    }

    fn sync(&mut self) -> i16 {
        self.send_sync(10);
        self.synced()
    }

    fn heartbeat(&mut self, generation: i32) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.client.request(&request, 3).unwrap().error_code
    }

    fn leave(&mut self) -> i16 {
        let request = LeaveGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_member_id(self.id.clone());
        self.client.request(&request, 1).unwrap().error_code
    }

    fn commit(&mut self, generation: i32, metadata_bytes: usize) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(7)
            .with_committed_metadata(Some(text(&"m".repeat(metadata_bytes))));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text("data")))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_topics(vec![topic]);
        let answer = self.client.request(&request, 7).unwrap();
        answer.topics[0].partitions[0].error_code
    }
}

fn start() -> OneBroker {
    let one = OneBroker::start(|options| options.with("group.min.session.timeout.ms", SESSION_MS));
    let address = one.broker.address();
    ensure_topic(&address, "data", 1).unwrap();
    let mut client = WireClient::connect(&address).unwrap();
    let find = FindCoordinatorRequest::default().with_key(text("g"));
    let found = until(PATIENCE, || {
        let answer = client.request(&find, 2).unwrap();
        let mut member = Member::new(&address, "warm up");
        (answer.error_code == NONE && member.commit(-1, 0) == NONE).then_some(())
    });
    found.expect("a coordinator");
    one
}

/// In each phase of a rebalance those that stay are told what they need to go on.
#[test]
fn members_that_vanish_hold_nobody_up() {
    let one = start();
    let address = &one.broker.address();

    // With nothing but an id.
    let mut nobody = Member::new(address, "g");
    nobody.send_join();
    assert_eq!(nobody.joined(), MEMBER_ID_REQUIRED);
    assert_eq!(nobody.heartbeat(0), UNKNOWN_MEMBER_ID);
    drop(nobody);

    // A leader that does not join again.
    let mut leader = Member::new(address, "g");
    assert_eq!((leader.join(), leader.sync()), (NONE, NONE));
    let mut first = Member::new(address, "g");
    first.begin_to_join();
    drop(leader);
    assert_eq!(first.joined(), NONE);
    assert_eq!((first.generation, first.members), (2, 1));
    assert_eq!(first.sync(), NONE);

    // A leader that gives nobody an assignment.
    let mut second = Member::new(address, "g");
    second.begin_to_join();
    let told = until(PATIENCE, || {
        (first.heartbeat(first.generation) == REBALANCE_IN_PROGRESS).then_some(())
    });
    assert!(told.is_some(), "it learns that somebody wants to join");
    first.begin_to_join();
    assert_eq!((first.joined(), second.joined()), (NONE, NONE));
    assert_eq!((first.members, second.members), (2, 0));
    second.send_sync(0);
    drop(first);
    assert_eq!(second.synced(), REBALANCE_IN_PROGRESS);
    assert_eq!(second.join(), NONE);
    assert_eq!((second.generation, second.members), (4, 1));

    // Between joining and the assignment nothing can be committed.
    assert_eq!(second.commit(second.generation, 0), REBALANCE_IN_PROGRESS);
    assert_eq!(second.sync(), NONE);
    assert_eq!(second.commit(second.generation, 0), NONE);

    // A follower that vanishes in peace.
    let mut third = Member::new(address, "g");
    third.begin_to_join();
    second.begin_to_join();
    assert_eq!((second.joined(), third.joined()), (NONE, NONE));
    third.send_sync(0);
    assert_eq!((second.sync(), third.synced()), (NONE, NONE));
    drop(third);
    let told = until(PATIENCE, || {
        (second.heartbeat(second.generation) == REBALANCE_IN_PROGRESS).then_some(())
    });
    assert!(told.is_some(), "it learns that somebody is gone");
    assert_eq!((second.join(), second.members), (NONE, 1));
    assert_eq!(second.leave(), NONE);
    assert_eq!(second.leave(), UNKNOWN_MEMBER_ID);
}

#[test]
fn members_and_groups_of_all_kinds_are_told_what_is_wrong() {
    let one = start();
    let address = &one.broker.address();
    let mut member = Member::new(address, "g");
    assert_eq!((member.join(), member.sync()), (NONE, NONE));
    assert_eq!(member.heartbeat(99), ILLEGAL_GENERATION);
    assert_eq!(member.commit(99, 0), ILLEGAL_GENERATION);
    assert_eq!(member.commit(1, 4096), NONE);
    assert_eq!(member.commit(1, 4097), OFFSET_METADATA_TOO_LARGE);
    assert_eq!(Member::new(address, "g").commit(-1, 0), UNKNOWN_MEMBER_ID);
    let mut stranger = Member::new(address, "g");
    stranger.id = text("stranger");
    assert_eq!(stranger.heartbeat(1), UNKNOWN_MEMBER_ID);
    assert_eq!(stranger.commit(1, 0), UNKNOWN_MEMBER_ID);
    assert_eq!(stranger.leave(), UNKNOWN_MEMBER_ID);

    // More than a record of the internal topic can hold: the group goes on.
    assert_eq!(member.join(), NONE);
    member.send_sync(1_200_000);
    assert_eq!(member.synced(), UNKNOWN_SERVER_ERROR);
    assert_eq!((member.join(), member.sync()), (NONE, NONE));
    assert_eq!(member.heartbeat(member.generation), NONE);

    // Who comes back under its name takes the place of the one that vanished, without a rebalance.
    let mut before = Member::of_instance(address, "static", "i");
    assert_eq!((before.join(), before.sync()), (NONE, NONE));
    let mut after = Member::of_instance(address, "static", "i");
    assert_eq!((after.join(), after.generation), (NONE, before.generation));
    assert_eq!(before.heartbeat(1), FENCED_INSTANCE_ID);
    assert_eq!(before.commit(1, 0), FENCED_INSTANCE_ID);
    assert_eq!(after.heartbeat(1), NONE);

    for id in [
        " ",
        "a/b",
        "..",
        "\0",
        "line\nline",
        "\u{fffd}\u{1f980}",
        &"x".repeat(32_000),
    ] {
        assert_eq!(Member::new(address, id).commit(-1, 0), NONE, "{id:?}");
    }
}

/// An idempotent or transactional producer.
struct Producer {
    client: WireClient,
    id: i64,
    epoch: i16,
}

impl Producer {
    fn init(address: &str, transactional_id: Option<&str>, identity: (i64, i16)) -> Producer {
        let mut client = WireClient::connect(address).unwrap();
        let request = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(10_000)
            .with_producer_id(ProducerId(identity.0))
            .with_producer_epoch(identity.1);
        // Whoever asks for the coordinator first has its topic created.
        let find = FindCoordinatorRequest::default()
            .with_key(text(transactional_id.unwrap_or_default()))
            .with_key_type(1);
        let answer = until(PATIENCE, || {
            if transactional_id.is_some() {
                client.request(&find, 2).unwrap();
            }
            let answer = client.request(&request, 4).unwrap();
            (answer.error_code == NONE).then_some(answer)
        });
        let answer = answer.expect("a producer id");
        Producer {
            client,
            id: answer.producer_id.0,
            epoch: answer.producer_epoch,
        }
    }

    /// Error code and base offset of a batch of three records.
    fn send(&mut self, sequence: i32) -> (i16, i64) {
        let mut batch =
            BatchBuilder::new(Compression::None).producer(self.id, self.epoch, sequence);
        for _ in 0..3 {
            batch.push(1_700_000_000_000, None, Some(b"value"), &[]);
        }
        let data = PartitionProduceData::default().with_records(Some(batch.build()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text("data")))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let answer = self.client.request(&request, 9).unwrap();
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }
}

#[test]
fn zombies_and_gaps_write_nothing() {
    let one = start();
    let address = &one.broker.address();
    let mut producer = Producer::init(address, None, (-1, -1));
    // Nothing is known of it yet: it may begin anywhere.
    assert_eq!(producer.send(4), (NONE, 0));
    assert_eq!(producer.send(4), (NONE, 0), "sent again");
    assert_eq!(producer.send(7), (NONE, 3));
    assert_eq!(producer.send(11), (OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    assert_eq!(producer.send(9), (OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    for sequence in [10, 13, 16, 19] {
        assert_eq!(producer.send(sequence).0, NONE);
    }
    // Five batches are remembered, the first one is not.
    assert_eq!(producer.send(7), (NONE, 3), "the oldest that is known");
    assert_eq!(producer.send(4), (OUT_OF_ORDER_SEQUENCE_NUMBER, -1));

    let mut zombie = Producer::init(address, Some("t"), (-1, -1));
    let mut heir = Producer::init(address, Some("t"), (-1, -1));
    assert_eq!((heir.id, heir.epoch), (zombie.id, zombie.epoch + 1));
    assert_eq!(heir.send(0).0, NONE);
    assert_eq!(zombie.send(0).0, INVALID_PRODUCER_EPOCH);
    // A new epoch begins anew.
    let mut next = Producer::init(address, Some("t"), (heir.id, heir.epoch));
    assert_eq!(next.epoch, heir.epoch + 1);
    assert_eq!(next.send(3), (OUT_OF_ORDER_SEQUENCE_NUMBER, -1));
    assert_eq!(next.send(0).0, NONE);
    assert_eq!(heir.send(3).0, INVALID_PRODUCER_EPOCH);
}
