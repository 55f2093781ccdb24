//! Encodes Fetch responses. Kafka's schema, but records stay in their files: they become sections
//! of the response that the connection sends with `sendfile`.
//!
//! Tested for equality with the generated encoder in every version.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::Section;
use super::leaders::NodeEndpoint;
use crate::log::{AbortedTransaction, LogSlice};

/// First version with compact arrays and tagged fields.
const FLEXIBLE: i16 = 12;
/// First version that names topics by id.
const TOPIC_IDS: i16 = 13;

/// The records of one partition.
#[derive(Clone, Debug)]
pub enum Records {
    /// Absent: only where Kafka has none either.
    Null,
    /// In a segment file.
    File(LogSlice),
    /// In memory, because they were converted; may be empty.
    Bytes(Bytes),
}

impl Records {
    pub const EMPTY: Self = Self::Bytes(Bytes::new());

    pub fn size_in_bytes(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::File(slice) => slice.length,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

/// The answer for one partition.
#[derive(Clone, Debug)]
pub struct PartitionAnswer {
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Epoch and end offset where the logs part (KIP-595).
    pub diverging_epoch: Option<(i32, i64)>,
    /// Leader and epoch (KIP-951).
    pub current_leader: Option<(i32, i32)>,
    /// Null for readers of uncommitted data.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// -1 if the consumer reads here.
    pub preferred_read_replica: i32,
    pub records: Records,
}

/// The fields of a response beside its partitions.
#[derive(Clone, Debug, Default)]
pub struct FetchHeader {
    pub throttle_time_ms: i32,
    pub error_code: i16,
    pub session_id: i32,
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One partition of a response. Neighbours of the same topic share its entry.
#[derive(Clone, Copy, Debug)]
pub struct AnsweredPartition<'a> {
    /// Empty where the version names topics by id.
    pub topic: &'a Arc<str>,
    pub topic_id: Uuid,
    pub partition: i32,
    pub answer: &'a PartitionAnswer,
}

impl AnsweredPartition<'_> {
    fn is_of_same_topic(&self, other: &Self) -> bool {
        if self.topic_id.is_nil() && other.topic_id.is_nil() {
            self.topic == other.topic
        } else {
            self.topic_id == other.topic_id
        }
    }
}

struct Encoder {
    version: i16,
    buffer: BytesMut,
    sections: Vec<Section>,
}

/// Encodes a response in `version` (0 to 17).
pub fn encode<'a>(
    version: i16,
    header: &FetchHeader,
    partitions: impl Iterator<Item = AnsweredPartition<'a>> + Clone,
) -> Vec<Section> {
    let mut encoder = Encoder {
        version,
        buffer: BytesMut::with_capacity(128),
        sections: Vec::with_capacity(3),
    };
    encoder.response(header, partitions);
    let Encoder {
        buffer,
        mut sections,
        ..
    } = encoder;
    if !buffer.is_empty() {
        sections.push(Section::Bytes(buffer.freeze()));
    }
    sections
}

impl Encoder {
    fn is_flexible(&self) -> bool {
        self.version >= FLEXIBLE
    }

