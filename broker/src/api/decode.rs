//! Decoding of request bodies that may lie.
//!
//! The generated decoders reserve as many elements as an array claims to have before they read the first, so
//! that a frame of a few bytes could ask for hundreds of gigabytes and take the process down. [`Guarded`]
//! stands between them and the frame: it fails lengths that cannot be true before a decoder sees them.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName, TransactionalId};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Decodable, HeaderVersion, StrBytes};

/// No request has a string, an array or a field of bytes longer than this, but for the records of a
/// produce request.
const LONGEST: usize = 4 << 20;

/// Fields of the largest honest request: every partition of a broker with 100,000 of them, some 30 fields each.
const MOST_READS: u32 = 4_000_000;

/// A request that cannot be what it claims to be. Costs its connection.
#[derive(Debug, thiserror::Error)]
pub enum MalformedRequest {
    #[error("the body cannot be decoded: {0}")]
    Body(String),
    #[error("the body ends before its last field")]
    Truncated,
    #[error("a field is null that must not be")]
    Null,
    #[error("the body has more than {MOST_READS} fields")]
    TooManyFields,
}

/// Decodes `body` at `version` under guard; what follows the body is ignored, as Kafka does.
pub fn guarded<R: Decodable + HeaderVersion>(
    body: Bytes,
    version: i16,
) -> Result<R, MalformedRequest> {
    // A flexible request has a header of version 2, and all its lengths are varints (KIP-482).
    let is_flexible = R::header_version(version) >= 2;
    let mut guarded = Guarded::new(body.clone(), is_flexible);
    let outcome = R::decode(&mut guarded, version);
    if guarded.reads_left == 0 {
        return Err(MalformedRequest::TooManyFields);
    }
    let decoded = outcome.map_err(|error| MalformedRequest::Body(error.to_string()))?;
    if !guarded.has_altered {
        return Ok(decoded);
    }
    // Some number was larger than the rest of the frame, and no array was: it was no length.
    drop(decoded);
    let mut body = body;
    R::decode(&mut body, version).map_err(|error| MalformedRequest::Body(error.to_string()))
}

/// Decodes a produce request. It is the one whose fields of bytes may fill the frame, so it has a decoder of
/// its own that holds every length against what can follow it. Records are slices of the frame.
pub fn produce(mut body: Bytes, version: i16) -> Result<ProduceRequest, MalformedRequest> {
    let mut fields = ProduceFields {
        body: &mut body,
        is_flexible: version >= 9,
        left: MOST_READS,
    };
    let mut request = ProduceRequest::default();
    if version >= 3 {
        let id = fields.string()?;
        request.transactional_id = id.map(TransactionalId);
    }
    request.acks = fields.body.try_get_i16()?;
    request.timeout_ms = fields.body.try_get_i32()?;
    for _ in 0..fields.count()? {
        let name = fields.string()?.ok_or(MalformedRequest::Null)?;
        let mut topic = TopicProduceData::default().with_name(TopicName(name));
        for _ in 0..fields.count()? {
            let index = fields.body.try_get_i32()?;
            let records = fields.bytes()?;
            let partition = PartitionProduceData::default()
                .with_index(index)
                .with_records(records);
            topic.partition_data.push(partition);
            fields.skip_tagged()?;
        }
        request.topic_data.push(topic);
        fields.skip_tagged()?;
    }
    fields.skip_tagged()?;
    Ok(request)
}

/// The kinds of fields that a produce request has.
struct ProduceFields<'a> {
    body: &'a mut Bytes,
    is_flexible: bool,
    /// Elements of arrays that may still come.
    left: u32,
}

