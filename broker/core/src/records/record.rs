//! Records of a batch: where their parts stand, and walking over them.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::batch::{self, BatchHeader, HEADER_SIZE};
use super::codec::{DECOMPRESSED_BYTES_MAX, Decoder};
use super::legacy;
use super::varint::{read_varint, read_varlong};
use super::{Compression, RecordError, TimestampType, read_batch_meta};
use crate::ids::Offset;

pub(super) const TOO_FEW_BYTES: RecordError =
    RecordError::Malformed("Incorrect declared batch size, premature EOF reached");
pub(super) const TOO_MANY_BYTES: RecordError =
    RecordError::Malformed("Incorrect declared batch size, records still remaining in file");
pub(super) const BAD_STRUCTURE: RecordError =
    RecordError::Malformed("Found invalid record structure");

/// One record with its place and time in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub offset: Offset,
    /// Milliseconds; -1 if it has none. The batch's maximum where that is a log append time.
    pub timestamp: i64,
    /// -1 without an idempotent producer.
    pub sequence: i32,
    pub key: Option<Bytes>,
    /// None is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    pub headers: Headers,
}

/// The headers of a record (KIP-82), still encoded.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Headers {
    encoded: Bytes,
    count: usize,
}

impl Headers {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each, in order. Names should be UTF-8, but nobody checks.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> + '_ {
        let mut position = 0;
        (0..self.count).map_while(move |_| {
            let name = read_part(&self.encoded, &mut position).ok()??;
            let value = read_part(&self.encoded, &mut position).ok()?;
            Some((
                self.encoded.slice(name),
                value.map(|value| self.encoded.slice(value)),
            ))
        })
    }
}

/// Where the parts of one record's body (all that follows its size) stand.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    /// Where the size of the key stands: all behind it is the same whatever the record's place.
    pub(super) tail: usize,
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Option<Range<usize>>,
    headers: usize,
    headers_count: usize,
}

impl Layout {
    /// Reads a body that must end exactly where `body` does.
    #[inline]
    pub(super) fn parse(body: &[u8]) -> Result<Self, RecordError> {
        if body.is_empty() {
            return Err(BAD_STRUCTURE);
        }
        let mut position = 1; // the attributes, which mean nothing
        let timestamp_delta = read_varlong(body, &mut position).map_err(|_| BAD_STRUCTURE)?;
        let offset_delta = read_varint(body, &mut position).map_err(|_| BAD_STRUCTURE)?;
        let tail = position;
        let key = read_part(body, &mut position)?;
        let value = read_part(body, &mut position)?;
        let headers_count = read_varint(body, &mut position).map_err(|_| BAD_STRUCTURE)?;
        let headers = position;
        if headers_count != 0 {
            skip_headers(body, &mut position, headers_count)?;
        }
        if position != body.len() {
            return Err(RecordError::Malformed(
                "Invalid record size: the record's parts do not fill it",
            ));
        }
        Ok(Self {
            timestamp_delta,
            offset_delta,
            tail,
            key,
            value,
            headers,
            headers_count: headers_count as usize,
        })
    }

    fn record(&self, body: &Bytes, context: &Context) -> Record {
        Record {
            offset: context.offset(self.offset_delta),
            timestamp: context.timestamp(self.timestamp_delta),
            sequence: context.sequence(self.offset_delta),
            key: self.key.clone().map(|range| body.slice(range)),
            value: self.value.clone().map(|range| body.slice(range)),
            headers: Headers {
                encoded: body.slice(self.headers..),
                count: self.headers_count,
            },
        }
    }
}

/// Reads a size and skips as many bytes; a negative size is null.
#[inline]
fn read_part(body: &[u8], position: &mut usize) -> Result<Option<Range<usize>>, RecordError> {
    let size = read_varint(body, position).map_err(|_| BAD_STRUCTURE)?;
    let Ok(size) = usize::try_from(size) else {
        return Ok(None);
    };
    let start = *position;
    if size > body.len() - start {
        return Err(BAD_STRUCTURE);
    }
    *position = start + size;
    Ok(Some(start..start + size))
}

fn skip_headers(body: &[u8], position: &mut usize, count: i32) -> Result<(), RecordError> {
    if count < 0 || count as usize > body.len() - *position {
        return Err(RecordError::Malformed(
            "Found invalid number of record headers",
        ));
    }
    for _ in 0..count {
        if read_part(body, position)?.is_none() {
            return Err(RecordError::Malformed("Invalid negative header key size"));
        }
        read_part(body, position)?;
    }
    Ok(())
}

