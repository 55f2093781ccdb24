//! Walking over the records of a magic-2 batch in place, or as they are decompressed, without
//! allocating anything per record.

use bytes::Bytes;

use crate::records::codec::Decoder;
use crate::records::record::{BAD_STRUCTURE, Layout, TOO_FEW_BYTES, TOO_MANY_BYTES};
use crate::records::varint::{VARLONG_SIZE_MAX, read_varint, read_varlong};
use crate::records::{Compression, RecordError};

/// Records up to this size are looked at in one piece.
const WINDOW_SIZE: usize = 64 * 1024;

/// What the walk tells of each record, in this order.
pub(super) trait RecordSink {
    /// A record begins; `tail_size` bytes stand from the size of its key to its end.
    fn begin(&mut self, timestamp_delta: i64, offset_delta: i32, tail_size: usize);
    /// The tail, maybe in several pieces.
    fn tail(&mut self, bytes: &[u8]);
    /// The record is complete and well-formed. Sizes are negative for null.
    fn end(&mut self, key_size: i32, value_size: i32);
}

/// Walks over exactly `count` records, which must fill `payload`.
#[inline]
pub(super) fn walk_plain(
    payload: &[u8],
    count: i32,
    sink: &mut impl RecordSink,
) -> Result<(), RecordError> {
    let mut position = 0;
    for _ in 0..count {
        let size = read_varint(payload, &mut position)?;
        let size = usize::try_from(size).map_err(|_| BAD_STRUCTURE)?;
        let rest = &payload[position..];
        if size > rest.len() {
            return Err(TOO_FEW_BYTES);
        }
        whole_record(&rest[..size], sink)?;
        position += size;
    }
    if position < payload.len() {
        return Err(TOO_MANY_BYTES);
    }
    Ok(())
}

#[inline]
fn whole_record(body: &[u8], sink: &mut impl RecordSink) -> Result<(), RecordError> {
    if let Some(record) = scan(body) {
        sink.begin(
            record.timestamp_delta,
            record.offset_delta,
            body.len() - record.tail,
        );
        sink.tail(&body[record.tail..]);
        sink.end(record.key_size, record.value_size);
        return Ok(());
    }
    record_with_headers(body, sink)
}

/// A well-formed record without headers.
struct Scanned {
    timestamp_delta: i64,
    offset_delta: i32,
    tail: usize,
    key_size: i32,
    value_size: i32,
}

/// Looks at a record in the fewest steps. None if it has headers or a flaw: [`Layout`] tells.
#[inline]
fn scan(body: &[u8]) -> Option<Scanned> {
    let mut position = 1;
    let timestamp_delta = read_varlong(body, &mut position).ok()?;
    let offset_delta = read_varint(body, &mut position).ok()?;
    let tail = position;
    // A size that leads beyond the body makes the next read fail.
    let key_size = read_varint(body, &mut position).ok()?;
    position += key_size.max(0) as usize;
    let value_size = read_varint(body, &mut position).ok()?;
    position += value_size.max(0) as usize;
    let headers_count = read_varint(body, &mut position).ok()?;
    (headers_count == 0 && position == body.len()).then_some(Scanned {
        timestamp_delta,
        offset_delta,
        tail,
        key_size,
        value_size,
    })
}

#[inline(never)]
fn record_with_headers(body: &[u8], sink: &mut impl RecordSink) -> Result<(), RecordError> {
    let layout = Layout::parse(body)?;
    let size = |part: &Option<std::ops::Range<usize>>| {
        part.as_ref().map_or(-1, |range| range.len() as i32)
    };
    sink.begin(
        layout.timestamp_delta,
        layout.offset_delta,
        body.len() - layout.tail,
    );
    sink.tail(&body[layout.tail..]);
    sink.end(size(&layout.key), size(&layout.value));
    Ok(())
}

