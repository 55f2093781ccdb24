//! Moves that people ask for, and moves that meet trouble.

use std::collections::{BTreeMap, BTreeSet};

use barnabas_core::ids::{BrokerId, TopicName, TopicPartition};
use barnabas_operator::admin::{Admin, ConfigChanges, ConfigOp, ConfigResource, Reassign};
use barnabas_tests::cluster::Cluster;
use barnabas_tests::load;
use barnabas_tests::small_disk::SmallDisk;
use barnabas_tests::wait;

use super::world::{TOPIC, Views, World, on, replicas};
use crate::lab::PATIENCE;

/// A topic with enough in it for a move to take a while.
const BULK: &str = "bulk";
const BULK_BYTES: u64 = 20_000_000;

/// Another number of replicas, together with the setting that depends on it, both ways.
pub(super) fn other_numbers_of_replicas(world: &mut World<'_>) {
    world.say("P3 replicas 3 -> 4 -> 3");
    let spec = |count: i32, min: i32| {
        format!("partitions: 6, replicas: {count}, config: {{min.insync.replicas: {min}}}")
    };
    world.lab.apply(TOPIC, &spec(4, 2)).unwrap();
    world.wait_until_quiet("four replicas", |views| {
        views.values().all(|one| one.replicas.len() == 4)
    });
    world.lab.wait_for(TOPIC, "True AsSpecified");
    world.lab.apply(TOPIC, &spec(3, 2)).unwrap();
    world.wait_until_quiet("three replicas", |views| {
        views.values().all(|one| one.replicas.len() == 3)
    });
    world.wait_for_event("ReplicasChangeFinished");
    world.assert_safe();
}

/// A broker is emptied by an annotation of its pod, and filled up when that is taken back.
pub(super) fn a_broker_is_emptied(world: &mut World<'_>) {
    world.say("P2 a broker is emptied");
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission=true");
    world.wait_until_quiet("emptied", |views| on(views, 4) == 0);
    world.wait_for_event("DrainStarted");
    // A topic with as many replicas as brokers cannot leave it.
    world.wait_for_state(4, "Draining");
    world.kubectl("delete topics.barnabas.dev wide");
    world.wait_for_state(4, "Drained");
    world.wait_for_event("DrainFinished");
    // Nothing new is placed on it.
    world
        .lab
        .apply("during", "partitions: 6, replicas: 3")
        .unwrap();
    world.lab.wait_for("during", "True AsSpecified");
    let placed = world.lab.get("during", ".status.assignments");
    let has_four = placed
        .split(['"', ',', ':', '[', ']'])
        .any(|word| word == "4");
    // Partition 4 begins with its number.
    let lists = placed.replace("\"4:", "\"");
    let has_four = has_four && lists.split([',', ':', '"']).any(|word| word == "4");
    assert!(!has_four, "{placed}");
    // Else it would be what the broker is filled up with.
    world.lab.delete("during");
    world.kubectl("annotate pod brokers-3 barnabas.dev/decommission-");
    world.wait_until_quiet("filled up again", |views| on(views, 4) > 0);
    world.assert_no_throttle();
}

/// The log directory of a broker becomes a file system of its own, which can be made smaller.
pub(super) fn give_a_small_disk(cluster: &mut Cluster, broker: i32) -> Option<SmallDisk> {
    cluster.stop(broker).unwrap();
    let path = cluster.log_dir(broker);
    let disk = SmallDisk::mount(&path, 512).ok()?;
    cluster.options(broker).launcher = disk.launcher();
    cluster.start_broker(broker).unwrap();
    Some(disk)
}

fn is_in_sync(views: &Views) -> bool {
    let mut all = views.values();
    !views.is_empty() && all.all(|one| one.isr.len() == one.replicas.len())
}

/// F20: somebody else moves a partition while a broker is emptied: that is left alone.
pub(super) fn somebody_else_moves_too(world: &mut World<'_>) {
    world.say("F20 somebody else moves a partition");
    world.lab.apply(BULK, "partitions: 6, replicas: 2").unwrap();
    world.lab.wait_for(BULK, "True AsSpecified");
    let views = world.wait_for_views_of(BULK, "the topic is there", is_in_sync);
    for (partition, view) in &views {
        let leader = view.leader.as_ref().unwrap();
        load::fill(&leader.address, BULK, *partition, BULK_BYTES).unwrap();
    }

    // Slow enough to meet ours: partition 0 to two brokers that do not have it.
    let has = views[&0].replicas.clone();
    let target: Vec<i32> = (1..=4).filter(|id| !has.contains(id)).collect();
    let ids: Vec<BrokerId> = target.iter().copied().map(BrokerId).collect();
    let set = |resource, key: &str, value: String| ConfigChanges {
        resource,
        changes: vec![(key.to_owned(), ConfigOp::Set(value))],
    };
    let throttled = target.iter().map(|id| format!("0:{id}"));
    let throttled: Vec<String> = throttled.collect();
    let mut changes = vec![set(
        ConfigResource::Topic(TopicName::from(BULK)),
        "follower.replication.throttled.replicas",
        throttled.join(","),
    )];
    changes.extend(ids.iter().map(|id| {
        let rate = "follower.replication.throttled.rate";
        set(ConfigResource::Broker(*id), rate, "200000".to_owned())
    }));
    let moves = [Reassign {
        partition: TopicPartition::new(BULK, 0),
        target: Some(ids.clone()),
    }];
    world.with_admin(async |admin: Admin| {
        for change in &changes {
            let change = std::slice::from_ref(change);
            let changed = admin.incremental_alter_configs(change).await.unwrap();
            assert_eq!(changed, [Ok(())]);
        }
        let errors = admin.alter_partition_reassignments(&moves).await.unwrap();
        assert!(errors.is_empty(), "{errors:?}");
    });
    world.wait_for_event("ForeignReassignment");
    // The broker to be emptied is none of those that the foreign move needs.
    let emptied = has[1];
    let pod = format!("brokers-{}", emptied - 1);
    world.kubectl(&format!(
        "annotate pod {pod} barnabas.dev/decommission=true"
    ));
    world.wait_until_quiet("emptied", |views| on(views, emptied) == 0);
    let moved = world.wait_for_views_of(BULK, "the foreign move ends", |views| {
        let mut is = views[&0].replicas.clone();
        is.sort_unstable();
        is == target && is_in_sync(views) && on(views, emptied) == 0
    });
    assert_eq!(moved[&0].replicas.len(), 2);
    world.kubectl(&format!("annotate pod {pod} barnabas.dev/decommission-"));
    world.wait_until_quiet("filled up again", |views| on(views, emptied) > 0);
    // While nothing moves: the operator puts back what it found, these too.
    world.wait_until_settled("after the foreign move");
    for change in &mut changes {
        change.changes[0].1 = ConfigOp::Delete;
    }
    world.with_admin(async |admin: Admin| {
        for change in &changes {
            let change = std::slice::from_ref(change);
            let changed = admin.incremental_alter_configs(change).await.unwrap();
            assert_eq!(changed, [Ok(())]);
        }
    });
    world.assert_no_throttle();
}

