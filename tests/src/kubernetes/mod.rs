//! A real Kubernetes on this machine: a control plane of processes on loopback, with nodes if a test wants them.

mod certificates;
mod control_plane;
mod kubeconfig;

pub use control_plane::{ControlPlane, Options};
