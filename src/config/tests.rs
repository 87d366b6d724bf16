use super::*;

const GOOD: &str = r#"
cluster = "orders"
insecure = true

[timing]
lease = "15s"
poll = "1s"

[[node]]
name = "a"
zone = "zone-1"
address = "127.0.0.1:7101"
control = "127.0.0.1:7201"
storage = "data/a.redb"
roles = ["host"]

[[node]]
name = "b"
zone = "zone-2"
address = "127.0.0.1:7102"
control = "127.0.0.1:7202"
storage = "data/b.redb"
roles = ["host"]

[[node]]
name = "s"
address = "127.0.0.1:7103"
storage = "data/s.redb"
roles = ["store"]

[[node]]
name = "c"
address = "127.0.0.1:7104"
storage = "data/c.redb"
roles = ["client"]

[[lease]]
name = "orders"
hosts = ["a", "b"]
store = "s"

[[lease]]
name = "stock"
hosts = ["b", "a"]
store = "s"

[lease.timing]
poll = "500ms"
clock_error_ppm = 100
"#;

/// The good file with one text replaced by another.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    GOOD.replacen(from, to, 1)
}

/// The problems of the good file with one text replaced, as an operator reads them.
fn refused(from: &str, to: &str) -> Vec<String> {
    problems(&with(from, to))
}

fn problems(text: &str) -> Vec<String> {
    Config::parse(text).expect_err("must be refused").iter().map(ToString::to_string).collect()
}

fn assert_one(problems: &[String], place: &str, what: &str) {
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with(place) && problems[0].contains(what), "{problems:#?}");
}

#[test]
fn a_good_file_is_read_whole() {
    let config = Config::parse(GOOD).expect("good");
    assert_eq!((config.cluster.as_str(), config.insecure), ("orders", true));
    assert_eq!(config.warnings, []);
    let names: Vec<_> = config.nodes.iter().map(|node| (node.id.0, &*node.name)).collect();
    assert_eq!(names, [(0, "a"), (1, "b"), (2, "s"), (3, "c")]);
    let a = config.node("a").expect("there");
    assert_eq!(a.address, "127.0.0.1:7101".parse().expect("address"));
    assert_eq!(a.control, Some("127.0.0.1:7201".parse().expect("address")));
    assert_eq!(a.storage, Path::new("data/a.redb"));
    assert_eq!((a.zone.as_deref(), a.role), (Some("zone-1"), Role::Host));
    assert_eq!(config.node_by_id(NodeId(3)).map(|node| node.role), Some(Role::Client));
    assert_eq!(config.node_by_id(NodeId(4)), None);

    let orders = config.lease("orders").expect("there");
    assert_eq!((orders.index, orders.store), (0, NodeId(2)));
    assert_eq!(orders.timing.get(), Timing::DEFAULT);
    let stock = config.lease_by_index(1).expect("there");
    assert_eq!(stock.hosts, [NodeId(1), NodeId(0)]);
    assert_eq!(stock.host_set(), orders.host_set());
    assert_eq!(
        (stock.timing.poll, stock.timing.clock_error_ppm),
        (Duration::from_millis(500), 100)
    );
    assert_eq!(config.leases_of(NodeId(2)).count(), 2);
    assert_eq!(config.leases_of(NodeId(3)).count(), 0);
}

#[test]
fn timing_may_be_left_out_and_ipv6_used() {
    let text = with("[timing]\nlease = \"15s\"\npoll = \"1s\"\n", "").replace("127.0.0.1", "[::1]");
    let config = Config::parse(&text).expect("good");
    assert_eq!(config.leases[0].timing.get(), Timing::DEFAULT);
    assert!(config.nodes.iter().all(|node| node.address.is_ipv6()));
}