    fn response<'a>(
        &mut self,
        header: &FetchHeader,
        partitions: impl Iterator<Item = AnsweredPartition<'a>> + Clone,
    ) {
        if self.version >= 1 {
            self.buffer.put_i32(header.throttle_time_ms);
        }
        if self.version >= 7 {
            self.buffer.put_i16(header.error_code);
            self.buffer.put_i32(header.session_id);
        }
        self.topics(partitions);
        if self.version >= 16 && !header.node_endpoints.is_empty() {
            self.node_endpoints(&header.node_endpoints);
        } else {
            self.no_tags();
        }
    }

    fn topics<'a>(&mut self, partitions: impl Iterator<Item = AnsweredPartition<'a>> + Clone) {
        let mut previous: Option<AnsweredPartition<'_>> = None;
        let mut topics = 0;
        for partition in partitions.clone() {
            if !previous.is_some_and(|previous| previous.is_of_same_topic(&partition)) {
                topics += 1;
            }
            previous = Some(partition);
        }
        self.array_length(Some(topics));
        let mut rest = partitions;
        while let Some(first) = rest.clone().next() {
            let of_topic = rest
                .clone()
                .take_while(|partition| partition.is_of_same_topic(&first))
                .count();
            if self.version >= TOPIC_IDS {
                self.buffer.put_slice(first.topic_id.as_bytes());
            } else {
                self.string(first.topic);
            }
            self.array_length(Some(of_topic));
            for partition in rest.by_ref().take(of_topic) {
                self.partition(partition.partition, partition.answer);
            }
            self.no_tags();
        }
    }

    fn partition(&mut self, partition: i32, answer: &PartitionAnswer) {
        self.buffer.put_i32(partition);
        self.buffer.put_i16(answer.error_code);
        self.buffer.put_i64(answer.high_watermark);
        if self.version >= 4 {
            self.buffer.put_i64(answer.last_stable_offset);
            if self.version >= 5 {
                self.buffer.put_i64(answer.log_start_offset);
            }
            self.aborted_transactions(answer.aborted_transactions.as_deref());
        }
        if self.version >= 11 {
            self.buffer.put_i32(answer.preferred_read_replica);
        }
        self.records(&answer.records);
        self.partition_tags(answer);
    }

    fn aborted_transactions(&mut self, aborted: Option<&[AbortedTransaction]>) {
        self.array_length(aborted.map(<[_]>::len));
        for transaction in aborted.unwrap_or_default() {
            self.buffer.put_i64(transaction.producer_id);
            self.buffer.put_i64(transaction.first_offset);
            self.no_tags();
        }
    }

    fn records(&mut self, records: &Records) {
        let size = match records {
            Records::Null => None,
            Records::File(_) | Records::Bytes(_) => Some(records.size_in_bytes()),
        };
        self.array_length(size);
        match records {
            Records::Null => {}
            Records::File(slice) if slice.is_empty() => {}
            Records::File(slice) => {
                self.sections
                    .push(Section::Bytes(self.buffer.split().freeze()));
                self.sections.push(Section::File(slice.clone()));
            }
            Records::Bytes(bytes) if bytes.is_empty() => {}
            Records::Bytes(bytes) => {
                self.sections
                    .push(Section::Bytes(self.buffer.split().freeze()));
                self.sections.push(Section::Bytes(bytes.clone()));
            }
        }
    }

    fn partition_tags(&mut self, answer: &PartitionAnswer) {
        if !self.is_flexible() {
            return;
        }
        let tags = u32::from(answer.diverging_epoch.is_some())
            + u32::from(answer.current_leader.is_some());
        self.unsigned_varint(tags);
        if let Some((epoch, end_offset)) = answer.diverging_epoch {
            self.unsigned_varint(0);
            self.unsigned_varint(13);
            self.buffer.put_i32(epoch);
            self.buffer.put_i64(end_offset);
            self.no_tags();
        }
        if let Some((leader, epoch)) = answer.current_leader {
            self.unsigned_varint(1);
            self.unsigned_varint(9);
            self.buffer.put_i32(leader);
            self.buffer.put_i32(epoch);
            self.no_tags();
        }
    }

    fn node_endpoints(&mut self, endpoints: &[NodeEndpoint]) {
        let mut field = Self {
            version: self.version,
            buffer: BytesMut::with_capacity(64),
            sections: Vec::new(),
        };
        field.array_length(Some(endpoints.len()));
        for endpoint in endpoints {
            field.buffer.put_i32(endpoint.node_id);
            field.string(&endpoint.host);
            field.buffer.put_i32(endpoint.port);
            match &endpoint.rack {
                Some(rack) => field.string(rack),
                None => field.unsigned_varint(0),
            }
            field.no_tags();
        }
        self.unsigned_varint(1);
        self.unsigned_varint(0);
        self.unsigned_varint(field.buffer.len() as u32);
        self.buffer.put_slice(&field.buffer);
    }

    /// Length of an array or of bytes; `None` is null.
    fn array_length(&mut self, length: Option<usize>) {
        if self.is_flexible() {
            self.unsigned_varint(length.map_or(0, |length| length as u32 + 1));
        } else {
            self.buffer
                .put_i32(length.map_or(-1, |length| length as i32));
        }
    }

    fn string(&mut self, text: &str) {
        if self.is_flexible() {
            self.unsigned_varint(text.len() as u32 + 1);
        } else {
            self.buffer.put_i16(text.len() as i16);
        }
        self.buffer.put_slice(text.as_bytes());
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.buffer.put_u8(0);
        }
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::memory::Memory;
    use crate::files::{Files, OpenMode, write_full_at};
    use kafka_protocol::messages as wire;
    use kafka_protocol::messages::fetch_response as response;
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::prelude::*;
    use std::io::IoSlice;
    use std::path::Path;

    fn slice(content: &[u8]) -> LogSlice {
        let path = Path::new("/00000000000000000000.log");
        let file = Memory::new().open(path, OpenMode::Create).unwrap();
        write_full_at(
            &*file,
            &mut [IoSlice::new(b"before"), IoSlice::new(content)],
            0,
        )
        .unwrap();
        LogSlice {
            file,
            path: path.into(),
            position: 6,
            length: content.len(),
            segment_base_offset: 0,
            first_batch_incomplete: false,
        }
    }

    fn records() -> impl Strategy<Value = Records> {
        prop_oneof![
            Just(Records::Null),
            Just(Records::EMPTY),
            proptest::collection::vec(any::<u8>(), 0..300)
                .prop_map(|content| Records::Bytes(content.into())),
            proptest::collection::vec(any::<u8>(), 0..300)
                .prop_map(|content| Records::File(slice(&content))),
        ]
    }

    prop_compose! {
        fn answer()(
            numbers in any::<(i16, i64, i64, i64, i32)>(),
            diverging_epoch in any::<Option<(u8, u16)>>(),
            current_leader in any::<Option<(u8, u8)>>(),
            aborted in any::<Option<Vec<(i64, i64)>>>(),
            records in records(),
        ) -> PartitionAnswer {
            PartitionAnswer {
                error_code: numbers.0,
                high_watermark: numbers.1,
                last_stable_offset: numbers.2,
                log_start_offset: numbers.3,
                diverging_epoch: diverging_epoch.map(|(e, o)| (e.into(), o.into())),
                current_leader: current_leader.map(|(l, e)| (l.into(), e.into())),
                aborted_transactions: aborted.map(|aborted| {
                    aborted
                        .into_iter()
                        .map(|(producer_id, first_offset)| AbortedTransaction {
                            producer_id,
                            first_offset,
                        })
                        .collect()
                }),
                preferred_read_replica: numbers.4,
                records,
            }
        }
    }

    fn inlined(sections: &[Section]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for section in sections {
            match section {
                Section::Bytes(part) => bytes.extend_from_slice(part),
                Section::File(slice) => bytes.extend_from_slice(&slice.read_all().unwrap()),
            }
        }
        bytes
    }

    type GeneratedTopic = (Arc<str>, Uuid, Vec<(i32, PartitionAnswer)>);

    /// The same response as the generated encoder has it, with what `version` lacks left out.
    fn generated(version: i16, header: &FetchHeader, topics: &[GeneratedTopic]) -> Vec<u8> {
        let partition = |(index, answer): &(i32, PartitionAnswer)| {
            let mut data = response::PartitionData::default()
                .with_partition_index(*index)
                .with_error_code(answer.error_code)
                .with_high_watermark(answer.high_watermark)
                .with_records(match &answer.records {
                    Records::Null => None,
                    Records::File(slice) => Some(slice.read_all().unwrap()),
                    Records::Bytes(bytes) => Some(bytes.clone()),
                });
            data.aborted_transactions = None;
            if version >= 4 {
                data.last_stable_offset = answer.last_stable_offset;
                data.aborted_transactions = answer.aborted_transactions.as_ref().map(|aborted| {
                    aborted
                        .iter()
                        .map(|transaction| {
                            response::AbortedTransaction::default()
                                .with_producer_id(transaction.producer_id.into())
                                .with_first_offset(transaction.first_offset)
                        })
                        .collect()
                });
            }
            if version >= 5 {
                data.log_start_offset = answer.log_start_offset;
            }
            if version >= 11 {
                data.preferred_read_replica = answer.preferred_read_replica.into();
            }
            if version >= 12 {
                if let Some((epoch, end_offset)) = answer.diverging_epoch {
                    data.diverging_epoch.epoch = epoch;
                    data.diverging_epoch.end_offset = end_offset;
                }
                if let Some((leader, epoch)) = answer.current_leader {
                    data.current_leader.leader_id = leader.into();
                    data.current_leader.leader_epoch = epoch;
                }
            }
            data
        };
        let topics = topics
            .iter()
            .map(|(name, id, partitions)| {
                let mut topic = response::FetchableTopicResponse::default()
                    .with_partitions(partitions.iter().map(partition).collect());
                if version >= 13 {
                    topic.topic_id = *id;
                } else {
                    topic.topic = StrBytes::from_string(name.to_string()).into();
                }
                topic
            })
            .collect();
        let mut message = wire::FetchResponse::default().with_responses(topics);
        if version >= 1 {
            message.throttle_time_ms = header.throttle_time_ms;
        }
        if version >= 7 {
            message.error_code = header.error_code;
            message.session_id = header.session_id;
        }
        if version >= 16 {
            message.node_endpoints = header
                .node_endpoints
                .iter()
                .map(|endpoint| {
                    response::NodeEndpoint::default()
                        .with_node_id(endpoint.node_id.into())
                        .with_host(StrBytes::from_string(endpoint.host.clone()))
                        .with_port(endpoint.port)
                        .with_rack(endpoint.rack.clone().map(StrBytes::from_string))
                })
                .collect();
        }
        let mut bytes = BytesMut::new();
        message.encode(&mut bytes, version).unwrap();
        bytes.to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_the_generated_encoder_in_every_version(
            topics in proptest::collection::vec(
                proptest::collection::vec((any::<i32>(), answer()), 1..4),
                0..4,
            ),
            throttle_time_ms in any::<i32>(),
            error_code in any::<i16>(),
            session_id in any::<i32>(),
            endpoints in proptest::collection::vec((any::<i32>(), "[a-z]{0,200}", any::<Option<bool>>()), 0..3),
        ) {
            let header = FetchHeader {
                throttle_time_ms,
                error_code,
                session_id,
                node_endpoints: endpoints
                    .into_iter()
                    .map(|(node_id, host, rack)| NodeEndpoint {
                        node_id,
                        host,
                        port: 9092,
                        rack: rack.map(|long| if long { "r".repeat(150) } else { String::new() }),
                    })
                    .collect(),
            };
            let topics: Vec<_> = topics
                .into_iter()
                .enumerate()
                .map(|(number, partitions)| {
                    let name: Arc<str> = format!("topic-{number}").into();
                    (name, Uuid::from_u128(number as u128 + 1), partitions)
                })
                .collect();
            for version in 0..=17 {
                let partitions = topics.iter().flat_map(|(topic, id, partitions)| {
                    partitions.iter().map(move |(partition, answer)| AnsweredPartition {
                        topic,
                        topic_id: if version >= 13 { *id } else { Uuid::nil() },
                        partition: *partition,
                        answer,
                    })
                });
                let ours = inlined(&encode(version, &header, partitions));
                prop_assert_eq!(ours, generated(version, &header, &topics), "version {}", version);
            }
        }
    }

    #[test]
    fn records_stay_in_their_file() {
        let answer = PartitionAnswer {
            error_code: 0,
            high_watermark: 1,
            last_stable_offset: 1,
            log_start_offset: 0,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Records::File(slice(b"batch")),
        };
        let topic: Arc<str> = "t".into();
        let partitions = std::iter::once(AnsweredPartition {
            topic: &topic,
            topic_id: Uuid::nil(),
            partition: 0,
            answer: &answer,
        });
        let sections = encode(12, &FetchHeader::default(), partitions);
        assert!(matches!(
            sections.as_slice(),
            [Section::Bytes(_), Section::File(_), Section::Bytes(_)]
        ));
    }
}
