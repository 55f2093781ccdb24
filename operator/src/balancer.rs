//! The mover inside Kubernetes: what it is told of brokers, where its record is kept, who hears of its events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::events::EventType;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::brokers::machine::{Graces, Transition};
use crate::brokers::watch::duration;
use crate::controller::{Context, lock};
use crate::moves::{
    BrokerState, Event, Guard, Mode, MoverSettings, Record, RecordStore, Reporter, Subject,
};
use crate::settings::{Settings, SettingsError};

/// What `balancing` of the settings says.
#[derive(Clone, Debug, Default)]
pub struct Balancing {
    pub graces: Graces,
    pub mover: MoverSettings,
}

impl Balancing {
    /// Reads the settings; keys that are left out keep their defaults.
    pub fn read(settings: &Settings) -> Result<Self, SettingsError> {
        let mut read = Self::default();
        let Some(values) = settings.balancing.as_mapping() else {
            return Ok(read);
        };
        for (key, value) in values {
            let key = key.as_str().unwrap_or_default();
            let text = match value {
                serde_yaml::Value::String(text) => text.clone(),
                serde_yaml::Value::Number(number) => number.to_string(),
                serde_yaml::Value::Null => continue,
                other => {
                    let message = format!("balancing.{key}: {other:?} is neither text nor number");
                    return Err(SettingsError::Invalid(message));
                }
            };
            let invalid = || SettingsError::Invalid(format!("balancing.{key}: `{text}`"));
            let time = || duration(&text).ok_or_else(invalid);
            let rate = || bytes(&text).ok_or_else(invalid);
            match key {
                "mode" => {
                    read.mover.mode = match text.as_str() {
                        "Off" => Mode::Off,
                        "DryRun" => Mode::DryRun,
                        "HealOnly" => Mode::HealOnly,
                        "Full" => Mode::Full,
                        _ => return Err(invalid()),
                    };
                }
                "failureGrace" => read.graces.failure = time()?,
                "lostGrace" => read.graces.lost = time()?,
                "plannedGrace" => read.graces.planned = time()?,
                "zoneGrace" => read.graces.zone = time()?,
                "settledAfter" => read.graces.settled = time()?,
                "moveCooldown" => read.mover.cool_down = time()?,
                "throttle" => read.mover.throttle = rate()?,
                "diskMaxUsed" => {
                    let percent = text.trim_end_matches('%').parse();
                    read.mover.planner.disk_used_percent_max = percent.map_err(|_| invalid())?;
                }
                "healRate" => read.mover.heal_throttle = rate()?,
                _ => warn!(key, "a setting of balancing that is not known"),
            }
        }
        Ok(read)
    }
}

