//! Whether a broker that seems to be dead is dead, so that its registration may be removed before its session ends.
//!
//! When a process dies, the kernel closes its connections at once and its port refuses new ones; the ZooKeeper
//! session lives on for its timeout. An [`Inquiry`] begins with such a closed connection and ends with a
//! [`Verdict`]. It removes the registration only if
//!
//! - the broker's registration asks for it, which no broker of Apache Kafka does,
//! - every attempt to connect, a few times within some hundred milliseconds, was *refused*, and
//! - the registration is still the one that was read at first.
//!
//! Silence proves nothing, neither that of a stopped process nor that of a cut link: such brokers are left to their
//! sessions. A broker that was alive after all sees its registration go and registers anew; until then it is in no
//! other state than one whose session expired, and leader epochs fence it in the same way.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::control::BrokerAddress;
use crate::ids::{BrokerEpoch, BrokerId};
use crate::znodes::BrokerRegistration;

/// Brokers that keep a connection to every other one beside the controller, so that somebody is there to notice its
/// death: those with the lowest ids.
pub const DEPUTIES: usize = 3;

/// Nobody waits for the brokers before it longer than for this many of them.
const LONGEST_QUEUE: usize = 8;

/// How often a broker is tried before it counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Attempts that must all be refused.
    pub attempts: u32,
    /// Time between two of them.
    pub interval: Duration,
}

impl Probing {
    /// How long an inquiry takes if all goes well, with something to spare for reading.
    fn expected(&self) -> Duration {
        self.interval * self.attempts + Duration::from_millis(60)
    }
}

/// What an attempt to connect met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nobody listens there.
    Refused,
    /// Somebody does.
    Accepted,
    /// Neither in time, or something is wrong on this side.
    Silent,
}

/// A registration as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub registration: BrokerRegistration,
    pub epoch: BrokerEpoch,
    /// Data version, by which ZooKeeper guards the removal.
    pub version: i32,
    /// The session it belongs to.
    pub session: i64,
}

/// The controller's seat as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatSeen {
    pub version: i32,
    /// The session it belongs to.
    pub session: i64,
}

/// What the shell is to do next; it tells the inquiry what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Then [`Inquiry::waited`].
    Wait(Duration),
    /// Read the registration and the controller's seat; then [`Inquiry::read`].
    Read,
    /// Then [`Inquiry::probed`].
    Probe(BrokerAddress),
    /// Remove, all or nothing, the registration and the seat in these versions; then [`Inquiry::removed`].
    Remove {
        registration_version: i32,
        /// If the dead session holds the seat too.
        seat_version: Option<i32>,
    },
    Close(Verdict),
}

/// How an inquiry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker was dead, and its registration is removed.
    Removed,
    /// There is no registration any more, or a newer one.
    Gone,
    /// Somebody listens at its address.
    Alive,
    /// Its machine does not answer: only its session can tell.
    Silent,
    /// Its registration does not ask for more than its session.
    LeftToSession,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Fresh,
    Probing {
        seen: Seen,
        refused: u32,
    },
    /// All attempts were refused.
    Confirming {
        seen: Seen,
    },
    Closed,
}

/// One broker under suspicion, from a closed connection to a verdict.
#[derive(Clone, Debug)]
pub struct Inquiry {
    broker: BrokerId,
    inter_broker_listener: String,
    probing: Probing,
    state: State,
}

impl Inquiry {
    /// Begins, after `delay` (see [`delay`]).
    pub fn begin(
        broker: BrokerId,
        inter_broker_listener: String,
        probing: Probing,
        delay: Duration,
    ) -> (Self, Action) {
        let inquiry = Self {
            broker,
            inter_broker_listener,
            probing,
            state: State::Fresh,
        };
        let action = if delay.is_zero() {
            Action::Read
        } else {
            Action::Wait(delay)
        };
        (inquiry, action)
    }

    pub fn broker(&self) -> BrokerId {
        self.broker
    }

