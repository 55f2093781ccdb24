//! lz4 frames as Kafka writes and reads them: independent blocks of 64 KiB, no content checksum.
//!
//! For messages of magic 0 the checksum of the frame's header was computed over the wrong bytes
//! (KAFKA-3160): there it is written wrong on purpose and not looked at when reading.

use bytes::{Buf, Bytes};
use lz4::block::CompressionMode;

use super::broken;
use super::xxh32::xxh32;
use crate::records::{Compression, RecordError};

const MAGIC: u32 = 0x184D_2204;
/// Version 1, independent blocks.
const FLAGS: u8 = 0x60;
/// Blocks of at most 64 KiB.
const BLOCK_DESCRIPTOR: u8 = 0x40;
const BLOCK_SIZE: usize = 64 * 1024;
/// Kafka's default, which stands for the fast compressor; all other levels are those of the slow one (KIP-390).
pub(super) const DEFAULT_LEVEL: i32 = 9;
/// Set in a block's size if the block is stored as it is.
const STORED: u32 = 0x8000_0000;

fn error(reason: &'static str) -> RecordError {
    broken(Compression::Lz4, reason)
}

pub(super) struct Reader {
    input: Bytes,
    block_checksums: bool,
    block_size_max: usize,
    block: Vec<u8>,
    position: usize,
    finished: bool,
}

impl Reader {
    pub(super) fn new(mut input: Bytes, check_header: bool) -> Result<Self, RecordError> {
        if input.len() < 7 {
            return Err(error("no frame header"));
        }
        let header = input.clone();
        if input.get_u32_le() != MAGIC {
            return Err(error("no lz4 frame"));
        }
        let flags = input.get_u8();
        if flags >> 6 != 1 {
            return Err(error("unknown frame version"));
        }
        if flags & 0x20 == 0 {
            return Err(error("dependent blocks"));
        }
        if flags & 0x03 != 0 {
            return Err(error("reserved flags are set"));
        }
        let descriptor = input.get_u8();
        let size_id = descriptor >> 4;
        if descriptor & 0x0f != 0 || !(4..=7).contains(&size_id) {
            return Err(error("unknown block size"));
        }
        if flags & 0x08 != 0 {
            if input.len() < 9 {
                return Err(error("no frame header"));
            }
            input.advance(8);
        }
        let covered = &header[4..header.len() - input.len()];
        let checksum = input.get_u8();
        if check_header && checksum != header_checksum(covered) {
            return Err(error("wrong header checksum"));
        }
        Ok(Self {
            input,
            block_checksums: flags & 0x10 != 0,
            block_size_max: 1 << (2 * size_id + 8),
            block: Vec::new(),
            position: 0,
            finished: false,
        })
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        while self.position == self.block.len() {
            if self.finished {
                return Ok(0);
            }
            self.next_block()?;
        }
        let read = out.len().min(self.block.len() - self.position);
        out[..read].copy_from_slice(&self.block[self.position..self.position + read]);
        self.position += read;
        Ok(read)
    }

    fn next_block(&mut self) -> Result<(), RecordError> {
        self.block.clear();
        self.position = 0;
        let cut = || error("the frame ends too early");
        let size = self.input.try_get_u32_le().map_err(|_| cut())?;
        if size == 0 {
            self.finished = true;
            return Ok(());
        }
        let stored = size & STORED != 0;
        let size = (size & !STORED) as usize;
        if size > self.block_size_max {
            return Err(error("a block larger than the frame allows"));
        }
        if size > self.input.len() {
            return Err(cut());
        }
        let data = self.input.split_to(size);
        if self.block_checksums {
            let checksum = self.input.try_get_u32_le().map_err(|_| cut())?;
            if checksum != xxh32(&data) {
                return Err(error("wrong block checksum"));
            }
        }
        if stored {
            self.block.extend_from_slice(&data);
        } else {
            // A byte stands for 255 at most, so small data never earns a large buffer.
            self.block.resize(self.block_size_max.min(size * 256), 0);
            let size = lz4_flex::block::decompress_into(&data, &mut self.block)
                .map_err(|_| error("a corrupt block"))?;
            self.block.truncate(size);
        }
        Ok(())
    }
}

fn header_checksum(covered: &[u8]) -> u8 {
    (xxh32(covered) >> 8) as u8
}

pub(super) struct Writer {
    out: Vec<u8>,
    pending: Vec<u8>,
    level: i32,
}

impl Writer {
    pub(super) fn new(mut out: Vec<u8>, correct_checksum: bool, level: i32) -> Self {
        let start = out.len();
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[FLAGS, BLOCK_DESCRIPTOR]);
        let covered = if correct_checksum { start + 4 } else { start };
        out.push(header_checksum(&out[covered..]));
        Self {
            out,
            pending: Vec::new(),
            level,
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
        self.out.extend_from_slice(&[0; 4]);
        self.out
    }

    fn write_block(&mut self) {
        const PROOF: &str = "the output has the maximal compressed length";
        let start = self.out.len();
        self.out.resize(
            start + 4 + lz4_flex::block::get_maximum_output_size(self.pending.len()),
            0,
        );
        let out = &mut self.out[start + 4..];
        let size = if self.level == DEFAULT_LEVEL {
            lz4_flex::block::compress_into(&self.pending, out).expect(PROOF)
        } else {
            let mode = CompressionMode::HIGHCOMPRESSION(self.level);
            lz4::block::compress_to_buffer(&self.pending, Some(mode), false, out).expect(PROOF)
        };
        self.out.truncate(start + 4 + size);
        let mut size_field = size as u32;
        if size >= self.pending.len() {
            self.out.truncate(start + 4);
            self.out.extend_from_slice(&self.pending);
            size_field = self.pending.len() as u32 | STORED;
        }
        self.out[start..start + 4].copy_from_slice(&size_field.to_le_bytes());
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::codec::{Codec, compress, decompress};

    #[test]
    fn header_checksum_is_checked_from_magic_1_on() {
        let data = compress(Codec::with_default_level(Compression::Lz4), 0, b"hello");
        assert_eq!(data[6], 0x1a);
        let open = |magic| decompress(Compression::Lz4, magic, data.clone().into(), 100);
        assert_eq!(open(0).unwrap(), b"hello");
        assert_eq!(open(1), Err(error("wrong header checksum")));
    }

    #[test]
    fn frames_of_other_writers_are_read() {
        use std::io::Write as _;
        let info = lz4_flex::frame::FrameInfo::new()
            .block_checksums(true)
            .content_checksum(true)
            .content_size(Some(13))
            .block_size(lz4_flex::frame::BlockSize::Max4MB);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(b"hello, world!").unwrap();
        let data = encoder.finish().unwrap();
        assert_eq!(
            decompress(Compression::Lz4, 2, data.into(), 100).unwrap(),
            b"hello, world!"
        );
    }
}
