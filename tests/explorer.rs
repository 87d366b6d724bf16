//! The explorer over HTTP: states, links, files, and who may ask.

#![allow(clippy::disallowed_methods, reason = "a test may look at the clock")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tenure::explorer::gallery::{self, Kept};
use tenure::explorer::models::{MENDED, Models, parse_path, path_text};
use tenure::explorer::story::{Story, hex};
use tenure::explorer::telling::{retell, tell};
use tenure::explorer::{export, import, report, server};
use tenure::models::engine::Limits;
use tenure::models::portrait::Bar;
use tenure::models::registry::{Expected, all_mutants};
use tenure::models::space::{Found, Goal, Space};

/// What a message may say that comes from somebody else.
const EVIL: &str = "</script><img src=x onerror=alert(1)>";

/// A server of one's own.
fn serve() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            server::serve(listener, server::Named::default()).await.unwrap();
        });
    });
    address
}

/// One server for all tests that do not hold it up.
fn server() -> SocketAddr {
    static SERVER: OnceLock<SocketAddr> = OnceLock::new();
    *SERVER.get_or_init(serve)
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        let is_json = self.head.to_lowercase().contains("content-type: application/json");
        assert!(is_json, "{} {}", self.status, self.head);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The text of the error, which must be JSON.
    fn error(&self) -> String {
        self.json()["error"].as_str().expect("an error says what is wrong").to_owned()
    }
}

fn ask(method: &str, path: &str, headers: &str, body: &str) -> Reply {
    ask_at(server(), method, path, headers, body)
}

