//! The process as the system sees it, under Prometheus' usual names.

use std::fs;

use super::Exposition;

/// Writes what `/proc` tells; where it tells nothing, nothing.
pub(super) fn write(out: &mut Exposition) {
    if let Some(times) = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|text| Times::parse(&text))
    {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let name = "process_cpu_seconds_total";
        out.counter_seconds(name, times.cpu_ticks as f64 / ticks);
        if let Some(boot) = boot_time() {
            let started = boot as f64 + times.start_ticks as f64 / ticks;
            out.gauge("process_start_time_seconds", &[], started);
        }
        out.gauge("process_virtual_memory_bytes", &[], times.virtual_bytes);
        let resident = times.resident_pages * rustix::param::page_size() as u64;
        out.gauge("process_resident_memory_bytes", &[], resident);
        out.gauge("process_threads", &[], times.threads);
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", &[], descriptors.count());
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(limit) = limit.current {
        out.gauge("process_max_fds", &[], limit);
    }
}

struct Times {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Times {
    /// Fields of `/proc/<pid>/stat` (proc(5)), counted from behind the name, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// Seconds since the Unix epoch.
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 50 60 0 0 20 0 9 0 1234 5678 90 0";
        let times = Times::parse(text).unwrap();
        assert_eq!((times.cpu_ticks, times.threads), (110, 9));
        assert_eq!(
            (times.start_ticks, times.virtual_bytes, times.resident_pages),
            (1234, 5678, 90)
        );
        assert!(Times::parse("7 (cut").is_none());
    }

    #[test]
    fn the_process_sees_itself() {
        let mut out = Exposition::default();
        write(&mut out);
        let text = out.into_text();
        for name in [
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_open_fds ",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
}