/// [`walk_plain`] over compressed records. At most `limit` bytes are decompressed, through `scratch`,
/// which is grown once and can be used again.
pub(super) fn walk_compressed(
    codec: Compression,
    payload: Bytes,
    count: i32,
    limit: usize,
    scratch: &mut Vec<u8>,
    sink: &mut impl RecordSink,
) -> Result<(), RecordError> {
    scratch.resize(WINDOW_SIZE, 0);
    let mut window = Window {
        decoder: Decoder::new(codec, payload, 2, limit)?,
        buffer: scratch,
        start: 0,
        end: 0,
    };
    for _ in 0..count {
        let size = window.varint()?;
        let size = usize::try_from(size).map_err(|_| BAD_STRUCTURE)?;
        if size > WINDOW_SIZE {
            large_record(&mut window, size, sink)?;
            continue;
        }
        let body = window.at_least(size)?;
        if body.len() < size {
            return Err(TOO_FEW_BYTES);
        }
        whole_record(&body[..size], sink)?;
        window.start += size;
    }
    if window.at_least(1)?.is_empty() {
        Ok(())
    } else {
        Err(TOO_MANY_BYTES)
    }
}

/// The decompressed bytes that are at hand.
struct Window<'a> {
    decoder: Decoder,
    buffer: &'a mut [u8],
    start: usize,
    end: usize,
}

impl Window<'_> {
    /// What is at hand: `wanted` bytes (at most [`WINDOW_SIZE`]) or more, fewer only at the end.
    fn at_least(&mut self, wanted: usize) -> Result<&[u8], RecordError> {
        if self.buffer.len() - self.start < wanted {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < wanted {
            match self.decoder.read(&mut self.buffer[self.end..])? {
                0 => break,
                read => self.end += read,
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn varint(&mut self) -> Result<i32, RecordError> {
        let mut position = 0;
        let value = read_varint(self.at_least(VARLONG_SIZE_MAX)?, &mut position)?;
        self.start += position;
        Ok(value)
    }
}

/// A record larger than the window: its parts are checked one by one, and passed on in pieces.
fn large_record(
    window: &mut Window<'_>,
    size: usize,
    sink: &mut impl RecordSink,
) -> Result<(), RecordError> {
    let mut position = 1;
    let head = window.at_least(1 + 2 * VARLONG_SIZE_MAX)?;
    if head.is_empty() {
        return Err(TOO_FEW_BYTES);
    }
    let timestamp_delta = read_varlong(head, &mut position)?;
    let offset_delta = read_varint(head, &mut position)?;
    window.start += position;
    let mut tail = LargeTail {
        left: size - position,
        window,
        sink,
    };
    tail.sink.begin(timestamp_delta, offset_delta, tail.left);
    let key_size = tail.part()?;
    let value_size = tail.part()?;
    let headers_count = tail.varint()?;
    if headers_count < 0 {
        return Err(BAD_STRUCTURE);
    }
    for _ in 0..headers_count {
        if tail.part()? < 0 {
            return Err(BAD_STRUCTURE);
        }
        tail.part()?;
    }
    if tail.left != 0 {
        return Err(BAD_STRUCTURE);
    }
    sink.end(key_size, value_size);
    Ok(())
}

struct LargeTail<'a, 'b, S> {
    window: &'a mut Window<'b>,
    sink: &'a mut S,
    left: usize,
}

impl<S: RecordSink> LargeTail<'_, '_, S> {
    fn varint(&mut self) -> Result<i32, RecordError> {
        let bytes = self.window.at_least(VARLONG_SIZE_MAX)?;
        let mut size = 0;
        let value = read_varint(bytes, &mut size)?;
        if size > self.left {
            return Err(BAD_STRUCTURE);
        }
        self.sink.tail(&bytes[..size]);
        self.window.start += size;
        self.left -= size;
        Ok(value)
    }

    fn part(&mut self) -> Result<i32, RecordError> {
        let size = self.varint()?;
        let mut skip = size.max(0) as usize;
        if skip > self.left {
            return Err(BAD_STRUCTURE);
        }
        self.left -= skip;
        while skip > 0 {
            let bytes = self.window.at_least(1)?;
            if bytes.is_empty() {
                return Err(TOO_FEW_BYTES);
            }
            let piece = bytes.len().min(skip);
            self.sink.tail(&bytes[..piece]);
            self.window.start += piece;
            skip -= piece;
        }
        Ok(size)
    }
}
