//! The chart with a ZooKeeper of its own, and the ways in which a release can end.

use std::time::{Duration, Instant};

use barnabas_tests::kubernetes::{Lab, TOOLBOX};
use barnabas_tests::tools::repository;

use crate::release::{NAMESPACE, Release, lab};

const TOPIC: &str = "apiVersion: barnabas.dev/v1alpha1\nkind: Topic\nmetadata: {name: NAME, namespace: streams}\n\
                     spec: {partitions: 2}\n";

/// Ends come in several orders, and none waits for a finalizer.
#[test]
#[ignore = "a cluster of its own: cargo xtask test kubernetes"]
fn zookeeper_comes_with_the_chart_and_releases_end_in_any_order() {
    let lab = lab();
    // As the official image is called: pods must not ask any registry.
    lab.tag(TOOLBOX, "docker.io/library/zookeeper:3.9").unwrap();
    the_first_lines_of_the_readme_work(&lab);
    let values = [
        "zookeeper.mode=bundled",
        "zookeeper.bundled.resources.requests.memory=128Mi",
    ];
    let mut release = Release::new(lab, &values);

    release.install();
    topics_become_ready(&release, &["one", "two"]);
    eprintln!("-- the release first, then its Topics");
    release.uninstall();
    delete_topics(&release);
    delete_claims(&release);

    release
        .values
        .push("zookeeper.bundled.replicas=3".to_owned());
    release.install();
    topics_become_ready(&release, &["one", "two"]);
    eprintln!("-- Topics first, then the release");
    delete_topics(&release);
    release.uninstall();

    release.install();
    topics_become_ready(&release, &["one"]);
    eprintln!("-- an operator that is away, then the release, then Topics");
    let deployment = "deployment/kafka-barnabas-operator";
    release.kubectl(&["scale", deployment, "--replicas=0"]);
    release.kubectl(&["delete", "btopic", "one", "--wait=false"]);
    release.uninstall();
    delete_topics(&release);

    release.install();
    topics_become_ready(&release, &["one"]);
    eprintln!("-- brokers and ZooKeeper that are away, then the release");
    for set in ["broker", "zookeeper"] {
        let name = format!("statefulset/kafka-barnabas-{set}");
        release.kubectl(&["delete", &name, "--timeout=60s"]);
    }
    release.uninstall();
    delete_topics(&release);

    release.install();
    topics_become_ready(&release, &["one"]);
    eprintln!("-- the release, and at once its namespace");
    release.uninstall();
    let start = Instant::now();
    let delete = ["delete", "namespace", NAMESPACE, "--timeout=60s"];
    release.lab.plane.kubectl(&delete).unwrap();
    eprintln!("the namespace: {:.1?}", start.elapsed());
}

/// What a person pastes first, word for word, where nodes have the images already.
fn the_first_lines_of_the_readme_work(lab: &Lab) {
    for program in ["broker", "operator"] {
        let image = format!("barnabas-{program}:0.1.0");
        let (ours, theirs) = (
            format!("localhost/{image}"),
            format!("registry.example.com/{image}"),
        );
        lab.tag(&ours, &theirs).unwrap();
    }
    let start = Instant::now();
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let begin = readme.find("    helm install").unwrap();
    let lines = readme[begin..].split("\n\n").next().unwrap();
    for line in lines.replace("\\\n", " ").lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = match words[0] {
            "helm" => lab.plane.helm_command(),
            "kubectl" => lab.plane.kubectl_command(),
            other => panic!("{other}"),
        };
        let output = command
            .args(&words[1..])
            .current_dir(repository())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {text}{problem}");
        eprintln!("{}: {:.1?}", words[..2].join(" "), start.elapsed());
    }
    let namespace = format!("--namespace={NAMESPACE}");
    let uninstall = ["uninstall", "barnabas", &namespace, "--wait"];
    lab.plane.helm(&uninstall).unwrap();
    // It stays with its Topics, and belongs to the release that brought it.
    let definition = ["delete", "crd", "topics.barnabas.dev", "--timeout=30s"];
    lab.plane.kubectl(&definition).unwrap();
    let claims = ["delete", "pvc", "--all", "--timeout=30s", &namespace];
    lab.plane.kubectl(&claims).unwrap();
}

fn topics_become_ready(release: &Release, names: &[&str]) {
    for name in names {
        let topic = TOPIC.replace("NAME", name);
        release.lab.plane.apply(&topic).unwrap();
    }
    let wait = [
        "wait",
        "btopic",
        "--all",
        "--for=condition=Ready",
        "--timeout=90s",
    ];
    if let Err(error) = release.try_kubectl(&wait) {
        panic!("{error:#}\n{}", release.state());
    }
}

fn delete_topics(release: &Release) {
    let start = Instant::now();
    if let Err(error) = release.try_kubectl(&["delete", "btopic", "--all", "--timeout=30s"]) {
        panic!("{error:#}\n{}", release.state());
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    eprintln!("Topics deleted: {:.1?}", start.elapsed());
}

fn delete_claims(release: &Release) {
    release.kubectl(&["delete", "pvc", "--all", "--timeout=30s"]);
}
