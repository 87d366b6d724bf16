//! What operators run into: a cluster file that was changed, a long work log, ages.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::customers::Customer;
use super::world::{PATIENCE, soon};
use crate::{MACHINE, create, two_regions};

/// What is stored names regions by their places in the file, and counts ticks.
//= SPEC REGION-13 test
#[test]
fn a_cluster_file_under_which_the_ledger_would_mean_something_else_is_refused() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = two_regions();
    let backup = world.path("backup").display().to_string();
    assert_eq!(world.run(0, &["backup", "create", &backup]).0, 0);
    let mut customer = Customer::new(&world, StdRng::seed_from_u64(1));
    let id = create(&mut customer, (0, 0), (1, 0));
    world.stop(0);
    let file = world.file(0);
    let good = std::fs::read_to_string(file).unwrap();
    let nodes = good.find("[[region]]").unwrap();
    let second = good.rfind("[[region]]").unwrap();
    let (head, first, second) = (&good[..nodes], &good[nodes..second], &good[second..]);
    // A third region, with nodes of its own behind the others.
    let node = |name: &str, role: &str, port: u16| {
        format!(
            "[[node]]\nname = \"{name}\"\nroles = [\"{role}\"]\naddress = \"127.0.0.1:{port}\"\n\
             control = \"127.0.0.1:{}\"\nstorage = \"{name}.redb\"\n",
            port + 1
        )
    };
    let nodes = node("r2", "control-plane", 2) + &node("r2-1", "irc-server", 4);
    let third = "[[region]]\nname = \"r2\"\ncontrol_plane = \"r2\"\nservers = [\"r2-1\"]\nseal_key = \"r2.seal\"\n";
    let write = |parts: &[&str]| std::fs::write(file, parts.concat()).unwrap();
    let longer_tick = good.replace("[region.timing]\n", "[region.timing]\ntick = \"2m\"\n");
    for parts in [
        &[head, second, first][..],
        &[head, &nodes, third, first, second],
        &[head, &nodes, first, third, second],
        &[&longer_tick],
    ] {
        write(parts);
        let said = world.refusal(0);
        assert!(said.contains("put list and tick back"), "{said}");
        for command in [["backup", "check", &backup], ["restore", "begin", "--backup"]] {
            let more = if command[2] == "--backup" { &[&*backup][..] } else { &[] };
            let (code, said) = world.run(0, &[&command, more].concat());
            assert!(code == 1 && said.contains("put list and tick back"), "{command:?}: {said}");
        }
    }
    // At the end a region may be added, and then it has to stay.
    write(&[head, &nodes, first, second, third]);
    world.launch(0);
    let (_, status) = world.run(0, &["region", "status"]);
    assert!(status.contains("r2  preparing"), "{status}");
    world.stop(0);
    write(&[&good]);
    assert!(world.refusal(0).contains("r0, r1, r2"));
    // A backup from before goes with it: its regions are where they were.
    write(&[head, &nodes, first, second, third]);
    let (code, said) = world.run(0, &["backup", "check", &backup]);
    assert_eq!(code, 0, "{said}");
    world.launch(0);
    assert!(soon(PATIENCE, || customer.state(0, &id).is_some()));
}

/// However long the work log is, all of it can be seen.
//= SPEC REGION-15 test
#[test]
fn a_list_of_records_is_told_page_by_page() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = two_regions();
    world.links.knobs.cut_off(Some(1));
    let mut customer = Customer::new(&world, StdRng::seed_from_u64(1));
    for n in 0..5 {
        create(&mut customer, (0, n % 3), (1, n / 3));
    }
    let run = |args: &[&str]| world.run(0, args);
    let list = ["dlq", "list", "--all", "--limit", "2"];
    let mut after = String::new();
    let mut names = Vec::new();
    loop {
        let more = ["--after", &after];
        let (code, said) = run(&[&list[..], if after.is_empty() { &[] } else { &more }].concat());
        assert_eq!(code, 0, "{said}");
        let of_page = said.lines().filter(|line| line.contains("create of r0-1-"));
        names.extend(of_page.map(|line| line.split(' ').next().unwrap().to_owned()));
        let Some((_, next)) = said.split_once("and more: --after ") else { break };
        after = next.trim().to_owned();
    }
    assert_eq!(names, ["1-0", "1-1", "1-2", "1-3", "1-4"]);
    for name in &names {
        let (code, said) = run(&["dlq", "show", name]);
        assert!(code == 0 && said.contains("waits"), "{said}");
    }
    let (code, said) = run(&["dlq", "show", "1-5"]);
    assert!(code == 1 && said.contains("there is no record 1-5"), "{said}");
    assert_eq!(run(&["dlq", "show", "five"]).0, 1);
    assert_eq!(run(&["dlq", "list", "--all", "--after", "five"]).0, 1);
}

/// A region that cannot reach another one and has nothing else to do: its clock stands still, and the ages go on.
//= SPEC REGION-14 test
#[test]
fn a_region_that_stays_frozen_says_for_how_long() {
    let _alone = MACHINE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let world = two_regions();
    let age = |name: &str| -> f64 {
        let (_, text) = world.get(0, "/metrics").expect("it tells");
        let name = format!("{name}{{remote=\"r1\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)).expect("it is told");
        value.parse().expect("a number")
    };
    // Comparisons go on while nothing else happens.
    std::thread::sleep(Duration::from_secs(2));
    let is_young = || age("irc_sweep_age_seconds") < 1.9;
    assert!(soon(PATIENCE, is_young), "the last comparison is the thaw");
    assert_eq!(age("irc_frozen_seconds"), 0.0);
    world.links.knobs.cut_off(Some(1));
    assert_eq!(world.run(0, &["region", "freeze"]).0, 0);
    assert_eq!(world.run(0, &["region", "thaw"]).0, 0);
    // On the region's clock, whose tick is a minute, that is no time at all.
    std::thread::sleep(Duration::from_secs(2));
    let (frozen, compared) = (age("irc_frozen_seconds"), age("irc_sweep_age_seconds"));
    assert!(frozen >= 2.0 && compared >= 2.0, "{frozen} {compared}");
    world.links.knobs.cut_off(None);
    assert!(soon(PATIENCE, || age("irc_frozen_seconds") == 0.0));
    assert!(soon(PATIENCE, is_young));
}
