//! What is planned for a topic that is there, one step after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use barnabas_core::ids::{BrokerId, TopicName};

use super::plan::{Desired, Facts, Reason, Step, plan};
use crate::admin::{ConfigOp, PartitionMetadata};
use crate::cluster::{ClusterView, TopicView};
use crate::resource::RackSpread;

const MIN_ISR: &str = "min.insync.replicas";

fn view(replicas: i32, overrides: &[(&str, &str)]) -> ClusterView {
    let name = TopicName::from("orders");
    let ids: Vec<BrokerId> = (1..=replicas).map(BrokerId).collect();
    let overrides: BTreeMap<String, String> = overrides
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let min_insync_replicas = overrides
        .get(MIN_ISR)
        .map_or(1, |text| text.parse().unwrap());
    let topic = TopicView {
        name: name.clone(),
        id: None,
        is_internal: false,
        partitions: vec![PartitionMetadata {
            partition: 0,
            leader: ids.first().copied(),
            leader_epoch: 0,
            replicas: ids.clone(),
            isr: ids,
            offline: Vec::new(),
        }],
        overrides,
        min_insync_replicas,
    };
    let mut view = ClusterView::default();
    view.topics.insert(name, Arc::new(topic));
    view
}

fn asked(replicas: Option<i32>, config: &[(&str, &str)]) -> Desired {
    Desired {
        name: "orders".to_owned(),
        partitions: None,
        replicas,
        config: config
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        policy: None,
        rack_spread: RackSpread::Preferred,
    }
}

fn planned(desired: &Desired, view: &ClusterView) -> (Option<Step>, Vec<Reason>) {
    let found = plan(
        desired,
        &Facts {
            view,
            topic: view.topics.get("orders").map(|topic| &**topic),
            is_owned: true,
            eligible: 5,
            racks: 0,
        },
    );
    let reasons = found.problems.iter().map(|one| one.reason);
    (found.step, reasons.collect())
}

fn set(key: &str, value: &str) -> Step {
    let change = (key.to_owned(), ConfigOp::Set(value.to_owned()));
    Step::AlterConfig(vec![change])
}

/// Fewer replicas and a lower min ISR in one breath: the setting goes first, or the replicas would wait for ever.
#[test]
fn a_lower_min_isr_comes_before_fewer_replicas() {
    let desired = asked(Some(1), &[(MIN_ISR, "1")]);
    let before = view(3, &[(MIN_ISR, "2")]);
    assert_eq!(
        planned(&desired, &before),
        (Some(set(MIN_ISR, "1")), vec![])
    );
    let then = view(3, &[(MIN_ISR, "1")]);
    let shrinks = Some(Step::ChangeReplicas(1));
    assert_eq!(planned(&desired, &then), (shrinks, vec![]));
}

/// A min ISR above the replicas that there are would stop writers: it waits for them.
#[test]
fn a_higher_min_isr_comes_after_more_replicas() {
    let desired = asked(Some(3), &[(MIN_ISR, "3"), ("retention.ms", "5")]);
    let before = view(2, &[]);
    let planned_before = planned(&desired, &before);
    assert_eq!(planned_before, (Some(set("retention.ms", "5")), vec![]));
    let then = view(2, &[("retention.ms", "5")]);
    let grows = Some(Step::ChangeReplicas(3));
    assert_eq!(planned(&desired, &then), (grows, vec![]));
    let grown = view(3, &[("retention.ms", "5")]);
    assert_eq!(planned(&desired, &grown), (Some(set(MIN_ISR, "3")), vec![]));
}

#[test]
fn a_min_isr_above_replicas_that_nobody_asked_to_be_more_is_refused() {
    let desired = asked(None, &[(MIN_ISR, "5")]);
    let found = planned(&desired, &view(3, &[]));
    assert_eq!(found, (None, vec![Reason::ReplicasBelowMinIsr]));
}

/// What cannot be done about replicas keeps nobody from settings.
#[test]
fn settings_do_not_wait_for_replicas() {
    let desired = asked(Some(9), &[("retention.ms", "5")]);
    let (step, reasons) = planned(&desired, &view(3, &[]));
    assert_eq!(step, Some(set("retention.ms", "5")));
    assert_eq!(reasons, [Reason::WaitingForBrokers]);
}
