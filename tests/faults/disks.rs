//! A disk of one of three brokers runs full while it leads and follows: the other directory goes on, others lead.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::small_disk::SmallDisk;

use super::{
    ALL, PATIENCE, PROGRESS, REQUEST_TIMEOUT, TOPIC, all_in_sync, alone, settle, verifier,
};

const PARTITIONS: i32 = 6;
const MIB: u32 = 64;
/// Whose disk it is.
const VICTIM: i32 = 2;

/// The partitions of the topic that have a folder here.
fn partitions_in(log_dir: &Path) -> Result<BTreeSet<i32>> {
    let entries = std::fs::read_dir(log_dir).with_context(|| log_dir.display().to_string())?;
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(TOPIC));
        let number = number.and_then(|rest| rest.strip_prefix('-'));
        found.extend(number.and_then(|number| number.parse::<i32>().ok()));
    }
    Ok(found)
}

/// Writes until nothing goes in any more.
fn fill(file: &Path) -> Result<()> {
    let mut file = File::create(file)?;
    let block = vec![b'x'; 4096];
    // A disk is finite, and so is this loop if it is not.
    for _ in 0..2 * MIB * 256 {
        if file.write_all(&block).is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("the disk is larger than it should be")
}

fn hurt(cluster: &mut Cluster, disk: &SmallDisk, small: &Path, large: &Path) -> Result<()> {
    let small = disk.seen_from_outside(small);
    let lost = partitions_in(&small)?;
    let kept = partitions_in(large)?;
    ensure!(!lost.is_empty() && !kept.is_empty(), "{lost:?} {kept:?}");
    let before = cluster.view().partitions(TOPIC)?;
    let leads = |partition: &i32| {
        let leader = before[partition].leader.as_ref();
        leader.is_some_and(|leader| leader.id == VICTIM)
    };
    let led: Vec<&i32> = lost.iter().filter(|partition| leads(partition)).collect();
    eprintln!("the full disk holds {lost:?}, of which it leads {led:?}; the other one {kept:?}");
    ensure!(!led.is_empty() && led.len() < lost.len(), "by placement");

    let filler = small.join("filler");
    fill(&filler)?;
    cluster.view().wait_for(TOPIC, PATIENCE, |partitions| {
        lost.iter().all(|partition| {
            let view = &partitions[partition];
            let leader = view.leader.as_ref();
            !view.isr.contains(&VICTIM) && leader.is_some_and(|leader| leader.id != VICTIM)
        })
    })?;
    let after = cluster.view().partitions(TOPIC)?;
    for partition in &kept {
        let mut isr = after[partition].isr.clone();
        isr.sort_unstable();
        ensure!(
            isr == ALL && after[partition].leader == before[partition].leader,
            "partition {partition} of the other directory: {:?}",
            after[partition]
        );
    }
    std::fs::remove_file(filler)?;
    Ok(())
}

#[test]
fn a_full_disk_costs_one_replica_of_what_it_holds() {
    let _alone = alone();
    let options = ClusterOptions::three()
        .with("replica.lag.time.max.ms", 3000)
        .with("log.segment.bytes", 1 << 20)
        .with("auto.leader.rebalance.enable", false);
    let mut cluster = Cluster::start(&options).unwrap();
    let root = cluster.directory().to_owned();
    let (small, large) = (root.join("small"), root.join("large"));
    std::fs::create_dir(&small).unwrap();
    let disk = match SmallDisk::mount(&small, MIB) {
        Ok(disk) => disk,
        Err(error) => {
            println!("cannot make a small disk here: {error:#}");
            return;
        }
    };
    cluster.stop(VICTIM).unwrap();
    let broker = cluster.options(VICTIM);
    let log_dirs = format!("{},{}", small.display(), large.display());
    broker.properties.insert("log.dirs".to_owned(), log_dirs);
    broker.launcher = disk.launcher();
    cluster.start_broker(VICTIM).unwrap();
    let verifier = verifier(&cluster, PARTITIONS, REQUEST_TIMEOUT);
    let mut story = || -> Result<()> {
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        hurt(&mut cluster, &disk, &small, &large)?;
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        // A directory that was given up is used again by the next process.
        cluster.stop(VICTIM)?;
        verifier.wait_for_progress(PROGRESS, PATIENCE)?;
        cluster.start_broker(VICTIM)?;
        all_in_sync(&cluster)?;
        verifier.wait_for_progress(PROGRESS, PATIENCE)
    };
    let story = story();
    settle(&cluster, verifier, story);
    // The broker's processes end before the disk does.
    drop(cluster);
    drop(disk);
}
