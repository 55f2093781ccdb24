//! What is told of one partition.

use barnabas_core::config::TargetCompression;
use barnabas_core::records::legacy;

use super::FetchError;
use super::plan::Plan;
use super::read::Read;
use crate::api::error_code::{NONE, ToErrorCode as _};
use crate::api::fetch_encoder::{PartitionAnswer, Records};
use crate::log::AbortedTransaction;
use crate::replica::PartitionError;
use crate::replica::fetch_session::FetchTarget;
use crate::replica::partition::{Partition, ReadOutcome};

impl Plan {
    /// What is told of a partition that was read.
    pub(super) fn answer(&self, read: &Read) -> PartitionAnswer {
        let answer = match &read.outcome {
            Ok(outcome) => found(outcome),
            Err(error) => failed(&self.as_known(*error), None),
        };
        match &read.partition {
            Ok(partition) => self.convert(partition, &read.target.target, answer),
            Err(_) => answer,
        }
    }

    /// Clients before version 6 do not know the storage error.
    fn as_known(&self, error: PartitionError) -> FetchError {
        if error == PartitionError::StorageError && self.version <= 5 {
            FetchError::Partition(PartitionError::NotLeaderOrFollower)
        } else {
            FetchError::Partition(error)
        }
    }

    /// Makes records readable for clients that know neither zstd nor batches of magic 2.
    fn convert(
        &self,
        partition: &Partition,
        target: &FetchTarget,
        answer: PartitionAnswer,
    ) -> PartitionAnswer {
        if self.version >= 10 {
            return answer;
        }
        let config = partition.config();
        if config.compression_type == TargetCompression::Zstd {
            return refusal(&FetchError::UnknownCodec);
        }
        if self.version > 3 {
            return answer;
        }
        if !self.is_follower() && !config.message_downconversion_enable {
            return refusal(&FetchError::NoDownConversion);
        }
        let Records::File(slice) = &answer.records else {
            return answer;
        };
        partition.metrics.fetch_message_conversions.increment();
        let magic = i8::from(self.version > 1);
        let converted = slice
            .read_all()
            .map_err(|_| self.as_known(PartitionError::StorageError))
            .and_then(|bytes| {
                legacy::down_convert(&bytes, magic, target.fetch_offset)
                    .map_err(FetchError::DownConversion)
            });
        match converted {
            Ok(records) => PartitionAnswer {
                records: Records::Bytes(records),
                ..answer
            },
            Err(error) => refusal(&error),
        }
    }
}

fn found(outcome: &ReadOutcome) -> PartitionAnswer {
    PartitionAnswer {
        error_code: NONE,
        high_watermark: outcome.high_watermark,
        last_stable_offset: outcome.last_stable_offset,
        log_start_offset: outcome.log_start_offset,
        diverging_epoch: outcome.diverging_epoch,
        current_leader: None,
        aborted_transactions: outcome.aborted_transactions.clone(),
        preferred_read_replica: outcome.preferred_replica.map_or(-1, |id| id.0),
        records: match &outcome.records {
            Some(slice) => Records::File(slice.clone()),
            None => Records::EMPTY,
        },
    }
}

pub(super) fn failed(
    error: &FetchError,
    aborted_transactions: Option<Vec<AbortedTransaction>>,
) -> PartitionAnswer {
    PartitionAnswer {
        error_code: error.error_code(),
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        diverging_epoch: None,
        current_leader: None,
        aborted_transactions,
        preferred_read_replica: -1,
        records: Records::EMPTY,
    }
}

/// An error that is told without any records. Kafka: `FetchResponse.partitionResponse`.
pub(super) fn refusal(error: &FetchError) -> PartitionAnswer {
    PartitionAnswer {
        records: Records::Null,
        ..failed(error, Some(Vec::new()))
    }
}
