//! `kafka-consumer-groups` with all that it can do, on groups with and without members.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use barnabas_tests::load::ensure_topic;
use barnabas_tests::wait::until;
use barnabas_tests::wire::WireClient;
use kafka_protocol::messages::{DescribeGroupsRequest, GroupId};
use kafka_protocol::protocol::StrBytes;

use crate::client_program::OneBroker;
use crate::kcat::kcat_prints;
use crate::tools::{kafka_tool_runs, require};

const TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const PATIENCE: Duration = Duration::from_secs(30);

/// A member of the group `live` that goes on reading. Dropping it kills it without a farewell.
struct Member(Child);

impl Member {
    fn join(address: &str, instance: &str) -> Member {
        let member = Command::new("kcat")
            .args(["-b", address, "-q", "-u", "-G", "live", "watched"])
            .args(["-X", "session.timeout.ms=6000"])
            .args(["-X", &format!("group.instance.id={instance}")])
            .args(["-X", &format!("client.id=client-of-{instance}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Member(member.unwrap())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the group `live` is stable with so many members.
fn wait_for_members(address: &str, count: usize) {
    let mut client = WireClient::connect(address).unwrap();
    let group = GroupId(StrBytes::from_static_str("live"));
    let request = DescribeGroupsRequest::default().with_groups(vec![group]);
    let stable = until(PATIENCE, || {
        let answer = client.request(&request, 5).unwrap();
        let group = &answer.groups[0];
        (&*group.group_state == "Stable" && group.members.len() == count).then_some(())
    });
    assert!(stable.is_some(), "{count} members");
}

/// The words of all lines that begin with these.
fn rows<'a>(text: &'a str, begin: &[&str]) -> Vec<Vec<&'a str>> {
    let lines = text.lines().map(|line| line.split_whitespace().collect());
    lines
        .filter(|words: &Vec<&str>| words.starts_with(begin))
        .collect()
}

/// Looks at what a command has printed.
type Check = Box<dyn Fn(&str)>;

/// Commands, and what is to be found in what they print.
#[derive(Default)]
struct Script {
    runs: Vec<String>,
    checks: Vec<Check>,
}

impl Script {
    fn run(&mut self, arguments: &str, check: impl Fn(&str) + 'static) {
        self.runs.push(arguments.to_owned());
        self.checks.push(Box::new(check));
    }

    /// Resets offsets of the group `g`; then the tool prints the new ones.
    fn reset(&mut self, arguments: &str, offsets: &[(&'static str, &'static str, &'static str)]) {
        let offsets = offsets.to_vec();
        self.run(
            &format!("--reset-offsets --group g {arguments}"),
            move |text| {
                // The lines of the table are not apart.
                let (_, table) = text.split_once("NEW-OFFSET").unwrap();
                let words: Vec<&str> = table.split_whitespace().collect();
                let mut found: Vec<&[&str]> = words.chunks(4).collect();
                found.sort_unstable();
                let mut wanted: Vec<Vec<&str>> = offsets
                    .iter()
                    .map(|(topic, partition, offset)| vec!["g", *topic, *partition, *offset])
                    .collect();
                wanted.sort_unstable();
                assert_eq!(found, wanted, "{text}");
            },
        );
    }
}

#[test]
fn kafka_consumer_groups_does_all_it_can() {
    let one = OneBroker::start(|options| options);
    let address = one.broker.address();
    let directory = tempfile::tempdir().unwrap();
    for topic in ["shared", "other", "watched"] {
        ensure_topic(&address, topic, 2).unwrap();
        for partition in ["0", "1"] {
            let lines = (0..10).fold(String::new(), |text, i| text + &format!("{i}\n"));
            kcat_prints(&address, &["-P", "-t", topic, "-p", partition], &lines);
        }
    }
    let members = ["one", "two"].map(|instance| Member::join(&address, instance));
    let from_start = ["-X", "auto.offset.reset=earliest", "-q", "-c", "40"];
    let read = [&from_start[..], &["-G", "g", "shared", "other"]].concat();
    kcat_prints(&address, &read, "");
    wait_for_members(&address, 2);

    let plan = directory.path().join("plan.csv");
    fs::write(&plan, "shared,0,7\nother,1,8\n").unwrap();
    let mut script = Script::default();
    script_of_live_group(&mut script);
    script_of_empty_group(&mut script, &plan.display().to_string());
    let server = format!("--bootstrap-server {address}");
    let runs: Vec<String> = script
        .runs
        .iter()
        .map(|run| format!("{server} {run}"))
        .collect();
    let printed = kafka_tool_runs(TOOL, &runs);
    for ((text, check), run) in printed.iter().zip(&script.checks).zip(&script.runs) {
        println!("{run}\n{text}");
        check(text);
    }

    // One dies, and the other one gets its partition.
    let [_survivor, victim] = members;
    drop(victim);
    wait_for_members(&address, 1);
    let mut script = Script::default();
    script.run("--describe --group live --members --verbose", |text| {
        let rows = rows(text, &["live"]);
        assert_eq!(rows.len(), 1, "{text}");
        require(text, &[" (0,1)"]);
    });
    let printed = kafka_tool_runs(TOOL, &[format!("{server} {}", script.runs[0])]);
    script.checks[0](&printed[0]);
}

fn script_of_live_group(script: &mut Script) {
    script.run("--list --state stable", |text| {
        assert_eq!(rows(text, &["live", "Stable"]).len(), 1, "{text}");
        assert!(rows(text, &["g"]).is_empty(), "{text}");
    });
    script.run("--list --state", |text| {
        assert_eq!(rows(text, &["g", "Empty"]).len(), 1, "{text}");
        assert_eq!(rows(text, &["live", "Stable"]).len(), 1, "{text}");
    });
    script.run("--list --state dead", |text| {
        assert!(rows(text, &["g"]).is_empty() && rows(text, &["live"]).is_empty());
    });
    script.run("--list --type classic", |text| {
        assert_eq!(rows(text, &["g"]).len(), 1, "{text}");
    });
    script.run("--list --type consumer", |text| {
        assert!(rows(text, &["g"]).is_empty(), "{text}");
    });
    script.run("--describe --group live --members", |text| {
        require(text, &["one-", "two-", "/127.0.0.1"]);
        assert_eq!(rows(text, &["live"]).len(), 2, "{text}");
    });
    script.run("--describe --group live --members --verbose", |text| {
        require(text, &[" (0)", " (1)"]);
    });
    script.run("--describe --group live --state", |text| {
        let rows = rows(text, &["live"]);
        assert_eq!(rows[0][3..], ["range", "Stable", "2"], "{text}");
    });
    script.run("--describe --all-groups --state", |text| {
        assert_eq!(rows(text, &["live"]).len() + rows(text, &["g"]).len(), 2);
    });
    script.run("--describe --group live", |text| {
        assert_eq!(rows(text, &["live", "watched"]).len(), 2, "{text}");
    });
    script.run("--delete --group live", |text| {
        require(text, &["GroupNotEmptyException", "The group is not empty."]);
    });
    script.run(
        "--reset-offsets --group live --to-earliest --topic watched --execute",
        |text| require(text, &["the current state is Stable"]),
    );
    script.run("--delete-offsets --group live --topic watched", |text| {
        require(text, &["GroupSubscribedToTopicException"]);
    });
    script.run("--describe --group nobody", |text| {
        require(text, &["Consumer group 'nobody' does not exist."]);
    });
}

fn script_of_empty_group(script: &mut Script, plan: &str) {
    let shared = |offset| [("shared", "0", offset), ("shared", "1", offset)];
    script.run("--describe --group g --offsets", |text| {
        for topic in ["shared", "other"] {
            for row in rows(text, &["g", topic]) {
                assert_eq!(row[3..6], ["10", "10", "0"], "{text}");
            }
        }
        assert_eq!(rows(text, &["g"]).len(), 4, "{text}");
    });
    script.run("--describe --group g --state", |text| {
        assert_eq!(rows(text, &["g"])[0].last(), Some(&"0"), "{text}");
        require(text, &["Empty"]);
    });
    script.run("--describe --group g --members", |text| {
        assert!(rows(text, &["g"]).is_empty(), "{text}");
    });
    script.reset("--topic shared --to-earliest --dry-run", &shared("0"));
    script.reset(
        "--topic shared:0 --to-earliest --execute",
        &[("shared", "0", "0")],
    );
    script.run("--describe --group g", |text| {
        assert_eq!(rows(text, &["g", "shared", "0"])[0][3], "0", "{text}");
        assert_eq!(rows(text, &["g", "shared", "1"])[0][3], "10", "{text}");
    });
    script.reset(
        "--topic shared:0 --shift-by 3 --execute",
        &[("shared", "0", "3")],
    );
    script.reset("--topic shared --shift-by -100 --execute", &shared("0"));
    script.reset(
        "--all-topics --to-latest --execute",
        &[
            &shared("10")[..],
            &[("other", "0", "10"), ("other", "1", "10")],
        ]
        .concat(),
    );
    script.reset(
        "--topic shared --topic other:0 --to-offset 4 --execute",
        &[&shared("4")[..], &[("other", "0", "4")]].concat(),
    );
    script.reset("--topic shared --to-current --dry-run", &shared("4"));
    let long_ago = "--topic shared --to-datetime 2000-01-01T00:00:00.000 --execute";
    script.reset(long_ago, &shared("0"));
    let not_yet = "--topic shared --to-datetime 2100-01-01T00:00:00.000 --execute";
    script.reset(not_yet, &shared("10"));
    script.reset("--topic shared --by-duration PT1H --execute", &shared("0"));
    script.reset("--topic shared --by-duration PT0S --execute", &shared("10"));
    script.reset(
        &format!("--from-file {plan} --execute"),
        &[("shared", "0", "7"), ("other", "1", "8")],
    );
    script.run(
        "--reset-offsets --group g --topic shared --to-earliest --dry-run --export",
        |text| require(&text.replace('"', ""), &["shared,0,0", "shared,1,0"]),
    );
    script.run("--describe --group g", |text| {
        assert_eq!(rows(text, &["g", "shared", "0"])[0][3], "7", "{text}");
        assert_eq!(rows(text, &["g", "other", "1"])[0][3], "8", "{text}");
    });
    script.run("--delete-offsets --group g --topic other:1", |text| {
        require(text, &["Request succeed for deleting offsets"]);
    });
    script.run("--delete-offsets --group g --topic nowhere", |text| {
        require(text, &["UnknownTopicOrPartitionException"]);
    });
    script.run("--describe --group g", |text| {
        assert_eq!(rows(text, &["g", "other"]).len(), 1, "{text}");
    });
    script.run("--delete --group g", |text| {
        require(
            text,
            &["Deletion of requested consumer groups ('g') was successful."],
        );
    });
    script.run("--delete --group g", |text| {
        require(
            text,
            &["GroupIdNotFoundException", "The group id does not exist."],
        );
    });
    script.run("--list", |text| assert_eq!(text.trim(), "live"));
}