#[test]
fn storage_is_relative_to_the_file() {
    let config = Config::parse_in(GOOD, Path::new("etc/tenure")).expect("good");
    assert_eq!(config.nodes[2].storage, Path::new("etc/tenure/data/s.redb"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster.toml");
    std::fs::write(&path, GOOD).expect("written");
    let config = Config::load(&path).expect("good");
    assert_eq!(config.nodes[0].storage, directory.path().join("data/a.redb"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cluster.toml");
    let errors = Config::load(&path).expect_err("not there");
    assert!(errors.to_string().contains("cluster.toml: "), "{errors}");
    std::fs::write(&path, vec![b'#'; FILE_BYTES_MAX as usize + 1]).expect("written");
    let errors = Config::load(&path).expect_err("too long");
    assert!(errors.to_string().contains("no cluster file"), "{errors}");
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    for (from, to) in [
        ("insecure = true", "insecure = true\nsecure = 1"),
        ("poll = \"1s\"", "pol = \"1s\""),
        ("zone = \"zone-1\"", "zonne = \"zone-1\""),
        ("store = \"s\"", "stores = \"s\""),
        ("poll = \"500ms\"", "pause = \"500ms\""),
    ] {
        let problems = refused(from, to);
        assert_one(&problems, "TOML parse error at line", "unknown field");
    }
    assert_one(&refused("lease = \"15s\"", "lease = 15"), "TOML parse error", "invalid type");
    assert_one(&refused("cluster = \"orders\"", ""), "TOML parse error", "missing field");
    assert_one(&refused("roles = [\"store\"]", ""), "TOML parse error", "missing field");
    assert_one(&refused("clock_error_ppm = 100", "clock_error_ppm = -1"), "TOML", "integer");
}

#[test]
fn the_clusters_name_is_bounded() {
    for name in [String::new(), "x".repeat(65), "a\\nb".into()] {
        let problems = refused("cluster = \"orders\"", &format!("cluster = \"{name}\""));
        assert_one(&problems, "cluster: ", "is no name");
    }
    let name = "é".repeat(64);
    assert!(Config::parse(&with("cluster = \"orders\"", &format!("cluster = \"{name}\""))).is_ok());
}

#[test]
fn running_unsealed_must_be_said_aloud() {
    for to in ["", "insecure = false"] {
        assert_one(&refused("insecure = true", to), "insecure: ", "set `insecure = true`");
    }
}

#[test]
fn names_of_nodes_zones_and_leases_are_plain() {
    for bad in ["", "A", "a b", "ä", "a_b", &"x".repeat(33)] {
        let problems = refused("name = \"c\"", &format!("name = \"{bad}\""));
        assert_one(&problems, &format!("node {bad:?}: name"), "is no name");
        let problems = refused("\"zone-2\"", &format!("\"{bad}\""));
        assert_one(&problems, "node \"b\": zone", "is no name");
        let problems = refused("name = \"stock\"", &format!("name = \"{bad}\""));
        assert_one(&problems, &format!("lease {bad:?}: name"), "is no name");
    }
    assert!(
        Config::parse(&with("name = \"c\"", &format!("name = \"{}\"", "x".repeat(32)))).is_ok()
    );
}

#[test]
fn duplicate_names_are_refused() {
    assert_one(&refused("name = \"c\"", "name = \"a\""), "node \"a\"", "another one of that name");
    let problems = refused("name = \"stock\"", "name = \"orders\"");
    assert_one(&problems, "lease \"orders\"", "another one of that name");
}

#[test]
fn a_node_has_exactly_one_role() {
    for roles in ["[]", "[\"client\", \"store\"]", "[\"client\", \"client\"]", "[\"server\"]"] {
        let problems = refused("roles = [\"client\"]", &format!("roles = {roles}"));
        assert_one(&problems, "node \"c\": roles = ", "exactly one");
    }
}

#[test]
fn hosts_need_a_zone_and_every_node_needs_storage() {
    assert_one(&refused("zone = \"zone-1\"\n", ""), "node \"a\": a host", "needs a zone");
    let problems = refused("storage = \"data/a.redb\"\n", "");
    assert_one(&problems, "node \"a\": a host", "needs a storage");
    let problems = refused("storage = \"data/s.redb\"\n", "");
    assert_one(&problems, "node \"s\": a store", "needs a storage");
    let problems = refused("storage = \"data/c.redb\"\n", "");
    assert_one(&problems, "node \"c\": a client", "needs a storage");
}

#[test]
fn addresses_must_parse() {
    for bad in [
        "",
        "127.0.0.1",
        "localhost:7104",
        "::1:7104",
        "127.0.0.1:65536",
        "[::ffff:127.0.0.1]:7104",
        "[::1%1]:7104",
    ] {
        let problems = refused("127.0.0.1:7104", bad);
        assert_one(&problems, "node \"c\": address", "is no address");
        let problems = refused("127.0.0.1:7202", bad);
        assert_one(&problems, "node \"b\": control", "is no address");
    }
}

#[test]
fn port_zero_is_refused() {
    assert_one(&refused("127.0.0.1:7104", "127.0.0.1:0"), "node \"c\": address", "port 0");
    assert_one(&refused("127.0.0.1:7202", "127.0.0.1:0"), "node \"b\": control", "port 0");
}

#[test]
fn without_sealing_only_loopback_is_accepted() {
    for (bad, what) in [
        ("192.0.2.1:7104", "datagrams leave a machine only sealed"),
        ("0.0.0.0:7104", "is not the address of one node"),
    ] {
        let problems = refused("127.0.0.1:7104", bad);
        assert_one(&problems, "node \"c\": address", what);
        let problems = refused("127.0.0.1:7202", bad);
        assert_one(&problems, "node \"b\": control", "only loopback");
    }
    assert!(Config::parse(&with("127.0.0.1:7104", "127.0.0.99:7104")).is_ok());
}

#[test]
fn one_socket_reaches_one_family() {
    let problems = refused("127.0.0.1:7104", "[::1]:7104");
    assert_one(&problems, "node \"c\": address [::1]:7104", "different families");
}

#[test]
fn duplicate_addresses_are_refused() {
    let problems = refused("127.0.0.1:7104", "127.0.0.1:7101");
    assert_one(&problems, "node \"c\": address", "also that of node \"a\"");
    let problems = refused("127.0.0.1:7202", "127.0.0.1:7201");
    assert_one(&problems, "node \"b\": control", "also that of node \"a\"");
    // UDP and TCP ports are apart.
    assert!(Config::parse(&with("127.0.0.1:7202", "127.0.0.1:7102")).is_ok());
}

#[test]
fn duplicate_storage_is_refused_however_it_is_written() {
    for other in ["data/a.redb", "./data/a.redb", "data/../data/./a.redb"] {
        let problems = refused("data/b.redb", other);
        assert_one(&problems, "node \"b\": storage", "also that of node \"a\"");
    }
    for bad in ["", "data/", "..", "/"] {
        assert_one(&refused("data/b.redb", bad), "node \"b\": storage", "names no file");
    }
}

//= SPEC LEASE-25 test
#[test]
fn a_lease_needs_two_different_hosts() {
    let hosts = "hosts = [\"a\", \"b\"]";
    assert_one(&refused(hosts, "hosts = [\"a\"]"), "lease \"orders\": 1 host", "at least two");
    assert_one(&refused(hosts, "hosts = []"), "lease \"orders\": 0 host", "at least two");
    let problems = refused(hosts, "hosts = [\"a\", \"b\", \"a\"]");
    assert_one(&problems, "lease \"orders\": host \"a\"", "more than once");
    let problems = refused(hosts, "hosts = [\"a\", \"a\"]");
    assert_eq!(problems.len(), 2, "{problems:#?}");
}

//= SPEC LEASE-27 test
#[test]
fn a_lease_names_nodes_that_are_there_in_their_role() {
    let hosts = "hosts = [\"a\", \"b\"]";
    let problems = refused(hosts, "hosts = [\"a\", \"x\"]");
    assert_one(&problems, "lease \"orders\": host \"x\"", "is not a node of this file");
    assert!(problems[0].ends_with(r#"the nodes are "a", "b", "c", "s""#), "{problems:?}");
    let problems = refused("store = \"s\"", "store = \"x\"");
    assert_one(&problems, "lease \"orders\": store \"x\"", "is not a node of this file");
    let problems = refused(hosts, "hosts = [\"a\", \"b\", \"c\"]");
    assert_one(&problems, "lease \"orders\": host \"c\" has the role client", "role is host");
    let problems = refused("store = \"s\"", "store = \"c\"");
    assert_one(&problems, "lease \"orders\": store \"c\" has the role client", "role is store");
}

//= SPEC LEASE-27 test
#[test]
fn the_store_is_not_a_host() {
    let problems = refused("store = \"s\"", "store = \"a\"");
    assert_one(&problems, "lease \"orders\": store \"a\"", "also a host");
}

#[test]
fn sections_are_bounded() {
    let mut text = GOOD.to_owned();
    for i in 4..64 {
        text += &format!(
            "\n[[node]]\nname = \"n{i}\"\naddress = \"127.0.0.2:{}\"\nstorage = \"n{i}\"\n\
             roles = [\"client\"]\n",
            7000 + i
        );
    }
    assert!(Config::parse(&text).is_ok());
    text += "\n[[node]]\nname = \"n64\"\naddress = \"127.0.0.2:9\"\nstorage = \"n64\"\n\
             roles = [\"client\"]\n";
    assert_one(&problems(&text), "there are 65 [[node]]", "more than 64");
    let none = problems("cluster = \"x\"\ninsecure = true");
    assert_eq!(
        none,
        ["there is no [[node]]; add at least one", "there is no [[lease]]; add at least one"]
    );
}

#[test]
fn durations_are_refused_where_they_stand() {
    let problems = refused("lease = \"15s\"", "lease = \"15\"");
    assert_one(&problems, "[timing]: lease: ", "is no unit");
    let problems = refused("poll = \"500ms\"", "poll = \"-1s\"");
    assert_one(&problems, "lease \"stock\": poll: ", "a number is expected");
}

//= SPEC TIME-2 test
#[test]
fn unsafe_timing_is_refused_with_its_numbers() {
    let text = with("poll = \"500ms\"", "lease = \"12s\"");
    let errors = Config::parse(&text).expect_err("unsafe");
    assert_one(
        &problems(&text),
        "lease \"stock\": timing: not safe: give_up 10s, hook 2s and clocks off by 100 ppm",
        "need a lease of at least 12.002200201s, and it is 12s",
    );
    let names: Vec<_> = errors.timings().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["orders", "stock"]);
    // Defaults that are unsafe are so for each lease that does not mend them.
    assert_eq!(refused("lease = \"15s\"", "lease = \"12s\"").len(), 2);
    let problems = refused("poll = \"500ms\"", "renew = \"9s\"\njitter = \"3s\"");
    assert_one(&problems, "lease \"stock\": timing: renew 9s + 2 * retry 1s", "; jitter 3s");
}

//= SPEC LEASE-26 test
#[test]
fn two_hosts_in_one_zone_are_reported_but_accepted() {
    let config = Config::parse(&with("zone-2", "zone-1")).expect("accepted");
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].starts_with(r#"lease "orders": hosts "a", "b" are all in zone "zone-1""#));
    // A warning is not lost because of an error elsewhere.
    let text = with("zone-2", "zone-1").replace("insecure = true", "");
    assert_eq!(Config::parse(&text).expect_err("unsealed").warnings().len(), 2);
}

#[test]
fn nothing_in_the_file_can_steer_the_terminal() {
    let problems =
        refused("name = \"stock\"\nhosts = [\"b\"", "name = \"\\u001b\"\nhosts = [\"\\u001b\"");
    assert!(!problems.is_empty() && problems.iter().all(|text| !text.contains('\x1b')));
}

#[test]
fn all_problems_are_reported_at_once() {
    let text = with("zone = \"zone-1\"\n", "")
        .replace("127.0.0.1:7102", "127.0.0.1:0")
        .replace("store = \"s\"", "store = \"x\"")
        .replace("poll = \"500ms\"", "poll = \"\"");
    let problems = problems(&text);
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

/// A file whose second host has this work.
fn with_work(work: &str) -> Result<Config, ConfigErrors> {
    let node = |name: &str, port: u16, role: &str| {
        format!(
            "[[node]]\nname = \"{name}\"\nzone = \"z-{name}\"\naddress = \"127.0.0.1:{port}\"\n\
             storage = \"{name}.redb\"\nroles = [\"{role}\"]\n"
        )
    };
    let nodes = [node("a", 7101, "host"), node("b", 7102, "host"), node("s", 7103, "store")];
    Config::parse_in(
        &format!(
            "cluster = \"c\"\ninsecure = true\n[timing]\nhook = \"1s\"\n{}\
             [[lease]]\nname = \"l\"\nhosts = [\"a\", \"b\"]\nstore = \"s\"\n\
             [[work]]\nnode = \"b\"\nlease = \"l\"\n{work}",
            nodes.concat()
        ),
        Path::new("dir"),
    )
}

#[test]
fn work_is_read_with_its_hooks_in_order() {
    let config = with_work(
        "lead = [\"up\", \"now\"]\nkill = \"b.pid\"\n\
         [[work.stop]]\ncommand = [\"down\"]\nworst = \"600ms\"\n\
         [[work.stop]]\nkill = \"/run/x.pid\"\nworst = \"349ms\"\n",
    )
    .unwrap();
    assert_eq!(config.work(NodeId(0), 0), None);
    let work = config.work(NodeId(1), 0).unwrap();
    assert_eq!(work.lead, Some(vec!["up".to_owned(), "now".to_owned()]));
    assert_eq!(work.kill, Some("dir/b.pid".into()));
    let stop = |how, millis| StopHook { how, worst: Duration::from_millis(millis) };
    let command = How::Command(vec!["down".to_owned()]);
    assert_eq!(work.stop, [stop(command, 600), stop(How::Kill("/run/x.pid".into()), 349)]);
}

//= SPEC GUARD-14 test
#[test]
fn work_that_cannot_be_ended_in_time_is_refused() {
    let long = "[[work.stop]]\ncommand = [\"x\"]\nworst = \"950ms\"\n";
    for (work, said) in [
        (
            long,
            "the hooks take up to 950ms, but an S of 1s leaves them 949.8ms before the kill switch",
        ),
        ("lead = [\"x\"]\n", "nothing ends it"),
        ("kill = \"x\"\nlead = []\n", "lead is empty"),
        ("[[work.stop]]\nworst = \"1ms\"\n", "0 of command, postgres, mysql and kill"),
        ("[[work.stop]]\nworst = \"1ms\"\nkill = \"x\"\ncommand = [\"x\"]\n", "2 of command"),
        (
            "[[work.stop]]\nworst = \"1ms\"\nmysql = \"x\"\nmode = \"x\"\n",
            "use READ_ONLY, OFFLINE_MODE",
        ),
        (
            "[[work.stop]]\nworst = \"1ms\"\npostgres = \"x\"\nmode = \"OFFLINE_MODE\"\n",
            "OFFLINE_MODE is for mysql alone",
        ),
        ("[[work.stop]]\nworst = \"1\"\nkill = \"x\"\n", "worst: "),
        (
            "kill = \"x\"\n[[work]]\nnode = \"b\"\nlease = \"l\"\nkill = \"x\"\n",
            "make one of the two",
        ),
        ("kill = \"x\"\n[[work]]\nnode = \"s\"\nlease = \"l\"\nkill = \"x\"\n", "\"s\" is no host"),
        ("kill = \"x\"\n[[work]]\nnode = \"x\"\nlease = \"l\"\nkill = \"x\"\n", "\"x\" is no host"),
        (
            "kill = \"x\"\n[[work]]\nnode = \"b\"\nlease = \"m\"\nkill = \"x\"\n",
            "no lease of that name",
        ),
    ] {
        let errors = with_work(work).unwrap_err().to_string();
        assert!(errors.contains(said), "{work}\n{errors}");
    }
}
