//! Who of several operators acts: a Lease, renewed by hand.
//!
//! A Lease has no fencing, so whoever cannot renew it in time must stop by itself: [`Leader::lost`] tells, and the process
//! ends. Time is measured by our own monotonic clock from the moment a change of the Lease was seen, never by
//! comparing clocks of machines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

/// Of the Lease: others may take it when it was not renewed for so long.
const DURATION: Duration = Duration::from_secs(15);
/// Who could not renew for so long stops.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// One request to the API server.
const REQUEST: Duration = Duration::from_secs(4);

/// What the Lease's annotations ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `barnabas.dev/balancing`: `off` or `cancel`.
    pub balancing: Option<String>,
    /// `barnabas.dev/release`: when an uninstall began (RFC 3339).
    pub release: Option<String>,
    /// `barnabas.dev/log`: what is logged, as in `info,barnabas_operator=debug`.
    pub log: Option<String>,
}

/// A candidate for a Lease.
#[derive(Clone)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// What was seen of somebody else's Lease, and when that changed last.
struct Seen {
    mark: (Option<String>, Option<MicroTime>, Option<i32>),
    since: Instant,
}

/// Holds the Lease until it is lost or released.
pub struct Leader {
    lost: watch::Receiver<bool>,
    wishes: watch::Receiver<Wishes>,
    renewed: watch::Receiver<Instant>,
    stop: Arc<AtomicBool>,
    renewing: tokio::task::JoinHandle<()>,
}

impl Candidate {
    pub fn new(client: kube::Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let holder = before.and_then(|spec| spec.holder_identity.as_deref());
        let stays = holder == Some(self.identity.as_str());
        let acquired = before.and_then(|spec| spec.acquire_time.clone());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION.as_secs() as i32),
            acquire_time: acquired.filter(|_| stays).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(!stays && before.is_some())),
            ..LeaseSpec::default()
        }
    }

    /// Takes or renews it if that is allowed; the Lease then, or nothing if somebody else has it.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return self
                .api
                .create(&PostParams::default(), &lease)
                .await
                .map(Some);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|one| !one.is_empty());
        if holder.as_ref().is_some_and(|one| *one != self.identity) {
            let duration = spec.lease_duration_seconds;
            let mark = (holder, spec.renew_time.clone(), duration);
            let since = match seen {
                Some(seen) if seen.mark == mark => seen.since,
                _ => {
                    let since = Instant::now();
                    *seen = Some(Seen { mark, since });
                    since
                }
            };
            let valid = Duration::from_secs(duration.unwrap_or(15).max(1) as u64);
            if since.elapsed() < valid {
                return Ok(None);
            }
        }
        lease.spec = Some(self.spec(Some(&spec)));
        // The resource version makes it conditional: of two, one wins.
        self.api
            .replace(&self.name, &PostParams::default(), &lease)
            .await
            .map(Some)
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(self) -> Leader {
        let mut seen = None;
        let lease = loop {
            match timeout(REQUEST, self.attempt(&mut seen)).await {
                Ok(Ok(Some(lease))) => break lease,
                Ok(Ok(None)) => {}
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    debug!(lease = self.name, "somebody else was faster");
                }
                Ok(Err(error)) => warn!(lease = self.name, %error, "cannot take the lease"),
                Err(_) => warn!(lease = self.name, "no answer about the lease"),
            }
            sleep(RETRY.mul_f64(0.8 + 0.4 * rand::random::<f64>())).await;
        };
        info!(
            lease = self.name,
            identity = self.identity,
            "this operator acts now"
        );
        let (lost_sender, lost) = watch::channel(false);
        let (wishes_sender, wishes) = watch::channel(wishes_of(&lease));
        let (renewed_sender, renewed) = watch::channel(Instant::now());
        let stop = Arc::new(AtomicBool::new(false));
        let renewing = self.renew(lost_sender, wishes_sender, renewed_sender, stop.clone());
        let renewing = tokio::spawn(renewing);
        Leader {
            lost,
            wishes,
            renewed,
            stop,
            renewing,
        }
    }

    async fn renew(
        self,
        lost: watch::Sender<bool>,
        wishes: watch::Sender<Wishes>,
        renewed_at: watch::Sender<Instant>,
        stop: Arc<AtomicBool>,
    ) {
        let mut renewed = Instant::now();
        let mut seen = None;
        loop {
            sleep(RETRY / 4).await;
            if stop.load(Ordering::Relaxed) {
                self.release().await;
                return;
            }
            if renewed.elapsed() < RETRY {
                continue;
            }
            let begun = Instant::now();
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match timeout(REQUEST.min(left), self.attempt(&mut seen)).await {
                Ok(Ok(Some(lease))) => {
                    // From when it was asked for: nobody else can count from earlier.
                    renewed = begun;
                    renewed_at.send_replace(begun);
                    wishes.send_if_modified(|known| {
                        let now = wishes_of(&lease);
                        let changed = *known != now;
                        *known = now;
                        changed
                    });
                }
                Ok(Ok(None)) => {
                    warn!(lease = self.name, "somebody else holds the lease");
                    break;
                }
                Ok(Err(error)) => warn!(lease = self.name, %error, "cannot renew the lease"),
                Err(_) => warn!(lease = self.name, "no answer about the lease"),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                break;
            }
        }
        lost.send_replace(true);
    }

    async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await
                .map(drop)
        };
        match timeout(REQUEST, released).await {
            Ok(Ok(())) => info!(lease = self.name, "released"),
            Ok(Err::<(), kube::Error>(error)) => warn!(lease = self.name, %error, "not released"),
            Err(_) => warn!(lease = self.name, "not released: no answer"),
        }
    }
}

fn wishes_of(lease: &Lease) -> Wishes {
    let annotation = |key: &str| {
        let annotations = lease.metadata.annotations.as_ref()?;
        annotations.get(key).cloned()
    };
    Wishes {
        balancing: annotation("barnabas.dev/balancing"),
        release: annotation("barnabas.dev/release"),
        log: annotation("barnabas.dev/log"),
    }
}

impl Leader {
    /// Returns when the Lease is lost: then nothing may be changed any more.
    pub async fn lost(&mut self) {
        // An error means that the task has ended, by a release.
        if self.lost.wait_for(|lost| *lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What people ask for by annotations of the Lease.
    pub fn wishes(&self) -> watch::Receiver<Wishes> {
        self.wishes.clone()
    }

    /// When it was renewed last.
    pub fn renewed(&self) -> watch::Receiver<Instant> {
        self.renewed.clone()
    }

    /// Lets the next one take over at once.
    pub async fn release(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = timeout(REQUEST, self.renewing).await;
    }
}
