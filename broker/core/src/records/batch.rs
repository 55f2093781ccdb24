//! The header of a batch: reading it in place, walking over batches, checking the CRC.
//!
//! Everything here works on borrowed bytes and allocates nothing. A batch of magic 2 is described by
//! [`BatchHeader`]; what a log needs to know of a batch of any magic is a [`BatchMeta`].

use crate::ids::Offset;

use super::RecordError;

/// Bytes of offset and size field, which every magic begins with.
pub const LOG_OVERHEAD: usize = 12;
/// Bytes of a magic-2 header, records excluded.
pub const HEADER_SIZE: usize = 61;
/// Bytes needed to know the magic of a batch.
pub const SIZE_UP_TO_MAGIC: usize = 17;
/// The smallest value a size field may have: a message of magic 0 without key and value.
pub const SIZE_FIELD_MIN: i32 = 14;

/// Where fields stand in a batch; the first two and the magic are the same in every magic.
pub mod field {
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORDS_COUNT: usize = 57;
    /// Magic 0 and 1: CRC-32 of everything behind it.
    pub const LEGACY_CRC: usize = 12;
    /// Magic 0 and 1.
    pub const LEGACY_ATTRIBUTES: usize = 17;
    /// Magic 1.
    pub const LEGACY_TIMESTAMP: usize = 18;
}

/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;
/// The producer id of a batch without one.
pub const NO_PRODUCER_ID: i64 = -1;
/// The producer epoch of a batch without producer id.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// The sequence of a batch without one (also of every control batch).
pub const NO_SEQUENCE: i32 = -1;
/// The leader epoch of batches that carry none (magic 0 and 1).
pub const NO_LEADER_EPOCH: i32 = -1;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of attribute bits 0 to 2; ids 5 to 7 do not exist.
    pub fn from_id(id: u8) -> Result<Self, RecordError> {
        match id {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            _ => Err(RecordError::UnknownCompression(id)),
        }
    }

    /// The value of attribute bits 0 to 2.
    pub fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The name configurations use: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Whose clock the timestamps of a batch come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    CreateTime,
    /// The leader's: every record has the batch's maximum timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch. Bits that mean nothing are kept as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION: i16 = 0x07;
    const LOG_APPEND_TIME: i16 = 0x08;
    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;
    const DELETE_HORIZON: i16 = 0x40;

    pub fn new(compression: Compression, timestamp_type: TimestampType) -> Self {
        Self(i16::from(compression.id())).with_timestamp_type(timestamp_type)
    }

    pub fn compression(self) -> Result<Compression, RecordError> {
        Compression::from_id((self.0 & Self::COMPRESSION) as u8)
    }

    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the time after which tombstones may go (KIP-534).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    #[must_use]
    pub fn with_compression(self, compression: Compression) -> Self {
        Self(self.0 & !Self::COMPRESSION | i16::from(compression.id()))
    }

    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        self.with(
            Self::LOG_APPEND_TIME,
            timestamp_type == TimestampType::LogAppendTime,
        )
    }

    #[must_use]
    pub fn with_transactional(self, yes: bool) -> Self {
        self.with(Self::TRANSACTIONAL, yes)
    }

    #[must_use]
    pub fn with_control(self, yes: bool) -> Self {
        self.with(Self::CONTROL, yes)
    }

    #[must_use]
    pub fn with_delete_horizon(self, yes: bool) -> Self {
        self.with(Self::DELETE_HORIZON, yes)
    }

    /// Only the bits that mean something: what Kafka writes when it rewrites a header.
    #[must_use]
    pub fn known_bits(self) -> Self {
        Self(self.0 & 0x7f)
    }

    fn with(self, bit: i16, yes: bool) -> Self {
        Self(if yes { self.0 | bit } else { self.0 & !bit })
    }
}

