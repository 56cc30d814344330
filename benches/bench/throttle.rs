//! Holds a process to the share of a processor that Lambda gives a function with 128 MB.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use peergate::local::Error;
use rustix::process::{Pid, Signal, kill_process};

/// Lambda gives a whole processor at 1769 MB.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html>
const SHARE: f64 = 128.0 / 1769.0;
const PERIOD: Duration = Duration::from_millis(20);

/// Holds a process to its share until it is dropped.
pub enum Throttle {
    /// By a control group, which the kernel enforces in each period.
    Group(PathBuf),
    /// By stopping and continuing the process. It is less exact, and used if no control group can be made.
    DutyCycle(Arc<AtomicBool>),
}

impl Throttle {
    /// Starts to hold a process.
    pub fn hold(pid: u32) -> Result<Self, Error> {
        let micros = |time: Duration| time.as_micros().to_string();
        let quota = micros(PERIOD.mul_f64(SHARE));
        let one = PathBuf::from(format!("/sys/fs/cgroup/cpu/peergate-bench-{}", std::process::id()));
        let two = PathBuf::from(format!("/sys/fs/cgroup/peergate-bench-{}", std::process::id()));
        if make(&one) && write(&one, "cpu.cfs_period_us", &micros(PERIOD)) && write(&one, "cpu.cfs_quota_us", &quota) {
            std::fs::write(one.join("cgroup.procs"), pid.to_string())?;
            return Ok(Self::Group(one));
        }
        if make(&two) && write(&two, "cpu.max", &format!("{quota} {}", micros(PERIOD))) {
            std::fs::write(two.join("cgroup.procs"), pid.to_string())?;
            return Ok(Self::Group(two));
        }
        let _ = (std::fs::remove_dir(one), std::fs::remove_dir(two));
        let on = Arc::new(AtomicBool::new(true));
        let running = Arc::clone(&on);
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("no such process")?;
        std::thread::spawn(move || {
            while running.load(Ordering::SeqCst) {
                let _ = kill_process(process, Signal::STOP);
                std::thread::sleep(PERIOD.mul_f64(1.0 - SHARE));
                let _ = kill_process(process, Signal::CONT);
                std::thread::sleep(PERIOD.mul_f64(SHARE));
            }
        });
        Ok(Self::DutyCycle(on))
    }

    /// The name of the method, for the tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Group(_) => "control group",
            Self::DutyCycle(_) => "duty cycle",
        }
    }
}

fn make(group: &PathBuf) -> bool {
    group.parent().is_some_and(std::path::Path::is_dir) && std::fs::create_dir(group).is_ok()
}

fn write(group: &std::path::Path, name: &str, text: &str) -> bool {
    std::fs::write(group.join(name), text).is_ok()
}

impl Drop for Throttle {
    fn drop(&mut self) {
        match self {
            // The group cannot be removed while the process ends.
            Self::Group(group) => {
                for _ in 0..100 {
                    if std::fs::remove_dir(&*group).is_ok() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Self::DutyCycle(on) => on.store(false, Ordering::SeqCst),
        }
    }
}