fn ask_at(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Reply {
    let host =
        if headers.contains("Host:") { String::new() } else { format!("Host: {address}\r\n") };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(path: &str) -> Reply {
    ask("GET", path, "", "")
}

/// What an answer that is a stream of events says in its last. One search at a time: each test has a server
/// of its own.
fn end(address: SocketAddr, path: &str) -> Value {
    let reply = ask_at(address, "GET", path, "", "");
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    let data = reply.body.lines().skip_while(|line| *line != "event: end").nth(1).expect("an end");
    serde_json::from_str(data.trim_start_matches("data: ")).unwrap()
}

fn kept(id: &str) -> Kept {
    gallery::kept().remove(id).unwrap_or_else(|| panic!("{id} is kept"))
}

fn told(id: &str, with_trees: bool) -> Story {
    let space = Models::new().space(id).unwrap();
    tell(id, &space, &parse_path(&kept(id).path).unwrap(), with_trees).unwrap()
}

fn search(space: &dyn Space, goal: Goal) -> Found {
    let mut on_progress = |_| ControlFlow::Continue(());
    space.search(&space.start(), &goal, Limits::default(), &mut on_progress)
}

fn violated(story: &Story) -> Vec<usize> {
    let moments = std::iter::once(&story.first).chain(story.steps.iter().map(|step| &step.after));
    let is_broken = |moment: &tenure::explorer::story::Moment| {
        moment.properties.iter().any(|property| property.always && !property.is_true)
    };
    moments.enumerate().filter(|(_, moment)| is_broken(moment)).map(|(row, _)| row).collect()
}

//= SPEC EXPLORER-4 test
//= SPEC EXPLORER-11 test
#[test]
fn every_kept_counterexample_fails_at_its_end_and_nowhere_before_and_its_rule_prevents_it() {
    let models = Models::new();
    for entry in all_mutants() {
        let Expected::Violated { property, steps } = entry.expected else { continue };
        let Kept { path, fingerprint } = kept(&entry.name);
        let path = parse_path(&path).unwrap();
        assert!(path.len() >= steps as usize, "{}: shorter than the shortest", entry.name);
        let space = models.space(&entry.name).unwrap();
        let story = tell(&entry.name, &space, &path, false).expect("the path is there");
        assert_eq!(violated(&story), [path.len()], "{}", entry.name);
        let last = &story.steps.last().unwrap().after;
        assert!(last.properties.iter().any(|it| it.name == property && !it.is_true));
        assert_eq!(last.fingerprint.as_deref(), Some(fingerprint.as_str()), "{}", entry.name);
        let mended = models.space(&format!("{}{MENDED}", entry.name)).unwrap();
        let again = retell("mended", &mended, &story);
        assert_eq!(violated(&again), [0; 0], "{}: with the rule", entry.name);
        let planned = again.steps.iter().filter(|step| !step.inferred).count();
        assert_eq!(
            planned,
            story.steps.len(),
            "{}: no step of the schedule is left out",
            entry.name
        );
    }
}

/// Searches every counterexample again. With `TENURE_BLESS` set, keeps what it has found.
#[test]
#[ignore = "explores every mutant: the explorer step of .ci/run"]
fn the_kept_counterexamples_are_those_that_a_search_finds() {
    let models = Models::new();
    let wanted: Vec<(String, &str)> = all_mutants()
        .into_iter()
        .filter_map(|entry| match entry.expected {
            Expected::Violated { property, .. } => Some((entry.name, property)),
            _ => None,
        })
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut found = Vec::new();
        while let Some((name, property)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let space = models.space(name).unwrap();
            let search = search(&*space, Goal::Property((*property).to_owned()));
            let path = search.paths.get(property).expect("it is violated");
            let here = models.find(name, path, None).unwrap();
            let fingerprint = hex(space.picture(&here.place).fingerprint);
            found.push((name.clone(), Kept { path: path_text(path), fingerprint }));
        }
        found
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found: BTreeMap<String, Kept> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    if std::env::var_os("TENURE_BLESS").is_some() {
        let json = serde_json::to_string_pretty(&found).unwrap() + "\n";
        std::fs::write("src/explorer/gallery.json", json).unwrap();
        return;
    }
    assert_eq!(found, gallery::kept(), "set TENURE_BLESS=1 if a model was meant to change");
}

//= SPEC EXPLORER-7 test
#[test]
fn only_who_calls_us_by_our_name_is_answered() {
    for host in ["evil.example", "evil.example:8642", "127.0.0.1", ""] {
        let reply = ask("GET", "/api/models", &format!("Host: {host}\r\n"), "");
        assert_eq!(reply.status, 421, "{host}");
        assert!(reply.error().contains("127.0.0.1"));
    }
    let localhost = format!("Host: localhost:{}\r\n", server().port());
    assert_eq!(ask("GET", "/api/models", &localhost, "").status, 200);
    let from_elsewhere = ask("POST", "/api/import", "Origin: http://evil.example\r\n", "{}");
    assert_eq!(from_elsewhere.status, 403);
}

//= SPEC EXPLORER-6 test
#[test]
fn every_answer_forbids_what_is_not_ours() {
    for path in ["/", "/app.js", "/api/models", "/api/nothing", "/../Cargo.toml"] {
        let head = get(path).head.to_lowercase();
        let policy = head.lines().find(|line| line.starts_with("content-security-policy:"));
        let policy = policy.unwrap_or_else(|| panic!("{path} has a policy"));
        assert!(policy.contains("default-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert!(head.contains("x-content-type-options: nosniff"));
    }
    // Only what was built in is served, whatever lies in the working directory.
    assert_eq!(get("/Cargo.toml").status, 404);
}

//= SPEC EXPLORER-1 test
//= SPEC EXPLORER-8 test
#[test]
fn what_cannot_be_answered_is_said_in_json() {
    let cases = [
        ("/api/state?model=nothing", 404, "there is no model"),
        ("/api/state", 400, "model is missing"),
        ("/api/state?model=L-1&path=x", 400, "a list of the numbers"),
        ("/api/state?model=L-1&path=99", 409, "made for another model"),
        ("/api/state?model=L-1&path=0&fingerprint=00", 409, "made for another model"),
        ("/api/search?model=L-1&goal=nothing", 400, "has no property"),
        ("/api/search?model=L-1&path=99", 409, "made for another model"),
        ("/api/loop?model=L-1&property=nothing", 400, "has no property"),
        ("/api/loop?model=L-1", 400, "property is missing"),
        ("/api/live", 404, "no run is followed"),
        ("/api/timing?lease=15", 400, "lease=15"),
        ("/api/timing/check?lease=2s&give_up=10s", 422, "lease"),
        ("/api/nothing", 404, "nothing at this address"),
    ];
    for (path, status, words) in cases {
        let reply = get(path);
        assert_eq!(reply.status, status, "{path} {}", reply.body);
        assert!(reply.error().contains(words), "{path}: {}", reply.error());
    }
    for body in ["", "{}", "{\"files\":[]}", "{\"files\":[{\"name\":\"x\",\"text\":\"no trace\"}]}"]
    {
        let reply = ask("POST", "/api/import", "", body);
        assert!(matches!(reply.status, 400 | 422), "{body}");
        assert!(!reply.error().is_empty());
    }
    let long = "0.".repeat(3000);
    assert_eq!(get(&format!("/api/state?model=L-1&path={long}")).status, 400);
}

//= SPEC EXPLORER-2 test
#[test]
fn a_state_has_its_actions_its_properties_and_what_has_changed() {
    let Kept { path, fingerprint } = kept("L-1");
    let reply = get(&format!("/api/state?model=L-1&path={path}&fingerprint={fingerprint}")).json();
    assert_eq!(reply["fingerprint"], fingerprint);
    let property = &reply["properties"][0];
    assert_eq!(property["name"], "single_writer");
    assert_eq!(property["is_true"], false, "judged on this very state");
    assert!(!reply["changes"].as_array().unwrap().is_empty());
    let actions = reply["actions"].as_array().unwrap();
    assert!(actions.iter().all(|action| action["label"].is_string() && action["kind"].is_string()));
    assert!(reply["tree"]["nodes"].is_array());
    // The state before is judged by itself too, whatever lies on the way.
    let (before, _) = path.rsplit_once('.').unwrap();
    let reply = get(&format!("/api/state?model=L-1&path={before}")).json();
    assert_eq!(reply["properties"][0]["is_true"], true);
}

/// In every model, along some ways: at each state, what is said of every action is what that action does.
//= SPEC EXPLORER-22 test
#[test]
fn an_action_changes_nothing_where_the_state_after_it_is_the_same() {
    let models = Models::new();
    let mut seen = BTreeMap::new();
    for entry in models.entries() {
        let space = models.space(&entry.name).unwrap();
        for begin in 0..3 {
            let mut place = space.start();
            for depth in 0..40 {
                let told = space.actions(&place);
                assert_eq!(space.told(&place, told.len()), None);
                let mut others = Vec::new();
                for (index, idle) in space.idle(&place).into_iter().take(told.len()).enumerate() {
                    assert_eq!(space.told(&place, index).as_ref(), Some(&told[index]));
                    let after = space.take(&place, index);
                    let is_same = after.as_ref().is_none_or(|after| space.is_same(&place, after));
                    let told = &told[index];
                    assert_eq!(idle, is_same, "{}, after {depth} steps: {told:?}", entry.name);
                    *seen.entry((told.kind.clone(), idle)).or_insert(0) += 1;
                    others.extend(after.filter(|_| !idle));
                }
                if others.is_empty() {
                    break;
                }
                // Late ways have what was sent long ago; so what comes last is taken too.
                let index = [depth * 7, others.len() - 1, depth][begin] % others.len();
                place = others.swap_remove(index);
            }
        }
    }
    let least = [("deliver", true, 1000), ("deliver", false, 1000), ("fire", true, 100)];
    for (kind, idle, least) in least.into_iter().chain([("say", true, 100), ("lose", false, 10)]) {
        let count = seen.get(&(kind.to_owned(), idle)).copied().unwrap_or(0);
        assert!(count >= least, "{kind} {idle}: {count}");
    }
}

#[test]
fn a_search_tells_how_far_it_is_and_ends_with_the_shortest_path() {
    let found = end(serve(), "/api/search?model=I-1&goal=one_decision");
    assert_eq!(found["end"], "found");
    let path = found["properties"][0]["path"].as_str().unwrap();
    assert_eq!(path.split('.').count(), 5, "as the registry has it");
}

#[test]
fn who_hears_the_end_of_a_search_may_ask_for_the_next_at_once() {
    let address = serve();
    let mut open = Vec::new();
    for _ in 0..30 {
        let mut search = TcpStream::connect(address).unwrap();
        search.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let url = "/api/search?model=I-1&goal=one_decision";
        write!(search, "GET {url} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut told = String::new();
        let mut bytes = [0; 4096];
        while !told.contains("event: end") {
            let count = search.read(&mut bytes).unwrap();
            told += &String::from_utf8_lossy(&bytes[..count]);
            assert!(count > 0 && told.starts_with("HTTP/1.1 200"), "{told}");
        }
        // Nobody closes it: that its end was read is enough.
        open.push(search);
    }
}

//= SPEC EXPLORER-3 test
#[test]
fn with_two_properties_each_path_is_the_shortest_of_its_own() {
    let space = Models::new().space("irc-one").unwrap();
    let all = search(&*space, Goal::Everything);
    assert!(all.exhaustive && all.violated.is_empty());
    for name in ["both_active", "deleted", "rejected"] {
        let alone = search(&*space, Goal::Property(name.to_owned()));
        assert_eq!(alone.paths[name].len(), all.paths[name].len(), "{name}");
        assert!(alone.unique < all.unique, "{name}: the search stops at the first");
        assert!(!alone.exhaustive);
    }
}

//= SPEC EXPLORER-13 test
#[test]
fn a_story_comes_back_from_each_form_as_it_was() {
    for id in ["L-1", "L-16", "I-7", "L-28"] {
        let story = told(id, true);
        let back = |name: &str, text: String| import::import(&[(name.to_owned(), text)]).unwrap();
        assert_eq!(back("x.ndjson", export::ndjson(&story)), story, "{id}: NDJSON");
        assert_eq!(back("x.itf.json", export::itf(&story)), story, "{id}: ITF");
        let plain = told(id, false);
        assert_eq!(back("x.itf.json", export::itf(&plain)), plain, "{id}: ITF without states");
    }
}

#[test]
fn the_informal_trace_format_is_as_its_own_crate_reads_it() {
    let story = told("I-7", true);
    #[derive(serde::Deserialize)]
    struct Shown {
        state: World,
    }
    #[derive(serde::Deserialize)]
    struct World {
        nodes: Vec<Node>,
        network: Vec<serde::de::IgnoredAny>,
    }
    #[derive(serde::Deserialize)]
    struct Node {
        condition: String,
    }
    let trace: itf::Trace<Shown> = itf::trace_from_str(&export::itf(&story)).expect("it is ITF");
    let last = &trace.states.last().unwrap().value.state;
    assert!(last.nodes.iter().all(|node| node.condition == "Running"));
    assert!(!last.network.is_empty());
    assert_eq!(trace.states.len(), story.steps.len() + 1);
    assert_eq!(trace.vars, ["state"]);
}

//= SPEC EXPLORER-12 test
#[test]
fn a_trace_of_another_tool_is_shown() {
    let text = json!({
        "#meta": { "format": "ITF" }, "vars": ["x"], "loop": 1, "states": [
            { "#meta": { "index": 0 }, "x": { "#bigint": "18446744073709551615" } },
            { "#meta": { "index": 1 }, "x": { "#map": [[1, { "#set": [EVIL] }]] }, "mbt::actionTaken": "go" },
        ],
    });
    let story = import::import(&[("other.itf.json".to_owned(), text.to_string())]).unwrap();
    assert_eq!(story.steps.len(), 1);
    assert_eq!(story.steps[0].told.label, "go");
    assert_eq!(story.back_to, Some(1));
    assert!(!story.clock.common, "nothing is certain without a clock");
}

#[test]
fn the_traces_of_the_nodes_of_a_run_are_checked_and_shown_together() {
    let folder = tempfile::tempdir().unwrap();
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_tenure"))
        .args(["sim", "lease", "--seed", "7", "--hours", "0.01", "--faults", "none", "--trace-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let mut files: Vec<import::Named> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"))
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    let story = import::import(&files).unwrap();
    assert!(story.notes[0].starts_with("accepted"), "{:?}", story.notes);
    assert!(story.clock.common, "a simulator has one time for all");
    assert_eq!(story.lanes.len(), files.len());
    let holds = |step: &tenure::explorer::story::Step| {
        step.after.lanes.iter().any(|lane| lane.bar == Some(Bar::Hold) && lane.epoch.is_some())
    };
    assert!(story.steps.iter().any(holds), "somebody is elected");
    let arrived = story.steps.iter().filter(|step| step.told.kind == "deliver");
    assert!(arrived.clone().count() > 10);
    assert!(arrived.clone().all(|step| step.uid.is_some()), "each arrival has its sending");
    // Without the store's trace nothing can be said.
    let alone = import::import(&files[..1]);
    assert!(alone.is_err() || !alone.unwrap().notes[0].starts_with("accepted"));
}

//= SPEC EXPLORER-5 test
#[test]
fn what_somebody_else_has_written_cannot_leave_the_data_of_a_report() {
    let mut story = told("L-1", true);
    story.title = EVIL.to_owned();
    story.steps[0].told.label = EVIL.to_owned();
    let page = report::html(&story);
    assert!(!page.contains(EVIL) && !page.contains("<img"));
    assert!(page.contains("default-src 'none'") && !page.contains("unsafe-inline"));
    let (_, data) = page.split_once("id=\"story\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    assert_eq!(serde_json::from_str::<Story>(data).unwrap(), story);
    let text = export::plantuml(&story);
    assert!(text.starts_with("@startuml\n") && text.ends_with("@enduml\n"));
    let lines_of = |story: &Story| export::plantuml(story).lines().count();
    story.steps[0].told.label = "a\n@enduml\nb".to_owned();
    assert_eq!(lines_of(&story), text.lines().count(), "no text ends a line");
}

#[test]
fn a_timing_is_judged_with_its_numbers_and_its_model_explored() {
    let safe = get("/api/timing?lease=15s&give_up=10s&hook=2s&clock_error_ppm=1000").json();
    assert_eq!(safe["safe"], true);
    let unsafe_ = get("/api/timing?lease=12s&give_up=10s&hook=2s&clock_error_ppm=1000").json();
    assert_eq!(unsafe_["safe"], false);
    assert!(!unsafe_["errors"].as_array().unwrap().is_empty());
}

/// A path that goes on: always the next action in turn that changes something.
fn long_path(model: &str, length: usize) -> Vec<u32> {
    let space = Models::new().space(model).unwrap();
    let (mut path, mut place) = (Vec::new(), space.start());
    for depth in 0..length {
        let count = space.actions(&place).len();
        let order = (0..count).map(|k| (k + depth) % count);
        let next = order
            .filter_map(|index| Some((index, space.take(&place, index)?)))
            .find(|(_, after)| !space.is_same(&place, after));
        let (index, after) = next.expect("time goes on");
        path.push(index as u32);
        place = after;
    }
    path
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times
}

/// What the page asks for at each step: the state, and what is new of the story. With it, the time to compute just
/// that from the two states, without any server, path or cache.
#[test]
fn a_step_beyond_depth_200_of_a_warm_server_takes_what_its_state_takes() {
    let address = serve();
    let (model, first, last) = ("timed-2", 200, 400);
    let path = long_path(model, last);
    let space = Models::new().space(model).unwrap();
    let mut places = vec![space.start()];
    for &index in &path {
        places.push(space.take(&places[places.len() - 1], index as usize).unwrap());
    }
    let timed = |work: &dyn Fn()| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    let ask = |what: &str, length: usize| {
        let url = format!("/api/{what}?model={model}&path={}", path_text(&path[..length]));
        let url = if what == "story" { format!("{url}&from={}", length - 1) } else { url };
        timed(&|| assert_eq!(ask_at(address, "GET", &url, "", "").status, 200))
    };
    let alone = |length: usize| {
        timed(&|| {
            let (before, place) = (&places[length - 1], &places[length]);
            let changes = space.tree(place).changes_since(&space.tree(before));
            let shown =
                (changes.len(), space.picture(place), space.actions(place), space.idle(place));
            assert!(!shown.2.is_empty());
        })
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let walk = |beside: &str| {
        for what in ["state", "story"] {
            ask(what, first);
        }
        let all: Vec<[Duration; 3]> = (first + 1..last)
            .map(|length| [alone(length), ask("state", length), ask("story", length)])
            .collect();
        let names = ["computed alone", "/api/state", "/api/story"].into_iter().enumerate();
        let medians = names.map(|(at, what)| {
            let times = sorted(all.iter().map(|times| times[at]));
            let [median, p99] = [50, 99].map(|percent| times[times.len() * percent / 100]);
            let worst = times[times.len() - 1];
            println!(
                "depth {first} to {last}{beside}, {what}: median {median:?}, p99 {p99:?}, worst {worst:?}, {cores} cores"
            );
            median
        });
        medians.collect::<Vec<_>>()
    };
    let medians = walk("");
    // The target is a p99 of 5 ms on a machine that does nothing else. Whatever else it does, a step takes what its
    // own state takes, and not what the path to it would.
    let whole = timed(&|| assert!(tell(model, &space, &path, false).is_some()));
    println!("the whole story from the beginning: {whole:?}");
    let most = medians[0] * 3 + Duration::from_millis(4);
    assert!(medians[1] < most && medians[2] < most, "{medians:?}");

    // The same beside a search, which lasts longer than the walk.
    let model = "timed-2-crash";
    let mut search = TcpStream::connect(address).unwrap();
    write!(search, "GET /api/search?model={model} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut begin = [0; 4096];
    assert!(search.read(&mut begin).unwrap() > 0, "it has begun");
    let medians = walk(", beside a search");
    let still = ask_at(address, "GET", &format!("/api/search?model={model}"), "", "");
    assert_eq!(still.status, 429, "it was running all the while");
    assert!(medians[1] < most && medians[2] < most, "{medians:?}");
}

//= SPEC EXPLORER-17 test
#[test]
fn a_story_that_is_told_on_is_the_one_that_is_told_from_the_beginning() {
    let address = serve();
    let path = long_path("timed-2", 40);
    let space = Models::new().space("timed-2").unwrap();
    let story = |path: &[u32], from: usize| -> Story {
        let url = format!("/api/story?model=timed-2&path={}&from={from}", path_text(path));
        let reply = ask_at(address, "GET", &url, "", "");
        serde_json::from_str(&reply.body).unwrap_or_else(|error| panic!("{error} {}", reply.body))
    };
    // On, back, another way from there, and back to the first again.
    let mut other = path[..12].to_vec();
    other.extend([0, 0, 0]);
    for path in [&path[..10], &path[..11], &path[..40], &path[..5], &other[..], &path[..20]] {
        let whole = tell("timed-2", &space, path, false).unwrap();
        assert_eq!(story(path, 0), whole, "{path:?}");
        let half = path.len() / 2;
        assert_eq!(story(path, half).steps, whole.steps[half..], "{path:?}");
    }
    assert_eq!(get("/api/story?model=timed-2&path=0&from=2").status, 400);
}

/// Every timer that runs out of a model with drifting clocks, and of one without.
//= SPEC EXPLORER-20 test
#[test]
fn a_clock_is_fast_or_slow_where_a_timer_shows_it() {
    let models = Models::new();
    let mut seen = BTreeSet::new();
    for (model, drifts) in [("timed-2", false), ("timed-2-drift", true)] {
        let space = models.space(model).unwrap();
        let mut path = Vec::new();
        for begin in 0..12 {
            path.clear();
            let mut place = space.start();
            for depth in 0..40 {
                let actions = space.actions(&place);
                // Time goes on as often as it may: timers run out late. Or else in turn.
                let late = actions.iter().rposition(|told| told.kind == "elapse");
                let index =
                    late.filter(|_| begin % 2 == 0).unwrap_or((depth + begin) % actions.len());
                path.push(index as u32);
                place = space.take(&place, index).unwrap();
            }
            let story = tell("on", &space, &path, false).unwrap();
            for (row, step) in story.steps.iter().enumerate() {
                assert!(step.pace.is_none() || step.told.kind == "fire");
                let Some(pace) = &step.pace else { continue };
                assert!(pace.from <= row, "it begins before it ends");
                let timer = step.told.msg.as_ref().unwrap();
                assert!(pace.about.starts_with(&format!("timer {timer}, set for ")), "{pace:?}");
                let ticks = |row: usize| story.moment(row).unwrap().at.parse::<u64>().unwrap();
                let took = ticks(row) - ticks(pace.from);
                assert!(pace.about.ends_with(&format!("ran out after {took}")), "{pace:?}");
                // Set there: it was armed ever since.
                let name = format!("timer {timer}");
                let node = usize::from(step.told.actor.unwrap());
                let is_armed = |row: usize| {
                    let facts = &story.moment(row).unwrap().lanes[node].facts;
                    facts.iter().any(|(fact, _)| *fact == name)
                };
                assert!((pace.from..=row).all(is_armed), "{pace:?}");
                seen.insert((drifts, format!("{:?}", pace.rate)));
            }
        }
    }
    let all = [(false, "True"), (true, "Fast"), (true, "Slow"), (true, "True")];
    assert_eq!(seen, all.map(|(drifts, rate)| (drifts, rate.to_owned())).into());
}

//= SPEC EXPLORER-9 test
#[test]
fn a_state_is_answered_while_everything_is_explored() {
    let address = serve();
    let model = "timed-2-crash";
    let mut search = TcpStream::connect(address).unwrap();
    search.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(search, "GET /api/search?model={model} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut told = String::new();
    let mut bytes = [0; 4096];
    while !told.contains("event: progress") {
        let count = search.read(&mut bytes).unwrap();
        assert!(count > 0 && !told.contains("event: end"), "it ended too soon: {told}");
        told += &String::from_utf8_lossy(&bytes[..count]);
    }
    let second = ask_at(address, "GET", &format!("/api/search?model={model}"), "", "");
    assert_eq!(second.status, 429, "the first still runs");
    let path = path_text(&long_path("timed-2", 30));
    for url in ["/api/models".to_owned(), format!("/api/state?model=timed-2&path={path}")] {
        let begun = Instant::now();
        assert_eq!(ask_at(address, "GET", &url, "", "").status, 200);
        assert!(begun.elapsed() < Duration::from_secs(5), "{url}: {:?}", begun.elapsed());
    }
    let still = ask_at(address, "GET", &format!("/api/search?model={model}"), "", "");
    assert_eq!(still.status, 429, "and was running all the while");
    // Who does not listen any more ends it.
    drop(search);
    let ended = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        let next = "/api/search?model=irc-one&goal=both_active";
        ask_at(address, "GET", next, "", "").status == 200
    });
    assert!(ended, "a search that nobody hears goes on");
}

//= SPEC EXPLORER-10 test
#[test]
fn no_number_is_longer_than_a_browser_can_read() {
    fn look(value: &Value, url: &str) {
        match value {
            Value::Number(number) => {
                let exact = number.as_i64().is_none_or(|it| it.unsigned_abs() < 1 << 53);
                assert!(
                    exact && !number.is_u64() || number.as_u64() < Some(1 << 53),
                    "{url}: {number}"
                );
            }
            Value::Array(items) => items.iter().for_each(|item| look(item, url)),
            Value::Object(fields) => fields.values().for_each(|field| look(field, url)),
            _ => {}
        }
    }
    for id in ["L-1", "I-7"] {
        let Kept { path, fingerprint } = kept(id);
        for what in ["state", "story", "around"] {
            let url = format!("/api/{what}?model={id}&path={path}");
            let reply = get(&url).json();
            look(&reply, &url);
            assert!(reply.to_string().contains(&format!("\"{fingerprint}\"")), "{url}: as text");
        }
    }
    look(&get("/api/timing").json(), "/api/timing");
    look(&end(serve(), "/api/search?model=I-1&goal=one_decision"), "/api/search");
}

//= SPEC EXPLORER-15 test
#[test]
fn a_search_from_a_state_finds_the_rest_of_the_way() {
    let address = serve();
    let models = Models::new();
    let space = models.space("irc-one").unwrap();
    let whole =
        search(&*space, Goal::Property("both_active".to_owned())).paths["both_active"].clone();
    for length in 0..whole.len() {
        let path = path_text(&whole[..length]);
        let found =
            end(address, &format!("/api/search?model=irc-one&path={path}&goal=both_active"));
        let rest = found["properties"][0]["path"].as_str().unwrap();
        let rest = parse_path(rest).unwrap();
        assert_eq!(rest.len(), whole.len() - length, "as short as the rest of the shortest");
        let story = tell("on", &space, &[&whole[..length], &rest[..]].concat(), false).unwrap();
        let is_true = |row: usize| {
            let judged = story.moment(row).unwrap().properties.iter();
            judged.filter(|it| it.name == "both_active").all(|it| it.is_true)
        };
        assert!(is_true(whole.len()) && !(0..whole.len()).any(is_true));
    }
}

#[test]
fn a_search_for_a_node_finds_the_first_that_is_so() {
    let found = end(serve(), "/api/search?model=timed-2&node=Host+holding");
    let path = parse_path(found["properties"][0]["path"].as_str().unwrap()).unwrap();
    let story = tell("on", &Models::new().space("timed-2").unwrap(), &path, false).unwrap();
    let holds = |row: usize| story.moment(row).unwrap().lanes.iter().any(|it| it.role == "holding");
    assert!(holds(path.len()) && !(0..path.len()).any(holds));
    // Names and numbers are others in the form in which states are searched.
    assert_eq!(get("/api/search?model=timed-2&node=n0").status, 400);
}

//= SPEC EXPLORER-16 test
#[test]
fn a_loop_is_told_as_steps_that_can_be_taken_and_comes_back() {
    let (model, property) = ("timed-2", "taken_over");
    let found = end(serve(), &format!("/api/loop?model={model}&property={property}&again=1"));
    let told = &found["properties"][0];
    assert_eq!(told["verdict"], "stays away");
    let path = told["path"].as_str().unwrap();
    let back_to = told["back_to"].as_u64().unwrap() as usize;
    let url = format!("/api/story?model={model}&path={path}");
    let story: Story =
        serde_json::from_str(&get(&format!("{url}&back_to={back_to}")).body).unwrap();
    assert_eq!(story.back_to, Some(back_to));
    assert!(story.notes[0].starts_with("a loop"), "{:?}", story.notes);
    let is_true = |row: usize| {
        story.moment(row).unwrap().properties.iter().any(|it| it.name == property && it.is_true)
    };
    assert!(!(back_to..=story.steps.len()).any(is_true), "it stays away in the loop");
    let ticks = story.steps[back_to..].iter().filter(|step| step.told.kind == "elapse");
    assert!(ticks.count() > 0, "time passes in it");
    // A state that is another one is no loop.
    let wrong = (0..story.steps.len()).find(|row| {
        story.moment(*row).unwrap().lanes != story.moment(story.steps.len()).unwrap().lanes
    });
    assert_eq!(get(&format!("{url}&back_to={}", wrong.unwrap())).status, 409);
}

//= SPEC EXPLORER-18 test
#[test]
fn the_states_around_one_are_where_its_actions_lead() {
    let Kept { path, .. } = kept("L-1");
    let models = Models::new();
    let mut seen = BTreeMap::new();
    for steps in [1, 2, 6] {
        let reply = get(&format!("/api/around?model=L-1&path={path}&steps={steps}")).json();
        let states = reply["states"].as_array().unwrap();
        assert!(states.len() <= 300 && states.len() > 3);
        assert_eq!(states[0]["path"], path.as_str(), "the shown one first");
        let prints: Vec<_> = states.iter().map(|it| it["moment"]["fingerprint"].as_str()).collect();
        assert_eq!(prints.iter().collect::<BTreeSet<_>>().len(), prints.len());
        for way in reply["ways"].as_array().unwrap() {
            let [from, to] = ["from", "to"].map(|end| way[end].as_u64().unwrap() as usize);
            let mut path = parse_path(states[from]["path"].as_str().unwrap()).unwrap();
            path.push(way["index"].as_u64().unwrap() as u32);
            let here = models.find("L-1", &path, None).unwrap();
            let print = hex(here.space.picture(&here.place).fingerprint);
            assert_eq!(Some(print.as_str()), prints[to], "the action leads there");
        }
        seen.insert(steps, (states.len(), reply["complete"].as_bool().unwrap()));
    }
    assert!(seen[&1].0 < seen[&2].0 && seen[&1].1, "{seen:?}");
    assert!(!seen[&6].1, "a picture that is not whole says so: {seen:?}");
    assert_eq!(get(&format!("/api/around?model=L-1&path={path}&steps=7")).status, 400);
}
