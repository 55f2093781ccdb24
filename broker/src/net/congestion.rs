//! No pacing where there is no network to spare: BBR spreads what it sends by timers, on loopback too, where each timer's
//! interrupt costs more than it saves (a consumer beside its broker: three times the processor time per byte).
//!
//! A connection goes on pacing once it has begun to, so the listening socket does not begin: what it accepts starts with
//! Reno, and gets the system's own choice back, before its first byte, if its peer is on another machine.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};

/// Paces nothing, and every Linux has it, allowed to everybody.
const WITHOUT_PACING: &str = "reno";

/// What the system would have chosen for the connections of a listening socket that chooses otherwise for now.
#[derive(Debug)]
pub(super) struct SystemsChoice(String);

impl SystemsChoice {
    /// Lets what `listening` accepts begin without pacing; nothing to put back if the system does not pace anyway.
    pub(super) fn put_off(listening: impl AsFd) -> Option<Self> {
        let of_system = tcp_congestion(&listening).ok()?;
        if !of_system.starts_with("bbr") {
            return None;
        }
        set_tcp_congestion(&listening, WITHOUT_PACING).ok()?;
        Some(Self(of_system))
    }

    /// Puts it back on a connection from another machine; one that cannot have it is served without.
    pub(super) fn restore(&self, accepted: impl AsFd, local: SocketAddr, peer: SocketAddr) {
        if is_same_machine(local, peer) {
            return;
        }
        if let Err(error) = set_tcp_congestion(accepted, &self.0) {
            let choice = &self.0;
            tracing::debug!(%peer, %error, "goes on with {WITHOUT_PACING} instead of {choice}");
        }
    }
}

fn is_same_machine(local: SocketAddr, peer: SocketAddr) -> bool {
    let (local, peer) = (local.ip().to_canonical(), peer.ip().to_canonical());
    peer.is_loopback() || local == peer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same(local: &str, peer: &str) -> bool {
        is_same_machine(local.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn who_comes_from_the_own_address_is_on_the_same_machine() {
        assert!(is_same("127.0.0.1:9092", "127.0.0.1:40000"));
        assert!(is_same("127.0.0.1:9092", "127.8.0.1:40000"));
        assert!(is_same("10.0.0.7:9092", "10.0.0.7:40000"));
        assert!(is_same("[::ffff:10.0.0.7]:9092", "10.0.0.7:40000"));
        assert!(is_same("[::1]:9092", "[::1]:40000"));
        assert!(!is_same("10.0.0.7:9092", "10.0.0.8:40000"));
        assert!(!is_same("[fd00::1]:9092", "[fd00::2]:40000"));
    }
}