impl ProduceFields<'_> {
    fn varint(&mut self) -> Result<u32, MalformedRequest> {
        super::dispatch::varint(self.body).ok_or(MalformedRequest::Truncated)
    }

    /// The size of what follows; `None` for null.
    fn size(&mut self, of_string: bool) -> Result<Option<usize>, MalformedRequest> {
        if self.is_flexible {
            return Ok((self.varint()? as usize).checked_sub(1));
        }
        let size = if of_string {
            i32::from(self.body.try_get_i16()?)
        } else {
            self.body.try_get_i32()?
        };
        match size {
            -1 => Ok(None),
            size => usize::try_from(size)
                .map(Some)
                .map_err(|_| MalformedRequest::Truncated),
        }
    }

    fn take(&mut self, size: usize) -> Result<Bytes, MalformedRequest> {
        if size > self.body.len() {
            return Err(MalformedRequest::Truncated);
        }
        Ok(self.body.split_to(size))
    }

    fn bytes(&mut self) -> Result<Option<Bytes>, MalformedRequest> {
        self.size(false)?.map(|size| self.take(size)).transpose()
    }

    fn string(&mut self) -> Result<Option<StrBytes>, MalformedRequest> {
        let Some(size) = self.size(true)? else {
            return Ok(None);
        };
        let text = StrBytes::from_utf8(self.take(size)?);
        text.map(Some)
            .map_err(|error| MalformedRequest::Body(error.to_string()))
    }

    fn count(&mut self) -> Result<usize, MalformedRequest> {
        let count = self.size(false)?.ok_or(MalformedRequest::Null)?;
        let left = u32::try_from(count)
            .ok()
            .and_then(|count| self.left.checked_sub(count));
        self.left = left.ok_or(MalformedRequest::TooManyFields)?;
        Ok(count)
    }

    fn skip_tagged(&mut self) -> Result<(), MalformedRequest> {
        if !self.is_flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take(size as usize)?;
        }
        Ok(())
    }
}

impl From<TryGetError> for MalformedRequest {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

/// A buffer that does not let through a length that the rest of it cannot hold.
///
/// It is not told which numbers are lengths. Varints are lengths, counts or tags, so a varint beyond the
/// rest of the buffer fails. An `i32` may be a plain number: one beyond the rest is read as "one more
/// than the rest", which makes an array fail for want of bytes, and is remembered in `has_altered`. What a
/// decoder does next depends on lengths only, so a run that succeeds proves that no array lied.
struct Guarded {
    bytes: Bytes,
    is_flexible: bool,
    has_altered: bool,
    /// Continuation bytes that were read just before, at most 4: the candidates for the start of a varint.
    chain: [u8; 4],
    chain_length: usize,
    reads_left: u32,
}

impl Guarded {
    fn new(bytes: Bytes, is_flexible: bool) -> Self {
        Self {
            bytes,
            is_flexible,
            has_altered: false,
            chain: [0; 4],
            chain_length: 0,
            reads_left: MOST_READS,
        }
    }
}

impl Guarded {
    fn spend(&mut self) -> Result<(), TryGetError> {
        self.reads_left = self.reads_left.saturating_sub(1);
        if self.reads_left == 0 {
            Err(self.too_short_for(usize::MAX))
        } else {
            Ok(())
        }
    }

    fn too_short_for(&self, requested: usize) -> TryGetError {
        TryGetError {
            requested,
            available: self.bytes.len(),
        }
    }

    /// Fails if a varint of three or more bytes that may end with `last` is more than the rest can hold;
    /// shorter ones do no harm. A boolean that is neither 0 nor 1 looks like a continuation byte, so every
    /// byte of the chain may be the first.
    fn check_varint(&self, last: u8) -> Result<(), TryGetError> {
        let most = self.bytes.len().min(LONGEST) + 1;
        for start in 0..self.chain_length.saturating_sub(1) {
            let length = self.chain[start..self.chain_length]
                .iter()
                .chain([&last])
                .rev()
                .fold(0_usize, |value, byte| value << 7 | usize::from(byte & 0x7f));
            if length > most {
                return Err(self.too_short_for(length));
            }
        }
        Ok(())
    }
}

impl Buf for Guarded {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.chain_length = 0;
        self.reads_left = self.reads_left.saturating_sub(1);
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        self.spend()?;
        let byte = self.bytes.try_get_u8()?;
        if self.is_flexible {
            self.check_varint(byte)?;
            if byte < 0x80 {
                self.chain_length = 0;
            } else {
                if self.chain_length == self.chain.len() {
                    self.chain.rotate_left(1);
                    self.chain_length -= 1;
                }
                self.chain[self.chain_length] = byte;
                self.chain_length += 1;
            }
        }
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.spend()?;
        self.chain_length = 0;
        let number = self.bytes.try_get_i32()?;
        let most = self.bytes.len().min(LONGEST);
        if self.is_flexible || number <= most as i32 {
            return Ok(number);
        }
        self.has_altered = true;
        Ok(most as i32 + 1)
    }
}

