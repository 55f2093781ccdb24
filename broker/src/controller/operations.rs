//! The machine's reads and writes, as operations of ZooKeeper's port, and what came of them.

use std::sync::Arc;

use barnabas_core::controller::{
    Event, Found, NodeChange, NodeData, Read, Write, WriteError, WriteFailure, WriteResult,
    ZooKeeperFailure,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::zookeeper::{
    Coordination, CoordinationError, CreateMode, FencedWriteError, NodeEvent, Operation, Outcome,
    Watch, write_as_controller,
};

type Answers = Vec<Result<Outcome, CoordinationError>>;

/// All reads at once; the future gives the machine's event.
pub(super) fn read(
    coordination: &Arc<dyn Coordination>,
    reads: Vec<Read>,
) -> BoxFuture<'static, Event> {
    let kinds: Vec<Kind> = reads.iter().map(Kind::of).collect();
    let submitted = coordination.submit(reads.into_iter().map(read_operation).collect());
    async move {
        let answers = submitted.await;
        let found = kinds.into_iter().zip(answers);
        let found = found.map(|(kind, answer)| kind.found(answer));
        Event::ReadCompleted(found.collect())
    }
    .boxed()
}

/// Writes that a newer controller makes impossible.
pub(super) fn write_fenced(
    coordination: &Arc<dyn Coordination>,
    epoch_version: i32,
    writes: Vec<Write>,
) -> BoxFuture<'static, Event> {
    let coordination = coordination.clone();
    let operations = writes.into_iter().map(write_operation).collect();
    async move {
        let answers = write_as_controller(&coordination, epoch_version, operations).await;
        Event::WriteCompleted(match answers {
            Ok(answers) => results(answers),
            Err(FencedWriteError::ControllerMoved) => Err(WriteFailure::ControllerMoved),
            Err(FencedWriteError::Coordination(error)) => Err(failed(&error)),
        })
    }
    .boxed()
}

/// Writes that stand for themselves.
pub(super) fn write(
    coordination: &Arc<dyn Coordination>,
    writes: Vec<Write>,
) -> BoxFuture<'static, Event> {
    let submitted = coordination.submit(writes.into_iter().map(write_operation).collect());
    async move { Event::WriteCompleted(results(submitted.await)) }.boxed()
}

/// All of the writes or none.
pub(super) fn write_together(
    coordination: &Arc<dyn Coordination>,
    writes: Vec<Write>,
) -> BoxFuture<'static, Event> {
    let operations = writes.into_iter().map(write_operation).collect();
    let submitted = coordination.submit(vec![Operation::Multi(operations)]);
    async move {
        let result = match submitted.await.pop() {
            Some(Ok(Outcome::Multi(answers))) => results(answers),
            Some(Err(error)) => Err(failed(&error)),
            Some(Ok(_)) | None => Err(failed(&CoordinationError::UnexpectedAnswer)),
        };
        Event::WriteCompleted(result)
    }
    .boxed()
}

/// The same change in the machine's words.
pub(super) fn node_change(event: NodeEvent) -> NodeChange {
    match event {
        NodeEvent::Created => NodeChange::Created,
        NodeEvent::DataChanged => NodeChange::DataChanged,
        NodeEvent::Deleted => NodeChange::Deleted,
        NodeEvent::ChildrenChanged => NodeChange::ChildrenChanged,
    }
}

/// What a read is to answer.
#[derive(Clone, Copy)]
enum Kind {
    Data,
    Exists,
    Children,
}

impl Kind {
    fn of(read: &Read) -> Self {
        match read {
            Read::Data { .. } => Self::Data,
            Read::Exists { .. } => Self::Exists,
            Read::Children { .. } => Self::Children,
        }
    }

    fn found(self, answer: Result<Outcome, CoordinationError>) -> Result<Found, ZooKeeperFailure> {
        match (self, answer) {
            (Self::Data, Ok(Outcome::Data { data, stat })) => Ok(Found::Data(Some(NodeData {
                data: data.unwrap_or_default(),
                version: stat.version,
                czxid: stat.czxid,
            }))),
            (Self::Data, Err(CoordinationError::NoNode)) => Ok(Found::Data(None)),
            (Self::Exists, Ok(Outcome::Exists(stat))) => Ok(Found::Exists(stat.is_some())),
            (Self::Children, Ok(Outcome::Children(names))) => Ok(Found::Children(names)),
            (Self::Children, Err(CoordinationError::NoNode)) => Ok(Found::Children(Vec::new())),
            (_, Err(error)) => Err(ZooKeeperFailure(error.to_string())),
            (_, Ok(_)) => {
                let error = CoordinationError::UnexpectedAnswer;
                Err(ZooKeeperFailure(error.to_string()))
            }
        }
    }
}

fn read_operation(read: Read) -> Operation {
    let once = |watch| if watch { Watch::Once } else { Watch::No };
    match read {
        Read::Data { path, watch } => Operation::Get {
            path,
            watch: once(watch),
        },
        Read::Exists { path, watch } => Operation::Exists {
            path,
            watch: once(watch),
        },
        Read::Children { path, watch } => Operation::Children {
            path,
            watch: once(watch),
        },
    }
}

fn write_operation(write: Write) -> Operation {
    match write {
        Write::Create { path, data } => Operation::Create {
            path,
            data,
            mode: CreateMode::Persistent,
        },
        Write::CreateEphemeral { path, data } => Operation::create_ephemeral(path, data),
        Write::Set {
            path,
            data,
            version,
        } => Operation::Set {
            path,
            data: Some(data),
            version,
        },
        Write::Delete { path } => Operation::delete(path),
    }
}

fn failed(error: &CoordinationError) -> WriteFailure {
    WriteFailure::ZooKeeper(ZooKeeperFailure(error.to_string()))
}

/// One result a write; the end of the session fails all of them.
fn results(answers: Answers) -> Result<Vec<WriteResult>, WriteFailure> {
    let mut results = Vec::with_capacity(answers.len());
    for answer in answers {
        results.push(match answer {
            Ok(Outcome::Set(stat)) => Ok(stat.version),
            Ok(_) => Ok(0),
            Err(CoordinationError::NoNode) => Err(WriteError::NoNode),
            Err(CoordinationError::NodeExists) => Err(WriteError::NodeExists),
            Err(CoordinationError::BadVersion) => Err(WriteError::BadVersion),
            Err(error) if error.is_of_session() => return Err(failed(&error)),
            Err(error) => Err(WriteError::Other(error.to_string())),
        });
    }
    Ok(results)
}
