//! Operations as ZooKeeper's requests, and its replies as their outcomes.

use barnabas_core::znodes::{is_open_to_all, is_sensitive};

use super::jute::{Malformed, Reader, Writer};
use crate::zookeeper::coordination::{
    CoordinationError, CreateMode, NodeEvent, Operation, Outcome, Stat, Watch,
};

/// Numbers of requests (`ZooDefs.OpCode`).
pub(super) mod op_code {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const EXISTS: i32 = 3;
    pub(crate) const GET_DATA: i32 = 4;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const GET_CHILDREN: i32 = 8;
    pub(crate) const PING: i32 = 11;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const SET_WATCHES: i32 = 101;
    pub(crate) const SASL: i32 = 102;
    pub(crate) const CLOSE_SESSION: i32 = -11;
}

/// Request ids with a meaning of their own.
pub(super) mod xid {
    pub(crate) const EVENT: i32 = -1;
    pub(crate) const PING: i32 = -2;
    pub(crate) const SET_WATCHES: i32 = -8;
}

/// Numbers of errors (`KeeperException.Code`) that are dealt with by themselves.
pub(super) mod error_code {
    pub(crate) const OK: i32 = 0;
    pub(crate) const NO_NODE: i32 = -101;
    pub(crate) const SESSION_EXPIRED: i32 = -112;
    pub(crate) const AUTH_FAILED: i32 = -115;
    pub(crate) const SESSION_MOVED: i32 = -118;
    pub(crate) const SESSION_CLOSED_REQUIRE_SASL_AUTH: i32 = -124;
}

/// How paths and access rights go over the wire.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// Without a slash at the end; empty for none.
    pub(super) chroot: String,
    pub(super) set_acl: bool,
}

/// A watch that a reply says has been set, by full path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SetWatch {
    Data(String),
    Exists(String),
    Children(String),
}

fn error(code: i32) -> CoordinationError {
    match code {
        -2 => CoordinationError::RuntimeInconsistency,
        -8 => CoordinationError::Invalid("ZooKeeper refuses its arguments"),
        error_code::NO_NODE => CoordinationError::NoNode,
        -102 => CoordinationError::NoAuth,
        -103 => CoordinationError::BadVersion,
        -108 => CoordinationError::NoChildrenForEphemerals,
        -110 => CoordinationError::NodeExists,
        -111 => CoordinationError::NotEmpty,
        error_code::SESSION_EXPIRED => CoordinationError::SessionExpired,
        -114 => CoordinationError::InvalidAcl,
        error_code::AUTH_FAILED => CoordinationError::AuthFailed,
        other => CoordinationError::Other(other),
    }
}

impl Wire {
    pub(super) fn full_path(&self, path: &str) -> String {
        match (self.chroot.is_empty(), path) {
            (true, path) => path.to_owned(),
            (false, "/") => self.chroot.clone(),
            (false, path) => format!("{}{path}", self.chroot),
        }
    }

    pub(super) fn path_below_chroot(&self, full: &str) -> String {
        match full.strip_prefix(&self.chroot) {
            Some("") => String::from("/"),
            Some(path) if path.starts_with('/') => path.to_owned(),
            // An event of a path that was never asked for: nobody will know it.
            _ => full.to_owned(),
        }
    }

    fn acl(&self, path: &str, writer: &mut Writer) {
        const ALL: i32 = 31;
        const READ: i32 = 1;
        let rights: &[(i32, &str, &str)] = if !self.set_acl || is_open_to_all(path) {
            &[(ALL, "world", "anyone")]
        } else if is_sensitive(path) {
            &[(ALL, "auth", "")]
        } else {
            &[(ALL, "auth", ""), (READ, "world", "anyone")]
        };
        writer.int(rights.len() as i32);
        for (permissions, scheme, id) in rights {
            writer.int(*permissions).text(scheme).text(id);
        }
    }

    /// The number and the body of the request.
    pub(super) fn encode(
        &self,
        operation: &Operation,
    ) -> Result<(i32, Vec<u8>), CoordinationError> {
        let mut writer = Writer::default();
        let code = self.write(operation, &mut writer)?;
        Ok((code, writer.0))
    }

    fn write(&self, operation: &Operation, writer: &mut Writer) -> Result<i32, CoordinationError> {
        match operation {
            Operation::Get { path, watch } => {
                writer
                    .text(&self.full_path(path))
                    .bool(*watch == Watch::Once);
                Ok(op_code::GET_DATA)
            }
            Operation::Exists { path, watch } => {
                writer
                    .text(&self.full_path(path))
                    .bool(*watch == Watch::Once);
                Ok(op_code::EXISTS)
            }
            Operation::Children { path, watch } => {
                writer
                    .text(&self.full_path(path))
                    .bool(*watch == Watch::Once);
                Ok(op_code::GET_CHILDREN)
            }
            Operation::Check { .. } => Err(CoordinationError::Invalid("a check outside a multi")),
            Operation::Create { .. } | Operation::Set { .. } | Operation::Delete { .. } => {
                self.write_change(operation, writer)
            }
            Operation::Multi(operations) => {
                for operation in operations {
                    let mut body = Writer::default();
                    let code = self.write_change(operation, &mut body)?;
                    writer.int(code).bool(false).int(-1);
                    writer.0.extend_from_slice(&body.0);
                }
                writer.int(-1).bool(true).int(-1);
                Ok(op_code::MULTI)
            }
        }
    }

