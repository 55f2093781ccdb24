//! Offsets that consumers commit with version 0 of `OffsetCommit`.

use barnabas_core::znodes::OldConsumerOffset;

use super::ZooKeeper;
use super::coordination::{CoordinationError, Operation, Watch};

impl ZooKeeper {
    /// Writes an offset, creating what is missing of its path.
    pub async fn commit_old_offset(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), CoordinationError> {
        let path = OldConsumerOffset::path(group, topic, partition);
        let data = OldConsumerOffset::encode(offset);
        let set = Operation::Set {
            path: path.clone(),
            data: Some(data.clone()),
            version: None,
        };
        match self.coordination.run(set.clone()).await {
            Err(CoordinationError::NoNode) => {}
            result => return result.map(drop),
        }
        match self.coordination.create_recursive(&path, Some(data)).await {
            Err(CoordinationError::NodeExists) => self.coordination.run(set).await.map(drop),
            result => result.map(drop),
        }
    }

    /// The offset that was committed last; `None` if none was, or what is there is no offset.
    pub async fn old_offset(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Option<i64>, CoordinationError> {
        let path = OldConsumerOffset::path(group, topic, partition);
        let found = self.coordination.get(&path, Watch::No).await?;
        Ok(found.and_then(|(data, _)| OldConsumerOffset::decode(&data).ok()))
    }
}
