//! A real Kubernetes on this machine: a control plane of processes on loopback, with nodes if a test wants them.

mod caretaker;
mod certificates;
mod control_plane;
mod kubeconfig;
mod lab;
mod lab_network;
mod node;
mod toolbox;

pub use control_plane::{ControlPlane, Options};
pub use lab::Lab;
pub use node::Node;
pub use toolbox::TOOLBOX;
