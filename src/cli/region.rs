//! How the commands for regions talk to a region's control plane.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::config::{Config, Node};
use crate::node::restore::Owner;

/// How long a control plane may take to answer: longer than it lets a call wait.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// The exit code of a refusal that may pass, and of a call whose outcome is not known.
pub const TRY_AGAIN: u8 = 3;

/// Which region, and how to print.
#[derive(Clone, Debug, Args)]
pub struct RegionArgs {
    /// The cluster file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The region whose control plane is asked.
    #[arg(long, value_name = "NAME")]
    pub region: String,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

/// A region of a cluster file.
pub(super) struct Target {
    pub(super) config: Config,
    pub(super) node: Node,
    /// Whose storage the control plane's is.
    pub(super) owner: Owner,
    pub(super) json: bool,
}

impl RegionArgs {
    /// The region, or the exit code of a failure that was told.
    pub(super) fn target(&self) -> Result<Target, ExitCode> {
        let config = Config::load(&self.config)
            .map_err(|errors| super::config_failure(&self.config, &errors))?;
        let Some(region) = config.region(&self.region) else {
            let known: Vec<_> = config.regions.iter().map(|region| region.name.as_str()).collect();
            return Err(super::usage_error(format!(
                "{:?} is no region of this cluster: name one of {}",
                self.region,
                known.join(", ")
            )));
        };
        let node = config.node_by_id(region.control_plane).expect("it was checked").clone();
        let owner = Owner::of(&config, region);
        Ok(Target { node, owner, json: self.json, config })
    }
}

impl Target {
    /// Asks the control plane one question. A node that does not answer is a refusal like any other,
    /// with the code `unreachable`.
    pub(super) fn ask(&self, question: &Value) -> Value {
        self.ask_node(&self.node, question).unwrap_or_else(
            |error| json!({ "ok": false, "code": "unreachable", "error": error, "retry": true }),
        )
    }

    /// Asks a node one question.
    pub(super) fn ask_node(&self, node: &Node, question: &Value) -> Result<Value, String> {
        let mut connection = super::lease::connect(node, ANSWER_MAX)?;
        let lost = |error: std::io::Error| format!("{} has not answered ({error})", node.name);
        connection.write_all(format!("{question}\n").as_bytes()).map_err(lost)?;
        let mut line = String::new();
        BufReader::new(connection).read_line(&mut line).map_err(lost)?;
        serde_json::from_str(&line)
            .map_err(|_| format!("{} has closed the connection without an answer", node.name))
    }

    /// Prints an answer and gives its exit code.
    pub(super) fn tell(&self, answer: &Value, text: impl FnOnce(&Value) -> String) -> ExitCode {
        let is_ok = answer["ok"] == true;
        if self.json {
            super::print(&format!("{answer}\n"));
        } else if is_ok {
            super::print(&text(answer));
        } else {
            let mut message = word(&answer["error"]);
            if answer["retry"] == true && answer["token"].is_u64() {
                message += &format!("; --token {} makes it the same call", answer["token"]);
            }
            super::failure(message);
        }
        ExitCode::from(match (is_ok, answer["retry"] == true) {
            (true, _) => 0,
            (false, true) => TRY_AGAIN,
            (false, false) => 1,
        })
    }
}

/// A value without quotes; a hyphen for what is not there.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}
