//! What the machine is, and what its processors have been doing.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};
use vxlane_tests::LabError;

/// The machine that figures were taken on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the first processor.
    pub cpu: String,
    /// Processors online.
    pub cpus: usize,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Kernel release and version.
    pub kernel: String,
    /// The kernel's generic-receive and scheduling figures depend on being a guest.
    pub hypervisor: bool,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field =
            |name: &str| cpuinfo.lines().find(|line| line.starts_with(name)).and_then(|line| line.split(": ").nth(1));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        Self {
            cpu: field("model name").unwrap_or("unknown").trim().to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib.unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            hypervisor: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
        }
    }
}

/// Now, in UTC, to the second.
pub fn date() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The load average over the last minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Processor time of the whole machine since it was started, in seconds summed over processors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuTimes {
    /// At work: user, nice, system, irq and softirq.
    pub busy: f64,
    /// Taken away by the hypervisor for others.
    pub steal: f64,
    /// All of it.
    pub total: f64,
}

impl CpuTimes {
    /// What `/proc/stat` says now.
    ///
    /// # Errors
    /// [`LabError`] when it cannot be read.
    pub fn now() -> Result<Self, LabError> {
        let text = fs::read_to_string(STAT).map_err(LabError::syscall("read", STAT))?;
        Self::parse(&text, ticks_per_second())
            .ok_or(LabError::Unfit { what: "a line `cpu` was expected in /proc/stat", text })
    }

    /// Reads the text of `/proc/stat`, whose numbers count `ticks` a second.
    pub fn parse(text: &str, ticks: f64) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let fields = line.split_whitespace().map(|word| word.parse::<f64>().map(|value| value / ticks));
        let fields: Vec<f64> = fields.collect::<Result<_, _>>().ok()?;
        // proc_stat(5): guest time is part of user time already, so it is not read.
        let [user, nice, system, idle, iowait, irq, softirq, steal] = *fields.first_chunk()?;
        let busy = user + nice + system + irq + softirq;
        Some(Self { busy, steal, total: busy + steal + idle + iowait })
    }

    /// What has passed since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            busy: (self.busy - earlier.busy).max(0.0),
            steal: (self.steal - earlier.steal).max(0.0),
            total: (self.total - earlier.total).max(0.0),
        }
    }

    /// Share of the time that was stolen, 0 to 1.
    pub fn stolen(&self) -> f64 {
        if self.total > 0.0 { self.steal / self.total } else { 0.0 }
    }

    /// Share of the time at work, 0 to 1.
    pub fn share(&self) -> f64 {
        if self.total > 0.0 { self.busy / self.total } else { 0.0 }
    }
}

/// How busy the machine is while we do nothing, 0 to 1, watched for `time`.
///
/// # Errors
/// As [`CpuTimes::now`].
pub fn background(time: Duration) -> Result<f64, LabError> {
    let before = CpuTimes::now()?;
    thread::sleep(time);
    Ok(CpuTimes::now()?.since(&before).share())
}

/// What a process has used of processors and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Time on processors since it was started, all threads, in seconds.
    pub cpu: f64,
    /// Resident memory, in MiB.
    pub rss: f64,
}

impl ProcessUse {
    /// The sum over `processes`; those that have ended count nothing.
    pub fn of(processes: &[u32]) -> Self {
        let mut sum = Self::default();
        for pid in processes {
            sum.cpu += thread_times(*pid);
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            sum.rss += resident(&status).unwrap_or(0.0);
        }
        sum
    }
}

/// Seconds on processors of all threads of a process, to the nanosecond (unlike `/proc/PID/stat`).
fn thread_times(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let times = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    times.sum::<f64>() / 1e9
}

/// The resident memory in the text of `/proc/PID/status`, in MiB.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

fn ticks_per_second() -> f64 {
    // Linux has 100 on every architecture that it shows to user space.
    sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

const STAT: &str = "/proc/stat";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "cpu  1000 20 300 5000 40 7 90 11 500 0\ncpu0 1 2 3 4 5 6 7 8 9 0\nintr 1\n";

    #[test]
    fn busy_time_has_interrupts_and_neither_steal_nor_guest() {
        let times = CpuTimes::parse(TEXT, 100.0).unwrap();
        assert!((times.busy - 14.17).abs() < 1e-9, "{times:?}");
        assert!((times.steal - 0.11).abs() < 1e-9, "{times:?}");
        assert!((times.total - 64.68).abs() < 1e-9, "{times:?}");
    }

    #[test]
    fn differences_are_what_passed_between() {
        let before = CpuTimes { busy: 1.0, steal: 0.5, total: 4.0 };
        let after = CpuTimes { busy: 2.0, steal: 1.0, total: 6.0 };
        let passed = after.since(&before);
        assert_eq!((passed.share(), passed.stolen()), (0.5, 0.25));
    }

    #[test]
    fn a_text_without_the_line_is_refused() {
        assert_eq!(CpuTimes::parse("cpu0 1 2 3\n", 100.0), None);
        assert_eq!(CpuTimes::parse("cpu  1 2 x 4 5 6 7 8\n", 100.0), None);
        assert_eq!(CpuTimes::parse("cpu  1 2 3\n", 100.0), None);
    }

    #[test]
    fn resident_memory_is_read_in_mebibytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