/// What the header says that each record needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    base_offset: Offset,
    base_timestamp: i64,
    base_sequence: i32,
    log_append_time: Option<i64>,
}

impl Context {
    pub(super) fn of(header: &BatchHeader) -> Self {
        Self {
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            base_sequence: header.base_sequence,
            log_append_time: match header.timestamp_type() {
                TimestampType::CreateTime => None,
                TimestampType::LogAppendTime => Some(header.max_timestamp),
            },
        }
    }

    pub(super) fn offset(&self, delta: i32) -> Offset {
        self.base_offset.wrapping_add(i64::from(delta))
    }

    pub(super) fn timestamp(&self, delta: i64) -> i64 {
        self.log_append_time
            .unwrap_or_else(|| self.base_timestamp.wrapping_add(delta))
    }

    fn sequence(&self, delta: i32) -> i32 {
        if self.base_sequence < 0 {
            batch::NO_SEQUENCE
        } else {
            batch::increment_sequence(self.base_sequence, delta)
        }
    }
}

/// The records of one whole batch of any magic, in order, decompressed as they are asked for.
///
/// Bytes behind the batch are ignored; the CRC is not checked. After an error the walk is over. At
/// most [`DECOMPRESSED_BYTES_MAX`] bytes are decompressed, and only what one record needs is held.
pub fn records(batch: &Bytes) -> Result<Records, RecordError> {
    records_within(batch, DECOMPRESSED_BYTES_MAX)
}

/// [`records`] that gives up with [`RecordError::TooLarge`] beyond `limit` decompressed bytes.
pub fn records_within(batch: &Bytes, limit: usize) -> Result<Records, RecordError> {
    let meta = read_batch_meta(batch)?;
    if batch.len() < meta.size_in_bytes {
        return Err(RecordError::Incomplete {
            needed: meta.size_in_bytes,
        });
    }
    let batch = batch.slice(..meta.size_in_bytes);
    if meta.magic < 2 {
        let records = legacy::deep_records(&batch, limit.min(legacy::DECOMPRESSED_BYTES_MAX))?;
        return Ok(Records {
            source: Source::Legacy(records),
            left: 0,
        });
    }
    let header = BatchHeader::parse(&batch)?;
    let count = usize::try_from(header.records_count)
        .map_err(|_| RecordError::Malformed("Found invalid record count"))?;
    let compression = header.compression()?;
    let payload = batch.slice(HEADER_SIZE..);
    let source = if count == 0 {
        Source::Empty
    } else if compression == Compression::None {
        Source::Plain {
            payload,
            context: Context::of(&header),
        }
    } else {
        Source::Compressed {
            decoder: Decoder::new(compression, payload, header.magic, limit)?,
            pending: BytesMut::new(),
            context: Context::of(&header),
        }
    };
    Ok(Records {
        source,
        left: count,
    })
}

/// See [`records`].
pub struct Records {
    source: Source,
    left: usize,
}

enum Source {
    Empty,
    Plain {
        payload: Bytes,
        context: Context,
    },
    Compressed {
        decoder: Decoder,
        pending: BytesMut,
        context: Context,
    },
    Legacy(legacy::DeepRecords),
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Source::Legacy(records) = &mut self.source {
            return records
                .next()
                .map(|record| record.map(legacy::LegacyRecord::into_record));
        }
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let record = self.source.next(self.left == 0);
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}

impl Source {
    fn next(&mut self, is_last: bool) -> Result<Record, RecordError> {
        match self {
            Self::Empty | Self::Legacy(_) => Err(TOO_FEW_BYTES),
            Self::Plain { payload, context } => {
                let mut rest = &payload[..];
                let size = plain_body(&mut rest, is_last)?.len();
                payload.advance(payload.len() - rest.len() - size);
                let body = payload.split_to(size);
                Layout::parse(&body).map(|layout| layout.record(&body, context))
            }
            Self::Compressed {
                decoder,
                pending,
                context,
            } => {
                let body = decompressed_body(decoder, pending, is_last)?.freeze();
                Layout::parse(&body).map(|layout| layout.record(&body, context))
            }
        }
    }
}

