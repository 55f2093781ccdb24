//! Messages of magic 0 and 1, which old clients send and fetch and old segments hold.
//!
//! A compressed message (wrapper) holds an inner set of messages as its value. A wrapper of magic 1 has
//! the offset of its last inner message, and inner offsets count from 0; in magic 0 they are absolute.

mod down;

use bytes::{Buf, Bytes};

use super::batch::{
    LOG_OVERHEAD, NO_SEQUENCE, NO_TIMESTAMP, SIZE_FIELD_MIN, field, i32_at, i64_at, put,
};
use super::codec::{self, Codec, Encoder};
use super::record::{Headers, Record};
use super::{Attributes, Compression, RecordError, TimestampType, read_batch_meta};
use crate::ids::Offset;

pub use down::{DownConversionError, down_convert};

/// The most bytes that a wrapper may decompress to (its inner set is held as a whole, since the offset
/// of its last message decides that of the first), and that a batch may which is converted.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// One message of magic 0 or 1 that holds no inner set.
#[derive(Clone, Debug)]
pub struct LegacyRecord {
    pub offset: Offset,
    pub magic: i8,
    pub attributes: Attributes,
    /// -1 in magic 0; the wrapper's if that is a log append time.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// The message from its CRC on.
    message: Bytes,
}

impl LegacyRecord {
    /// Whether the message's own CRC-32 is right (a wrapper's CRC covers its inner set's bytes, but
    /// not what they decompress to).
    pub fn is_intact(&self) -> bool {
        self.stored_crc() == crc32fast::hash(&self.message[4..])
    }

    pub fn stored_crc(&self) -> u32 {
        i32_at(&self.message, 0) as u32
    }

    pub(super) fn into_record(self) -> Record {
        Record {
            offset: self.offset,
            timestamp: self.timestamp,
            sequence: NO_SEQUENCE,
            key: self.key,
            value: self.value,
            headers: Headers::default(),
        }
    }

    /// `message` begins with the CRC; bytes behind the value are ignored.
    fn parse(offset: Offset, message: Bytes) -> Result<Self, RecordError> {
        const CUT: RecordError = RecordError::Malformed("a message that is cut short");
        if message.len() < SIZE_FIELD_MIN as usize {
            return Err(CUT);
        }
        let magic = message[4] as i8;
        let mut rest = message.slice(6..);
        let timestamp = match magic {
            0 => NO_TIMESTAMP,
            1 => rest.try_get_i64().map_err(|_| CUT)?,
            _ => return Err(RecordError::UnknownMagic(magic)),
        };
        let mut part = || {
            let size = rest.try_get_i32().map_err(|_| CUT)?;
            let Ok(size) = usize::try_from(size) else {
                return Ok(None);
            };
            if size > rest.len() {
                return Err(CUT);
            }
            Ok(Some(rest.split_to(size)))
        };
        let key = part()?;
        let value = part()?;
        Ok(Self {
            offset,
            magic,
            attributes: Attributes(i16::from(message[5])),
            timestamp,
            key,
            value,
            message,
        })
    }
}

/// The messages of one whole message of magic 0 or 1: itself, or its inner set.
pub fn deep_records(batch: &Bytes, limit: usize) -> Result<DeepRecords, RecordError> {
    let meta = read_batch_meta(batch)?;
    if batch.len() < meta.size_in_bytes {
        return Err(RecordError::Incomplete {
            needed: meta.size_in_bytes,
        });
    }
    let outer = LegacyRecord::parse(
        meta.base_offset,
        batch.slice(LOG_OVERHEAD..meta.size_in_bytes),
    )?;
    match outer.attributes.compression()? {
        Compression::None => Ok(DeepRecords::Single(Some(outer))),
        Compression::Zstd => Err(RecordError::Malformed(
            "Invalid wrapper compressionType found in legacy deep record iterator",
        )),
        codec @ (Compression::Gzip | Compression::Snappy | Compression::Lz4) => {
            InnerSet::open(&outer, codec, limit).map(DeepRecords::Inner)
        }
    }
}

/// See [`deep_records`]. Ends with the first error.
pub enum DeepRecords {
    Single(Option<LegacyRecord>),
    Inner(InnerSet),
}

