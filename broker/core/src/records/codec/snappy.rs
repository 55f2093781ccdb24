//! snappy in the framing of xerial's snappy-java (blocks of at most 32 KiB), and bare snappy blocks,
//! which some clients send and Kafka's reader accepts.

use bytes::{Buf, Bytes};

use super::broken;
use crate::records::{Compression, RecordError};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const HEADER_SIZE: usize = 16;
/// The first four bytes of [`MAGIC`] where the size of a block would stand: streams were joined.
const MAGIC_AS_SIZE: i32 = i32::from_be_bytes([0x82, b'S', b'N', b'A']);
const BLOCK_SIZE: usize = 32 * 1024;

fn error(reason: &'static str) -> RecordError {
    broken(Compression::Snappy, reason)
}

pub(super) struct Reader {
    input: Bytes,
    framed: bool,
    block: Vec<u8>,
    position: usize,
}

impl Reader {
    pub(super) fn new(mut input: Bytes) -> Result<Self, RecordError> {
        if input.is_empty() {
            return Err(error("empty"));
        }
        let framed = input.len() >= HEADER_SIZE && input.starts_with(&MAGIC);
        if framed {
            let version = input.slice(8..HEADER_SIZE).get_i32();
            if version < 1 {
                return Err(error("unknown version of the framing"));
            }
            input.advance(HEADER_SIZE);
        }
        Ok(Self {
            input,
            framed,
            block: Vec::new(),
            position: 0,
        })
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        while self.position == self.block.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let read = out.len().min(self.block.len() - self.position);
        out[..read].copy_from_slice(&self.block[self.position..self.position + read]);
        self.position += read;
        Ok(read)
    }

    fn next_block(&mut self) -> Result<bool, RecordError> {
        if !self.framed {
            let all = std::mem::take(&mut self.input);
            return if all.is_empty() {
                Ok(false)
            } else {
                self.decompress(&all).map(|()| true)
            };
        }
        loop {
            if self.input.len() < 4 {
                return Ok(false);
            }
            let size = self.input.get_i32();
            if size == MAGIC_AS_SIZE {
                if self.input.len() < HEADER_SIZE - 4 {
                    return Err(error("a header that is cut short"));
                }
                self.input.advance(HEADER_SIZE - 4);
                continue;
            }
            let size = usize::try_from(size).map_err(|_| error("a block of negative size"))?;
            if size > self.input.len() {
                return Err(error("a block that is cut short"));
            }
            let block = self.input.split_to(size);
            self.decompress(&block)?;
            return Ok(true);
        }
    }

    fn decompress(&mut self, block: &[u8]) -> Result<(), RecordError> {
        let size = snap::raw::decompress_len(block).map_err(|_| error("no length"))?;
        // Three bytes can stand for 64 at most: a longer claim is a lie, and memory is not lent on it.
        if size > block.len() * 22 {
            return Err(error("a length that the data cannot have"));
        }
        self.block.resize(size, 0);
        self.position = 0;
        let read = snap::raw::Decoder::new()
            .decompress(block, &mut self.block)
            .map_err(|_| error("a corrupt block"))?;
        self.block.truncate(read);
        Ok(())
    }
}

pub(super) struct Writer {
    out: Vec<u8>,
    pending: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl Writer {
    pub(super) fn new(mut out: Vec<u8>) -> Self {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&1_i32.to_be_bytes());
        out.extend_from_slice(&1_i32.to_be_bytes());
        Self {
            out,
            pending: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == BLOCK_SIZE {
                self.write_block();
            }
        }
    }

    pub(super) fn written(&self) -> usize {
        self.out.len()
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if !self.pending.is_empty() {
            self.write_block();
        }
        self.out
    }

    fn write_block(&mut self) {
        let start = self.out.len();
        self.out.resize(
            start + 4 + snap::raw::max_compress_len(self.pending.len()),
            0,
        );
        let size = self
            .encoder
            .compress(&self.pending, &mut self.out[start + 4..])
            .expect("the output has the maximal compressed length");
        self.out[start..start + 4].copy_from_slice(&(size as u32).to_be_bytes());
        self.out.truncate(start + 4 + size);
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::codec::decompress;

    fn open(data: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        decompress(Compression::Snappy, 2, data.into(), 1 << 20)
    }

    #[test]
    fn a_bare_block_is_read() {
        let data = snap::raw::Encoder::new()
            .compress_vec(b"hello, world!")
            .unwrap();
        assert_eq!(open(data).unwrap(), b"hello, world!");
    }

    #[test]
    fn joined_streams_are_read() {
        let mut writer = Writer::new(Vec::new());
        writer.write(b"one ");
        let mut writer = Writer::new(writer.finish());
        writer.write(b"two");
        assert_eq!(open(writer.finish()).unwrap(), b"one two");
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        // A varint of 2^32-1 and one literal byte.
        let result = open(vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, b'x']);
        assert_eq!(result, Err(error("a length that the data cannot have")));
    }
}
