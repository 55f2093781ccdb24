//! Kafka's own tools move partitions between three brokers and choose their leaders.

use std::fs;
use std::time::{Duration, Instant};

use barnabas_tests::cluster::{Cluster, ClusterOptions};
use barnabas_tests::load::{Produce, consume, produce};
use barnabas_tests::verify::{TopicPlan, create_topic};
use barnabas_tests::wait::until;

use crate::tools::{kafka_tool, require};

const PATIENCE: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    let options = ClusterOptions::three()
        .with("auto.leader.rebalance.enable", false)
        .with("replica.lag.time.max.ms", 5000);
    Cluster::start(&options).unwrap()
}

fn topic(cluster: &Cluster, name: &str, replicas: &[i32]) {
    let plan = TopicPlan {
        name: name.to_owned(),
        assignment: vec![replicas.to_vec()],
        configs: Vec::new(),
    };
    create_topic(&cluster.bootstrap(), &plan, PATIENCE).unwrap();
}

fn leader_is(cluster: &Cluster, topic: &str, leader: Option<i32>) {
    let is_so =
        |view: &Option<barnabas_tests::verify::Leader>| view.as_ref().map(|view| view.id) == leader;
    cluster
        .view()
        .wait_for(topic, PATIENCE, |view| is_so(&view[&0].leader))
        .unwrap();
}

struct Tools {
    servers: String,
}

impl Tools {
    fn run(&self, main_class: &str, arguments: &[&str]) -> String {
        let server = ["--bootstrap-server", &self.servers];
        kafka_tool(main_class, &[&server, arguments].concat())
    }

    fn topics(&self, arguments: &[&str]) -> String {
        self.run("org.apache.kafka.tools.TopicCommand", arguments)
    }

    /// What is set for all of that kind.
    fn configs(&self, kind: &str) -> String {
        let arguments = ["--describe", "--entity-type", kind];
        self.run("kafka.admin.ConfigCommand", &arguments)
    }

    fn reassign(&self, arguments: &[&str]) -> String {
        let class = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
        self.run(class, arguments)
    }

    fn elect(&self, kind: &str, topic: &str) -> String {
        let class = "org.apache.kafka.tools.LeaderElectionCommand";
        let arguments = [
            "--election-type",
            kind,
            "--topic",
            topic,
            "--partition",
            "0",
        ];
        self.run(class, &arguments)
    }
}

