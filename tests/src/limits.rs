//! Limits of the test's own process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Allows this process and those that it starts to have at least `count` files open.
///
/// # Panics
/// If the hard limit is lower.
pub fn raise_open_files(count: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count as u64) {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("a soft limit may go up to the hard one");
    let maximum = limit.maximum;
    assert!(
        maximum.is_none_or(|maximum| maximum >= count as u64),
        "only {maximum:?} open files are allowed, {count} are needed: raise `ulimit -Hn`"
    );
}
