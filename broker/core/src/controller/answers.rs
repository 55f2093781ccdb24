//! Asking ZooKeeper, and taking its answers apart.

use super::event::{Found, NodeData, WriteError, WriteResult};
use super::task::Completion;
use super::{Failure, Read};

impl Completion {
    pub(super) fn outcome(self) -> Result<(), Failure> {
        match self {
            Self::Read(result) => drop(result?),
            Self::Write(result) => drop(result?),
        }
        Ok(())
    }
}

pub(super) fn found(completion: Completion) -> Result<Vec<Found>, Failure> {
    match completion {
        Completion::Read(result) => Ok(result?),
        Completion::Write(_) => Err(Failure::Other("a write answered a read".to_owned())),
    }
}

pub(super) fn written(completion: Completion) -> Result<Vec<WriteResult>, Failure> {
    match completion {
        Completion::Write(result) => Ok(result?),
        Completion::Read(_) => Err(Failure::Other("a read answered a write".to_owned())),
    }
}

/// Whether all deletes did what they should; a node that was gone already is as good.
pub(super) fn topic_is_gone(results: &[WriteResult]) -> Result<(), Failure> {
    let failed = results.iter().find_map(|result| match result {
        Ok(_) | Err(WriteError::NoNode) => None,
        Err(error) => Some(error),
    });
    failed.map_or(Ok(()), |error| Err(Failure::Other(error.to_string())))
}

impl Found {
    pub(super) fn data(&self) -> Option<&NodeData> {
        match self {
            Self::Data(data) => data.as_ref(),
            Self::Exists(_) | Self::Children(_) => None,
        }
    }

    pub(super) fn children(&self) -> &[String] {
        match self {
            Self::Children(names) => names,
            Self::Data(_) | Self::Exists(_) => &[],
        }
    }
}

impl Read {
    pub(super) fn data(path: String) -> Self {
        Self::Data { path, watch: false }
    }

    pub(super) fn watched_data(path: String) -> Self {
        Self::Data { path, watch: true }
    }

    pub(super) fn watched_exists(path: impl Into<String>) -> Self {
        Self::Exists {
            path: path.into(),
            watch: true,
        }
    }

    pub(super) fn children(path: String) -> Self {
        Self::Children { path, watch: false }
    }

    pub(super) fn watched_children(path: impl Into<String>) -> Self {
        Self::Children {
            path: path.into(),
            watch: true,
        }
    }
}
