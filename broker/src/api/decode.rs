//! Decoding of request bodies that may lie.
//!
//! The generated decoders reserve as many elements as an array claims to have before they read the first, so
//! that a frame of a few bytes could ask for hundreds of gigabytes and take the process down. [`Guarded`]
//! stands between them and the frame: it fails lengths that cannot be true before a decoder sees them.

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::buf::ByteBuf;
use kafka_protocol::protocol::{Decodable, HeaderVersion};

/// No request has a string, an array or a field of bytes longer than this, but for the records of a
/// produce request, whose lengths are only held against the frame.
const LONGEST: usize = 4 << 20;

/// Fields of the largest honest request: every partition of a broker with 100,000 of them, some 30 fields each.
const MOST_READS: u32 = 4_000_000;

/// A request that cannot be what it claims to be. Costs its connection.
#[derive(Debug, thiserror::Error)]
pub enum MalformedRequest {
    #[error("the body cannot be decoded: {0}")]
    Body(String),
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

    /// Fails if a varint of four or five bytes that may end with `last` is more than the rest can hold.
    /// Shorter ones cannot exceed [`LONGEST`]. A boolean that is neither 0 nor 1 looks like a
    /// continuation byte, so every byte of the chain may be the first.
    fn check_varint(&self, last: u8) -> Result<(), TryGetError> {
        let most = self.bytes.len().min(LONGEST) + 1;
        for start in 0..self.chain_length.saturating_sub(2) {
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