/// How much of what a lost broker had of the bulk has been copied elsewhere, in percent, by the sizes that brokers tell.
fn copied(world: &World<'_>, before: &Views, lost: i32) -> u64 {
    let had: Vec<i32> = { before.iter() }
        .filter(|(_, one)| one.replicas.contains(&lost))
        .map(|(partition, _)| *partition)
        .collect();
    let bytes: u64 = world.with_admin(async |admin: Admin| {
        let mut bytes = 0;
        for broker in (1..=4).filter(|id| *id != lost) {
            let dirs = admin.describe_log_dirs(BrokerId(broker)).await;
            let dirs = dirs.unwrap_or_default();
            for replica in dirs.iter().flat_map(|dir| &dir.replicas) {
                let of = had
                    .iter()
                    .find(|id| replica.partition == TopicPartition::new(BULK, **id));
                if of.is_some_and(|id| !before[id].replicas.contains(&broker)) {
                    bytes += replica.bytes;
                }
            }
        }
        bytes
    });
    bytes * 100 / (BULK_BYTES * had.len().max(1) as u64)
}

/// The replicas of each partition, whichever comes first: who takes a reassignment back gets them in another order.
fn in_order(views: &Views) -> BTreeMap<i32, BTreeSet<i32>> {
    let all = replicas(views).into_iter();
    all.map(|(partition, ids)| (partition, ids.into_iter().collect()))
        .collect()
}

/// F10: a broker returns when a fifth of its replicas' bytes has been copied, or four fifths: its copies are taken back, or
/// finished.
pub(super) fn a_broker_returns_early_or_late(world: &mut World<'_>) {
    for (percent, stays) in [(5, true), (70, false)] {
        world.say(&format!("F10 a broker returns after {percent} %"));
        let before = world.wait_for_views_of(BULK, "in sync", is_in_sync);
        let lost = 2;
        assert!(on(&before, lost) > 0, "{before:?}");
        world.kubelets.lose(lost);
        world.cluster.kill(lost);
        world.wait_for_state(lost, "Failed");
        let found = wait::until(PATIENCE, || {
            (copied(world, &before, lost) >= percent).then_some(())
        });
        assert!(found.is_some(), "nothing is copied\n{}", world.log_end());
        world.bring_back(lost);
        if stays {
            let after = world.wait_for_views_of(BULK, "taken back", |views| {
                is_in_sync(views) && on(views, lost) == on(&before, lost) && world.is_idle()
            });
            assert_eq!(in_order(&after), in_order(&before));
        } else {
            world.wait_for_event("HealFinished");
            world.wait_for_views_of(BULK, "all in sync", |views| {
                is_in_sync(views) && replicas(views) != replicas(&before)
            });
        }
        world.wait_until_settled("after the return");
    }
}

/// F14: the disk that replicas are copied to fills up: they go elsewhere.
pub(super) fn a_disk_fills_up(world: &mut World<'_>, disk: &SmallDisk) {
    world.say("F14 the disk of a target fills up");
    let full = 4;
    let before = world.wait_for_views_of(BULK, "in sync", is_in_sync);
    let lost = (1..full).max_by_key(|id| on(&before, *id)).unwrap();
    world.kubelets.lose(lost);
    world.cluster.kill(lost);
    world.wait_for_state(lost, "Failed");
    let runs = |views: &Views| {
        let mut all = views.iter();
        all.any(|(partition, one)| {
            one.replicas.contains(&full) && !before[partition].replicas.contains(&full)
        })
    };
    world.wait_for_views_of(BULK, "a move to it begins", runs);
    // Less than a move needs, and enough for what else grows meanwhile.
    disk.leave(15 << 20).unwrap();
    world.wait_for_event("TargetDiskFull");
    world.wait_for_views_of(BULK, "healed elsewhere", |views| {
        is_in_sync(views) && on(views, lost) == 0
    });
    disk.resize(512).unwrap();
    world.wait_for_state(full, "Alive");
    world.bring_back(lost);
    world.wait_until_settled("after the return");
}