    fn write_change(
        &self,
        operation: &Operation,
        writer: &mut Writer,
    ) -> Result<i32, CoordinationError> {
        match operation {
            Operation::Create { path, data, mode } => {
                writer.text(&self.full_path(path)).buffer(data.as_deref());
                self.acl(path, writer);
                writer.int(match mode {
                    CreateMode::Persistent => 0,
                    CreateMode::Ephemeral => 1,
                    CreateMode::PersistentSequential => 2,
                });
                Ok(op_code::CREATE)
            }
            Operation::Set {
                path,
                data,
                version,
            } => {
                let path = self.full_path(path);
                writer
                    .text(&path)
                    .buffer(data.as_deref())
                    .int(version.unwrap_or(-1));
                Ok(op_code::SET_DATA)
            }
            Operation::Delete { path, version } => {
                writer
                    .text(&self.full_path(path))
                    .int(version.unwrap_or(-1));
                Ok(op_code::DELETE)
            }
            Operation::Check { path, version } => {
                writer.text(&self.full_path(path)).int(*version);
                Ok(op_code::CHECK)
            }
            Operation::Get { .. }
            | Operation::Exists { .. }
            | Operation::Children { .. }
            | Operation::Multi(_) => Err(CoordinationError::Invalid("a read inside a multi")),
        }
    }

    /// The watch that the reply with this error code has set.
    pub(super) fn watch_set_by(&self, operation: &Operation, code: i32) -> Option<SetWatch> {
        match operation {
            Operation::Get {
                path,
                watch: Watch::Once,
            } if code == error_code::OK => Some(SetWatch::Data(self.full_path(path))),
            Operation::Exists {
                path,
                watch: Watch::Once,
            } => match code {
                error_code::OK => Some(SetWatch::Data(self.full_path(path))),
                error_code::NO_NODE => Some(SetWatch::Exists(self.full_path(path))),
                _ => None,
            },
            Operation::Children {
                path,
                watch: Watch::Once,
            } if code == error_code::OK => Some(SetWatch::Children(self.full_path(path))),
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

    /// The outcome that a reply tells.
    pub(super) fn decode(
        &self,
        operation: &Operation,
        code: i32,
        body: &[u8],
    ) -> Result<Result<Outcome, CoordinationError>, Malformed> {
        if code == error_code::NO_NODE && matches!(operation, Operation::Exists { .. }) {
            return Ok(Ok(Outcome::Exists(None)));
        }
        if code != error_code::OK {
            return Ok(Err(error(code)));
        }
        let mut reader = Reader(body);
        let outcome = match operation {
            Operation::Get { .. } => {
                let data = reader.buffer()?.map(<[u8]>::to_vec);
                let stat = stat(&mut reader)?;
                Outcome::Data { data, stat }
            }
            Operation::Exists { .. } => Outcome::Exists(Some(stat(&mut reader)?)),
            Operation::Children { .. } => {
                let mut names = reader.texts()?;
                names.sort_unstable();
                Outcome::Children(names)
            }
            Operation::Create { .. } => self.created(&mut reader)?,
            Operation::Set { .. } => Outcome::Set(stat(&mut reader)?),
            Operation::Delete { .. } => Outcome::Deleted,
            Operation::Check { .. } => Outcome::Checked,
            Operation::Multi(operations) => {
                Outcome::Multi(self.multi_results(operations.len(), &mut reader)?)
            }
        };
        Ok(Ok(outcome))
    }

    fn created(&self, reader: &mut Reader<'_>) -> Result<Outcome, Malformed> {
        let path = self.path_below_chroot(reader.text()?);
        Ok(Outcome::Created { path })
    }

    fn multi_results(
        &self,
        count: usize,
        reader: &mut Reader<'_>,
    ) -> Result<Vec<Result<Outcome, CoordinationError>>, Malformed> {
        let mut results = Vec::with_capacity(count);
        loop {
            let (code, is_done, _) = (reader.int()?, reader.bool()?, reader.int()?);
            if is_done {
                break;
            }
            results.push(match code {
                op_code::CREATE => Ok(self.created(reader)?),
                op_code::DELETE => Ok(Outcome::Deleted),
                op_code::SET_DATA => Ok(Outcome::Set(stat(reader)?)),
                op_code::CHECK => Ok(Outcome::Checked),
                -1 => match reader.int()? {
                    error_code::OK => Err(CoordinationError::RolledBack),
                    code => Err(error(code)),
                },
                _ => return Err(Malformed),
            });
        }
        if results.len() == count {
            Ok(results)
        } else {
            Err(Malformed)
        }
    }
}

fn stat(reader: &mut Reader<'_>) -> Result<Stat, Malformed> {
    Ok(Stat {
        czxid: reader.long()?,
        mzxid: reader.long()?,
        ctime_ms: reader.long()?,
        mtime_ms: reader.long()?,
        version: reader.int()?,
        cversion: reader.int()?,
        aversion: reader.int()?,
        ephemeral_owner: reader.long()?,
        data_length: reader.int()?,
        num_children: reader.int()?,
        pzxid: reader.long()?,
    })
}

/// What a watch notification tells, by full path; `None` for changes of the connection and of kinds not asked for.
pub(super) fn watch_event(body: &[u8]) -> Result<Option<(String, NodeEvent)>, Malformed> {
    let mut reader = Reader(body);
    let (kind, _state, path) = (reader.int()?, reader.int()?, reader.text()?);
    let event = match kind {
        1 => NodeEvent::Created,
        2 => NodeEvent::Deleted,
        3 => NodeEvent::DataChanged,
        4 => NodeEvent::ChildrenChanged,
        _ => return Ok(None),
    };
    Ok(Some((path.to_owned(), event)))
}