#[test]
fn a_partition_is_moved_throttled_cancelled_and_moved() {
    let cluster = cluster();
    let servers = cluster.bootstrap().join(",");
    let tools = Tools { servers };
    topic(&cluster, "moving", &[1, 2]);
    let data = Produce {
        topic: "moving".to_owned(),
        partitions: 1,
        record_size: 1000,
        records_per_batch: 100,
        total_bytes: 8_000_000,
        connections: 1,
        in_flight: 5,
        acks: -1,
    };
    let produced = produce(&cluster.bootstrap()[0], &data).unwrap();

    let path = |name: &str| cluster.directory().join(name).to_str().unwrap().to_owned();
    let (topics, plan) = (path("topics.json"), path("plan.json"));
    let text = r#"{"version":1,"topics":[{"topic":"moving"}]}"#;
    fs::write(&topics, text).unwrap();
    let generate = [
        "--generate",
        "--topics-to-move-json-file",
        &topics,
        "--broker-list",
        "1,2,3",
    ];
    require(
        &tools.reassign(&generate),
        &[
            "Current partition replica assignment",
            r#"{"topic":"moving","partition":0,"replicas":[1,2],"log_dirs":["any","any"]}"#,
            "Proposed partition reassignment configuration",
        ],
    );

    let text = r#"{"version":1,"partitions":[{"topic":"moving","partition":0,"replicas":[3,2]}]}"#;
    fs::write(&plan, text).unwrap();
    let file = ["--reassignment-json-file", plan.as_str()];
    let with_plan = |arguments: &[&'static str]| tools.reassign(&[arguments, &file].concat());
    require(
        &with_plan(&["--execute", "--throttle", "50000"]),
        &[
            "The inter-broker throttle limit was set to 50000 B/s",
            "Successfully started partition reassignment for moving-0",
        ],
    );
    require(
        &tools.topics(&["--describe", "--topic", "moving"]),
        &[
            "Leader: 1\tReplicas: 3,2,1",
            "Adding Replicas: 3\tRemoving Replicas: 1",
        ],
    );
    require(
        &tools.reassign(&["--list"]),
        &["moving-0: replicas: 3,2,1. adding: 3. removing: 1."],
    );
    require(
        &with_plan(&["--verify"]),
        &["Reassignment of partition moving-0 is still in progress."],
    );
    require(
        &with_plan(&["--cancel"]),
        &["Successfully cancelled partition reassignment for: moving-0"],
    );
    require(
        &tools.topics(&["--describe", "--topic", "moving"]),
        &["Leader: 1\tReplicas: 2,1\tIsr: 1,2"],
    );
    require(
        &tools.reassign(&["--list"]),
        &["No partition reassignments found."],
    );

    let began = Instant::now();
    require(
        &with_plan(&["--execute", "--throttle", "500000"]),
        &["Successfully started partition reassignment for moving-0"],
    );
    cluster
        .view()
        .wait_for("moving", PATIENCE, |view| {
            let mut isr = view[&0].isr.clone();
            isr.sort_unstable();
            view[&0].replicas == [3, 2] && isr == [2, 3]
        })
        .unwrap();
    leader_is(&cluster, "moving", Some(3));
    // The throttle looks back on eleven seconds, in which nothing was moved at first. A slow machine only takes longer.
    let seconds = began.elapsed().as_secs_f64();
    let most = 500_000.0 * (seconds + 11.0) * 1.2;
    println!("moved {} bytes in {seconds:.1} s", data.total_bytes);
    assert!((data.total_bytes as f64) < most, "in {seconds} s");
    require(
        &tools.configs("topics"),
        &["leader.replication.throttled.replicas=0:1,0:2"],
    );
    require(
        &with_plan(&["--verify"]),
        &[
            "Reassignment of partition moving-0 is completed.",
            "Clearing broker-level throttles on brokers 1,2,3",
            "Clearing topic-level throttles on topic moving",
        ],
    );
    for kind in ["topics", "brokers"] {
        let left = tools.configs(kind);
        assert!(!left.contains("throttled"), "{left}");
    }
    let end = produced.records as i64;
    let read = consume(&cluster.bootstrap()[2], "moving", 0, 0, end, 1 << 20).unwrap();
    assert_eq!(read.records, produced.records);
    // The replica that moved away took its files along.
    let left = cluster.log_dir(1).join("moving-0");
    until(PATIENCE, || (!left.exists()).then_some(())).unwrap();
}

#[test]
fn leaders_are_elected_on_demand() {
    let mut cluster = cluster();
    let servers = cluster.bootstrap().join(",");
    let tools = Tools { servers };
    topic(&cluster, "preferred", &[1, 2, 3]);
    topic(&cluster, "unclean", &[2, 3]);
    cluster.kill(1);
    cluster
        .view()
        .wait_for("preferred", PATIENCE, |view| {
            view[&0].leader.as_ref().is_some_and(|led| led.id != 1) && view[&0].isr.len() == 2
        })
        .unwrap();
    cluster.start_broker(1).unwrap();
    let isr = [1, 2, 3];
    cluster
        .view()
        .wait_for_isr("preferred", &isr, PATIENCE)
        .unwrap();
    require(
        &tools.elect("preferred", "preferred"),
        &["Successfully completed leader election (PREFERRED) for partitions preferred-0"],
    );
    leader_is(&cluster, "preferred", Some(1));
    require(
        &tools.elect("preferred", "preferred"),
        &["Valid replica already elected for partitions preferred-0"],
    );

    // Only broker 2 has everything, and is gone.
    cluster.kill(3);
    cluster
        .view()
        .wait_for_isr("unclean", &[2], PATIENCE)
        .unwrap();
    cluster.kill(2);
    leader_is(&cluster, "unclean", None);
    cluster.start_broker(3).unwrap();
    leader_is(&cluster, "unclean", None);
    require(
        &tools.elect("unclean", "unclean"),
        &["Successfully completed leader election (UNCLEAN) for partitions unclean-0"],
    );
    leader_is(&cluster, "unclean", Some(3));
    cluster.start_broker(2).unwrap();
    cluster
        .view()
        .wait_for_isr("unclean", &[2, 3], PATIENCE)
        .unwrap();
}
