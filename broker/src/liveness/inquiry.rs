//! Carries out what an inquiry asks for.

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::ids::BrokerId;
use barnabas_core::liveness::{Action, Inquiry, Probe, Probing, SeatSeen, Seen, Verdict};
use barnabas_core::znodes::{BrokerRegistration, ControllerSeat};

use crate::peer::{PeerError, PeerNetwork};
use crate::zookeeper::{Coordination, CoordinationError, Operation, Outcome, SessionState};

pub(super) struct InquiryOptions {
    pub(super) suspect: BrokerId,
    pub(super) inter_broker_listener: String,
    pub(super) probing: Probing,
    pub(super) probe_timeout: Duration,
    pub(super) delay: Duration,
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) network: Arc<dyn PeerNetwork>,
}

/// Looks into one suspicion to its end.
pub(super) async fn inquire(options: InquiryOptions) -> Verdict {
    let (mut inquiry, mut action) = Inquiry::begin(
        options.suspect,
        options.inter_broker_listener.clone(),
        options.probing,
        options.delay,
    );
    loop {
        action = match action {
            Action::Wait(time) => {
                tokio::time::sleep(time).await;
                inquiry.waited()
            }
            Action::Read => match read(&options).await {
                Ok((registration, seat)) => inquiry.read(registration, seat),
                Err(error) => return undecided(options.suspect, &error),
            },
            Action::Probe(address) => {
                let dialled = options.network.connect(&address);
                let probe = match tokio::time::timeout(options.probe_timeout, dialled).await {
                    Ok(Ok(_)) => Probe::Accepted,
                    Ok(Err(PeerError::Refused(_))) => Probe::Refused,
                    Ok(Err(_)) | Err(_) => Probe::Silent,
                };
                inquiry.probed(probe)
            }
            Action::Remove {
                registration_version,
                seat_version,
            } => match remove(&options, registration_version, seat_version).await {
                Ok(is_removed) => inquiry.removed(is_removed),
                Err(error) => return undecided(options.suspect, &error),
            },
            Action::Close(verdict) => return verdict,
        };
    }
}

fn undecided(suspect: BrokerId, error: &CoordinationError) -> Verdict {
    tracing::info!(broker = %suspect, %error, "whether a suspected broker is dead could not be found out");
    Verdict::LeftToSession
}

async fn read(
    options: &InquiryOptions,
) -> Result<(Option<Seen>, Option<SeatSeen>), CoordinationError> {
    let path = BrokerRegistration::path(options.suspect);
    let reads = vec![
        Operation::get(path),
        Operation::exists(ControllerSeat::PATH),
    ];
    let mut found = options.coordination.submit(reads).await.into_iter();
    let (registration, seat) = (found.next(), found.next());
    let registration = match registration {
        Some(Ok(Outcome::Data { data, stat })) => {
            // What cannot be understood asks for nothing.
            let decoded = BrokerRegistration::decode(options.suspect, &data.unwrap_or_default());
            decoded.ok().map(|registration| Seen {
                registration,
                epoch: stat.czxid,
                version: stat.version,
                session: stat.ephemeral_owner,
            })
        }
        Some(Err(CoordinationError::NoNode)) => None,
        Some(Err(error)) => return Err(error),
        Some(Ok(_)) | None => return Err(CoordinationError::UnexpectedAnswer),
    };
    let seat = match seat {
        Some(Ok(Outcome::Exists(stat))) => stat.map(|stat| SeatSeen {
            version: stat.version,
            session: stat.ephemeral_owner,
        }),
        Some(Err(error)) => return Err(error),
        Some(Ok(_)) | None => return Err(CoordinationError::UnexpectedAnswer),
    };
    Ok((registration, seat))
}

/// Whether it was removed; not if something changed in between.
async fn remove(
    options: &InquiryOptions,
    registration_version: i32,
    seat_version: Option<i32>,
) -> Result<bool, CoordinationError> {
    // Sent only at once: a removal that waits for a connection might meet the next registration, which ZooKeeper
    // cannot tell from this one by its data version.
    if *options.coordination.session_state().borrow() != SessionState::Connected {
        return Err(CoordinationError::SessionExpired);
    }
    let path = BrokerRegistration::path(options.suspect);
    let mut deletes = vec![Operation::delete_if(path, registration_version)];
    if let Some(version) = seat_version {
        deletes.push(Operation::delete_if(ControllerSeat::PATH, version));
    }
    let results = options.coordination.multi(deletes).await?;
    let mut is_removed = true;
    for result in results {
        match result {
            Ok(_) => {}
            // Something has changed since it was read, or another operation of the transaction says what is wrong.
            Err(
                CoordinationError::NoNode
                | CoordinationError::BadVersion
                | CoordinationError::RolledBack
                | CoordinationError::RuntimeInconsistency,
            ) => is_removed = false,
            // Reading again would find the same and end here again.
            Err(error) => return Err(error),
        }
    }
    Ok(is_removed)
}