/// `50Mi`, `1Gi`, `100M`, or bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text
        .find(|one: char| !one.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    let unit = match unit.trim_end_matches("/s").trim_end_matches('B') {
        "" => 1,
        "k" | "K" => 1000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        "G" => 1_000_000_000,
        "Gi" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// We may change something while the Lease was renewed in time and nobody stops us.
pub struct LeaseGuard {
    pub context: Arc<Context>,
    /// The lock that keeps balancers outside of Kubernetes apart from us; nothing without ZooKeeper.
    pub lock: Option<Arc<dyn Guard>>,
}

impl Guard for LeaseGuard {
    fn may_change(&self) -> bool {
        self.context.may_change() && self.lock.as_ref().is_none_or(|lock| lock.may_change())
    }
}

/// A `ConfigMap`.
pub struct ConfigMapStore {
    pub api: Api<ConfigMap>,
    pub name: String,
}

/// How often the record is asked for again: without it the former values of throttles are forgotten.
const LOAD_AGAIN: usize = 10;
const LOAD_PAUSE: Duration = Duration::from_secs(1);
const RECORD: &str = "record.json";

impl ConfigMapStore {
    async fn write(&self, record: &Record) -> Result<(), kube::Error> {
        let json = serde_json::to_string(record).map_err(kube::Error::SerdeError)?;
        let patch = serde_json::json!({"data": {RECORD: json}});
        let params = PatchParams::default();
        match self
            .api
            .patch(&self.name, &params, &Patch::Merge(&patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let map = ConfigMap {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    data: Some(BTreeMap::from([(RECORD.to_owned(), json)])),
                    ..ConfigMap::default()
                };
                self.api
                    .create(&PostParams::default(), &map)
                    .await
                    .map(drop)
            }
            written => written.map(drop),
        }
    }
}

impl RecordStore for ConfigMapStore {
    fn load(&self) -> BoxFuture<'_, Record> {
        Box::pin(async {
            let mut found = self.api.get_opt(&self.name).await;
            for _ in 0..LOAD_AGAIN {
                let Err(error) = &found else { break };
                warn!(%error, "what was recorded cannot be read yet");
                sleep(LOAD_PAUSE).await;
                found = self.api.get_opt(&self.name).await;
            }
            let data = found.ok().flatten().and_then(|map| map.data);
            let json = data.and_then(|mut data| data.remove(RECORD));
            json.and_then(|json| serde_json::from_str(&json).ok())
                .unwrap_or_default()
        })
    }

    fn save<'a>(&'a self, record: &'a Record) -> BoxFuture<'a, std::io::Result<()>> {
        Box::pin(async { self.write(record).await.map_err(std::io::Error::other) })
    }
}

/// Events on Topics, broker pods and the `StatefulSet`.
pub struct EventReporter {
    pub context: Arc<Context>,
}

impl EventReporter {
    fn regarding(&self, subject: &Subject) -> Option<ObjectReference> {
        let settings = &self.context.settings;
        let set = &settings.broker_stateful_set;
        let object = |version: &str, kind: &str, namespace: &str, name: String| ObjectReference {
            api_version: Some(version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name),
            ..ObjectReference::default()
        };
        let namespace = settings.pod_namespace.as_str();
        match subject {
            Subject::Topic(topic) => {
                let owner = lock(&self.context.claims).owner(topic).cloned()?;
                let version = "barnabas.dev/v1alpha1";
                Some(object(version, "Topic", &owner.namespace, owner.name))
            }
            Subject::Broker(_) | Subject::Cluster if set.is_empty() => None,
            Subject::Broker(id) => {
                let name = format!("{set}-{}", id.0 - settings.broker_id_offset);
                Some(object("v1", "Pod", namespace, name))
            }
            Subject::Cluster => Some(object("apps/v1", "StatefulSet", namespace, set.clone())),
        }
    }
}

impl Reporter for EventReporter {
    fn event(&self, event: &Event) {
        let Event {
            reason,
            is_warning,
            subject,
            message,
        } = event;
        if *is_warning {
            warn!(reason, ?subject, message, "balancer");
        } else {
            info!(reason, ?subject, message, "balancer");
        }
        if let Some(object) = self.regarding(subject) {
            let kind = if *is_warning {
                EventType::Warning
            } else {
                EventType::Normal
            };
            self.context.events.about(object, kind, reason, message);
        }
    }
}

/// What only we can tell of a broker; the mover tells the rest.
pub fn event_of(transition: &Transition) -> Option<Event> {
    let is_cut_off = transition.to == BrokerState::Suspect;
    is_cut_off.then(|| Event {
        reason: "BrokerCutOffFromZooKeeper",
        is_warning: true,
        subject: Subject::Broker(transition.id),
        message: "its pod is ready, but it is not registered in ZooKeeper".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balancing_is_read() {
        let settings = Settings {
            balancing: serde_yaml::from_str(
                "{mode: HealOnly, failureGrace: 10m, lostGrace: 5s, throttle: 20Mi, healRate: 100}",
            )
            .unwrap(),
            ..Settings::default()
        };
        let read = Balancing::read(&settings).unwrap();
        assert_eq!(read.mover.mode, Mode::HealOnly);
        assert_eq!(read.graces.failure.as_secs(), 600);
        assert_eq!(read.graces.lost.as_secs(), 5);
        assert_eq!(read.mover.throttle, 20 << 20);
        assert_eq!(read.mover.heal_throttle, 100);
        let bad = Settings {
            balancing: serde_yaml::from_str("{failureGrace: soon}").unwrap(),
            ..Settings::default()
        };
        assert!(Balancing::read(&bad).is_err());
    }
}