/// The 61 bytes at the front of a magic-2 batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: Offset,
    /// Bytes behind this field: the size of the batch less 12.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    /// Milliseconds; the delete horizon if the attributes say so.
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads a header. Needs the first 61 bytes of the batch, not the whole of it; checks neither the
    /// CRC nor that the fields agree. Magics above 2 are read like 2, as Kafka's log files are.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(RecordError::Incomplete {
                needed: HEADER_SIZE,
            });
        };
        let header = Self {
            base_offset: i64_at(bytes, field::BASE_OFFSET),
            batch_length: i32_at(bytes, field::BATCH_LENGTH),
            partition_leader_epoch: i32_at(bytes, field::PARTITION_LEADER_EPOCH),
            magic: bytes[field::MAGIC] as i8,
            crc: i32_at(bytes, field::CRC) as u32,
            attributes: Attributes(i16_at(bytes, field::ATTRIBUTES)),
            last_offset_delta: i32_at(bytes, field::LAST_OFFSET_DELTA),
            base_timestamp: i64_at(bytes, field::BASE_TIMESTAMP),
            max_timestamp: i64_at(bytes, field::MAX_TIMESTAMP),
            producer_id: i64_at(bytes, field::PRODUCER_ID),
            producer_epoch: i16_at(bytes, field::PRODUCER_EPOCH),
            base_sequence: i32_at(bytes, field::BASE_SEQUENCE),
            records_count: i32_at(bytes, field::RECORDS_COUNT),
        };
        if header.magic < 2 {
            return Err(RecordError::UnknownMagic(header.magic));
        }
        if header.batch_length < (HEADER_SIZE - LOG_OVERHEAD) as i32 {
            return Err(RecordError::SizeTooSmall(header.batch_length));
        }
        Ok(header)
    }

    /// The header as it stands in front of the records.
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        put(
            &mut bytes,
            field::BASE_OFFSET,
            self.base_offset.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::BATCH_LENGTH,
            self.batch_length.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::PARTITION_LEADER_EPOCH,
            self.partition_leader_epoch.to_be_bytes(),
        );
        bytes[field::MAGIC] = self.magic as u8;
        put(&mut bytes, field::CRC, self.crc.to_be_bytes());
        put(
            &mut bytes,
            field::ATTRIBUTES,
            self.attributes.0.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::LAST_OFFSET_DELTA,
            self.last_offset_delta.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::BASE_TIMESTAMP,
            self.base_timestamp.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::MAX_TIMESTAMP,
            self.max_timestamp.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::PRODUCER_ID,
            self.producer_id.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::PRODUCER_EPOCH,
            self.producer_epoch.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::BASE_SEQUENCE,
            self.base_sequence.to_be_bytes(),
        );
        put(
            &mut bytes,
            field::RECORDS_COUNT,
            self.records_count.to_be_bytes(),
        );
        bytes
    }

    /// The offset of the last record; compaction may have removed that record.
    pub fn last_offset(&self) -> Offset {
        self.base_offset
            .wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The offset that follows this batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().wrapping_add(1)
    }

    /// Bytes of the whole batch.
    pub fn size_in_bytes(&self) -> usize {
        self.batch_length.max(0) as usize + LOG_OVERHEAD
    }

    /// The sequence of the last record, wrapping from 2^31-1 to 0; -1 without a sequence.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            increment_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    pub fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    pub fn compression(&self) -> Result<Compression, RecordError> {
        self.attributes.compression()
    }

    pub fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    /// Whether the batch comes from an idempotent or transactional producer.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The time after which the cleaner may drop tombstones of this batch, in milliseconds.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes
            .has_delete_horizon()
            .then_some(self.base_timestamp)
    }
}

/// `sequence + increment`, wrapping from 2^31-1 to 0.
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        increment
            .wrapping_sub(i32::MAX.wrapping_sub(sequence))
            .wrapping_sub(1)
    } else {
        sequence.wrapping_add(increment)
    }
}

/// `sequence - decrement`, wrapping from 0 to 2^31-1.
pub fn decrement_sequence(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement {
        i32::MAX
            .wrapping_sub(decrement.wrapping_sub(sequence))
            .wrapping_add(1)
    } else {
        sequence.wrapping_sub(decrement)
    }
}

