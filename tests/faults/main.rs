//! Clusters that are hurt while a verifying producer and consumer work on them.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod disks;
mod exactly_once;
mod fail_over;
mod groups;
mod mixed;
mod racks;
mod real;
mod under_fire;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barnabas_tests::cluster::Cluster;
use barnabas_tests::verify::{Verifier, VerifierOptions};

/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of the producers, where nothing is ever silent: as by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const TOPIC: &str = "verified";
const ALL: [i32; 3] = [1, 2, 3];
/// Batches that prove that a partition works.
const PROGRESS: usize = 10;

fn all_in_sync(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.view().wait_for_isr(TOPIC, &ALL, PATIENCE)
}

/// A cluster has half a dozen processes: one at a time, so that the machine's load does not decide.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of stories that repeat themselves: few for everyday, more for those who have the time.
fn rounds() -> usize {
    let rounds = std::env::var("BARNABAS_FAULT_ROUNDS").ok();
    rounds.and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Ends a run; if a thread of the verifier had ended before, its error is the one worth reading.
fn settle(cluster: &Cluster, verifier: Verifier, story: anyhow::Result<()>) {
    let problem = match (story, verifier.stop()) {
        (Ok(()), Ok(verified)) => {
            eprintln!("{verified:?}");
            return;
        }
        (Err(story), Ok(_)) => format!("{story:#}"),
        (Ok(()), Err(error)) => format!("{error:#}"),
        (Err(story), Err(error)) => format!("{error:#}; before that: {story:#}"),
    };
    show_logs(cluster);
    panic!("{problem}");
}

/// For those who look for what went wrong.
fn show_logs(cluster: &Cluster) {
    if std::env::var_os("BARNABAS_SHOW_LOGS").is_some() {
        for id in cluster.ids() {
            eprintln!("--- broker {id}\n{}", cluster.log(id));
        }
    }
}

/// Creates a topic on all brokers and starts to produce to it and to consume it.
fn verifier(cluster: &Cluster, partitions: i32, request_timeout: Duration) -> Verifier {
    cluster
        .create_topic(TOPIC, partitions, &[("min.insync.replicas", "2")])
        .unwrap();
    let mut options = VerifierOptions::new(cluster.bootstrap(), TOPIC, partitions);
    options.request_timeout = request_timeout;
    let verifier = Verifier::start(options);
    verifier.wait_for_progress(20, PATIENCE).unwrap();
    verifier
}
