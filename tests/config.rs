//! The commands `tenure config check` and `tenure config explain`, as an operator meets them.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// The exit code, standard output and standard error of one run.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    #[track_caller]
    fn assert(&self, code: i32, lines: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for line in lines {
            assert!(self.out.contains(line), "{line:?} is not in:\n{}", self.out);
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("one JSON object")
    }
}

fn tenure(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(args)
        .output()
        .expect("the program can be run");
    Run {
        code: output.status.code().expect("no signal"),
        out: String::from_utf8(output.stdout).expect("UTF-8"),
        err: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

fn explain(args: &[&str]) -> Run {
    tenure(&[&["config", "explain"], args].concat())
}

/// A cluster of two hosts, a store and one lease with these timing keys, in a directory of its own.
struct Cluster {
    _directory: TempDir,
    path: PathBuf,
}

impl Cluster {
    fn new(zone_of_b: &str, timing: &str) -> Self {
        let text = format!(
            r#"
            cluster = "orders"
            insecure = true
            node = [
              {{ name = "a", zone = "zone-1", address = "127.0.0.1:7101", storage = "a.redb", roles = ["host"] }},
              {{ name = "b", zone = "{zone_of_b}", address = "127.0.0.1:7102", storage = "b.redb", roles = ["host"] }},
              {{ name = "s", address = "127.0.0.1:7103", storage = "s.redb", roles = ["store"] }},
            ]
            [[lease]]
            name = "orders"
            hosts = ["a", "b"]
            store = "s"
            [lease.timing]
            {timing}
            "#
        );
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("cluster.toml");
        std::fs::write(&path, text).expect("written");
        Self { _directory: directory, path }
    }

    fn check(&self, more: &[&str]) -> Run {
        let path = self.path.to_str().expect("UTF-8");
        tenure(&[&["config", "check", path], more].concat())
    }
}

#[test]
fn a_safe_cluster_shows_its_inequality() {
    Cluster::new("zone-2", "").check(&[]).assert(
        0,
        &[
            "lease orders\n",
            "  L 15 s  G 10 s  R 5 s  S 2 s  rho 200 ppm  P 1 s   anchor send   clock BOOTTIME\n",
            "  need  10*(1.0002/0.9998) + 2*1.0002 = 12.004 s    have 15.000 s    margin +2.996 s    SAFE\n",
            "  takeover 14.997 .. 16.203 s (D_r = D_w = 0.1 s)   renewal at 5 s, retries until 10 s\n",
            "  NOT covered: a pause between check and effect\n",
            ": cluster \"orders\", 3 nodes, 1 lease, every lease is SAFE\n",
        ],
    );
}

#[test]
fn the_smallest_safe_lease_is_accepted_and_one_nanosecond_less_is_not() {
    let run = Cluster::new("zone-2", "lease = '12.004400801s'").check(&[]);
    run.assert(0, &["margin +1 ns    SAFE"]);
    let run = Cluster::new("zone-2", "lease = '12.0044008s'").check(&[]);
    run.assert(
        1,
        &[
            "UNSAFE",
            "fix: lease >= 12.004400801 s, or give_up <= 9.999999999 s",
            "error: lease \"orders\": timing: not safe",
            "REFUSED, 1 error\n",
        ],
    );
}

//= SPEC LEASE-26 test
#[test]
fn hosts_that_share_a_zone_are_reported_and_accepted() {
    let run = Cluster::new("zone-1", "").check(&[]);
    run.assert(0, &["warning: lease \"orders\": hosts \"a\", \"b\" are all in zone \"zone-1\""]);
}

#[test]
fn no_escape_codes_go_to_a_pipe() {
    let run = Cluster::new("zone-1", "lease = '1s'").check(&[]);
    assert!(!run.out.contains('\x1b'));
}

#[test]
fn a_check_for_programs_is_one_object() {
    let json = Cluster::new("zone-1", "").check(&["--json"]).json();
    assert_eq!((&json["ok"], &json["cluster"]), (&true.into(), &"orders".into()));
    assert_eq!(json["leases"][0]["need_ns"], 12_004_400_800_u64);
    assert_eq!(json["leases"][0]["margin_ns"], 2_995_599_200_u64);
    assert_eq!(json["warnings"].as_array().map(Vec::len), Some(1));
    let run = Cluster::new("zone-2", "lease = '12s'").check(&["--json"]);
    assert_eq!(run.code, 1);
    let json = run.json();
    assert_eq!((&json["ok"], &json["leases"][0]["safe"]), (&false.into(), &false.into()));
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_file_that_is_wrong_or_missing_is_refused() {
    let run = Cluster::new("zone-2", "color = 1").check(&[]);
    run.assert(1, &["error: TOML parse error at line", "unknown field `color`"]);
    tenure(&["config", "check", "no-such-file.toml"]).assert(1, &["error: no-such-file.toml: "]);
}

#[test]
fn client_go_is_explained_as_published() {
    explain(&["--preset", "client-go"]).assert(
        0,
        &[
            "client-go 15/10/2: G 12 s = retry 2 + renew 10, from the ANSWER; D_max 5 s; rho 200 ppm; \
             S not declared (0)\n",
            "need 17.007 s   have 15 s   margin -2.007 s   UNSAFE: two leaders for up to 2.0 s (margin \
             +2.995 s if answers are instant)\n",
            "takeover up to 23.8 s   0.5 writes/s = $0.81 per lease-month at $0.625 per million writes   \
             fix: lease >= 18 s, or count from send\n",
        ],
    );
}

#[test]
fn every_preset_is_explained_with_its_assumptions() {
    for (preset, line) in [
        ("openshift", "takeover up to 251.4 s"),
        ("kcl", "need 70.028 s   have 10 s"),
        ("dynamodb", "margin -0.008 s   UNSAFE: two leaders for up to 8.0 ms"),
        ("patroni", "G 30 s = loop 10 + 2*retry 10, from the START OF ITS LOOP"),
        ("tenure", "need 12.004 s   have 15 s   margin +2.996 s   SAFE"),
    ] {
        explain(&["--preset", preset]).assert(0, &[line, "  notes     "]);
    }
}

#[test]
fn values_of_ones_own_decide_the_exit_code() {
    explain(&["--lease", "13s"]).assert(0, &["values 13/10/5/1/1", "SAFE"]);
    explain(&["--lease", "12s"]).assert(1, &["UNSAFE", "fix: lease >= 12.004400801 s"]);
    let from_answer = ["--lease", "13s", "--anchor", "answer", "--answer-max", "5s"];
    explain(&from_answer).assert(1, &["from the ANSWER; D_max 5 s", "count from send"]);
    explain(&["--preset", "client-go", "--lease", "18s"]).assert(0, &["client-go 18/10/2", "SAFE"]);
    let truncated =
        ["--preset", "client-go", "--lease", "2.9s", "--renew", "2.5s", "--retry", "0.5s"];
    explain(&truncated).assert(1, &["have 2 s (stored; 2.9 s is set)"]);
    // Safe by the inequality, and still refused.
    explain(&["--renew", "9s"]).assert(1, &["SAFE", "error: renew 9s + 2 * retry 1s"]);
}

#[test]
fn an_explanation_for_programs_is_one_object() {
    let json = explain(&["--preset", "client-go", "--json"]).json();
    assert_eq!((&json["safe"], &json["anchor"]), (&false.into(), &"answer".into()));
    assert_eq!(json["takeover_max_ns"], 23_800_000_000_u64);
    assert_eq!(json["fixes"], serde_json::json!(["lease >= 18 s", "count from send"]));
}

#[test]
fn usage_errors_have_a_code_of_their_own() {
    for args in [
        &["config"][..],
        &["config", "check"],
        &["config", "check", "a", "b"],
        &["config", "explain"],
        &["config", "explain", "--json"],
        &["config", "explain", "--preset", "etcd"],
        &["config", "explain", "--lease", "15"],
        &["config", "explain", "--anchor", "answer"],
        &["config", "explain", "--answer-max", "1s"],
        &["config", "explain", "--preset", "kcl", "--poll", "1s"],
        &["config", "explain", "--clock-error-ppm", "100001"],
        &["no-such-command"],
    ] {
        let run = tenure(args);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{args:?}");
        assert!(!run.err.is_empty(), "{args:?}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    for command in ["check", "explain"] {
        tenure(&["config", command, "--help"]).assert(0, &["Exit codes: 0 "]);
    }
}
