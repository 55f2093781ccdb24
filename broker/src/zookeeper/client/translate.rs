//! Operations as calls of the client library, and its answers as outcomes.

use zookeeper_client::{
    Acl, Acls, Client, CreateMode as LibraryMode, CreateOptions, Error, EventType, MultiReadResult,
    MultiWriteError, MultiWriteResult, OneshotWatcher, Permission, Stat as LibraryStat,
    WatchedEvent,
};

use super::null_data::wire::error as error_of_code;
use super::rights::{self, Right};
use crate::zookeeper::coordination::{
    CoordinationError, CreateMode, NodeEvent, Operation, Outcome, Stat, Watch,
};

/// What became of a request.
pub(super) enum Answer {
    Done(Result<Outcome, CoordinationError>, Option<OneshotWatcher>),
    /// Nobody knows: the connection broke, or the library took the session for expired.
    Lost,
}

/// Which events a watch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WatchKind {
    Data,
    Children,
}

/// Path and kind of the watch that an operation leaves.
pub(super) fn watch_of(operation: &Operation) -> Option<(String, WatchKind)> {
    match operation {
        Operation::Get {
            path,
            watch: Watch::Once,
        }
        | Operation::Exists {
            path,
            watch: Watch::Once,
        } => Some((path.clone(), WatchKind::Data)),
        Operation::Children {
            path,
            watch: Watch::Once,
        } => Some((path.clone(), WatchKind::Children)),
        Operation::Get { .. }
        | Operation::Exists { .. }
        | Operation::Children { .. }
        | Operation::Create { .. }
        | Operation::Set { .. }
        | Operation::Delete { .. }
        | Operation::Check { .. }
        | Operation::Multi(_) => None,
    }
}

/// `None` for events of the session, which are told by its state.
pub(super) fn node_event(event: &WatchedEvent) -> Option<NodeEvent> {
    match event.event_type {
        EventType::Session => None,
        EventType::NodeCreated => Some(NodeEvent::Created),
        EventType::NodeDeleted => Some(NodeEvent::Deleted),
        EventType::NodeDataChanged => Some(NodeEvent::DataChanged),
        EventType::NodeChildrenChanged => Some(NodeEvent::ChildrenChanged),
    }
}

/// Does one operation. The request is sent when this is polled first.
pub(super) async fn run(client: &Client, operation: &Operation, set_acl: bool) -> Answer {
    match try_run(client, operation, set_acl).await {
        Ok((outcome, watcher)) => Answer::Done(Ok(outcome), watcher),
        Err(error) => refused(operation, error),
    }
}

fn refused(operation: &Operation, error: Error) -> Answer {
    if is_lost(&error) {
        return Answer::Lost;
    }
    let error = match error {
        Error::NoNode if matches!(operation, Operation::Exists { .. }) => {
            return Answer::Done(Ok(Outcome::Exists(None)), None);
        }
        other => translated(&other),
    };
    Answer::Done(Err(error), None)
}

/// Whether the answer may have been lost: a broken connection shows as what broke it.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionLoss
            | Error::Custom(_)
            | Error::Timeout
            | Error::NoHosts
            | Error::SessionMoved
            | Error::SessionExpired
            | Error::ClientClosed
    )
}

/// The answer to one of several reads.
pub(super) fn read(result: MultiReadResult) -> Answer {
    let result = match result {
        MultiReadResult::Data { data, stat } => Ok(data_of(data, &stat)),
        MultiReadResult::Error { err } if is_lost(&err) => return Answer::Lost,
        MultiReadResult::Error { err } => Err(translated(&err)),
        _ => Err(CoordinationError::UnexpectedAnswer),
    };
    Answer::Done(result, None)
}

fn translated(error: &Error) -> CoordinationError {
    match error {
        Error::NoNode => CoordinationError::NoNode,
        Error::NoAuth => CoordinationError::NoAuth,
        Error::BadVersion => CoordinationError::BadVersion,
        Error::NoChildrenForEphemerals => CoordinationError::NoChildrenForEphemerals,
        Error::NodeExists => CoordinationError::NodeExists,
        Error::NotEmpty => CoordinationError::NotEmpty,
        Error::InvalidAcl => CoordinationError::InvalidAcl,
        Error::AuthFailed => CoordinationError::AuthFailed,
        Error::SessionExpired => CoordinationError::SessionExpired,
        Error::RuntimeInconsistent => CoordinationError::RuntimeInconsistency,
        Error::BadArguments(why) => CoordinationError::Invalid(why),
        Error::UnexpectedErrorCode(code) => error_of_code(*code),
        _ => CoordinationError::UnexpectedAnswer,
    }
}

