//! The measured worker, in a process of its own so that its memory can be measured.

use std::process::Stdio;

use anyhow::Context;
use tokio::process::{Child, Command};

use super::stack::BenchStack;

pub(crate) struct Worker {
    child: Child,
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Memory {
    /// Reads the memory of a process from /proc (Linux only).
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .with_context(|| format!("{path} has no {name}"))?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} of {path}"))?;
            Ok(kib * 1024)
        };
        Ok(Self { now: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// Resets the peak of a process and reads its memory.
    fn reset_of(pid: u32) -> anyhow::Result<Self> {
        const RESET_PEAK: &str = "5";
        let path = format!("/proc/{pid}/clear_refs");
        std::fs::write(&path, RESET_PEAK).with_context(|| format!("write {path} to reset the peak memory"))?;
        Self::of(pid)
    }

    /// Resets the peak of this process and reads its memory.
    pub(crate) fn reset() -> anyhow::Result<Self> {
        Self::reset_of(std::process::id())
    }
}

impl Worker {
    /// Starts `watchbook run --workers WORKERS` with this binary.
    pub(crate) fn start(stack: &BenchStack, workers: &str) -> anyhow::Result<Self> {
        Self::start_with(stack, workers, &[])
    }

    /// Starts a worker with additional environment variables.
    pub(crate) fn start_with(
        stack: &BenchStack,
        workers: &str,
        settings: &[(&'static str, String)],
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let child = Command::new(program)
            .args(["run", "--workers", workers])
            .env_remove("WATCHBOOK_NATS__JETSTREAM_DOMAIN")
            .env_remove("WATCHBOOK_NATS__JETSTREAM_API_PREFIX")
            .envs(stack.environment()?)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start a worker")?;
        Ok(Self { child })
    }

    /// Reads the memory of the worker.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::of(self.pid()?)
    }

    /// Resets the peak of the worker and reads its memory.
    pub(crate) fn reset_peak(&self) -> anyhow::Result<Memory> {
        Memory::reset_of(self.pid()?)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the worker has exited; see its log above")
    }

    /// Returns the CPU time of the worker in seconds (Linux only).
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        /// USER_HZ: the kernel reports hundredths of a second, whatever its own tick is (proc_pid_stat(5)).
        const TICKS: f64 = 100.0;
        let path = format!("/proc/{}/stat", self.pid()?);
        let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // After the name, which may contain anything: state, and utime and stime as the 12th and 13th field.
        let fields =
            stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace()).with_context(|| path.clone())?;
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / TICKS)
    }

    /// Checks that the worker is running.
    ///
    /// # Errors
    /// If it has exited.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("check the worker")? {
            None => Ok(()),
            Some(status) => anyhow::bail!("the worker exited with {status}; see its log above"),
        }
    }

    /// Stops the worker with SIGTERM, as an operator would.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            let killed =
                Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.context("signal the worker")?;
            anyhow::ensure!(killed.success(), "send SIGTERM to the worker: `kill` failed");
        }
        let status = self.child.wait().await.context("wait for the worker")?;
        anyhow::ensure!(status.success(), "the worker exited with {status}");
        Ok(())
    }
}
