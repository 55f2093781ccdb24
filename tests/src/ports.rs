//! Ports that nothing listens on.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

/// Below the range that the system takes for outgoing connections: one of those must not sit on a port
/// that a server is about to bind, or binds again after a restart.
const RANGE: Range<u16> = 10_000..32_000;

/// A free port on loopback that this process has not been given before.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // Other test processes run at the same time: start looking somewhere else than they do.
    let start = RandomState::new().hash_one(std::process::id()) as usize;
    RANGE
        .cycle()
        .skip(start % RANGE.len())
        .take(RANGE.len())
        .find(|port| {
            !given.contains(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
                && given.insert(*port)
        })
        .expect("loopback has free ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: BTreeSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 100);
    }
}
