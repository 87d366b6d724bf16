//! Ends processes: a command that a node has started, or a server by the file in which it has put its id.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// How long it waits for the kernel to take the processes away before it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A command in a process group of its own, which is killed with this value, and with this process.
#[derive(Debug)]
pub(super) struct Grouped {
    child: Child,
    group: Option<Pid>,
}

impl Grouped {
    pub(super) fn spawn(words: &[String], environment: &[(&str, String)]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .args(["ward", "--parent", &std::process::id().to_string(), "--"])
            .args(words)
            .envs(environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group })
    }

    /// Waits for its end. Losing the future loses nothing.
    pub(super) async fn wait(&mut self) -> Result<ExitStatus, String> {
        self.child.wait().await.map_err(|error| error.to_string())
    }
}

impl Drop for Grouped {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Kills the process whose id is on the first line of this file, and all of its descendants, and waits until none
/// of them runs. Without the file, or without the process, there is nothing to kill.
///
/// # Errors
///
/// If the file is there and has no process id, or the system refuses to kill.
pub(super) async fn kill_tree(file: &Path) -> Result<(), String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    let first = text.lines().next().unwrap_or_default().trim();
    let id: i32 = first
        .parse()
        .ok()
        .filter(|&id| id > 1)
        .ok_or_else(|| format!("{}: its first line is no process id", file.display()))?;
    let mut killed = BTreeSet::from([id]);
    loop {
        // The parent first, so that it has no more children than those that are seen next.
        for &id in &killed {
            if let Some(pid) = Pid::from_raw(id)
                && let Err(error) = kill_process(pid, Signal::STOP)
                && error != rustix::io::Errno::SRCH
            {
                return Err(format!("process {id}: {error}"));
            }
        }
        let before = killed.len();
        let parents = running();
        // A child may have a lower number than its parent.
        while {
            let known = killed.len();
            let children = parents.iter().filter(|(_, parent)| killed.contains(parent));
            let children: Vec<_> = children.map(|(&id, _)| id).collect();
            killed.extend(children);
            killed.len() > known
        } {}
        if killed.len() == before {
            break;
        }
    }
    for pid in killed.iter().filter_map(|&id| Pid::from_raw(id)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    while {
        let running = running();
        killed.iter().any(|id| running.contains_key(id))
    } {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// The processes that run, each with its parent: not those that have ended and that nobody has waited for.
fn running() -> BTreeMap<i32, i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stat = |entry: std::fs::DirEntry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name is in parentheses, and may have some of its own.
        let mut rest = text.rsplit_once(')')?.1.split_whitespace();
        let state = rest.next()?;
        let parent = rest.next()?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some((id, parent))
    };
    entries.filter_map(stat).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_killed_with_those_that_have_left_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!(
            "echo $$ > {0}.new; setsid sh -c 'echo $$ > {0}.child; exec sleep 600' & \
             mv {0}.new {0}; wait",
            file.display()
        );
        let mut parent = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let child = file.with_extension("child");
        let child = loop {
            let text = std::fs::read_to_string(&child).unwrap_or_default();
            match text.trim().parse::<i32>() {
                Ok(id) if file.exists() => break id,
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(running().contains_key(&child));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(kill_tree(&file)).unwrap();
        assert!(!running().contains_key(&child));
        assert!(!parent.wait().unwrap().success());
        // Its file is still there, and it is not.
        runtime.block_on(kill_tree(&file)).unwrap();
        runtime.block_on(kill_tree(&directory.path().join("none"))).unwrap();
        std::fs::write(&file, "1\n").unwrap();
        assert!(runtime.block_on(kill_tree(&file)).unwrap_err().contains("no process id"));
    }
}
