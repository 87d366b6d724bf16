//! The processes of this machine, as the kernel shows them in `/proc`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;

/// A process that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// When it was started, after the machine's boot; rounded down to a tick of 10 ms.
    pub(super) started: Duration,
}

/// The processes that run, by their ids: not those that have ended and that nobody has waited for. One whose main
/// thread has ended runs for as long as another of its threads does.
///
/// # Errors
///
/// If the system does not show them: then nobody knows which run. What is hidden from this user is left out.
pub(super) fn running() -> io::Result<BTreeMap<i32, Process>> {
    let mut running = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(process) = look(&entry.path())? {
            running.insert(id, process);
        }
    }
    Ok(running)
}

/// One process, from its directory.
fn look(directory: &Path) -> io::Result<Option<Process>> {
    let Some((process, has_ended)) = stat(directory)? else { return Ok(None) };
    if has_ended {
        let Some(threads) = shown(std::fs::read_dir(directory.join("task")))? else {
            return Ok(None);
        };
        let mut goes_on = false;
        for thread in threads {
            let Some(thread) = shown(thread)? else { break };
            goes_on |= stat(&thread.path())?.is_some_and(|(_, has_ended)| !has_ended);
        }
        if !goes_on {
            return Ok(None);
        }
    }
    Ok(Some(process))
}

/// What is said of a process or a thread, and whether it has ended.
fn stat(directory: &Path) -> io::Result<Option<(Process, bool)>> {
    let Some(bytes) = shown(std::fs::read(directory.join("stat")))? else { return Ok(None) };
    // A process may have any bytes for a name.
    let text = String::from_utf8_lossy(&bytes);
    let parse = || {
        // The name is in parentheses, and may have some of its own.
        let fields: Vec<_> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse().ok();
        // Counted from the state, which proc_pid_stat(5) has as the third.
        let ticks: u64 = fields.get(19)?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let process = Process {
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            started: Duration::from_millis(ticks.saturating_mul(1000) / per_second),
        };
        Some((process, matches!(*fields.first()?, "Z" | "X")))
    };
    parse().map(Some).ok_or_else(|| io::Error::other("/proc has a format that is not known"))
}

/// None if the process has gone meanwhile, or is hidden from this user.
fn shown<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_that_has_ended_does_not() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let (me, id) = (i32::try_from(std::process::id()).unwrap(), child.id());
        let id = i32::try_from(id).unwrap();
        while running().unwrap().contains_key(&id) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Nobody has waited for it yet.
        assert!(Path::new("/proc").join(id.to_string()).exists());
        child.wait().unwrap();
        let running = running().unwrap();
        let now = crate::clock::BootInstant::now().as_nanos();
        let started = running[&me].started.as_nanos();
        assert!(started > 0 && started < u128::from(now), "{started}");
        // Those of this process may have no number here: 0, if it was started from outside of a container.
        let mut leader =
            std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let id = i32::try_from(leader.id()).unwrap();
        let seen = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            super::running().unwrap().get(&id).copied().filter(|process| process.session == id)
        });
        leader.kill().unwrap();
        leader.wait().unwrap();
        let seen = seen.unwrap();
        assert_eq!((seen.parent, seen.group, seen.session), (me, id, id));
    }

    #[test]
    fn what_the_system_does_not_show_is_an_error_and_not_nobody() {
        let full = io::Error::from(Errno::MFILE);
        assert!(shown::<()>(Err(full)).is_err());
        assert!(shown::<()>(Err(Errno::SRCH.into())).unwrap().is_none());
        assert!(look(Path::new("/proc/self/no-such")).unwrap().is_none());
        let directory = tempfile::tempdir().unwrap();
        let stat = directory.path().join("stat");
        std::fs::write(&stat, "7 (sh) S 1\n").unwrap();
        assert!(look(directory.path()).is_err());
        let numbers = "1 2 3 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 700";
        std::fs::write(&stat, [b"7 (s) \xff) S ", numbers.as_bytes()].concat()).unwrap();
        let process = look(directory.path()).unwrap().unwrap();
        assert_eq!((process.parent, process.group, process.session), (1, 2, 3));
        assert_eq!(process.started, Duration::from_secs(7));
    }
}
