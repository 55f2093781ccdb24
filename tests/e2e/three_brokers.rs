//! Three brokers on one ZooKeeper server: what clients see of a cluster that works, loses brokers and gets them
//! back.

use std::collections::BTreeMap;
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerKind, BrokerOptions};
use barnabas_tests::wait::until;
use barnabas_tests::wire::WireClient;
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{
    CreateTopicsRequest, InitProducerIdRequest, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

const PATIENCE: Duration = Duration::from_secs(60);
const IDS: [i32; 3] = [1, 2, 3];
const PARTITIONS: i32 = 6;

struct Trio {
    brokers: BTreeMap<i32, Broker>,
    options: BTreeMap<i32, BrokerOptions>,
    directory: tempfile::TempDir,
    zookeeper: ZooKeeperServer,
}

impl Trio {
    fn start() -> Trio {
        Trio::of_kinds([BrokerKind::under_test(); 3])
    }

    fn of_kinds(kinds: [BrokerKind; 3]) -> Trio {
        let zookeeper = ZooKeeperServer::start().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut trio = Trio {
            brokers: BTreeMap::new(),
            options: BTreeMap::new(),
            directory,
            zookeeper,
        };
        for (id, kind) in IDS.into_iter().zip(kinds) {
            let own = trio.directory.path().join(id.to_string());
            std::fs::create_dir(&own).unwrap();
            let mut options = BrokerOptions::new(&own, &trio.zookeeper.connect())
                .with("auto.leader.rebalance.enable", false)
                .with("replica.lag.time.max.ms", 5000)
                .of_kind(kind);
            options.id = id;
            trio.options.insert(id, options);
            trio.start_broker(id);
        }
        trio
    }

    fn start_broker(&mut self, id: i32) {
        let broker = self.options[&id].start().unwrap();
        self.brokers.insert(id, broker);
    }

    fn stop_broker(&mut self, id: i32) {
        self.brokers.remove(&id).unwrap().stop().unwrap();
    }

    fn client(&self, id: i32) -> WireClient {
        WireClient::connect(&self.options[&id].address()).unwrap()
    }

    /// Waits until every running broker says the same, of which `wanted` holds; gives it back.
    fn agreed(&self, wanted: impl Fn(&View) -> bool) -> View {
        let mut last = Vec::new();
        until(PATIENCE, || {
            last = self
                .brokers
                .keys()
                .map(|id| View::of(&mut self.client(*id)))
                .collect();
            let (first, others) = last.split_first()?;
            let do_agree = others.iter().all(|other| other == first);
            (do_agree && wanted(first)).then(|| first.clone())
        })
        .unwrap_or_else(|| panic!("no agreement: {last:#?}"))
    }

    /// A controller that all brokers name.
    fn controller(&self) -> i32 {
        self.agreed(|view| view.controller >= 0).controller
    }
}

/// What one broker says of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    controller: i32,
    brokers: Vec<i32>,
    partitions: BTreeMap<(String, i32), Placement>,
}

/// Leader, leader epoch, ISR (sorted) and replicas of a partition.
type Placement = (i32, i32, Vec<i32>, Vec<i32>);

impl View {
    fn of(client: &mut WireClient) -> View {
        let request = MetadataRequest::default().with_topics(None);
        let response: MetadataResponse = client.request(&request, 9).unwrap();
        let mut brokers: Vec<i32> = response.brokers.iter().map(|of| of.node_id.0).collect();
        brokers.sort_unstable();
        let mut partitions = BTreeMap::new();
        for topic in &response.topics {
            let name = topic.name.as_ref().unwrap().to_string();
            for of in &topic.partitions {
                let mut isr: Vec<i32> = of.isr_nodes.iter().map(|id| id.0).collect();
                isr.sort_unstable();
                let replicas = of.replica_nodes.iter().map(|id| id.0).collect();
                let key = (name.clone(), of.partition_index);
                partitions.insert(key, (of.leader_id.0, of.leader_epoch, isr, replicas));
            }
        }
        View {
            controller: response.controller_id.0,
            brokers,
            partitions,
        }
    }

    fn is_led_by_others_than(&self, id: i32) -> bool {
        let mut partitions = self.partitions.values();
        partitions.all(|(leader, _, isr, _)| *leader >= 0 && *leader != id && !isr.contains(&id))
    }

    fn has_full_isrs(&self) -> bool {
        let mut partitions = self.partitions.values();
        self.brokers == IDS && partitions.all(|(leader, _, isr, _)| *leader >= 0 && *isr == IDS)
    }
}

