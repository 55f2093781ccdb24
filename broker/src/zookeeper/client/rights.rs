//! Who may do what with a new node (Kafka's `ZkData.defaultAcls`).

use barnabas_core::znodes::{is_open_to_all, is_sensitive};

/// One entry of a node's access rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    AnyoneAll,
    AnyoneRead,
    /// All rights for everybody that the creating session has proven to be.
    CreatorAll,
}

/// The rights of a node at `path` (below the chroot), with and without `zookeeper.set.acl`.
pub(super) fn of(path: &str, set_acl: bool) -> &'static [Right] {
    if !set_acl || is_open_to_all(path) {
        &[Right::AnyoneAll]
    } else if is_sensitive(path) {
        &[Right::CreatorAll]
    } else {
        &[Right::CreatorAll, Right::AnyoneRead]
    }
}
