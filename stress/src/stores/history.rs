//! The history of a run in the forms that checkers read: JSON lines, and EDN as Jepsen, Elle and
//! Knossos have it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::evidence::listing::tokens;
use crate::run::config::HistoryFormat;
use crate::stores::outcome::Report;
use crate::stores::runner::Call;
use crate::stores::store::{Deed, Told};

/// An operation, from its call or to its answer.
struct Event {
    at_ns: u64,
    process: u32,
    kind: &'static str,
    f: &'static str,
    value: Value,
}

/// The number by which a write is known: unique in a run.
fn element(agent: u32, write: u32) -> u64 {
    u64::from(agent) * 100_000_000 + u64::from(write)
}

/// The history: an element is added to the list 0 by each write; the last operation reads it. A
/// claim names its item, and a change of an item what it was and what it is.
#[must_use]
pub fn history(report: &Report, format: HistoryFormat) -> String {
    let mut events = Vec::new();
    // A process whose answer is unknown does not go on under its number.
    let mut renamed = std::collections::HashMap::new();
    let mut next = report.config.agents + 1;
    for call in &report.calls {
        let process = *renamed.entry(call.agent).or_insert(call.agent);
        let (f, value) = value(call);
        let kind = match call.told {
            Told::Ok => "ok",
            Told::Refused(_) | Told::Fail(_) => "fail",
            Told::Info(_) => "info",
        };
        if kind == "info" {
            renamed.insert(call.agent, next);
            next += 1;
        }
        let event = |at_ns: u64, kind| Event {
            at_ns: at_ns.saturating_sub(report.go_ns),
            process,
            kind,
            f,
            value: value.clone(),
        };
        events.push(event(call.begin_ns, "invoke"));
        events.push(event(call.end_ns, kind));
    }
    let list = report
        .stored
        .iter()
        .map(|(agent, write)| element(*agent, *write));
    let list: Vec<u64> = list.collect();
    let at_ns = events.iter().map(|event| event.at_ns).max().unwrap_or(0) + 1;
    for (at_ns, kind, list) in [
        (at_ns, "invoke", Value::Null),
        (at_ns + 1, "ok", json!(list)),
    ] {
        let value = json!([["r", 0, list]]);
        events.push(Event {
            at_ns,
            process: next,
            kind,
            f: "txn",
            value,
        });
    }
    events.sort_by_key(|event| event.at_ns);
    let mut text = String::new();
    for (index, event) in events.iter().enumerate() {
        let Event {
            at_ns,
            process,
            kind,
            f,
            value,
        } = event;
        let line = match format {
            HistoryFormat::Jsonl => json!({
                "index": index, "type": kind, "process": process, "f": f, "value": value,
                "time": at_ns,
            })
            .to_string(),
            HistoryFormat::Edn => format!(
                "{{:index {index}, :type :{kind}, :process {process}, :f :{f}, :value {}, :time {at_ns}}}",
                edn(value)
            ),
        };
        writeln!(text, "{line}").unwrap_or_else(|_| unreachable!("it is a string"));
    }
    text
}

fn value(call: &Call) -> (&'static str, Value) {
    match call.deed {
        Deed::Claim => ("claim", json!([call.item, call.agent])),
        Deed::Get | Deed::Set => {
            let old = call.old.as_deref().unwrap_or_default();
            let old = match tokens(old).first() {
                Some((agent, write)) => Some(element(*agent, *write)),
                None => old.parse().ok(),
            };
            let new = element(call.agent, call.write);
            ("cas", json!([call.item, [old, new]]))
        }
        Deed::Exclusive => ("hold", json!(call.agent)),
        _ => {
            let writes = call.write..call.write + call.writes;
            let appends = writes.map(|write| json!(["append", 0, element(call.agent, write)]));
            ("txn", appends.collect())
        }
    }
}

fn edn(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::String(name) => format!(":{name}"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(edn).collect();
            format!("[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}
