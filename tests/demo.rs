//! The demo, as whoever tries the program first sees it.

use std::process::Command;

#[test]
#[ignore = "runs for half a minute; the full check runs it"]
fn the_demo_holds_and_says_so_in_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_tenure")).args(["demo", "--json"]).output();
    let output = output.expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let end = events.last().expect("an end");
    assert_eq!((&end["event"], &end["ok"]), (&"end".into(), &true.into()));
    let steps = events.iter().filter(|event| event["event"] == "step").count();
    assert_eq!(steps, 7);
    let overlaps = end["rows"].as_array().expect("rows").last().expect("the overlaps");
    assert!(overlaps["what"].as_str().is_some_and(|what| what.starts_with("overlaps")));
    assert_eq!(overlaps["measured"], "0");
}

#[test]
fn the_demo_of_two_regions_holds_and_says_so_in_json() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_tenure")).args(["demo", "irc", "--json"]).output();
    let output = output.expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");
    let events: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    let end = events.last().expect("an end");
    assert_eq!((&end["event"], &end["ok"]), (&"end".into(), &true.into()));
    assert_eq!(events.iter().filter(|event| event["event"] == "step").count(), 8);
    assert!(end["checks"].as_u64().is_some_and(|checks| checks >= 25));
}