    /// The time is over.
    pub fn waited(&mut self) -> Action {
        match &self.state {
            State::Fresh | State::Confirming { .. } => Action::Read,
            State::Probing { seen, .. } => match self.address(&seen.registration) {
                Some(address) => Action::Probe(address),
                None => self.close(Verdict::LeftToSession),
            },
            State::Closed => Action::Close(Verdict::Gone),
        }
    }

    /// What is at the path of the registration, and at that of the seat.
    pub fn read(&mut self, found: Option<Seen>, seat: Option<SeatSeen>) -> Action {
        let Some(found) = found else {
            return self.close(Verdict::Gone);
        };
        match &self.state {
            State::Fresh => {
                let address = self.address(&found.registration);
                let Some(address) = address.filter(|_| found.registration.fast_failover) else {
                    return self.close(Verdict::LeftToSession);
                };
                self.state = State::Probing {
                    seen: found,
                    refused: 0,
                };
                Action::Probe(address)
            }
            State::Confirming { seen } if *seen == found => Action::Remove {
                registration_version: seen.version,
                seat_version: seat
                    .filter(|seat| seat.session == seen.session)
                    .map(|seat| seat.version),
            },
            // Whoever has registered since then is alive.
            State::Confirming { .. } | State::Probing { .. } | State::Closed => {
                self.close(Verdict::Gone)
            }
        }
    }

    pub fn probed(&mut self, probe: Probe) -> Action {
        let State::Probing { seen, refused } = &mut self.state else {
            return self.close(Verdict::Gone);
        };
        match probe {
            Probe::Accepted => self.close(Verdict::Alive),
            Probe::Silent => self.close(Verdict::Silent),
            Probe::Refused => {
                *refused += 1;
                if *refused < self.probing.attempts {
                    return Action::Wait(self.probing.interval);
                }
                let seen = seen.clone();
                self.state = State::Confirming { seen };
                Action::Read
            }
        }
    }

    /// Whether the removal took place. If not, something changed since it was read.
    pub fn removed(&mut self, is_removed: bool) -> Action {
        match self.state {
            State::Confirming { .. } if is_removed => self.close(Verdict::Removed),
            // The seat may have changed hands; then the registration is as it was.
            State::Confirming { .. } => Action::Read,
            State::Fresh | State::Probing { .. } | State::Closed => self.close(Verdict::Gone),
        }
    }

    fn close(&mut self, verdict: Verdict) -> Action {
        self.state = State::Closed;
        Action::Close(verdict)
    }

    fn address(&self, registration: &BrokerRegistration) -> Option<BrokerAddress> {
        address(registration, &self.inter_broker_listener)
    }
}

/// Where brokers reach that broker.
pub fn address(
    registration: &BrokerRegistration,
    inter_broker_listener: &str,
) -> Option<BrokerAddress> {
    let mut endpoints = registration.endpoints.iter();
    let endpoint = endpoints.find(|endpoint| endpoint.listener == inter_broker_listener)?;
    Some(BrokerAddress {
        id: registration.id,
        host: endpoint.host.clone(),
        port: endpoint.port,
    })
}

/// How long `own` lets others go first when `suspect` seems to be dead: the controller acts at once, the others one
/// after the other by their ids, and find nothing left to do. `eligible` are the brokers that take part.
pub fn delay(
    own: BrokerId,
    suspect: BrokerId,
    controller: Option<BrokerId>,
    eligible: &[BrokerId],
    probing: Probing,
) -> Duration {
    let acting = controller.filter(|id| *id != suspect && eligible.contains(id));
    if acting == Some(own) {
        return Duration::ZERO;
    }
    let before = eligible
        .iter()
        .filter(|id| **id < own && **id != suspect && Some(**id) != acting)
        .count();
    let before = before + usize::from(acting.is_some());
    probing.expected() * before.min(LONGEST_QUEUE) as u32
}

/// Whether `own` keeps a connection to every other broker that takes part, to notice when one ends.
pub fn is_watcher(own: BrokerId, controller: Option<BrokerId>, eligible: &[BrokerId]) -> bool {
    controller == Some(own) || eligible.iter().filter(|id| **id < own).count() < DEPUTIES
}