impl Iterator for DeepRecords {
    type Item = Result<LegacyRecord, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Single(record) => record.take().map(Ok),
            Self::Inner(set) => set.next(),
        }
    }
}

/// The messages in a wrapper.
pub struct InnerSet {
    rest: Bytes,
    /// What is added to the offset of each.
    base: Offset,
    log_append_time: Option<i64>,
}

impl InnerSet {
    fn open(wrapper: &LegacyRecord, codec: Compression, limit: usize) -> Result<Self, RecordError> {
        let data = wrapper.value.clone().ok_or(RecordError::Malformed(
            "Found invalid compressed record set with null value",
        ))?;
        let rest = Bytes::from(codec::decompress(codec, wrapper.magic, data, limit)?);
        let mut set = Self {
            base: 0,
            log_append_time: (wrapper.magic == 1
                && wrapper.attributes.timestamp_type() == TimestampType::LogAppendTime)
                .then_some(wrapper.timestamp),
            rest,
        };
        let last_inner = set.last_offset()?.ok_or(RecordError::Malformed(
            "Found invalid compressed record set with no inner records",
        ))?;
        // Some versions of librdkafka leave the wrapper's offset 0.
        if wrapper.magic == 1 && wrapper.offset != 0 {
            if wrapper.offset < last_inner {
                return Err(RecordError::Malformed(
                    "Found invalid wrapper offset in compressed v1 message set",
                ));
            }
            set.base = wrapper.offset.wrapping_sub(last_inner);
        }
        Ok(set)
    }

    fn last_offset(&self) -> Result<Option<Offset>, RecordError> {
        let mut rest = self.rest.clone();
        let mut last = None;
        while let Some((offset, _)) = next_inner(&mut rest)? {
            last = Some(offset);
        }
        Ok(last)
    }

    fn next(&mut self) -> Option<Result<LegacyRecord, RecordError>> {
        let record = match next_inner(&mut self.rest) {
            Ok(None) => return None,
            Ok(Some((offset, message))) => self.inner_record(offset, message),
            Err(error) => Err(error),
        };
        if record.is_err() {
            self.rest.clear();
        }
        Some(record)
    }

    fn inner_record(&self, offset: Offset, message: Bytes) -> Result<LegacyRecord, RecordError> {
        let mut record = LegacyRecord::parse(offset.wrapping_add(self.base), message)?;
        if record.attributes.compression()? != Compression::None {
            return Err(RecordError::Malformed(
                "Inner messages must not be compressed",
            ));
        }
        if record.magic == 1 {
            record.timestamp = self.log_append_time.unwrap_or(record.timestamp);
        }
        Ok(record)
    }
}

/// Offset and message (from its CRC on) at the front of a set. A partial last message is none, as in
/// a fetched set.
fn next_inner(rest: &mut Bytes) -> Result<Option<(Offset, Bytes)>, RecordError> {
    if rest.len() < LOG_OVERHEAD {
        return Ok(None);
    }
    let offset = i64_at(rest, field::BASE_OFFSET);
    let size = i32_at(rest, field::BATCH_LENGTH);
    if size < SIZE_FIELD_MIN {
        return Err(RecordError::SizeTooSmall(size));
    }
    if size as usize > rest.len() - LOG_OVERHEAD {
        return Ok(None);
    }
    rest.advance(LOG_OVERHEAD);
    Ok(Some((offset, rest.split_to(size as usize))))
}

