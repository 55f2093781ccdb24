//! The one place where errors become Kafka's error codes.

pub use kafka_protocol::ResponseError;

/// Errors of Kafka 3.9 that the protocol crate does not name.
pub const MISMATCHED_ENDPOINT_TYPE: ResponseError = ResponseError::Unknown(114);
pub const UNSUPPORTED_ENDPOINT_TYPE: ResponseError = ResponseError::Unknown(115);
pub const TRANSACTION_ABORTABLE: ResponseError = ResponseError::Unknown(120);

/// The code of success.
pub const NONE: i16 = 0;

/// An error that has a place on the wire. Implemented here, by an exhaustive match per enum.
pub trait ToErrorCode {
    /// The error as Kafka 3.9 would name it.
    fn to_response_error(&self) -> ResponseError;

    /// Its number.
    fn error_code(&self) -> i16 {
        self.to_response_error().code()
    }
}

impl ToErrorCode for ResponseError {
    fn to_response_error(&self) -> ResponseError {
        *self
    }
}

/// The code of an outcome: [`NONE`], or that of the error.
pub fn code_of<T, E: ToErrorCode>(outcome: &Result<T, E>) -> i16 {
    outcome.as_ref().err().map_or(NONE, ToErrorCode::error_code)
}
