//! Metrics that are read off the parts of the broker when somebody asks.

use super::Exposition;
use crate::api::{Api, Broker};
use crate::zookeeper::SessionState;

/// Writes all metrics of a broker.
pub fn write_all(broker: &Broker, out: &mut Exposition) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.gauge("barnabas_build_info", &version, 1);
    super::process::write(out);
    write_logs(broker, out);
    write_replicas(broker, out);
    write_controller(broker, out);
    write_session(broker, out);
    broker
        .metrics
        .write(out, |key| Api::find(key).map(|api| api.name));
}

fn write_logs(broker: &Broker, out: &mut Exposition) {
    let directories = broker.logs.directories();
    let offline = directories.iter().filter(|one| one.error.is_some()).count();
    out.gauge(
        "kafka_log_logmanager_offlinelogdirectorycount",
        &[],
        offline,
    );
    for directory in &directories {
        let path = directory.path.to_string_lossy();
        let labels = [("logDirectory", path.as_ref())];
        let is_offline = u8::from(directory.error.is_some());
        out.gauge(
            "kafka_log_logmanager_logdirectoryoffline",
            &labels,
            is_offline,
        );
    }
    let logs = broker.logs.all_logs();
    let logs: Vec<_> = logs
        .iter()
        .map(|log| {
            let topic_partition = log.topic_partition();
            (
                topic_partition.topic.clone(),
                topic_partition.partition.to_string(),
                log,
            )
        })
        .collect();
    let mut each = |name: &str, value: &dyn Fn(&crate::log::PartitionLog) -> i64| {
        for (topic, partition, log) in &logs {
            let labels = [("topic", topic.as_ref()), ("partition", partition.as_str())];
            out.gauge(name, &labels, value(log));
        }
    };
    each("kafka_log_log_size", &|log| log.size_in_bytes() as i64);
    each("kafka_log_log_logstartoffset", &|log| {
        log.log_start_offset()
    });
    each("kafka_log_log_logendoffset", &|log| log.log_end_offset());
}

fn write_replicas(broker: &Broker, out: &mut Exposition) {
    let counts = broker.replicas.counts();
    let gauges = [
        ("partitioncount", counts.partitions),
        ("leadercount", counts.leaders),
        ("offlinereplicacount", counts.offline),
        ("underreplicatedpartitions", counts.under_replicated),
        ("underminisrpartitioncount", counts.under_min_isr),
    ];
    for (name, value) in gauges {
        out.gauge(&format!("kafka_server_replicamanager_{name}"), &[], value);
    }
    let sessions = broker.fetch_sessions.counts();
    let prefix = "kafka_server_fetchsessioncache";
    let gauges = [
        ("numincrementalfetchsessions", sessions.sessions),
        ("numincrementalfetchpartitionscached", sessions.partitions),
    ];
    for (name, value) in gauges {
        out.gauge(&format!("{prefix}_{name}"), &[], value);
    }
    let name = format!("{prefix}_incrementalfetchsessionevictions_total");
    out.counter(&name, &[], sessions.evictions);
}

fn write_controller(broker: &Broker, out: &mut Exposition) {
    let status = *broker.controller.status().borrow();
    let totals = status.totals;
    let gauges = [
        ("activecontrollercount", usize::from(status.is_active)),
        ("activebrokercount", totals.live_brokers),
        ("globaltopiccount", totals.topics),
        ("globalpartitioncount", totals.partitions),
        ("offlinepartitionscount", totals.offline_partitions),
        (
            "preferredreplicaimbalancecount",
            totals.preferred_replica_imbalance,
        ),
        ("topicstodeletecount", totals.topics_to_delete),
        (
            "topicsineligibletodeletecount",
            totals.topics_ineligible_for_deletion,
        ),
    ];
    for (name, value) in gauges {
        out.gauge(
            &format!("kafka_controller_kafkacontroller_{name}"),
            &[],
            value,
        );
    }
    let queued = status.queued_events;
    out.gauge(
        "kafka_controller_controllereventmanager_eventqueuesize",
        &[],
        queued,
    );
}

fn write_session(broker: &Broker, out: &mut Exposition) {
    let now = *broker.zookeeper.session_state().borrow();
    let states = [
        ("CONNECTED", SessionState::Connected),
        ("DISCONNECTED", SessionState::Disconnected),
        ("EXPIRED", SessionState::Expired),
        ("AUTH_FAILED", SessionState::AuthFailed),
        ("CLOSED", SessionState::Closed),
    ];
    for (name, state) in states {
        let labels = [("state", name)];
        let metric = "kafka_server_sessionexpirelistener_sessionstate";
        out.gauge(metric, &labels, u8::from(now == state));
    }
}
