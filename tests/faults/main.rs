//! Clusters that are hurt while a verifying producer and consumer work on them.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod fail_over;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_tests::cluster::Cluster;
use barnabas_tests::verify::{Verifier, VerifierOptions};

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(120);
const TOPIC: &str = "verified";

/// A cluster has half a dozen processes: one at a time, so that the machine's load does not decide.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates a topic on all brokers and starts to produce to it and to consume it.
fn verifier(cluster: &Cluster, partitions: i32) -> Verifier {
    cluster
        .create_topic(TOPIC, partitions, &[("min.insync.replicas", "2")])
        .unwrap();
    let options = VerifierOptions::new(cluster.bootstrap(), TOPIC, partitions);
    let verifier = Verifier::start(options);
    verifier.wait_for_progress(20, PATIENCE).unwrap();
    verifier
}
