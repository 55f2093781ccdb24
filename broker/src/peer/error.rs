//! Why another broker did not answer.

use std::io::{self, ErrorKind};

/// A request of which nobody knows whether it took effect, except where it was refused.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Nobody listens there: the process is gone, or not there yet. Nothing was sent.
    #[error("nobody listens: {0}")]
    Refused(io::Error),
    /// The connection ended while it was in use: the process ended, or closed it.
    #[error("the connection was closed: {0}")]
    Reset(io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Io(io::Error),
    /// What came back is no answer to what was asked, or what was to be asked has no encoding.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::Refused(error),
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof => Self::Reset(error),
            ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}