/// Appends records as messages of `magic` (0 or 1); with a codec, as one wrapper. Nothing is appended
/// for no records.
///
/// `log_append_time` replaces the timestamps. Headers are dropped. With an error among the records
/// `out` is as it was before.
pub fn write_messages<E>(
    out: &mut Vec<u8>,
    format: MessageFormat,
    records: impl IntoIterator<Item = Result<Record, E>>,
) -> Result<(), E> {
    let start = out.len();
    let mut writer = MessageWriter::new(std::mem::take(out), format);
    let result = records
        .into_iter()
        .try_for_each(|record| record.map(|record| writer.push(&record)));
    *out = writer.finish();
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// How messages are written.
#[derive(Clone, Copy, Debug)]
pub struct MessageFormat {
    /// 0 or 1.
    pub magic: i8,
    pub compression: Compression,
    pub log_append_time: Option<i64>,
}

impl MessageFormat {
    fn attributes(&self, compression: Compression) -> Attributes {
        let timestamp_type = match self.log_append_time {
            Some(_) if self.magic > 0 => TimestampType::LogAppendTime,
            Some(_) | None => TimestampType::CreateTime,
        };
        Attributes::new(compression, timestamp_type)
    }

    /// Bytes from the offset to the size of the key.
    fn size_up_to_key(&self) -> usize {
        field::LEGACY_TIMESTAMP + if self.magic > 0 { 8 } else { 0 }
    }

    fn put_up_to_key(&self, message: &mut Vec<u8>, compression: Compression, timestamp: i64) {
        message.extend_from_slice(&[0; field::MAGIC]); // offset, size and CRC
        message.push(self.magic as u8);
        message.push(self.attributes(compression).0 as u8);
        if self.magic > 0 {
            message.extend_from_slice(&timestamp.to_be_bytes());
        }
    }
}

struct MessageWriter {
    format: MessageFormat,
    encoder: Encoder,
    start: usize,
    message: Vec<u8>,
    first_offset: Option<Offset>,
    last_offset: Offset,
    max_timestamp: i64,
}

impl MessageWriter {
    fn new(mut out: Vec<u8>, format: MessageFormat) -> Self {
        let start = out.len();
        if format.compression != Compression::None {
            format.put_up_to_key(&mut out, format.compression, NO_TIMESTAMP);
            out.extend_from_slice(&(-1_i32).to_be_bytes()); // no key
            out.extend_from_slice(&[0; 4]); // the size of the value
        }
        let codec = Codec::with_default_level(format.compression);
        Self {
            format,
            encoder: Encoder::new(codec, format.magic, out),
            start,
            message: Vec::new(),
            first_offset: None,
            last_offset: -1,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    fn push(&mut self, record: &Record) {
        let first_offset = *self.first_offset.get_or_insert(record.offset);
        let is_relative = self.format.magic > 0 && self.format.compression != Compression::None;
        let offset = record
            .offset
            .wrapping_sub(if is_relative { first_offset } else { 0 });
        let timestamp = self.format.log_append_time.unwrap_or(record.timestamp);
        self.last_offset = record.offset;
        self.max_timestamp = self.max_timestamp.max(timestamp);

        let message = &mut self.message;
        message.clear();
        self.format
            .put_up_to_key(message, Compression::None, timestamp);
        for part in [&record.key, &record.value] {
            match part {
                Some(part) => {
                    message.extend_from_slice(&(part.len() as i32).to_be_bytes());
                    message.extend_from_slice(part);
                }
                None => message.extend_from_slice(&(-1_i32).to_be_bytes()),
            }
        }
        seal(message, offset);
        self.encoder.write(message);
    }

    fn finish(self) -> Vec<u8> {
        let mut out = self.encoder.finish();
        if self.first_offset.is_none() {
            out.truncate(self.start);
        } else if self.format.compression != Compression::None {
            let wrapper = &mut out[self.start..];
            if self.format.magic > 0 {
                let timestamp = self.max_timestamp.to_be_bytes();
                put(wrapper, field::LEGACY_TIMESTAMP, timestamp);
            }
            let value = self.format.size_up_to_key() + 4;
            let value_size = (wrapper.len() - value - 4) as i32;
            put(wrapper, value, value_size.to_be_bytes());
            seal(wrapper, self.last_offset);
        }
        out
    }
}

/// Sets offset, size and CRC of a message that is otherwise complete.
fn seal(message: &mut [u8], offset: Offset) {
    let size = (message.len() - LOG_OVERHEAD) as i32;
    let crc = crc32fast::hash(&message[field::MAGIC..]);
    put(message, field::BASE_OFFSET, offset.to_be_bytes());
    put(message, field::BATCH_LENGTH, size.to_be_bytes());
    put(message, field::LEGACY_CRC, crc.to_be_bytes());
}
