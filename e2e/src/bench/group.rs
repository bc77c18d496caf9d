//! Processes that are measured together: one store, or one web server.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::procfs;
use crate::process::{Process, ProcessSpec};

/// Running processes, each with its name; dropped, they end.
#[derive(Debug, Default)]
pub(super) struct Group(Vec<(String, Process)>);

/// CPU seconds of each process and of this one.
#[derive(Debug, Clone)]
pub(super) struct Cpu(Vec<(String, f64)>);

impl Cpu {
    /// Of this process alone.
    pub(super) fn of_client() -> Self {
        let own = procfs::cpu_seconds(std::process::id());
        Self(vec![("client".to_owned(), own)])
    }

    /// Of this process and of the commands that it ran and that have ended.
    pub(super) fn of_commands() -> Self {
        let mut all = Self::of_client();
        let ended = procfs::cpu_seconds_of_ended(std::process::id());
        all.0.push(("commands".to_owned(), ended));
        all
    }

    /// What was used since.
    pub(super) fn since(&self, before: &Self) -> Vec<(String, f64)> {
        let spent = self.0.iter().zip(&before.0);
        spent
            .map(|((name, now), (_, then))| (name.clone(), now - then))
            .collect()
    }
}

impl Drop for Group {
    /// What they started ends as well: a web server's workers and a traced program outlive their parent.
    fn drop(&mut self) {
        for (_, process) in &mut self.0 {
            let children = procfs::children(process.pid());
            // It may have ended by itself; there is nothing left to do then.
            let _ended = process.kill_9();
            for child in children {
                let child = i32::try_from(child).ok().and_then(Pid::from_raw);
                // Nor when the child went with it.
                let _gone = child.map(|child| kill_process(child, Signal::KILL));
            }
        }
    }
}

impl Group {
    /// Starts one more.
    pub(super) fn start(&mut self, spec: ProcessSpec, log_dir: &Path) -> io::Result<()> {
        let name = spec.name.clone();
        self.0.push((name, Process::start(spec, log_dir)?));
        Ok(())
    }

    /// One of them.
    pub(super) fn get_mut(&mut self, name: &str) -> io::Result<&mut Process> {
        let mut all = self.0.iter_mut();
        all.find_map(|(own, process)| (own == name).then_some(process))
            .ok_or_else(|| io::Error::other(format!("there is no process `{name}`")))
    }

    /// One of them, to look at or to signal.
    pub(super) fn get(&self, name: &str) -> io::Result<&Process> {
        let mut all = self.0.iter();
        all.find_map(|(own, process)| (own == name).then_some(process))
            .ok_or_else(|| io::Error::other(format!("there is no process `{name}`")))
    }

    /// Names and process ids.
    pub(super) fn pids(&self) -> impl Iterator<Item = (&str, u32)> {
        let each = self.0.iter();
        each.map(|(name, process)| (name.as_str(), process.pid()))
    }

    /// Asks what a tracer runs to end; the tracer ends with it.
    pub(super) fn end_child_of(&self, name: &str) -> io::Result<()> {
        let mut all = self.pids();
        let tracer = all.find_map(|(own, pid)| (own == name).then_some(pid));
        let children = tracer.map(procfs::children).unwrap_or_default();
        let [child] = children[..] else {
            let text = format!("{name} runs {} programs", children.len());
            return Err(io::Error::other(text));
        };
        let child = i32::try_from(child).ok().and_then(Pid::from_raw);
        let child = child.ok_or_else(|| io::Error::other("the pid is out of range"))?;
        Ok(kill_process(child, Signal::TERM)?)
    }

    /// CPU seconds so far.
    pub(super) fn cpu(&self) -> Cpu {
        let own = self.pids();
        let own = own.map(|(name, pid)| (name.to_owned(), procfs::family_cpu_seconds(pid)));
        let mut all: Vec<(String, f64)> = own.collect();
        all.extend(Cpu::of_client().0);
        Cpu(all)
    }

    /// Lets peaks begin now.
    pub(super) fn reset_peaks(&self) {
        for (_, pid) in self.pids() {
            procfs::reset_peaks(pid);
        }
    }

    /// Peak resident bytes of each process.
    pub(super) fn peaks(&self) -> Vec<(String, u64)> {
        let own = self.pids();
        own.map(|(name, pid)| (name.to_owned(), procfs::family_peak_bytes(pid)))
            .collect()
    }

    /// Resident bytes now.
    pub(super) fn resident_bytes(&self, name: &str) -> u64 {
        let mut own = self.pids();
        own.find(|(own, _)| *own == name)
            .map_or(0, |(_, pid)| procfs::resident_bytes(pid))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wait::eventually;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_a_process_started_ends_with_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut group = Group::default();
        let spec = ProcessSpec {
            name: "parent".to_owned(),
            binary: "sh".into(),
            args: ["-c", "sleep 600 & wait"].map(str::to_owned).to_vec(),
            env: Vec::new(),
            handle_limit: None,
        };
        group.start(spec, dir.path()).unwrap();
        let parent = group.get_mut("parent").unwrap().pid();
        let child = eventually("the child runs", PATIENCE, || async {
            let child = procfs::children(parent).first().copied();
            child.ok_or_else(|| "no child yet".to_owned())
        })
        .await;
        drop(group);
        eventually("the child has ended", PATIENCE, || async {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
            // Whoever reaps orphans may take its time.
            match stat {
                Ok(stat) if !stat.contains(") Z ") => Err(stat),
                _ => Ok(()),
            }
        })
        .await;
    }
}
