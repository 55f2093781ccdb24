//! Messages of magic 0 and 1, which old clients send and fetch and old segments hold.
//!
//! A compressed message (wrapper) holds an inner set of messages as its value. A wrapper of magic 1 has
//! the offset of its last inner message, and inner offsets count from 0; in magic 0 they are absolute.

mod down;

use bytes::{Buf, Bytes};

use super::batch::{
    LOG_OVERHEAD, NO_SEQUENCE, NO_TIMESTAMP, SIZE_FIELD_MIN, field, i32_at, i64_at, put,
};
use super::codec::{self, Codec};
use super::record::{Headers, Record};
use super::{Attributes, Compression, RecordError, TimestampType, read_batch_meta};
use crate::ids::Offset;

pub use down::{DownConversionError, down_convert};

/// The most bytes a wrapper may decompress to. Its inner messages are all held at once, since the
/// offset of the last decides that of the first.
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
pub fn deep_records(batch: &Bytes, limit: usize) -> Result<Vec<LegacyRecord>, RecordError> {
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
        Compression::None => Ok(vec![outer]),
        Compression::Zstd => Err(RecordError::Malformed(
            "Invalid wrapper compressionType found in legacy deep record iterator",
        )),
        codec @ (Compression::Gzip | Compression::Snappy | Compression::Lz4) => {
            inner_records(&outer, codec, limit)
        }
    }
}

fn inner_records(
    wrapper: &LegacyRecord,
    codec: Compression,
    limit: usize,
) -> Result<Vec<LegacyRecord>, RecordError> {
    let data = wrapper.value.clone().ok_or(RecordError::Malformed(
        "Found invalid compressed record set with null value",
    ))?;
    let set = Bytes::from(codec::decompress(codec, wrapper.magic, data, limit)?);
    let mut records = Vec::new();
    let mut position = 0;
    while let Some(head) = set.get(position..position + LOG_OVERHEAD) {
        let offset = i64_at(head, field::BASE_OFFSET);
        let size = i32_at(head, field::BATCH_LENGTH);
        if size < SIZE_FIELD_MIN {
            return Err(RecordError::SizeTooSmall(size));
        }
        let start = position + LOG_OVERHEAD;
        let end = start + size as usize;
        if end > set.len() {
            break; // a partial last message is no message, as in a fetched set
        }
        let mut record = LegacyRecord::parse(offset, set.slice(start..end))?;
        if record.magic == 1
            && wrapper.magic == 1
            && wrapper.attributes.timestamp_type() == TimestampType::LogAppendTime
        {
            record.timestamp = wrapper.timestamp;
        }
        if record.attributes.compression()? != Compression::None {
            return Err(RecordError::Malformed(
                "Inner messages must not be compressed",
            ));
        }
        records.push(record);
        position = end;
    }
    let last_inner = records
        .last()
        .ok_or(RecordError::Malformed(
            "Found invalid compressed record set with no inner records",
        ))?
        .offset;
    if wrapper.magic == 1 {
        // Some versions of librdkafka leave the wrapper's offset 0.
        let base = if wrapper.offset == 0 {
            0
        } else if wrapper.offset < last_inner {
            return Err(RecordError::Malformed(
                "Found invalid wrapper offset in compressed v1 message set",
            ));
        } else {
            wrapper.offset.wrapping_sub(last_inner)
        };
        for record in &mut records {
            record.offset = record.offset.wrapping_add(base);
        }
    }
    Ok(records)
}

/// A message as it is written; size and CRC follow from it.
struct Message<'a> {
    offset: Offset,
    magic: i8,
    attributes: Attributes,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

impl Message<'_> {
    fn append_to(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&[0; 8]); // size and CRC
        out.push(self.magic as u8);
        out.push(self.attributes.0 as u8);
        if self.magic > 0 {
            out.extend_from_slice(&self.timestamp.to_be_bytes());
        }
        for part in [self.key, self.value] {
            match part {
                Some(part) => {
                    out.extend_from_slice(&(part.len() as i32).to_be_bytes());
                    out.extend_from_slice(part);
                }
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
            }
        }
        let size = (out.len() - start - LOG_OVERHEAD) as i32;
        let crc = crc32fast::hash(&out[start + field::MAGIC..]);
        put(out, start + field::BATCH_LENGTH, size.to_be_bytes());
        put(out, start + field::LEGACY_CRC, crc.to_be_bytes());
    }
}

/// Appends records as messages of `magic` (0 or 1); with a codec, as one wrapper.
///
/// `log_append_time` replaces the timestamps. Headers are dropped.
pub fn write_messages(
    out: &mut Vec<u8>,
    magic: i8,
    compression: Compression,
    log_append_time: Option<i64>,
    records: &[Record],
) {
    let (Some(first), Some(last)) = (records.first(), records.last()) else {
        return;
    };
    let timestamp_type = match log_append_time {
        Some(_) if magic > 0 => TimestampType::LogAppendTime,
        Some(_) | None => TimestampType::CreateTime,
    };
    let write = |out: &mut Vec<u8>, base: Offset| {
        for record in records {
            Message {
                offset: record.offset.wrapping_sub(base),
                magic,
                attributes: Attributes::new(Compression::None, timestamp_type),
                timestamp: log_append_time.unwrap_or(record.timestamp),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
            }
            .append_to(out);
        }
    };
    if compression == Compression::None {
        write(out, 0);
        return;
    }
    let mut inner = Vec::new();
    write(&mut inner, if magic > 0 { first.offset } else { 0 });
    let timestamps = records.iter().map(|record| record.timestamp);
    let codec = Codec::with_default_level(compression);
    Message {
        offset: last.offset,
        magic,
        attributes: Attributes::new(compression, timestamp_type),
        timestamp: log_append_time.unwrap_or_else(|| timestamps.max().unwrap_or(NO_TIMESTAMP)),
        key: None,
        value: Some(&codec::compress(codec, magic, &inner)),
    }
    .append_to(out);
}
