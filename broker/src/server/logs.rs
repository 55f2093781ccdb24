//! The logs as the replica manager wants them.

use std::sync::Arc;

use barnabas_core::config::TopicConfig;
use barnabas_core::ids::{Offset, TopicId, TopicPartition};

use crate::log::{LogError, PartitionLog};
use crate::replica::Logs;

/// A broker without log directories: it hosts nothing.
pub(super) struct NoLogs;

impl Logs for NoLogs {
    fn log(&self, _: &TopicPartition) -> Option<Arc<PartitionLog>> {
        None
    }

    fn create_log(
        &self,
        topic_partition: &TopicPartition,
        _: bool,
        _: Option<TopicId>,
        _: Arc<TopicConfig>,
    ) -> Result<Arc<PartitionLog>, LogError> {
        Err(LogError::UnknownPartition {
            topic_partition: topic_partition.clone(),
        })
    }

    fn delete_log(&self, _: &TopicPartition) {}

    fn high_watermark_checkpoint(&self, _: &TopicPartition) -> Option<Offset> {
        None
    }

    fn checkpoint_high_watermarks(&self, _: Vec<(TopicPartition, Offset)>) {}

    fn set_topic_config(&self, _: &str, _: &Arc<TopicConfig>) {}
}
