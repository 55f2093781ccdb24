//! The shell of the controller: the task that owns the state machine, its watches, and the queues to the brokers.

use barnabas_core::control::{ControlOutcome, ControlRequest};
use futures::future::BoxFuture;

/// A broker that obeys control requests: this one, in the same process, or a remote one.
pub trait ControlTarget: Send + Sync {
    /// Carries out one request. Called one at a time, in the order in which they must take effect.
    fn deliver(&self, request: ControlRequest) -> BoxFuture<'_, ControlOutcome>;
}
