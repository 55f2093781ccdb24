//! A few records to a partition and back, for trying a cluster out.

use barnabas_core::ids::{BrokerId, TopicId, TopicPartition};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId as WireBroker, FetchRequest, ProduceRequest};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
    RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::Admin;
use super::calls::{refused, topic};
use super::error::AdminError;

/// From these versions on record batches have their present form.
const PRODUCE: i16 = 3;
const FETCH: i16 = 4;
/// From this version on a topic is named by its id alone (KIP-516).
const FETCH_BY_ID: i16 = 13;
const FETCH_BYTES_MAX: i32 = 1 << 20;

impl Admin {
    /// Appends one batch of these values with acks=all; the offset of the first.
    pub async fn produce(
        &self,
        leader: BrokerId,
        partition: &TopicPartition,
        values: &[Bytes],
        timestamp_ms: i64,
    ) -> Result<i64, AdminError> {
        let records = values.iter().zip(0..).map(|(value, offset)| Record {
            transactional: false,
            control: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: offset as i32,
            timestamp: timestamp_ms,
            key: None,
            value: Some(value.clone()),
            headers: indexmap::IndexMap::new(),
        });
        let records: Vec<Record> = records.collect();
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        let mut batch = BytesMut::new();
        RecordBatchEncoder::encode(&mut batch, &records, &options)
            .map_err(|error| AdminError::Options(format!("records: {error}")))?;
        let batch = batch.freeze();
        let timeout = self.broker_timeout_ms();
        let (answer, _) = self
            .ask_broker(leader, PRODUCE, |_| {
                let data = PartitionProduceData::default()
                    .with_index(partition.partition)
                    .with_records(Some(batch.clone()));
                let data = TopicProduceData::default()
                    .with_name(topic(&partition.topic))
                    .with_partition_data(vec![data]);
                ProduceRequest::default()
                    .with_acks(-1)
                    .with_timeout_ms(timeout)
                    .with_topic_data(vec![data])
            })
            .await?;
        let mut partitions = answer
            .responses
            .iter()
            .flat_map(|one| &one.partition_responses);
        let Some(one) = partitions.next() else {
            return Err(malformed(leader, "no partition in it"));
        };
        refused(one.error_code, one.error_message.as_ref())?;
        Ok(one.base_offset)
    }

    /// Offsets and values from `offset` on, as far as one answer goes; `id` is the topic's.
    pub async fn fetch(
        &self,
        leader: BrokerId,
        partition: &TopicPartition,
        id: Option<TopicId>,
        offset: i64,
    ) -> Result<Vec<(i64, Bytes)>, AdminError> {
        let (answer, _) = self
            .ask_broker(leader, FETCH, |version| {
                let one = FetchPartition::default()
                    .with_partition(partition.partition)
                    .with_fetch_offset(offset)
                    .with_current_leader_epoch(-1)
                    .with_partition_max_bytes(FETCH_BYTES_MAX);
                let named = FetchTopic::default().with_partitions(vec![one]);
                let one = if version >= FETCH_BY_ID {
                    named.with_topic_id(id.map_or(uuid::Uuid::nil(), |id| id.0))
                } else {
                    named.with_topic(topic(&partition.topic))
                };
                FetchRequest::default()
                    .with_replica_id(WireBroker(-1))
                    .with_max_wait_ms(500)
                    .with_min_bytes(1)
                    .with_max_bytes(FETCH_BYTES_MAX)
                    .with_session_epoch(-1)
                    .with_topics(vec![one])
            })
            .await?;
        refused(answer.error_code, None)?;
        let mut partitions = answer.responses.iter().flat_map(|one| &one.partitions);
        let Some(one) = partitions.next() else {
            return Err(malformed(leader, "no partition in it"));
        };
        refused(one.error_code, None)?;
        let Some(mut bytes) = one.records.clone() else {
            return Ok(Vec::new());
        };
        let sets = RecordBatchDecoder::decode_all(&mut bytes)
            .map_err(|error| malformed(leader, &error.to_string()))?;
        let records = sets.into_iter().flat_map(|set| set.records);
        Ok(records
            .filter(|record| record.offset >= offset)
            .map(|record| (record.offset, record.value.unwrap_or_default()))
            .collect())
    }
}

fn malformed(broker: BrokerId, cause: &str) -> AdminError {
    AdminError::Malformed {
        broker: broker.to_string(),
        cause: cause.to_owned(),
    }
}