fn create_topic(trio: &Trio, name: &'static str, partitions: i32, replicas: i16) {
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(30_000);
    let mut client = trio.client(trio.controller());
    let response = client.request(&request, 5).unwrap();
    assert_eq!(response.topics[0].error_code, 0, "{response:?}");
}

fn producer_id(trio: &Trio, broker: i32) -> i64 {
    let mut client = trio.client(broker);
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    until(PATIENCE, || {
        let response = client.request(&request, 4).unwrap();
        (response.error_code == 0).then_some(response.producer_id.0)
    })
    .unwrap()
}

#[test]
fn three_brokers_agree_and_survive_stops_and_crashes() {
    let mut trio = Trio::start();
    create_topic(&trio, "t", PARTITIONS, 3);
    let view =
        trio.agreed(|view| view.partitions.len() == PARTITIONS as usize && view.has_full_isrs());
    let leaders: Vec<i32> = view
        .partitions
        .values()
        .map(|(leader, ..)| *leader)
        .collect();
    for id in IDS {
        assert_eq!(
            leaders.iter().filter(|leader| **leader == id).count(),
            2,
            "{view:?}"
        );
    }

    // Blocks of 1000 come from the one controller, so no id is given twice.
    let first: Vec<i64> = IDS.map(|id| producer_id(&trio, id)).to_vec();
    let mut blocks: Vec<i64> = first.iter().map(|id| id / 1000).collect();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len(), 3, "{first:?}");

    // Who stops in order gives its leaderships away before it goes: each moves once.
    let leaver = IDS.into_iter().find(|id| *id != view.controller).unwrap();
    trio.stop_broker(leaver);
    let after = trio.agreed(|view| view.is_led_by_others_than(leaver) && view.brokers.len() == 2);
    assert_eq!(after.controller, view.controller);
    for (partition, (_, epoch, ..)) in &after.partitions {
        let (old_leader, old_epoch, ..) = &view.partitions[partition];
        if *old_leader == leaver {
            assert_eq!(epoch - old_epoch, 1, "{partition:?} {after:?}");
        }
    }
    trio.start_broker(leaver);
    trio.agreed(View::has_full_isrs);

    // A controller that dies is replaced, and its partitions get other leaders.
    let controller = trio.controller();
    trio.brokers.remove(&controller).unwrap().kill();
    let after = trio.agreed(|view| {
        view.controller >= 0
            && view.controller != controller
            && view.is_led_by_others_than(controller)
    });
    assert_eq!(after.brokers.len(), 2);
    // The new controller works.
    create_topic(&trio, "two", 2, 2);
    trio.start_broker(controller);
    let end = trio.agreed(|view| {
        let of_t = view
            .partitions
            .iter()
            .filter(|((topic, _), _)| topic == "t");
        view.brokers == IDS && of_t.clone().all(|(_, (_, _, isr, _))| *isr == IDS)
    });
    assert_eq!(end.controller, after.controller);
}

/// Each obeys the other's controller, hands over to it and follows its leaders.
#[test]
fn kafka_and_ours_lead_each_other() {
    let kinds = [
        BrokerKind::Kafka,
        BrokerKind::Barnabas,
        BrokerKind::Barnabas,
    ];
    let mut trio = Trio::of_kinds(kinds);
    assert_eq!(trio.controller(), 1);
    create_topic(&trio, "t", PARTITIONS, 3);
    trio.agreed(|view| view.partitions.len() == PARTITIONS as usize && view.has_full_isrs());

    trio.stop_broker(3);
    trio.agreed(|view| view.is_led_by_others_than(3) && view.brokers == [1, 2]);
    trio.start_broker(3);
    trio.agreed(View::has_full_isrs);

    trio.stop_broker(1);
    let view = trio.agreed(|view| view.is_led_by_others_than(1) && view.brokers == [2, 3]);
    assert!([2, 3].contains(&view.controller), "{view:?}");
    trio.start_broker(1);
    trio.agreed(View::has_full_isrs);
    create_topic(&trio, "two", 2, 2);
    let ids: Vec<i64> = IDS.map(|id| producer_id(&trio, id) / 1000).to_vec();
    assert!(
        ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2],
        "{ids:?}"
    );

    trio.stop_broker(1);
    let all_by_two_and_three = |view: &View| view.is_led_by_others_than(1);
    trio.agreed(all_by_two_and_three);
}
