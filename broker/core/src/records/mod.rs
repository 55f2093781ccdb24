//! Records: the bytes that producers send, logs keep and consumers get.
//!
//! One format serves wire and disk: batches of magic 2 (Kafka's `DefaultRecordBatch`), and the messages
//! of magic 0 and 1 that old logs and clients still have. Batches stay in the bytes they came in;
//! nothing here copies one without need, and nothing believes a length before it has seen the bytes.
//!
//! | module | what it owns |
//! |---|---|
//! | [`batch`] | the header, walking over batches, the CRC |
//! | `record` | the records of a batch, one by one |
//! | [`legacy`] | magic 0 and 1: reading, and converting down to them |
//! | [`validate`] | what a leader accepts from producers, and how it stores it |
//! | `build`, `control`, `timestamps` | writing batches, transaction markers, lookup by time |
//! | [`codec`] | gzip, snappy, lz4, zstd: streaming, bounded |

pub mod batch;
mod build;
pub mod codec;
mod control;
pub mod legacy;
mod record;
mod timestamps;
pub mod validate;
mod varint;

pub use batch::{
    Attributes, BatchHeader, BatchMeta, Batches, Compression, TimestampType, batch_size, batches,
    read_batch_meta, verify_crc,
};
pub use build::BatchBuilder;
pub use control::{ControlRecord, EndTransactionMarker, end_transaction_marker};
pub use record::{
    Headers, Record, RecordView, Records, first_offset, records, records_within, visit_records,
};
pub use timestamps::{find_by_timestamp, max_timestamp_record};

/// What is wrong with a batch or a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the bytes end before the batch does: it needs {needed}")]
    Incomplete { needed: usize },
    #[error("Record size {0} is less than the minimum record overhead (14)")]
    SizeTooSmall(i32),
    #[error("Invalid magic found in record: {0}")]
    UnknownMagic(i8),
    #[error("stored CRC {stored:#010x}, computed {computed:#010x}")]
    CrcMismatch { stored: u32, computed: u32 },
    #[error("Unknown compression type id: {0}")]
    UnknownCompression(u8),
    /// A record is not built as it should be, or count and size of the batch do not fit its records.
    #[error("{0}")]
    Malformed(&'static str),
    /// The codec cannot open the data.
    #[error("the {} data cannot be decompressed: {reason}", codec.name())]
    Decompression {
        codec: Compression,
        reason: &'static str,
    },
    /// Decompressed records would exceed the limit.
    #[error("the records decompress to more than {limit} bytes")]
    TooLarge { limit: usize },
}
