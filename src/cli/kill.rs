//! Ends processes: a command that a node has started, or a server by the file in which it has put its id.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};
use rustix::time::{ClockId, clock_gettime};
use tokio::process::{Child, Command};

use super::proc::{Process, running};
use crate::clock::BootInstant;

/// How long it waits for the kernel to take the processes away before it looks again: at first, and at most.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);
/// How long after a file was written its process may seem to have been started: the kernel counts starts in ticks, dates
/// files by the last tick, and the time of day may be set meanwhile.
const WRITTEN_WITHIN_NS: i64 = 2_000_000_000;
/// How long processes may take to end that were killed before somebody is told.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Whether a command does not start because the system lacks something now that it may have later.
pub(super) fn is_passing(error: &std::io::Error) -> bool {
    let passing = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM];
    passing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

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

/// Kills every process of a session except this one, again until none of them runs. It returns only then: whoever waits
/// for it knows. Losing the future loses nothing.
///
/// While a process of it runs no other session gets its number.
//= SPEC GUARD-28
pub(super) async fn end_session(session: Pid) {
    let begun = BootInstant::now();
    let (mut again, mut is_told) = (LOOK_AGAIN, false);
    loop {
        let reason = match kill_session(session) {
            Ok(true) => return,
            Ok(false) => "they run in spite of that".to_owned(),
            Err(error) => error,
        };
        if !is_told && BootInstant::now().saturating_duration_since(begun) >= TELL_AFTER {
            is_told = true;
            tracing::error!(
                session = session.as_raw_pid(),
                reason,
                "processes of the command cannot be killed: nothing is given back before they end"
            );
        }
        tokio::time::sleep(again).await;
        again = LOOK_AGAIN_MAX.min(again * 2);
    }
}

/// Kills every process of a session except this one. True if there was none.
///
/// # Errors
///
/// If the system refuses to show or to kill them.
pub(super) fn kill_session(session: Pid) -> Result<bool, String> {
    let running = look()?;
    let me = rustix::process::getpid().as_raw_pid();
    let targets = targets(&running, session.as_raw_pid(), me);
    let mut failed = None;
    for &(is_group, id) in &targets {
        let Some(pid) = Pid::from_raw(id) else { continue };
        let kill = if is_group { kill_process_group } else { kill_process };
        match kill(pid, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => failed = Some(format!("process {id}: {error}")),
        }
    }
    failed.map_or(Ok(targets.is_empty()), Err)
}

/// What is to be killed so that nothing of a session is left but this process: whole groups (true) and processes (false).
//= SPEC GUARD-28
fn targets(running: &BTreeMap<i32, Process>, session: i32, me: i32) -> BTreeSet<(bool, i32)> {
    let mine = running.get(&me).map(|process| process.group);
    let others = running.iter().filter(|&(&id, process)| process.session == session && id != me);
    let target = |(&id, process): (&i32, &Process)| {
        // A whole group at once: none of it can have a child meanwhile that is not killed. Not this process's own, and
        // not 0: that group has its number outside of this container, and is known by its processes alone.
        let is_whole = Some(process.group) != mine && process.group > 0;
        if is_whole { (true, process.group) } else { (false, id) }
    };
    others.map(target).collect()
}

/// A process, so that another one that has got its number is told from it: its id, and when it was started.
pub(super) type Sighting = (i32, Duration);

/// The process that the file names now, if it runs. For whoever knows that the file is no older than the process:
/// what was seen is killed by [`kill_tree`] whatever the age of the file seems to be.
pub(super) fn sight(file: &Path) -> Option<Sighting> {
    let (id, _) = read(file).ok()??;
    Some((id, running().ok()?.get(&id)?.started))
}