impl ByteBuf for Guarded {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.chain_length = 0;
        self.reads_left = self.reads_left.saturating_sub(1);
        self.bytes.split_to(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{BufMut as _, BytesMut};
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::{CreateTopicsRequest, ListOffsetsRequest, MetadataRequest};
    use kafka_protocol::protocol::Encodable as _;

    fn encoded(request: &MetadataRequest, version: i16) -> Bytes {
        let mut bytes = BytesMut::new();
        request.encode(&mut bytes, version).unwrap();
        bytes.freeze()
    }

    #[test]
    fn honest_requests_pass_in_all_versions() {
        for version in 0..=12 {
            let mut request = MetadataRequest::default().with_topics(Some(
                (0..300)
                    .map(|n| {
                        let name = format!("topic-{n}");
                        MetadataRequestTopic::default().with_name(Some(
                            kafka_protocol::protocol::StrBytes::from_string(name).into(),
                        ))
                    })
                    .collect(),
            ));
            request.allow_auto_topic_creation = true;
            let decoded: MetadataRequest = guarded(encoded(&request, version), version).unwrap();
            assert_eq!(decoded, request, "version {version}");
        }
    }

    #[test]
    fn produce_requests_are_decoded_as_by_the_generated_decoder() {
        let partition = |index, records: Option<&'static [u8]>| {
            PartitionProduceData::default()
                .with_index(index)
                .with_records(records.map(Bytes::from_static))
        };
        let topic = |name, partitions| {
            TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_static_str(name)))
                .with_partition_data(partitions)
        };
        for version in 0..=11 {
            let id = TransactionalId(StrBytes::from_static_str("x"));
            let request = ProduceRequest::default()
                .with_transactional_id((version >= 3).then_some(id))
                .with_acks(-1)
                .with_timeout_ms(30_000)
                .with_topic_data(vec![
                    topic(
                        "a",
                        vec![partition(0, Some(b"records")), partition(7, None)],
                    ),
                    topic("b", vec![]),
                ]);
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            let body = body.freeze();
            assert_eq!(
                produce(body.clone(), version).unwrap(),
                request,
                "version {version}"
            );
            for length in 0..body.len() {
                assert!(
                    produce(body.slice(..length), version).is_err(),
                    "{version} {length}"
                );
            }
        }
    }

    #[test]
    fn lying_lengths_of_a_produce_request_fail() {
        let body = |count: &[u8]| {
            let mut body = vec![0, 0xff, 0xff, 0, 0, 0, 1];
            body.extend_from_slice(count);
            Bytes::from(body)
        };
        for count in [
            &[2][..],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x80, 0x80, 0x80, 0x01],
        ] {
            assert!(produce(body(count), 9).is_err());
        }
    }

    #[test]
    fn numbers_larger_than_the_frame_are_no_lengths() {
        let mut body = BytesMut::new();
        ListOffsetsRequest::default()
            .with_replica_id(kafka_protocol::messages::BrokerId(i32::MAX))
            .encode(&mut body, 1)
            .unwrap();
        let decoded: ListOffsetsRequest = guarded(body.freeze(), 1).unwrap();
        assert_eq!(decoded.replica_id.0, i32::MAX);
    }

    #[test]
    fn lying_array_lengths_fail() {
        for count in [1, 5, 1000, 1 << 20, i32::MAX] {
            let mut body = BytesMut::new();
            body.put_i32(count);
            assert!(
                guarded::<MetadataRequest>(body.freeze(), 1).is_err(),
                "{count}"
            );
        }
        for length in [
            &[0x02][..],
            &[0xff, 0x7f],
            &[0xff, 0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0x80, 0x80, 0x80, 0x80, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            let body = Bytes::copy_from_slice(length);
            assert!(guarded::<MetadataRequest>(body, 12).is_err(), "{length:x?}");
        }
    }

    #[test]
    fn a_boolean_that_looks_like_a_varint_hides_no_length() {
        // CreateTopics v5: topics, timeout, validate only, tagged fields. The count of tagged fields follows a boolean.
        let body = [1, 0, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x0f];
        assert!(guarded::<CreateTopicsRequest>(Bytes::copy_from_slice(&body), 5).is_err());
    }

    #[test]
    fn a_frame_of_tiny_elements_is_bounded() {
        // Every element of a null array of topics is as small as elements get.
        let mut body = BytesMut::new();
        body.put_i32(6_000_000);
        body.put_bytes(0, 2 * 6_000_000);
        let outcome = guarded::<MetadataRequest>(body.freeze(), 1);
        assert!(outcome.is_err());
    }
}
