//! What the controller of this broker counts and times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use barnabas_core::controller::{Activity, Finished};
use barnabas_core::ids::BrokerId;

use crate::metrics::{Exposition, Gauge, Histogram};

/// The queue of control requests to one broker (`kafka.controller:type=ControllerChannelManager`).
#[derive(Debug, Default)]
pub(super) struct ChannelMetrics {
    /// Requests that wait, or are being sent.
    pub queued: Gauge,
    /// From the queue to the answer.
    pub request_time: Histogram,
}

/// Times of the controller (`ControllerStats`, `ControllerEventManager`, `ControllerChannelManager`).
#[derive(Debug, Default)]
pub struct ControllerMetrics {
    by_activity: BTreeMap<Activity, Histogram>,
    queue_time: Histogram,
    channels: Mutex<BTreeMap<BrokerId, Arc<ChannelMetrics>>>,
}

impl ControllerMetrics {
    pub(super) fn new() -> Arc<Self> {
        let timed = Activity::TIMED.into_iter();
        Arc::new(Self {
            by_activity: timed
                .map(|activity| (activity, Histogram::default()))
                .collect(),
            ..Self::default()
        })
    }

    pub(super) fn finished(&self, finished: &[Finished]) {
        for one in finished {
            self.queue_time.observe(one.waited);
            if let Some(histogram) = self.by_activity.get(&one.activity) {
                histogram.observe(one.took);
            }
        }
    }

    /// The counts of a channel that begins.
    pub(super) fn channel(&self, broker: BrokerId) -> Arc<ChannelMetrics> {
        let metrics = Arc::new(ChannelMetrics::default());
        self.lock().insert(broker, metrics.clone());
        metrics
    }

    pub(super) fn channel_closed(&self, broker: BrokerId) {
        self.lock().remove(&broker);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<BrokerId, Arc<ChannelMetrics>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all of them.
    pub fn write(&self, out: &mut Exposition) {
        for (activity, histogram) in &self.by_activity {
            let name = activity.name().to_lowercase();
            let name = format!("kafka_controller_controllerstats_{name}rateandtimems");
            out.histogram(&name, &[], histogram);
        }
        let name = "kafka_controller_controllereventmanager_eventqueuetimems";
        out.histogram(name, &[], &self.queue_time);
        let channels = self.lock();
        let total: i64 = channels.values().map(|one| one.queued.get()).sum();
        let prefix = "kafka_controller_controllerchannelmanager";
        out.gauge(&format!("{prefix}_totalqueuesize"), &[], total);
        for (broker, channel) in channels.iter() {
            let id = broker.to_string();
            let queued = channel.queued.get();
            out.gauge(
                &format!("{prefix}_queuesize"),
                &[("broker-id", &id)],
                queued,
            );
        }
        for (broker, channel) in channels.iter() {
            let id = broker.to_string();
            let name = format!("{prefix}_requestrateandqueuetimems");
            out.histogram(&name, &[("broker-id", &id)], &channel.request_time);
        }
    }
}