/// Kills the process whose id is on the first line of this file, and all of its descendants, and waits until none
/// of them runs. Without the file, or without the process, there is nothing to kill.
///
/// A file may be left over, and its number may be another process's by now. It is taken for the one that the file
/// means if it was started before the file was written, if it works in the file's directory, or if it was seen. If there
/// is none with this number, the processes of its session and of its group are killed.
///
/// # Errors
///
/// If the file is there and has no process id, if it names this process or one that has started it, or if the system
/// refuses to show or to kill.
pub(super) async fn kill_tree(file: &Path, seen: Option<Sighting>) -> Result<(), String> {
    let Some((id, written)) = read(file)? else { return Ok(()) };
    let mut killed = named(file, id, written, seen)?;
    loop {
        // The parent first, so that it has no more children than those that are seen next.
        for &id in &killed {
            if let Some(pid) = Pid::from_raw(id)
                && let Err(error) = kill_process(pid, Signal::STOP)
                && error != Errno::SRCH
            {
                return Err(format!("process {id}: {error}"));
            }
        }
        let before = killed.len();
        let running = look()?;
        // A child may have a lower number than its parent.
        while {
            let known = killed.len();
            let children = running.iter().filter(|(_, process)| killed.contains(&process.parent));
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
        let running = look()?;
        killed.iter().any(|id| running.contains_key(id))
    } {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn look() -> Result<BTreeMap<i32, Process>, String> {
    running().map_err(|error| format!("/proc: {error}"))
}

/// The id in a file, and when that was written: nanoseconds after the machine's boot, by today's setting of the time
/// of day. None if there is no file.
fn read(file: &Path) -> Result<Option<(i32, i128)>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let first = text.lines().next().unwrap_or_default().trim();
    let id = first.parse().ok().filter(|&id: &i32| id > 1);
    let id = id.ok_or_else(|| failed(&"its first line is no process id"))?;
    let metadata = std::fs::metadata(file).map_err(|error| failed(&error))?;
    let nanos = |secs, nanos| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let now = |clock| {
        let now = clock_gettime(clock);
        nanos(now.tv_sec, now.tv_nsec)
    };
    let written = nanos(metadata.mtime(), metadata.mtime_nsec());
    Ok(Some((id, written - now(ClockId::Realtime) + now(ClockId::Boottime))))
}

/// The processes that the file means, without their descendants.
//= SPEC GUARD-29
fn named(
    file: &Path,
    id: i32,
    written: i128,
    seen: Option<Sighting>,
) -> Result<BTreeSet<i32>, String> {
    let running = look()?;
    let me = rustix::process::getpid().as_raw_pid();
    // This process, and those that it descends from.
    let mine: BTreeSet<_> = std::iter::successors(Some(me), |id| {
        running.get(id).map(|process| process.parent).filter(|&parent| parent > 0)
    })
    .collect();
    let name = file.display();
    if let Some(process) = running.get(&id) {
        let is_meant = i128::try_from(process.started.as_nanos()).unwrap_or(i128::MAX)
            <= written + i128::from(WRITTEN_WITHIN_NS)
            || seen == Some((id, process.started))
            || works_beside(id, file);
        if !is_meant {
            tracing::warn!(file = %name, id, "another process has this number by now: it is left alone");
            return Ok(BTreeSet::new());
        }
        if mine.contains(&id) {
            return Err(format!(
                "{name} names process {id}, which is this one or has started it: \
                 let the file name the server"
            ));
        }
        return Ok([id].into());
    }
    let is_hidden = Pid::from_raw(id).is_some_and(|pid| test_kill_process(pid) == Err(Errno::PERM))
        && !Path::new("/proc").join(id.to_string()).exists();
    if is_hidden {
        return Err(format!("{name} names process {id}, of which the system shows nothing"));
    }
    let left = running.iter().filter(|(_, process)| process.session == id || process.group == id);
    let left: BTreeSet<_> = left.map(|(&id, _)| id).collect();
    if !left.is_disjoint(&mine) {
        tracing::warn!(file = %name, id, "this process is of the session: it is left alone");
        return Ok(BTreeSet::new());
    }
    Ok(left)
}

/// Whether a process has the directory of a file for its own, as servers have that of their data.
fn works_beside(id: i32, file: &Path) -> bool {
    let at = std::fs::read_link(format!("/proc/{id}/cwd"));
    let directory = file.canonicalize();
    match (at, directory.as_deref().map(Path::parent)) {
        (Ok(at), Ok(Some(directory))) => directory.parent().is_some() && at == directory,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use super::*;

    fn kill(file: &Path, seen: Option<Sighting>) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(kill_tree(file, seen))
    }

    /// A file with this number that was written so many seconds ago.
    fn file(directory: &Path, id: u32, age: u64) -> PathBuf {
        let path = directory.join(format!("{id}.pid"));
        std::fs::write(&path, format!("{id}\n")).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        file.set_modified(written - Duration::from_secs(age)).unwrap();
        path
    }

    fn sleep(directory: &Path) -> Child {
        Command::new("sleep").arg("600").current_dir(directory).spawn().unwrap()
    }

    fn read_id(path: &Path) -> i32 {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            match text.trim().parse() {
                Ok(id) => break id,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

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
        let child = read_id(&file.with_extension("child"));
        read_id(&file);
        assert!(running().unwrap().contains_key(&child));
        kill(&file, None).unwrap();
        assert!(!running().unwrap().contains_key(&child));
        assert!(!parent.wait().unwrap().success());
        // Its file is still there, and it is not.
        kill(&file, None).unwrap();
        kill(&directory.path().join("none"), None).unwrap();
        std::fs::write(&file, "1\n").unwrap();
        assert!(kill(&file, None).unwrap_err().contains("no process id"));
    }

    //= SPEC GUARD-29 test
    #[test]
    fn another_process_that_has_the_number_of_a_stale_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut other = sleep(Path::new("/"));
        let stale = file(directory.path(), other.id(), 3600);
        kill(&stale, None).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "it was killed");
        // One that was seen is meant, and no other that has had its number.
        let (id, started) = sight(&stale).unwrap();
        kill(&stale, Some((id, started + Duration::from_millis(10)))).unwrap();
        assert!(other.try_wait().unwrap().is_none(), "it was killed");
        kill(&stale, Some((id, started))).unwrap();
        assert!(!other.wait().unwrap().success());
        // One that works where the file is has written it, whatever the time of day was.
        let mut server = sleep(directory.path());
        kill(&file(directory.path(), server.id(), 3600), None).unwrap();
        assert!(!server.wait().unwrap().success());
    }

    //= SPEC GUARD-29 test
    #[test]
    fn what_a_dead_server_has_left_in_its_session_or_its_group_is_killed() {
        for leads in ["setsid", ""] {
            let directory = tempfile::tempdir().unwrap();
            let left = directory.path().join("left");
            let script = format!("sleep 600 & echo $! > {}; exec sleep 600", left.display());
            let script = format!("exec {leads} sh -c '{script}'");
            let mut server =
                Command::new("sh").args(["-c", &script]).process_group(0).spawn().unwrap();
            let left = read_id(&left);
            // A leader of a group makes a session by a child of its own.
            let id = running().unwrap()[&left].group;
            let file = file(directory.path(), u32::try_from(id).unwrap(), 0);
            kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
            server.wait().unwrap();
            while running().unwrap().contains_key(&id) {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(running().unwrap().contains_key(&left));
            kill(&file, None).unwrap();
            assert!(!running().unwrap().contains_key(&left));
        }
    }

    //= SPEC GUARD-29 test
    #[test]
    fn a_file_that_names_this_process_or_its_parent_kills_nobody() {
        let directory = tempfile::tempdir().unwrap();
        for id in [std::process::id(), std::os::unix::process::parent_id()] {
            let refused = kill(&file(directory.path(), id, 0), None).unwrap_err();
            assert!(refused.contains("let the file name the server"), "{refused}");
            // A year ago it was another one.
            kill(&file(directory.path(), id, 365 * 86_400), None).unwrap();
        }
    }

    //= SPEC GUARD-28 test
    #[test]
    fn a_group_is_killed_whole_unless_it_is_the_own_or_has_no_number() {
        let started = Duration::from_secs(1);
        let process = |group, session| Process { parent: 1, group, session, started };
        let mut running: BTreeMap<_, _> =
            [(10, process(10, 5)), (11, process(10, 5)), (12, process(12, 6))].into();
        running.extend([(20, process(20, 5)), (21, process(20, 5)), (30, process(0, 5))]);
        assert_eq!(targets(&running, 5, 20), [(true, 10), (false, 21), (false, 30)].into());
        // This process may be of such a group itself, as the first one that a container is entered with.
        running.insert(20, process(0, 0));
        assert_eq!(targets(&running, 5, 20), [(true, 10), (true, 20), (false, 30)].into());
    }

    //= SPEC GUARD-28 test
    #[test]
    fn a_session_has_ended_when_none_of_its_groups_runs() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("left");
        // With job control, each job is a group of its own.
        let script = format!("set -m; sleep 600 & echo $! > {}; exec sleep 600", left.display());
        let mut leader = Command::new("setsid")
            .args(["bash", "-c", &script])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let left = read_id(&left);
        let process = running().unwrap()[&left];
        assert_ne!(process.group, process.session);
        let session = Pid::from_raw(process.session).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(end_session(session));
        assert!(!running().unwrap().contains_key(&left));
        assert!(!leader.wait().unwrap().success());
    }
}