/// What a log needs to know of a batch of any magic, without decompressing it.
///
/// A message of magic 0 or 1 counts as a batch of its own; a compressed one (a wrapper) has the offset
/// of its last inner message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMeta {
    /// For a wrapper of magic 0 or 1 the same as `last_offset`: the first is only known after
    /// decompression (see [`super::first_offset`]).
    pub base_offset: Offset,
    pub last_offset: Offset,
    pub size_in_bytes: usize,
    pub magic: i8,
    /// -1 for magic 0 and 1.
    pub leader_epoch: i32,
    pub attributes: Attributes,
    /// -1 for magic 0.
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub last_sequence: i32,
    pub is_transactional: bool,
    pub is_control: bool,
    /// None for a wrapper of magic 0 or 1.
    pub records_count: Option<i32>,
    /// CRC-32C (magic 2) or CRC-32, as stored.
    pub crc: u32,
}

impl BatchMeta {
    pub fn next_offset(&self) -> Offset {
        self.last_offset.wrapping_add(1)
    }

    pub fn compression(&self) -> Result<Compression, RecordError> {
        self.attributes.compression()
    }

    pub fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }
}

impl From<&BatchHeader> for BatchMeta {
    fn from(header: &BatchHeader) -> Self {
        Self {
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            size_in_bytes: header.size_in_bytes(),
            magic: header.magic,
            leader_epoch: header.partition_leader_epoch,
            attributes: header.attributes,
            max_timestamp: header.max_timestamp,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            is_transactional: header.is_transactional(),
            is_control: header.is_control(),
            records_count: Some(header.records_count),
            crc: header.crc,
        }
    }
}

/// Reads what stands in front of the records of a batch of any magic.
///
/// The bytes need not hold the whole batch, only its header (61 bytes for magic 2, at most 26 for the
/// others; 61 always suffice). A magic above 2 is read like 2, as Kafka does when it reads its log
/// files; [`batches`] refuses it. Errors: [`RecordError::Incomplete`] if the bytes end too early,
/// [`RecordError::SizeTooSmall`] if the size field is smaller than the magic's header.
pub fn read_batch_meta(bytes: &[u8]) -> Result<BatchMeta, RecordError> {
    if bytes.len() < LOG_OVERHEAD {
        return Err(RecordError::Incomplete {
            needed: SIZE_UP_TO_MAGIC,
        });
    }
    let size = i32_at(bytes, field::BATCH_LENGTH);
    if size < SIZE_FIELD_MIN {
        return Err(RecordError::SizeTooSmall(size));
    }
    let Some(&magic) = bytes.get(field::MAGIC) else {
        return Err(RecordError::Incomplete {
            needed: SIZE_UP_TO_MAGIC,
        });
    };
    let magic = magic as i8;
    if magic >= 2 {
        return BatchHeader::parse(bytes).map(|header| BatchMeta::from(&header));
    }
    let header_size = field::LEGACY_TIMESTAMP + if magic == 1 { 8 } else { 0 };
    if size < header_size as i32 - LOG_OVERHEAD as i32 + 8 {
        return Err(RecordError::SizeTooSmall(size));
    }
    if bytes.len() < header_size {
        return Err(RecordError::Incomplete {
            needed: header_size,
        });
    }
    let offset = i64_at(bytes, field::BASE_OFFSET);
    let attributes = Attributes(i16::from(bytes[field::LEGACY_ATTRIBUTES] & 0x0f));
    let compressed = attributes.0 & Attributes::COMPRESSION != 0;
    Ok(BatchMeta {
        base_offset: offset,
        last_offset: offset,
        size_in_bytes: size as usize + LOG_OVERHEAD,
        magic,
        leader_epoch: NO_LEADER_EPOCH,
        attributes,
        max_timestamp: if magic == 1 {
            i64_at(bytes, field::LEGACY_TIMESTAMP)
        } else {
            NO_TIMESTAMP
        },
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        base_sequence: NO_SEQUENCE,
        last_sequence: NO_SEQUENCE,
        is_transactional: false,
        is_control: false,
        records_count: (!compressed).then_some(1),
        crc: i32_at(bytes, field::LEGACY_CRC) as u32,
    })
}

/// Bytes of the batch that begins here, header and all, from its size field alone.
///
/// Errors: [`RecordError::Incomplete`] for fewer than 12 bytes, [`RecordError::SizeTooSmall`].
pub fn batch_size(bytes: &[u8]) -> Result<usize, RecordError> {
    if bytes.len() < LOG_OVERHEAD {
        return Err(RecordError::Incomplete {
            needed: LOG_OVERHEAD,
        });
    }
    let size = i32_at(bytes, field::BATCH_LENGTH);
    if size < SIZE_FIELD_MIN {
        return Err(RecordError::SizeTooSmall(size));
    }
    Ok(size as usize + LOG_OVERHEAD)
}

