//! The recorded run of three brokers: with the same things happening around it, ours leaves the znodes that Kafka's
//! controller left after every step, and tells every broker the same in the same order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::Value;

use super::world::{World, settings};
use crate::control::ControlRequest;
use crate::controller::{
    AlterPartition, Answer, ElectionType, Event, IsrProposal, ProposedPartition, Request,
};
use crate::ids::{BrokerId, TopicPartition};
use crate::znodes::PartitionAssignment;

fn recording(name: &str) -> String {
    use std::io::Read as _;
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/znodes");
    let zipped = std::fs::read(root.join(name)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(zipped.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    text
}

fn int(value: &Value) -> i32 {
    value.as_i64().unwrap() as i32
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn ints(value: &Value) -> Vec<i32> {
    list(value).iter().map(int).collect()
}

fn broker_ids(value: &Value) -> Vec<BrokerId> {
    ints(value).into_iter().map(BrokerId).collect()
}

fn numbers(ids: &[BrokerId]) -> Vec<i32> {
    ids.iter().map(|id| id.0).collect()
}

fn sorted(mut lines: Vec<String>) -> String {
    lines.sort();
    lines.join("\n    ")
}

/// One control request in words: everything that counts, with the order of partitions and brokers taken out.
fn words(
    kind: &str,
    controller: i32,
    epoch: i32,
    registration: usize,
    partitions: Vec<String>,
    brokers: Vec<String>,
) -> String {
    let brokers: BTreeSet<_> = brokers.into_iter().collect();
    let brokers: Vec<_> = brokers.into_iter().collect();
    format!(
        "{kind} by {controller} epoch {epoch} to registration {registration}, brokers {}\n    {}\n",
        brokers.join(" "),
        sorted(partitions)
    )
}

fn recorded_words(line: &Value, registration: usize) -> Option<String> {
    let request = &line["request"];
    let states = |line: &dyn Fn(&Value, &Value) -> String| {
        let mut lines = Vec::new();
        for topic in list(&request["topicStates"]) {
            for partition in list(&topic["partitionStates"]) {
                lines.push(line(topic, partition));
            }
        }
        lines
    };
    let name = |topic: &Value, partition: &Value| {
        let topic = topic["topicName"].as_str().unwrap();
        format!("{topic}-{}", partition["partitionIndex"])
    };
    let (kind, partitions, brokers) = match line["header"]["requestApiKey"].as_i64().unwrap() {
        4 => {
            let partitions = states(&|topic, of| {
                format!(
                    "{} id {} {} {} {} {:?} v{} replicas {:?} +{:?} -{:?} new {} recovering {}",
                    name(topic, of),
                    topic["topicId"].as_str().unwrap(),
                    of["controllerEpoch"],
                    of["leader"],
                    of["leaderEpoch"],
                    ints(&of["isr"]),
                    of["partitionEpoch"],
                    ints(&of["replicas"]),
                    ints(&of["addingReplicas"]),
                    ints(&of["removingReplicas"]),
                    of["isNew"],
                    of["leaderRecoveryState"] == 1
                )
            });
            let leaders = list(&request["liveLeaders"]).iter();
            let leaders = leaders.map(|leader| {
                let host = leader["hostName"].as_str().unwrap();
                format!("{}@{host}:{}", leader["brokerId"], leader["port"])
            });
            ("LeaderAndIsr", partitions, leaders.collect())
        }
        6 => {
            let partitions = states(&|topic, of| {
                format!(
                    "{} id {} {} {} {} {:?} v{} replicas {:?} offline {:?}",
                    name(topic, of),
                    topic["topicId"].as_str().unwrap(),
                    of["controllerEpoch"],
                    of["leader"],
                    of["leaderEpoch"],
                    ints(&of["isr"]),
                    of["zkVersion"],
                    ints(&of["replicas"]),
                    ints(&of["offlineReplicas"]),
                )
            });
            let live = list(&request["liveBrokers"]).iter();
            let live = live.map(|live| {
                let at = &live["endpoints"][0];
                let host = at["host"].as_str().unwrap();
                format!("{}@{host}:{}", live["id"], at["port"])
            });
            ("UpdateMetadata", partitions, live.collect())
        }
        5 => {
            let partitions = states(&|topic, of| {
                let delete = &of["deletePartition"];
                format!("{} {} delete {delete}", name(topic, of), of["leaderEpoch"])
            });
            ("StopReplica", partitions, Vec::new())
        }
        _ => return None,
    };
    let (by, epoch) = (
        int(&request["controllerId"]),
        int(&request["controllerEpoch"]),
    );
    Some(words(kind, by, epoch, registration, partitions, brokers))
}

fn our_words(request: &ControlRequest, registration: usize) -> String {
    let (kind, header, partitions, brokers) = match request {
        ControlRequest::LeaderAndIsr(request) => {
            let partitions = request.partitions.iter().map(|of| {
                let led = &of.leadership;
                format!(
                    "{} id {} {} {} {} {:?} v{} replicas {:?} +{:?} -{:?} new {} recovering {}",
                    of.topic_partition,
                    of.topic_id.unwrap(),
                    led.controller_epoch,
                    led.leader,
                    led.leader_epoch,
                    numbers(&led.isr),
                    led.partition_epoch,
                    numbers(&of.replicas),
                    numbers(&of.adding_replicas),
                    numbers(&of.removing_replicas),
                    of.is_new,
                    led.is_recovering
                )
            });
            let leaders = request.live_leaders.iter();
            let leaders = leaders.map(|at| format!("{}@{}:{}", at.id, at.host, at.port));
            let leaders = leaders.collect();
            (
                "LeaderAndIsr",
                request.header,
                partitions.collect(),
                leaders,
            )
        }
        ControlRequest::UpdateMetadata(request) => {
            let partitions = request.partitions.iter().map(|of| {
                let led = &of.leadership;
                format!(
                    "{} id {} {} {} {} {:?} v{} replicas {:?} offline {:?}",
                    of.topic_partition,
                    of.topic_id.unwrap(),
                    led.controller_epoch,
                    led.leader,
                    led.leader_epoch,
                    numbers(&led.isr),
                    led.partition_epoch,
                    numbers(&of.replicas),
                    numbers(&of.offline_replicas),
                )
            });
            let live = request.live_brokers.iter().map(|live| {
                let at = &live.endpoints[0];
                format!("{}@{}:{}", live.id, at.host, at.port)
            });
            let live = live.collect();
            ("UpdateMetadata", request.header, partitions.collect(), live)
        }
        ControlRequest::StopReplica(request) => {
            let partitions = request.partitions.iter().map(|of| {
                let (name, epoch) = (&of.topic_partition, of.leader_epoch);
                format!("{name} {epoch} delete {}", of.delete)
            });
            (
                "StopReplica",
                request.header,
                partitions.collect(),
                Vec::new(),
            )
        }
    };
    let by = header.controller_id.0;
    let epoch = header.controller_epoch;
    words(kind, by, epoch, registration, partitions, brokers)
}

/// What happens around the controller, taken from the recording step by step.
struct Replay {
    world: World,
    steps: VecDeque<Value>,
    /// Changes of ISRs, in the order in which the controllers of that time saw them.
    proposals: VecDeque<Value>,
    /// Broker epochs of each broker: as recorded, and here.
    recorded_epochs: BTreeMap<i32, BTreeSet<i64>>,
    epochs: BTreeMap<i32, Vec<i64>>,
    step: Value,
    nodes: BTreeMap<String, Value>,
}

impl Replay {
    fn new(requests: &[Value]) -> Self {
        let steps = serde_json::from_str(&recording("three-brokers.json.gz")).unwrap();
        let proposals = requests.iter().filter(|line| {
            line["header"]["requestApiKey"] == 56 && line["response"]["errorCode"] == 0
        });
        let mut recorded_epochs: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
        for line in requests {
            if let (4..=6, Some(epoch)) = (
                line["header"]["requestApiKey"].as_i64().unwrap(),
                line["request"]["brokerEpoch"].as_i64(),
            ) {
                let of_broker = recorded_epochs.entry(int(&line["broker"])).or_default();
                of_broker.insert(epoch);
            }
        }
        Self {
            world: World::new(Self::settings(20)),
            steps,
            proposals: proposals.cloned().collect(),
            recorded_epochs,
            epochs: BTreeMap::new(),
            step: Value::Null,
            nodes: BTreeMap::new(),
        }
    }

    fn settings(broker: i32) -> crate::controller::Settings {
        crate::controller::Settings {
            auto_leader_rebalance_enable: false,
            ..settings(broker)
        }
    }

    /// Goes to the next recorded step.
    fn begin(&mut self, name: &str) {
        self.step = self.steps.pop_front().unwrap();
        assert!(
            self.step["step"].as_str().unwrap().starts_with(name),
            "{}",
            self.step["step"]
        );
        let nodes = list(&self.step["znodes"]).iter();
        let nodes = nodes.map(|node| (node["path"].as_str().unwrap().to_owned(), node.clone()));
        self.nodes = nodes.collect();
    }

    fn recorded_data(&self, path: &str) -> Option<Vec<u8>> {
        let data = self.nodes.get(path)?["data"].as_str();
        Some(data.unwrap_or_default().as_bytes().to_vec())
    }

    fn register(&mut self, broker: i32) {
        let path = format!("/brokers/ids/{broker}");
        let data = self.recorded_data(&path).unwrap();
        self.world.create(&path, Vec::new(), true).unwrap();
        self.world.set(&path, data, None).unwrap();
        let epoch = self.world.broker_epoch(broker);
        self.epochs.entry(broker).or_default().push(epoch);
        self.world.settle();
    }

    fn kill(&mut self, broker: i32) {
        self.world.deregister(broker);
        self.world.settle();
    }

    /// The topic as it was created.
    fn create_topic(&mut self, topic: &str) {
        let path = format!("/brokers/topics/{topic}");
        let config = format!("/config/topics/{topic}");
        for path in [config, path] {
            let data = self.recorded_data(&path).unwrap();
            self.world.create(&path, data, false).unwrap();
        }
        self.world.settle();
    }

    fn current_epoch(&self, broker: i32) -> i64 {
        *self.epochs[&broker].last().unwrap()
    }

    fn request(&mut self, request: Request) -> Answer {
        self.world.request(request);
        self.world.answers.pop().unwrap()
    }

    /// The next recorded changes of ISRs; their answers are compared.
    fn alter_partitions(&mut self, count: usize) {
        for _ in 0..count {
            let line = self.proposals.pop_front().unwrap();
            let (request, response) = (&line["request"], &line["response"]);
            let broker = int(&request["brokerId"]);
            let mut partitions = Vec::new();
            let mut expected = String::new();
            for topic in list(&request["topics"]) {
                let topic_id = topic["topicId"].as_str().unwrap().parse().unwrap();
                for of in list(&topic["partitions"]) {
                    let isr = list(&of["newIsrWithEpochs"]).iter();
                    partitions.push(IsrProposal {
                        partition: ProposedPartition::ById {
                            topic_id,
                            partition: int(&of["partitionIndex"]),
                        },
                        leader_epoch: int(&of["leaderEpoch"]),
                        isr: isr
                            .map(|member| BrokerId(int(&member["brokerId"])))
                            .collect(),
                        is_recovering: of["leaderRecoveryState"] == 1,
                        partition_epoch: int(&of["partitionEpoch"]),
                    });
                }
            }
            let mut answered = Vec::new();
            for topic in list(&response["topics"]) {
                for of in list(&topic["partitions"]) {
                    assert_eq!(of["errorCode"], 0);
                    answered.push(format!(
                        "{} {} {} {:?} v{}",
                        topic["topicId"].as_str().unwrap(),
                        of["leaderId"],
                        of["leaderEpoch"],
                        ints(&of["isr"]),
                        of["partitionEpoch"]
                    ));
                }
            }
            expected.push_str(&sorted(answered));
            let answer = self.request(Request::AlterPartition(AlterPartition {
                broker: BrokerId(broker),
                broker_epoch: self.current_epoch(broker),
                version: 3,
                partitions,
            }));
            let Answer::AlterPartition(Ok(altered)) = answer else {
                panic!("{answer:?} to {line}");
            };
            let altered = altered.into_iter().map(|altered| {
                let ProposedPartition::ById { topic_id, .. } = altered.partition else {
                    unreachable!("asked by id");
                };
                let led = altered.result.unwrap();
                let isr = numbers(&led.isr);
                let (leader, epoch) = (led.leader, led.leader_epoch);
                format!(
                    "{topic_id} {leader} {epoch} {isr:?} v{}",
                    led.partition_epoch
                )
            });
            assert_eq!(sorted(altered.collect()), expected);
        }
    }

    fn reassign(&mut self, target: Option<&[i32]>) {
        let of = TopicPartition::new("rt", 0);
        let target = target.map(|target| target.iter().copied().map(BrokerId).collect());
        let request = Request::AlterReassignments([(of.clone(), target)].into());
        let expected = Answer::AlterReassignments(Ok([(of, Ok(()))].into()));
        assert_eq!(self.request(request), expected);
    }

    fn shut_down(&mut self, broker: i32) -> Vec<TopicPartition> {
        let broker_epoch = self.current_epoch(broker);
        let request = Request::ControlledShutdown {
            broker: BrokerId(broker),
            broker_epoch,
        };
        match self.request(request) {
            Answer::ControlledShutdown(Ok(remaining)) => remaining,
            answer => panic!("{answer:?}"),
        }
    }

    fn become_controller(&mut self, broker: i32) {
        self.world.replace_controller(Self::settings(broker));
        self.world.handle(Event::Started);
    }

    /// What the controller owns is as recorded: paths, data, data versions.
    fn check(&self) {
        let is_owned = |path: &str| {
            let is_below = |root: &str| path.starts_with(root);
            is_below("/brokers/topics/")
                || is_below("/admin")
                || is_below("/isr_change_notification")
                || is_below("/log_dir_event_notification")
                || is_below("/config/topics/")
                || [
                    "/controller",
                    "/controller_epoch",
                    "/feature",
                    "/latest_producer_id_block",
                ]
                .contains(&path)
        };
        let parsed = |data: &[u8]| {
            let value = serde_json::from_slice::<Value>(data);
            let mut value = value.unwrap_or(Value::Null);
            if let Some(fields) = value.as_object_mut() {
                fields.remove("timestamp");
            }
            value.to_string()
        };
        let mut expected = String::new();
        for (path, node) in &self.nodes {
            if is_owned(path) {
                let data = node["data"].as_str().unwrap_or_default();
                let data = parsed(data.as_bytes());
                let is_config = path.starts_with("/config");
                let version = if is_config {
                    Value::Null
                } else {
                    node["version"].clone()
                };
                let data = if is_config { String::new() } else { data };
                let _ = writeln!(expected, "{path} v{version} {data}");
            }
        }
        let mut found = String::new();
        for path in self.world.paths() {
            if is_owned(path) {
                let (data, version) = self.world.node(path).unwrap();
                let is_config = path.starts_with("/config");
                let (version, data) = if is_config {
                    (Value::Null, String::new())
                } else {
                    (version.into(), parsed(data))
                };
                let _ = writeln!(found, "{path} v{version} {data}");
            }
        }
        let missing = expected.lines().filter(|line| !found.contains(line));
        let unexpected = found.lines().filter(|line| !expected.contains(line));
        let (missing, unexpected): (Vec<_>, Vec<_>) = (missing.collect(), unexpected.collect());
        assert_eq!(
            (missing, unexpected),
            (vec![], vec![]),
            "(missing, unexpected) after {}",
            self.step["step"]
        );
    }

    /// What each broker was told, here and in the recording.
    fn transcripts(&self, requests: &[Value]) -> BTreeMap<i32, (Vec<String>, Vec<String>)> {
        let mut transcripts: BTreeMap<i32, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for (to, request) in &self.world.sent {
            let header = match request {
                ControlRequest::LeaderAndIsr(request) => request.header,
                ControlRequest::UpdateMetadata(request) => request.header,
                ControlRequest::StopReplica(request) => request.header,
            };
            let epochs = self.epochs[&to.0].iter();
            let registration = epochs
                .take_while(|epoch| **epoch != header.broker_epoch)
                .count();
            let (ours, _) = transcripts.entry(to.0).or_default();
            ours.push(our_words(request, registration));
        }
        for line in requests {
            let broker = int(&line["broker"]);
            let epoch = line["request"]["brokerEpoch"].as_i64().unwrap_or_default();
            let epochs = self.recorded_epochs[&broker].iter();
            let registration = epochs.take_while(|known| **known != epoch).count();
            if let Some(words) = recorded_words(line, registration) {
                transcripts.entry(broker).or_default().1.push(words);
            }
        }
        transcripts
    }
}

#[test]
fn the_recorded_run_leaves_the_same_znodes_and_requests() {
    let requests = recording("three-brokers-control-requests.jsonl.gz");
    let requests: Vec<Value> = requests
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut replay = Replay::new(&requests);
    let replay = &mut replay;

    replay.begin("start 20");
    replay.register(20);
    replay.world.handle(Event::Started);
    replay.check();
    replay.begin("start 21 and 22");
    replay.register(22);
    replay.register(21);
    replay.check();
    replay.begin("create r3");
    replay.create_topic("r3");
    replay.check();
    replay.begin("create r1");
    for topic in ["r1", "r2", "rt", "rf"] {
        replay.create_topic(topic);
    }
    replay.check();
    replay.begin("transactional producer");
    replay.create_topic("__transaction_state");
    let broker_epoch = replay.current_epoch(22);
    let block = replay.request(Request::AllocateProducerIds {
        broker: BrokerId(22),
        broker_epoch,
    });
    assert_eq!(block, Answer::AllocateProducerIds(Ok(0..=999)));
    replay.check();
    replay.begin("kill -9 follower 22");
    replay.kill(22);
    replay.check();
    replay.begin("22 back");
    replay.register(22);
    replay.alter_partitions(4);
    replay.check();

    replay.begin("preferred election");
    let topics = [
        ("r1", 1),
        ("r2", 1),
        ("r3", 3),
        ("rt", 1),
        ("rf", 1),
        ("__transaction_state", 4),
    ];
    let partitions = topics.into_iter().flat_map(|(topic, count)| {
        (0..count).map(move |number| TopicPartition::new(topic, number))
    });
    let elected = replay.request(Request::ElectLeaders {
        kind: ElectionType::Preferred,
        partitions: partitions.collect(),
    });
    let Answer::ElectLeaders(Ok(elected)) = elected else {
        panic!("{elected:?}");
    };
    let elected: Vec<_> = elected
        .iter()
        .filter_map(|(of, result)| Some((of.to_string(), result.as_ref().ok()?.0)))
        .collect();
    let expected = [
        ("__transaction_state-0", 22),
        ("__transaction_state-3", 22),
        ("r3-2", 22),
    ];
    assert_eq!(
        elected,
        expected.map(|(of, leader)| (of.to_owned(), leader))
    );
    replay.check();
    replay.begin("replication throttles set");

    replay.begin("reassign rt-0 [20,21] -> [22,21], during");
    replay.reassign(Some(&[22, 21]));
    replay.check();
    replay.begin("ListPartitionReassignments");
    let listed = replay.request(Request::ListReassignments(None));
    let of = &replay.step["info"]["r"]["topics"][0]["partitions"][0];
    let assignment = PartitionAssignment {
        replicas: broker_ids(&of["replicas"]),
        adding_replicas: broker_ids(&of["addingReplicas"]),
        removing_replicas: broker_ids(&of["removingReplicas"]),
    };
    let expected = [(TopicPartition::new("rt", 0), assignment)];
    assert_eq!(listed, Answer::ListReassignments(Ok(expected.into())));
    replay.begin("reassign again rt-0 -> [22] over the running one");
    replay.reassign(Some(&[22]));
    replay.check();
    replay.begin("cancel reassignment");
    replay.reassign(None);
    replay.check();
    replay.begin("reassign rt-0 -> [22,21] again, during");
    replay.reassign(Some(&[22, 21]));
    replay.check();
    replay.begin("throttle removed, reassignment complete");
    replay.alter_partitions(1);
    replay.check();
    replay.begin("legacy reassign_partitions node");
    let node = br#"{"version":1,"partitions":[{"topic":"rt","partition":0,"replicas":[21,22]}]}"#;
    let path = "/admin/reassign_partitions";
    replay.world.create(path, node.to_vec(), false).unwrap();
    replay.world.settle();
    replay.check();

    replay.begin("kill -9 22");
    replay.kill(22);
    replay.check();
    replay.begin("kill -9 21");
    replay.kill(21);
    replay.check();
    replay.begin("22 back");
    replay.register(22);
    replay.alter_partitions(2);
    replay.check();
    replay.begin("ElectLeaders unclean r2-0");
    let of = TopicPartition::new("r2", 0);
    let elected = replay.request(Request::ElectLeaders {
        kind: ElectionType::Unclean,
        partitions: [of.clone()].into(),
    });
    let expected = Answer::ElectLeaders(Ok([(of, Ok(BrokerId(22)))].into()));
    assert_eq!(elected, expected);
    replay.check();
    replay.begin("21 back");
    replay.register(21);
    replay.alter_partitions(4);
    replay.check();

    replay.begin("kill -9 controller 20");
    replay.world.deregister(20);
    replay.become_controller(21);
    replay.check();
    replay.begin("20 back");
    replay.register(20);
    replay.alter_partitions(4);
    replay.check();
    replay.begin("clean stop of 22");
    assert_eq!(replay.shut_down(22), []);
    replay.kill(22);
    replay.check();
    replay.begin("DeleteTopics r3");
    let marker = "/admin/delete_topics/r3";
    replay.world.create(marker, Vec::new(), false).unwrap();
    replay.world.settle();
    replay.check();
    replay.begin("CreateTopics r3");
    replay.begin("22 back");
    replay.register(22);
    replay.alter_partitions(3);
    replay.check();
    replay.begin("DeleteTopics r1");
    let marker = "/admin/delete_topics/r1";
    replay.world.create(marker, Vec::new(), false).unwrap();
    replay.world.settle();
    replay.check();
    replay.begin("clean stop of controller 21");
    assert_eq!(replay.shut_down(21), []);
    replay.world.deregister(21);
    replay.become_controller(20);
    replay.check();
    replay.begin("all stopped");
    let told_before = replay.world.sent.clone();
    assert_eq!(replay.shut_down(20), []);
    replay.world.deregister(20);
    replay.become_controller(22);
    assert_eq!(replay.shut_down(22).len(), 7);
    replay.world.deregister(22);
    replay.world.delete("/controller").unwrap();
    replay.check();
    assert!(replay.proposals.is_empty());

    for (broker, (ours, recorded)) in replay.transcripts(&requests) {
        for (index, (ours, recorded)) in ours.iter().zip(&recorded).enumerate() {
            assert_eq!(ours, recorded, "request {index} to broker {broker}");
        }
        // Of the last requests some did not reach brokers that were stopping.
        let before = told_before.iter().filter(|(to, _)| to.0 == broker);
        let counts = before.count()..=ours.len();
        assert!(counts.contains(&recorded.len()), "{broker}: {counts:?}");
    }
}