async fn try_run(
    client: &Client,
    operation: &Operation,
    set_acl: bool,
) -> Result<(Outcome, Option<OneshotWatcher>), Error> {
    let outcome = match operation {
        Operation::Get {
            path,
            watch: Watch::Once,
        } => {
            let (data, stat, watcher) = client.get_and_watch_data(path).await?;
            return Ok((data_of(data, &stat), Some(watcher)));
        }
        Operation::Get { path, .. } => {
            let (data, stat) = client.get_data(path).await?;
            data_of(data, &stat)
        }
        Operation::Exists {
            path,
            watch: Watch::Once,
        } => {
            let (stat, watcher) = client.check_and_watch_stat(path).await?;
            return Ok((Outcome::Exists(stat.as_ref().map(stat_of)), Some(watcher)));
        }
        Operation::Exists { path, .. } => {
            let stat = client.check_stat(path).await?;
            Outcome::Exists(stat.as_ref().map(stat_of))
        }
        Operation::Children {
            path,
            watch: Watch::Once,
        } => {
            let (names, watcher) = client.list_and_watch_children(path).await?;
            return Ok((children(names), Some(watcher)));
        }
        Operation::Children { path, .. } => children(client.list_children(path).await?),
        Operation::Create { path, data, mode } => {
            let (rights, mode_of) = (rights_of(path, set_acl), *mode);
            let options = create_options(mode_of, &rights);
            let data = data.as_deref().unwrap_or_default();
            let (_, sequence) = client.create(path, data, &options).await?;
            let path = match mode {
                CreateMode::Persistent | CreateMode::Ephemeral => path.clone(),
                CreateMode::PersistentSequential => format!("{path}{sequence}"),
            };
            Outcome::Created { path }
        }
        Operation::Set {
            path,
            data,
            version,
        } => {
            let data = data.as_deref().unwrap_or_default();
            Outcome::Set(stat_of(&client.set_data(path, data, *version).await?))
        }
        Operation::Delete { path, version } => {
            client.delete(path, *version).await?;
            Outcome::Deleted
        }
        Operation::Check { .. } => {
            return Err(Error::BadArguments(&"a check outside a multi"));
        }
        Operation::Multi(operations) => multi(client, operations, set_acl).await?,
    };
    Ok((outcome, None))
}

async fn multi(client: &Client, operations: &[Operation], set_acl: bool) -> Result<Outcome, Error> {
    let mut writer = client.new_multi_writer();
    for operation in operations {
        match operation {
            Operation::Create { path, data, mode } => {
                let rights = rights_of(path, set_acl);
                let options = create_options(*mode, &rights);
                writer.add_create(path, data.as_deref().unwrap_or_default(), &options)?;
            }
            Operation::Set {
                path,
                data,
                version,
            } => writer.add_set_data(path, data.as_deref().unwrap_or_default(), *version)?,
            Operation::Delete { path, version } => writer.add_delete(path, *version)?,
            Operation::Check { path, version } => writer.add_check_version(path, *version)?,
            Operation::Get { .. }
            | Operation::Exists { .. }
            | Operation::Children { .. }
            | Operation::Multi(_) => {
                return Err(Error::BadArguments(&"a read inside a multi"));
            }
        }
    }
    let results = match writer.commit().await {
        Ok(results) => results.into_iter().map(multi_outcome).collect(),
        Err(MultiWriteError::RequestFailed { source }) => return Err(source),
        Err(MultiWriteError::OperationFailed { index, source }) => {
            let error = |at: usize| match at.cmp(&index) {
                std::cmp::Ordering::Less => CoordinationError::RolledBack,
                std::cmp::Ordering::Equal => translated(&source),
                std::cmp::Ordering::Greater => CoordinationError::RuntimeInconsistency,
            };
            (0..operations.len()).map(|at| Err(error(at))).collect()
        }
    };
    Ok(Outcome::Multi(results))
}

fn multi_outcome(result: MultiWriteResult) -> Result<Outcome, CoordinationError> {
    match result {
        MultiWriteResult::Check => Ok(Outcome::Checked),
        MultiWriteResult::Delete => Ok(Outcome::Deleted),
        MultiWriteResult::Create { path, .. } => Ok(Outcome::Created { path }),
        MultiWriteResult::SetData { stat } => Ok(Outcome::Set(stat_of(&stat))),
        _ => Err(CoordinationError::UnexpectedAnswer),
    }
}

fn rights_of(path: &str, set_acl: bool) -> Vec<Acl> {
    let rights = rights::of(path, set_acl).iter().map(|right| match right {
        Right::AnyoneAll => Acl::new_const(Permission::ALL, "world", "anyone"),
        Right::AnyoneRead => Acl::new_const(Permission::READ, "world", "anyone"),
        Right::CreatorAll => Acl::new_const(Permission::ALL, "auth", ""),
    });
    rights.collect()
}

fn create_options(mode: CreateMode, rights: &[Acl]) -> CreateOptions<'_> {
    let mode = match mode {
        CreateMode::Persistent => LibraryMode::Persistent,
        CreateMode::PersistentSequential => LibraryMode::PersistentSequential,
        CreateMode::Ephemeral => LibraryMode::Ephemeral,
    };
    mode.with_acls(Acls::new(rights))
}

fn children(mut names: Vec<String>) -> Outcome {
    names.sort_unstable();
    Outcome::Children(names)
}

fn data_of(data: Vec<u8>, stat: &LibraryStat) -> Outcome {
    Outcome::Data {
        data: Some(data),
        stat: stat_of(stat),
    }
}

fn stat_of(stat: &LibraryStat) -> Stat {
    Stat {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        ctime_ms: stat.ctime,
        mtime_ms: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: stat.ephemeral_owner,
        data_length: stat.data_length,
        num_children: stat.num_children,
        pzxid: stat.pzxid,
    }
}
