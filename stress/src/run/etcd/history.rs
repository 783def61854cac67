//! Everything that was ever put into a store on etcd, in the order of the revisions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use strand_etcd::Address;

use crate::run::etcd::gateway::Gateway;

/// The last key of a history, below the store's prefix.
const END: &str = "stress-end";

/// A key that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Put {
    /// Below the store's prefix.
    pub(super) key: String,
    pub(super) value: Vec<u8>,
    pub(super) revision: u64,
    /// How often the key was put since it was last absent, this time included.
    pub(super) version: u64,
}

fn prefix(address: &Address) -> String {
    format!("strand/1/{}/", address.store())
}

fn encode(text: &str) -> String {
    STANDARD.encode(text)
}

/// The first key after all with this prefix, which ends with `/`.
fn end_of(prefix: &str) -> String {
    encode(&format!("{}0", prefix.trim_end_matches('/')))
}

/// All puts since the store was created, also of keys that were removed.
///
/// # Errors
/// The cluster does not answer, or has forgotten a part.
pub(super) fn read(address: &Address) -> Result<Vec<Put>, String> {
    let (gateway, prefix) = (Gateway::new(address), prefix(address));
    let meta = gateway.call(
        "/v3/kv/range",
        &json!({"key": encode(&format!("{prefix}meta"))}),
    )?;
    let created = number(meta.pointer("/kvs/0/create_revision"));
    if created == 0 {
        return Err("there is no store".to_owned());
    }
    let end = format!("{prefix}{END}");
    gateway.call("/v3/kv/put", &json!({"key": encode(&end)}))?;
    let watch = json!({"create_request": {
        "key": encode(&prefix), "range_end": end_of(&prefix),
        "start_revision": created.to_string(), "filters": ["NODELETE"],
    }});
    let mut puts: Vec<Put> = Vec::new();
    gateway.lines("/v3/watch", &watch, &mut |line| {
        let result = line.get("result").unwrap_or(&Value::Null);
        if number(result.get("compact_revision")) > 0 {
            return Err(
                "etcd has forgotten a part: runs need a cluster without automatic compaction"
                    .to_owned(),
            );
        }
        let events = result.get("events").and_then(Value::as_array);
        for event in events.into_iter().flatten() {
            let put = put(&prefix, event.get("kv").unwrap_or(&Value::Null))?;
            if put.key == END {
                return Ok(true);
            }
            // A watch that was begun again tells some twice.
            let mut late = puts.iter().rev();
            let mut late = late
                .by_ref()
                .take_while(|other| other.revision >= put.revision);
            if !late.any(|other| other.revision > put.revision || other.key == put.key) {
                puts.push(put);
            }
        }
        Ok(false)
    })?;
    Ok(puts)
}

/// Removes the store.
///
/// # Errors
/// The cluster does not answer.
pub(super) fn remove(address: &Address) -> Result<(), String> {
    let prefix = prefix(address);
    let range = json!({"key": encode(&prefix), "range_end": end_of(&prefix)});
    Gateway::new(address)
        .call("/v3/kv/deleterange", &range)
        .map(drop)
}

fn put(prefix: &str, kv: &Value) -> Result<Put, String> {
    let bytes = |name| {
        let text = kv.get(name).and_then(Value::as_str).unwrap_or_default();
        STANDARD.decode(text).map_err(|error| error.to_string())
    };
    let key = String::from_utf8(bytes("key")?).map_err(|error| error.to_string())?;
    Ok(Put {
        key: key.strip_prefix(prefix).unwrap_or(&key).to_owned(),
        value: bytes("value")?,
        revision: number(kv.get("mod_revision")),
        version: number(kv.get("version")),
    })
}

/// A number as the gateway writes it; it leaves out 0.
fn number(value: Option<&Value>) -> u64 {
    let text = value.and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
