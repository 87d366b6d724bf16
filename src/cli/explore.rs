//! `tenure explore`: the models, counterexamples and traces in a browser, or one of them in a file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{failure, print, usage_error};
use crate::explorer::follow::Live;
use crate::explorer::import::import;
use crate::explorer::models::{Models, parse_path};
use crate::explorer::server::{self, Named};
use crate::explorer::story::Story;
use crate::explorer::telling::tell_around;
use crate::explorer::{gallery, report};

/// Arguments of `tenure explore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 ended in order, or the file is written; 1 the address or the file cannot be used; 2 usage.")]
pub struct ExploreArgs {
    /// A model or a rule as `tenure check --list` names them, or files: traces of the nodes of one run, NDJSON
    /// or ITF.
    #[arg(value_name = "NAME|FILE")]
    what: Vec<String>,
    /// Where to listen. Only this machine may ask.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8642")]
    listen: SocketAddr,
    /// Follow a run: traces that nodes are still writing, or folders of them.
    #[arg(long, value_name = "FILE|DIR", num_args = 1.., conflicts_with_all = ["what", "html"])]
    follow: Vec<PathBuf>,
    /// Write one file that shows it without a server, and end.
    #[arg(long, value_name = "OUT", requires = "what")]
    html: Option<PathBuf>,
}

enum What {
    Nothing,
    Model(String),
    Story(Box<Story>),
    Live(Arc<Live>),
}

/// Runs `tenure explore`.
pub fn run(args: &ExploreArgs) -> ExitCode {
    let what = match find(&args.what) {
        Ok(What::Nothing) if !args.follow.is_empty() => {
            What::Live(Live::follow(args.follow.clone()))
        }
        Ok(what) => what,
        Err(message) => return usage_error(message),
    };
    match &args.html {
        Some(out) => write(out, what),
        None => serve(args.listen, what),
    }
}

fn find(names: &[String]) -> Result<What, String> {
    let Some(first) = names.first() else { return Ok(What::Nothing) };
    let models = Models::new();
    let known = models.entries().find(|entry| entry.name.eq_ignore_ascii_case(first));
    if let Some(entry) = known.filter(|_| names.len() == 1) {
        return Ok(What::Model(entry.name.clone()));
    }
    let read = |name: &String| match std::fs::read_to_string(name) {
        Ok(text) => Ok((name.clone(), text)),
        Err(error) => Err(format!(
            "{name:?} is neither a model nor a file that can be read ({error}); `tenure check --list` names \
             the models"
        )),
    };
    let files = names.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(What::Story(Box::new(import(&files)?)))
}

fn write(out: &PathBuf, what: What) -> ExitCode {
    let story = match what {
        What::Story(story) => *story,
        What::Model(name) => match counterexample(&name) {
            Ok(story) => story,
            Err(message) => return usage_error(message),
        },
        What::Nothing | What::Live(_) => return usage_error("name what to show: a rule or a file"),
    };
    match std::fs::write(out, report::html(&story)) {
        Ok(()) => {
            print(&format!("{}: {} steps\n", out.display(), story.steps.len()));
            ExitCode::SUCCESS
        }
        Err(error) => failure(format!("cannot write {}: {error}", out.display())),
    }
}

fn counterexample(name: &str) -> Result<Story, String> {
    let kept = gallery::kept();
    let kept = kept.get(name).ok_or_else(|| {
        format!("{name} has no counterexample that is kept: name a rule such as L-1, or a file")
    })?;
    let path = parse_path(&kept.path).map_err(|error| error.to_string())?;
    let space = Models::new().space(name).map_err(|error| error.to_string())?;
    tell_around(name, &space, &path, report::AROUND)
        .ok_or_else(|| format!("the path of {name} is not there any more"))
}

fn serve(listen: SocketAddr, what: What) -> ExitCode {
    if !listen.ip().is_loopback() {
        return usage_error(format!(
            "{listen} is not an address of this machine alone: the explorer asks nobody who they are, so name a \
             loopback address such as 127.0.0.1:8642, and reach it through a tunnel"
        ));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure(error),
    };
    runtime.block_on(async {
        let listener = match tokio::net::TcpListener::bind(listen).await {
            Ok(listener) => listener,
            Err(error) => {
                return failure(format!(
                    "cannot listen on {listen}: {error}; name another with --listen"
                ));
            }
        };
        let address = listener.local_addr().unwrap_or(listen);
        let mut named = Named::default();
        let place = match what {
            What::Nothing => String::new(),
            What::Model(name) => format!("#/model/{name}"),
            What::Story(story) => {
                named.opened = Some(*story);
                "#/opened".to_owned()
            }
            What::Live(live) => {
                named.live = Some(live);
                "#/live".to_owned()
            }
        };
        print(&format!("http://{address}/{place}\n"));
        match server::serve(listener, named).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(error),
        }
    })
}