/// Compares the stored CRC with the bytes of one whole batch of any magic; bytes behind it are ignored.
pub fn verify_crc(batch: &[u8]) -> Result<(), RecordError> {
    let meta = read_batch_meta(batch)?;
    let Some(batch) = batch.get(..meta.size_in_bytes) else {
        return Err(RecordError::Incomplete {
            needed: meta.size_in_bytes,
        });
    };
    let computed = if meta.magic >= 2 {
        crc32c::crc32c(&batch[field::ATTRIBUTES..])
    } else {
        crc32fast::hash(&batch[field::MAGIC..])
    };
    if computed == meta.crc {
        Ok(())
    } else {
        Err(RecordError::CrcMismatch {
            stored: meta.crc,
            computed,
        })
    }
}

/// Walks over the whole batches (magic 0, 1 and 2) in `bytes`, giving the position of each.
///
/// Ends with an error at the first that is not whole or not well-formed: [`RecordError::Incomplete`]
/// for a batch cut at the end of the bytes, which is ordinary in an answer to Fetch. Does not check
/// CRCs.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, position: 0 }
}

/// See [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Batches<'a> {
    fn read(&self) -> Result<BatchMeta, RecordError> {
        let rest = &self.bytes[self.position..];
        if rest.len() >= SIZE_UP_TO_MAGIC {
            batch_size(rest)?;
            let magic = rest[field::MAGIC] as i8;
            if !(0..=2).contains(&magic) {
                return Err(RecordError::UnknownMagic(magic));
            }
        }
        let meta = read_batch_meta(rest)?;
        if rest.len() < meta.size_in_bytes {
            return Err(RecordError::Incomplete {
                needed: meta.size_in_bytes,
            });
        }
        Ok(meta)
    }

    /// The bytes of a batch that this walk has given.
    pub fn slice(&self, position: usize, meta: &BatchMeta) -> &'a [u8] {
        &self.bytes[position..position + meta.size_in_bytes]
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<(usize, BatchMeta), RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.bytes.len() {
            return None;
        }
        match self.read() {
            Ok(meta) => {
                let position = self.position;
                self.position += meta.size_in_bytes;
                Some(Ok((position, meta)))
            }
            Err(error) => {
                self.position = self.bytes.len();
                Some(Err(error))
            }
        }
    }
}

/// Writes a new base offset and leader epoch into a batch of magic 2; both lie outside the CRC.
///
/// Panics if `batch` is shorter than 16 bytes.
pub fn patch_offset_and_epoch(batch: &mut [u8], base_offset: Offset, leader_epoch: i32) {
    put(batch, field::BASE_OFFSET, base_offset.to_be_bytes());
    put(
        batch,
        field::PARTITION_LEADER_EPOCH,
        leader_epoch.to_be_bytes(),
    );
}

pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

pub(super) fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array_at(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array_at(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap() {
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(increment_sequence(i32::MAX, 5), 4);
        assert_eq!(decrement_sequence(0, 1), i32::MAX);
        assert_eq!(decrement_sequence(4, 5), i32::MAX);
    }

    #[test]
    fn header_survives_a_round_trip() {
        let header = BatchHeader {
            base_offset: 1,
            batch_length: 49,
            partition_leader_epoch: 3,
            magic: 2,
            crc: 0x8000_0001,
            attributes: Attributes(0x35),
            last_offset_delta: 5,
            base_timestamp: 6,
            max_timestamp: 7,
            producer_id: 8,
            producer_epoch: 9,
            base_sequence: 10,
            records_count: 11,
        };
        assert_eq!(BatchHeader::parse(&header.to_bytes()), Ok(header));
        assert!(matches!(
            BatchHeader::parse(&header.to_bytes()[..60]),
            Err(RecordError::Incomplete { needed: 61 })
        ));
    }

    #[test]
    fn a_size_field_that_is_too_small_ends_the_walk() {
        let mut walk = batches(&[0; 40]);
        assert_eq!(walk.next(), Some(Err(RecordError::SizeTooSmall(0))));
        assert_eq!(walk.next(), None);
    }
}
