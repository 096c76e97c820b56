//! What the machine is, and what its processors have been doing.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
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

/// What processors did during one stretch of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuUse {
    /// At work for the run, in seconds: its own processes, those of the peer that is measured, and
    /// the kernel threads that take over packet work. Others' programs are not in it.
    pub run: f64,
    /// At work for anybody, in seconds.
    pub machine: f64,
    /// Share of the time that the hypervisor took away, 0 to 1.
    pub stolen: f64,
}

/// Watches what a stretch of a run costs.
///
/// The kernel books its packet work with whatever process it does it for (system calls and the
/// soft interrupts at their ends) or with `ksoftirqd` and NAPI threads, to the nanosecond. So the
/// sum over these is what the run costs, however busy others keep the machine meanwhile.
#[derive(Clone, Debug)]
pub struct Meter {
    processes: Vec<u32>,
    start: (f64, CpuTimes),
}

impl Meter {
    /// Starts to watch this process and `processes`.
    ///
    /// # Errors
    /// As [`CpuTimes::now`].
    pub fn start(processes: Vec<u32>) -> Result<Self, LabError> {
        let start = (run_time(&processes), CpuTimes::now()?);
        Ok(Self { processes, start })
    }

    /// What has passed since the start.
    ///
    /// # Errors
    /// As [`CpuTimes::now`].
    pub fn stop(&self) -> Result<CpuUse, LabError> {
        let (run, times) = &self.start;
        let passed = CpuTimes::now()?.since(times);
        let run = (run_time(&self.processes) - run).max(0.0);
        Ok(CpuUse { run, machine: passed.busy, stolen: passed.stolen() })
    }
}

/// Time on processors of this process, of `processes` and of the kernel's packet threads.
fn run_time(processes: &[u32]) -> f64 {
    let clock = |id: ClockId| clock_gettime(id).map_or(0.0, |time| time.num_nanoseconds() as f64 / 1e9);
    clock(ClockId::CLOCK_PROCESS_CPUTIME_ID) + process_time(processes) + packet_threads()
}

/// Time on processors of `processes`, with their ended threads; those that are gone count nothing.
fn process_time(processes: &[u32]) -> f64 {
    let time = |pid: &u32| {
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).ok()?;
        Some(clock_gettime(clock).ok()?.num_nanoseconds() as f64 / 1e9)
    };
    processes.iter().filter_map(time).sum()
}

/// Time on processors of the kernel's threads that run soft interrupts and NAPI.
fn packet_threads() -> f64 {
    let time = |entry: fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let packets = PACKET_THREADS.iter().any(|prefix| name.starts_with(prefix));
        let text = packets.then(|| fs::read_to_string(entry.path().join("schedstat")).ok()).flatten()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(time).sum::<f64>() / 1e9
}

/// How the names of kernel threads begin that do packet work.
const PACKET_THREADS: [&str; 2] = ["ksoftirqd/", "napi/"];

/// What processes have used of processors and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Time on processors since they were started, all threads, in seconds.
    pub cpu: f64,
    /// Resident memory, in MiB.
    pub rss: f64,
}

impl ProcessUse {
    /// The sum over `processes`; those that have ended count nothing.
    pub fn of(processes: &[u32]) -> Self {
        let status = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = processes.iter().filter_map(|pid| resident(&status(pid))).sum();
        Self { cpu: process_time(processes), rss }
    }
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
    fn a_meter_counts_the_work_of_this_process() {
        let meter = Meter::start(Vec::new()).unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(20) {}
        assert!(meter.stop().unwrap().run > 0.0);
    }

    #[test]
    fn resident_memory_is_read_in_mebibytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
