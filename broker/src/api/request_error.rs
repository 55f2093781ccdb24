//! Errors of requests that have nothing to do with what is asked for.

/// Why a request, or an entry of it, is not answered as it wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A value that no client of Kafka's sends.
    #[error("the request is not valid")]
    Invalid,
    /// A version, or an API, that is known but not served.
    #[error("the version is not supported")]
    UnsupportedVersion,
    /// It was begun and may yet be done.
    #[error("the time of the request is over")]
    TimedOut,
    /// Kafka stumbles over it.
    #[error("the server stumbled")]
    Unexpected,
}
