//! How a leader asks the controller to change its ISR (KIP-497).

use std::sync::OnceLock;

use barnabas_core::controller::{AlterPartition, AlterPartitionError, AlteredPartition};
use futures::future::{BoxFuture, FutureExt as _};

/// The way to the active controller, wherever it is.
pub trait IsrChanges: Send + Sync {
    /// Asks for new ISRs. One request is under way at a time; it is repeated by the caller.
    fn alter_partition(
        &self,
        request: AlterPartition,
    ) -> BoxFuture<'_, Result<Vec<AlteredPartition>, AlterPartitionError>>;
}

/// A way to the controller that is found only after the replicas: there is no controller until then.
impl<T: IsrChanges> IsrChanges for OnceLock<T> {
    fn alter_partition(
        &self,
        request: AlterPartition,
    ) -> BoxFuture<'_, Result<Vec<AlteredPartition>, AlterPartitionError>> {
        match self.get() {
            Some(changes) => changes.alter_partition(request),
            None => async { Err(AlterPartitionError::NotController) }.boxed(),
        }
    }
}
