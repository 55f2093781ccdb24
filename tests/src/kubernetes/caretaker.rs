//! Cleans up after a cluster, however its maker ends: by itself, by Ctrl-C or by `kill -9`.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

/// The process whose end is to be the cluster's too, beside the one that made it: `cargo xtask` says its own.
const ENDS_WITH: &str = "BARNABAS_ENDS_WITH";
/// What kubelets change for the whole machine.
const SYSCTLS: [&str; 3] = [
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/panic_on_oops",
];
/// Reads until its input ends, which it does with the maker, or until the other process is gone. Everything may be gone
/// already: then it has nothing to do. Groups can be removed a moment after the last process in them has ended.
const SCRIPT: &str = r#"
network=$1 groups=$2 directory=$3 maker=$4 other=$5
shift 5
is_gone() { ! grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$1/status"; }
while :; do
  read -r -t 0.3
  [ $? -gt 128 ] || break
  if is_gone "$other"; then kill -9 "$maker"; break; fi
done
for namespace in /var/run/netns/"$network"-*; do
  [ -e "$namespace" ] || continue
  name=${namespace##*/}
  for _ in $(seq 50); do
    ids=$(ip netns pids "$name")
    [ -n "$ids" ] || break
    kill -9 $ids 2> /dev/null
    sleep 0.1
  done
  ip netns del "$name"
done
for _ in $(seq 300); do
  left=0
  for group in /sys/fs/cgroup/"$groups"-node* /sys/fs/cgroup/*/"$groups"-node*; do
    [ -d "$group" ] || continue
    find "$group" -depth -type d -exec rmdir {} + 2> /dev/null
    [ ! -d "$group" ] || left=1
  done
  [ $left = 1 ] || break
  sleep 0.1
done
rm -rf "$directory"
for setting; do echo "${setting#*=}" > "${setting%%=*}"; done
"#;

/// Dropping it makes it clean up, and waits for that.
#[derive(Debug)]
pub(super) struct Caretaker {
    process: Child,
    /// Closed by the kernel if this process is killed.
    life: Option<ChildStdin>,
}

impl Caretaker {
    /// Looks after network namespaces called `network-*`, control groups called `groups-node*`, and `directory`; puts back
    /// settings of the whole machine as they are now. It has a session of its own, so that Ctrl-C does not end it.
    pub(super) fn start(network: &str, groups: &str, directory: &Path) -> Result<Caretaker> {
        let own = std::process::id().to_string();
        let other = std::env::var(ENDS_WITH).unwrap_or_else(|_| own.clone());
        let mut command = Command::new("setsid");
        command.args(["bash", "-c", SCRIPT, "caretaker", network, groups]);
        command.arg(directory).args([own, other]);
        for path in SYSCTLS {
            if let Ok(value) = std::fs::read_to_string(path) {
                command.arg(format!("{path}={}", value.trim()));
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut process = command.spawn().context("cannot run setsid and bash")?;
        let life = process.stdin.take();
        Ok(Caretaker { process, life })
    }
}

impl Drop for Caretaker {
    fn drop(&mut self) {
        drop(self.life.take());
        if let Err(error) = self.process.wait() {
            eprintln!("what cleans up after a cluster: {error}");
        }
    }
}
