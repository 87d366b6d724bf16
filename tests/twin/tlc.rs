//! Runs TLC, pinned as `tla/check.sh` pins it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::config::folder;

/// What TLC has said.
pub(crate) struct Said {
    /// 0: no error; 12: an invariant is violated.
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Said {
    /// The numbers of the runs that `tla/LeaseTrace.tla` has told to be accepted.
    pub(crate) fn accepted(&self) -> BTreeSet<usize> {
        let told = self.text.lines().filter_map(|line| line.strip_prefix("<<\"accepted\", "));
        told.filter_map(|line| line.trim_end_matches(">>").parse().ok()).collect()
    }
}

/// Checks a module in this folder by a configuration there.
pub(crate) fn run(at: &Path, config: &str, module: &str, more: &[String]) -> Said {
    let fetched = Command::new(folder().join("check.sh")).arg("--jar").output().expect("check.sh");
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let jar = String::from_utf8(fetched.stdout).expect("a path").trim().to_owned();
    let states = tempfile::tempdir().expect("a folder");
    let tmpdir = format!("-Djava.io.tmpdir={}", states.path().display());
    let output = Command::new("java")
        .arg(tmpdir)
        .args(["-XX:+UseParallelGC", "-Xss64m", "-Xmx1g", "-cp", &jar, "tlc2.TLC", "-deadlock"])
        .args(["-workers", "1"])
        .args(more)
        .arg("-metadir")
        .arg(states.path())
        .args(["-config", config, module])
        .current_dir(at)
        .output()
        .expect("java runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Said { code: output.status.code().unwrap_or(-1), text }
}
