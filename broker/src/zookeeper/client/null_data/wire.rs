//! Changes as ZooKeeper's requests, and its replies as their outcomes.

use super::jute::{Malformed, Reader, Writer};
use crate::zookeeper::client::rights::{self, Right};
use crate::zookeeper::coordination::{CoordinationError, CreateMode, Operation, Outcome, Stat};

/// Numbers of requests (`ZooDefs.OpCode`).
pub(super) mod op_code {
    pub(crate) const CREATE: i32 = 1;
    pub(crate) const DELETE: i32 = 2;
    pub(crate) const SET_DATA: i32 = 5;
    pub(crate) const CHECK: i32 = 13;
    pub(crate) const MULTI: i32 = 14;
    pub(crate) const SASL: i32 = 102;
    pub(crate) const CLOSE_SESSION: i32 = -11;
}

/// How paths and access rights go over the wire.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// Without a slash at the end; empty for none.
    pub(super) chroot: String,
    pub(super) set_acl: bool,
}

/// The error of a number (`KeeperException.Code`).
pub(in crate::zookeeper::client) fn error(code: i32) -> CoordinationError {
    match code {
        -2 => CoordinationError::RuntimeInconsistency,
        -8 => CoordinationError::Invalid("ZooKeeper refuses its arguments"),
        -101 => CoordinationError::NoNode,
        -102 => CoordinationError::NoAuth,
        -103 => CoordinationError::BadVersion,
        -108 => CoordinationError::NoChildrenForEphemerals,
        -110 => CoordinationError::NodeExists,
        -111 => CoordinationError::NotEmpty,
        -112 => CoordinationError::SessionExpired,
        -114 => CoordinationError::InvalidAcl,
        -115 | -124 => CoordinationError::AuthFailed,
        other => CoordinationError::Other(other),
    }
}

impl Wire {
    fn full_path(&self, path: &str) -> String {
        format!("{}{path}", self.chroot)
    }

    /// The number and the body of the request.
    pub(super) fn encode(
        &self,
        operation: &Operation,
    ) -> Result<(i32, Vec<u8>), CoordinationError> {
        let mut writer = Writer::default();
        let Operation::Multi(operations) = operation else {
            let code = self.write(operation, &mut writer)?;
            return Ok((code, writer.0));
        };
        for operation in operations {
            let mut body = Writer::default();
            let code = self.write(operation, &mut body)?;
            writer.int(code).bool(false).int(-1);
            writer.0.extend_from_slice(&body.0);
        }
        writer.int(-1).bool(true).int(-1);
        Ok((op_code::MULTI, writer.0))
    }

    fn write(&self, operation: &Operation, writer: &mut Writer) -> Result<i32, CoordinationError> {
        match operation {
            Operation::Create { path, data, mode } => {
                writer.text(&self.full_path(path)).buffer(data.as_deref());
                let rights = rights::of(path, self.set_acl);
                writer.int(rights.len() as i32);
                for right in rights {
                    let (permissions, scheme, id) = match right {
                        Right::AnyoneAll => (31, "world", "anyone"),
                        Right::AnyoneRead => (1, "world", "anyone"),
                        Right::CreatorAll => (31, "auth", ""),
                    };
                    writer.int(permissions).text(scheme).text(id);
                }
                writer.int(match mode {
                    CreateMode::Persistent => 0,
                    CreateMode::Ephemeral => {
                        // It would belong to the session of this connection.
                        return Err(CoordinationError::Invalid("an ephemeral node here"));
                    }
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
            | Operation::Multi(_) => Err(CoordinationError::Invalid("a read among changes")),
        }
    }

    /// The outcome that a reply tells.
    pub(super) fn decode(
        &self,
        operation: &Operation,
        code: i32,
        body: &[u8],
    ) -> Result<Result<Outcome, CoordinationError>, Malformed> {
        if code != 0 {
            return Ok(Err(error(code)));
        }
        let mut reader = Reader(body);
        let outcome = match operation {
            Operation::Create { .. } => self.created(&mut reader)?,
            Operation::Set { .. } => Outcome::Set(stat(&mut reader)?),
            Operation::Multi(operations) => {
                Outcome::Multi(self.multi_results(operations.len(), &mut reader)?)
            }
            Operation::Delete { .. } => Outcome::Deleted,
            Operation::Check { .. } => Outcome::Checked,
            Operation::Get { .. } | Operation::Exists { .. } | Operation::Children { .. } => {
                return Err(Malformed);
            }
        };
        Ok(Ok(outcome))
    }

    fn created(&self, reader: &mut Reader<'_>) -> Result<Outcome, Malformed> {
        let path = reader.text()?.strip_prefix(&self.chroot).ok_or(Malformed)?;
        Ok(Outcome::Created {
            path: path.to_owned(),
        })
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
                    0 => Err(CoordinationError::RolledBack),
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