/// The body of the next record, behind its size.
fn decompressed_body(
    decoder: &mut Decoder,
    pending: &mut BytesMut,
    is_last: bool,
) -> Result<BytesMut, RecordError> {
    let (size, prefix) = loop {
        let mut position = 0;
        match read_varint(pending, &mut position) {
            Ok(size) => break (size, position),
            Err(error) => {
                if pending.len() >= 5 || fill(decoder, pending)? == 0 {
                    return Err(error.into());
                }
            }
        }
    };
    pending.advance(prefix);
    let size = usize::try_from(size).map_err(|_| BAD_STRUCTURE)?;
    while pending.len() < size {
        if fill(decoder, pending)? == 0 {
            return Err(TOO_FEW_BYTES);
        }
    }
    let body = pending.split_to(size);
    if is_last && (!pending.is_empty() || fill(decoder, pending)? > 0) {
        return Err(TOO_MANY_BYTES);
    }
    Ok(body)
}

/// The next record of an uncompressed batch: its body, behind its size.
fn plain_body<'a>(payload: &mut &'a [u8], is_last: bool) -> Result<&'a [u8], RecordError> {
    let mut position = 0;
    let size = read_varint(payload, &mut position)?;
    let size = usize::try_from(size).map_err(|_| BAD_STRUCTURE)?;
    let rest = &payload[position..];
    let (body, rest) = rest.split_at_checked(size).ok_or(TOO_FEW_BYTES)?;
    *payload = rest;
    if is_last && !rest.is_empty() {
        return Err(TOO_MANY_BYTES);
    }
    Ok(body)
}

/// A record that is looked at where it stands, without memory of its own.
pub struct RecordView<'a> {
    body: &'a [u8],
    layout: Layout,
    context: &'a Context,
}

impl RecordView<'_> {
    pub fn offset(&self) -> Offset {
        self.context.offset(self.layout.offset_delta)
    }

    /// See [`Record::timestamp`].
    pub fn timestamp(&self) -> i64 {
        self.context.timestamp(self.layout.timestamp_delta)
    }

    pub fn key(&self) -> Option<&[u8]> {
        self.layout.key.clone().map(|range| &self.body[range])
    }

    pub fn has_value(&self) -> bool {
        self.layout.value.is_some()
    }

    /// Key, value and headers, encoded: the same whatever the record's place.
    pub fn tail(&self) -> &[u8] {
        &self.body[self.layout.tail..]
    }
}

/// Shows `visit` each record of one whole batch of magic 2, in order; the first error ends that. At
/// most [`DECOMPRESSED_BYTES_MAX`] bytes are decompressed.
pub fn visit_records(
    batch: &[u8],
    mut visit: impl FnMut(&RecordView<'_>) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let header = BatchHeader::parse(batch)?;
    let size = header.size_in_bytes();
    let payload = batch
        .get(HEADER_SIZE..size)
        .ok_or(RecordError::Incomplete { needed: size })?;
    let count = usize::try_from(header.records_count)
        .map_err(|_| RecordError::Malformed("Found invalid record count"))?;
    let context = Context::of(&header);
    let mut show = |body: &[u8]| {
        visit(&RecordView {
            body,
            layout: Layout::parse(body)?,
            context: &context,
        })
    };
    let compression = header.compression()?;
    if compression == Compression::None {
        let mut payload = payload;
        for left in (0..count).rev() {
            show(plain_body(&mut payload, left == 0)?)?;
        }
    } else if count > 0 {
        let payload = Bytes::copy_from_slice(payload);
        let mut decoder = Decoder::new(compression, payload, header.magic, DECOMPRESSED_BYTES_MAX)?;
        let mut pending = BytesMut::new();
        for left in (0..count).rev() {
            show(&decompressed_body(&mut decoder, &mut pending, left == 0)?)?;
        }
    }
    Ok(())
}

/// Decompresses a little more; 0 at the end.
fn fill(decoder: &mut Decoder, pending: &mut BytesMut) -> Result<usize, RecordError> {
    let start = pending.len();
    pending.resize(start + start.clamp(4096, 1 << 20), 0);
    let read = decoder.read(&mut pending[start..])?;
    pending.truncate(start + read);
    Ok(read)
}

/// The offset of the first record of a batch of any magic: the base offset, except for a wrapper of
/// magic 0 or 1, which has to be decompressed to know.
pub fn first_offset(batch: &Bytes) -> Result<Offset, RecordError> {
    let meta = read_batch_meta(batch)?;
    if meta.records_count.is_some() {
        return Ok(meta.base_offset);
    }
    records(batch)?
        .next()
        .unwrap_or(Err(TOO_FEW_BYTES))
        .map(|record| record.offset)
}
