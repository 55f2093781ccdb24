//! The five codecs: compressed data is read and written as a stream, in bounded steps.
//!
//! A [`Decoder`] never allocates what a length field claims before the data bears it out, and stops at
//! a limit, so that a decompression bomb costs time in proportion to the limit and memory in
//! proportion to the compressed bytes. What cannot be opened is [`RecordError::Decompression`].

mod lz4;
mod snappy;
mod xxh32;
mod zstd;

use std::io::{ErrorKind, Read, Write};

use bytes::{Buf, Bytes};

use super::{Compression, RecordError};

/// The most bytes one batch may decompress to.
pub const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// A codec with the level to write it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec {
    pub compression: Compression,
    /// The codec's own scale, within its bounds; without meaning for snappy.
    pub level: i32,
}

impl Codec {
    /// The codec with the level that Kafka's configuration defaults to.
    pub fn with_default_level(compression: Compression) -> Self {
        let level = match compression {
            Compression::None | Compression::Snappy => 0,
            Compression::Gzip => -1,
            Compression::Lz4 => lz4::DEFAULT_LEVEL,
            Compression::Zstd => 3,
        };
        Self { compression, level }
    }
}

/// Decompresses the records block of a batch step by step.
pub struct Decoder {
    stream: DecoderStream,
    left: usize,
    limit: usize,
}

enum DecoderStream {
    None(Bytes),
    Gzip(Box<GzipStream>),
    Snappy(snappy::Reader),
    Lz4(lz4::Reader),
    Zstd(zstd::Reader),
}

impl Decoder {
    /// Opens `data`, which a batch or wrapper of `magic` holds (magic 0 has a broken lz4 header
    /// checksum, which is not looked at). At most `limit` bytes will be given.
    pub fn new(
        codec: Compression,
        data: Bytes,
        magic: i8,
        limit: usize,
    ) -> Result<Self, RecordError> {
        let stream = match codec {
            Compression::None => DecoderStream::None(data),
            Compression::Gzip => DecoderStream::Gzip(Box::new(GzipStream::new(data)?)),
            Compression::Snappy => DecoderStream::Snappy(snappy::Reader::new(data)?),
            Compression::Lz4 => DecoderStream::Lz4(lz4::Reader::new(data, magic > 0)?),
            Compression::Zstd => DecoderStream::Zstd(zstd::Reader::new(data)),
        };
        Ok(Self {
            stream,
            left: limit,
            limit,
        })
    }

    /// Reads some bytes; 0 only at the end (or for an empty `out`).
    ///
    /// Errors: [`RecordError::Decompression`], [`RecordError::TooLarge`], and
    /// [`RecordError::Malformed`] if a gzip stream ends within its data, which Kafka takes for records
    /// that end too early.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        let read = match &mut self.stream {
            DecoderStream::None(bytes) => {
                let read = bytes.len().min(out.len());
                out[..read].copy_from_slice(&bytes.split_to(read));
                read
            }
            DecoderStream::Gzip(stream) => stream.read(out)?,
            DecoderStream::Snappy(reader) => reader.read(out)?,
            DecoderStream::Lz4(reader) => reader.read(out)?,
            DecoderStream::Zstd(reader) => reader.read(out)?,
        };
        if read > self.left {
            return Err(RecordError::TooLarge { limit: self.limit });
        }
        self.left -= read;
        Ok(read)
    }

    /// Reads all that is left.
    pub fn read_all(&mut self) -> Result<Vec<u8>, RecordError> {
        let mut all = Vec::new();
        let mut filled = 0;
        loop {
            if filled == all.len() {
                all.resize((filled * 2).clamp(4096, filled + (1 << 20)), 0);
            }
            match self.read(&mut all[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        all.truncate(filled);
        Ok(all)
    }
}

/// gzip, one or more members; what follows the last member and is no member is ignored, as
/// `java.util.zip.GZIPInputStream` does.
struct GzipStream {
    decoder: Option<flate2::bufread::GzDecoder<bytes::buf::Reader<Bytes>>>,
}

impl GzipStream {
    fn new(data: Bytes) -> Result<Self, RecordError> {
        let decoder = flate2::bufread::GzDecoder::new(data.reader());
        if decoder.header().is_none() {
            return Err(broken(Compression::Gzip, "no gzip header"));
        }
        Ok(Self {
            decoder: Some(decoder),
        })
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        if out.is_empty() {
            return Ok(0);
        }
        while let Some(decoder) = &mut self.decoder {
            match decoder.read(out) {
                Ok(0) => {
                    let rest = self
                        .decoder
                        .take()
                        .map(|decoder| decoder.into_inner().into_inner());
                    self.decoder = rest
                        .map(|rest| flate2::bufread::GzDecoder::new(rest.reader()))
                        .filter(|next| next.header().is_some());
                }
                Ok(read) => return Ok(read),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(RecordError::Malformed(
                        "Incorrect declared batch size, premature EOF reached",
                    ));
                }
                Err(_) => return Err(broken(Compression::Gzip, "corrupt deflate data")),
            }
        }
        Ok(0)
    }
}

fn broken(codec: Compression, reason: &'static str) -> RecordError {
    RecordError::Decompression { codec, reason }
}

/// Compresses the records block of a batch.
pub struct Encoder {
    stream: EncoderStream,
}

enum EncoderStream {
    None(Vec<u8>),
    Gzip(Box<flate2::write::GzEncoder<Vec<u8>>>),
    Snappy(Box<snappy::Writer>),
    Lz4(lz4::Writer),
    Zstd(::zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    /// Begins a stream behind what `out` holds already (a header, say).
    pub fn new(codec: Codec, magic: i8, out: Vec<u8>) -> Self {
        let stream = match codec.compression {
            Compression::None => EncoderStream::None(out),
            Compression::Gzip => {
                let level = u32::try_from(codec.level).map_or_else(
                    |_| flate2::Compression::default(),
                    |level| flate2::Compression::new(level.min(9)),
                );
                EncoderStream::Gzip(Box::new(
                    flate2::GzBuilder::new()
                        .operating_system(255)
                        .write(out, level),
                ))
            }
            Compression::Snappy => EncoderStream::Snappy(Box::new(snappy::Writer::new(out))),
            Compression::Lz4 => EncoderStream::Lz4(lz4::Writer::new(out, magic > 0, codec.level)),
            Compression::Zstd => EncoderStream::Zstd(
                ::zstd::stream::write::Encoder::new(out, codec.level)
                    .expect("a compression context needs only memory"),
            ),
        };
        Self { stream }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        const PROOF: &str = "writing to a Vec cannot fail";
        match &mut self.stream {
            EncoderStream::None(out) => out.extend_from_slice(bytes),
            EncoderStream::Gzip(stream) => stream.write_all(bytes).expect(PROOF),
            EncoderStream::Snappy(stream) => stream.write(bytes),
            EncoderStream::Lz4(stream) => stream.write(bytes),
            EncoderStream::Zstd(stream) => stream.write_all(bytes).expect(PROOF),
        }
    }

    /// Bytes that have left the codec so far, those that stood in `out` before included.
    pub fn written(&self) -> usize {
        match &self.stream {
            EncoderStream::None(out) => out.len(),
            EncoderStream::Gzip(stream) => stream.get_ref().len(),
            EncoderStream::Snappy(stream) => stream.written(),
            EncoderStream::Lz4(stream) => stream.written(),
            EncoderStream::Zstd(stream) => stream.get_ref().len(),
        }
    }

    /// Ends the stream.
    pub fn finish(self) -> Vec<u8> {
        const PROOF: &str = "writing to a Vec cannot fail";
        match self.stream {
            EncoderStream::None(out) => out,
            EncoderStream::Gzip(stream) => stream.finish().expect(PROOF),
            EncoderStream::Snappy(stream) => stream.finish(),
            EncoderStream::Lz4(stream) => stream.finish(),
            EncoderStream::Zstd(stream) => stream.finish().expect(PROOF),
        }
    }
}

/// Compresses `bytes` as the records block of a batch of `magic`.
pub fn compress(codec: Codec, magic: i8, bytes: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(codec, magic, Vec::new());
    encoder.write(bytes);
    encoder.finish()
}

/// Decompresses a whole records block, giving up beyond `limit` bytes.
pub fn decompress(
    codec: Compression,
    magic: i8,
    data: Bytes,
    limit: usize,
) -> Result<Vec<u8>, RecordError> {
    Decoder::new(codec, data, magic, limit)?.read_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..len)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 100 < 50 {
                    b'x'
                } else {
                    (state >> 24) as u8
                }
            })
            .collect()
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        for compression in Compression::ALL {
            for len in [0, 1, 13, 100, 32 * 1024, 65_536, 65_537, 300_000] {
                for magic in [0, 1, 2] {
                    let bytes = sample(len);
                    let data = compress(Codec::with_default_level(compression), magic, &bytes);
                    let back = decompress(compression, magic, data.into(), len).unwrap();
                    assert!(back == bytes, "{compression:?} {len} {magic}");
                }
            }
        }
    }

    /// Levels of lz4 go up to 17 in Kafka, of which the last five are one in the library.
    #[test]
    fn levels_trade_time_for_size_in_every_codec_that_has_them() {
        let words = [
            "partition",
            "leader",
            "epoch",
            "offset",
            "replica",
            "record",
            "batch",
            "broker",
        ];
        let mut state = 1_u32;
        let mut text = String::new();
        while text.len() < 100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            text += words[(state >> 24) as usize % words.len()];
            text += ["-", " ", "=1;", "\n"][(state >> 16) as usize % 4];
        }
        let scales = [
            (Compression::Gzip, vec![1, 6, 9]),
            (Compression::Zstd, vec![-20, 1, 19]),
            // 9 stands for the fast compressor.
            (Compression::Lz4, vec![9, 1, 3, 17]),
        ];
        for (compression, levels) in scales {
            let sizes: Vec<usize> = levels
                .into_iter()
                .map(|level| {
                    let data = compress(Codec { compression, level }, 2, text.as_bytes());
                    let size = data.len();
                    let back = decompress(compression, 2, data.into(), text.len()).unwrap();
                    assert!(back == text.as_bytes(), "{compression:?} {level}");
                    size
                })
                .collect();
            assert!(
                sizes.windows(2).all(|pair| pair[0] > pair[1]),
                "{compression:?} {sizes:?}"
            );
        }
    }

    #[test]
    fn bombs_stop_at_the_limit() {
        for compression in Compression::ALL {
            let data = compress(Codec::with_default_level(compression), 2, &vec![0; 1 << 20]);
            assert_eq!(
                decompress(compression, 2, data.into(), (1 << 20) - 1),
                Err(RecordError::TooLarge {
                    limit: (1 << 20) - 1
                })
            );
        }
    }

    #[test]
    fn what_is_no_compressed_data_is_refused() {
        for compression in &Compression::ALL[1..] {
            for bytes in [
                &b""[..],
                b"\0",
                b"hello, world! this is no compressed data",
                &[0xff; 64],
            ] {
                let result = decompress(*compression, 2, Bytes::copy_from_slice(bytes), 1 << 20);
                let is_nothing_compressed = match compression {
                    Compression::Snappy => bytes == b"\0",
                    Compression::Zstd => bytes.is_empty(),
                    Compression::None | Compression::Gzip | Compression::Lz4 => false,
                };
                if !is_nothing_compressed {
                    assert!(
                        matches!(result, Err(RecordError::Decompression { .. })),
                        "{compression:?} {bytes:?} {result:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn cut_data_is_an_error_in_every_codec() {
        for compression in &Compression::ALL[1..] {
            let data = compress(Codec::with_default_level(*compression), 2, &sample(5000));
            for cut in 1..data.len() {
                let cut = Bytes::copy_from_slice(&data[..cut]);
                // A xerial stream may end after any whole block.
                let result = decompress(*compression, 2, cut.clone(), 1 << 20);
                if !(*compression == Compression::Snappy && cut.len() < 20 && cut.len() >= 16) {
                    assert!(result.is_err(), "{compression:?} cut to {}", cut.len());
                }
            }
        }
    }

    #[test]
    fn members_of_gzip_may_follow_each_other_and_garbage_the_last() {
        let codec = Codec::with_default_level(Compression::Gzip);
        let mut data = compress(codec, 2, b"one ");
        data.extend(compress(codec, 2, b"two"));
        data.extend(b"garbage");
        assert_eq!(
            decompress(Compression::Gzip, 2, data.into(), 100).unwrap(),
            b"one two"
        );
    }
}
