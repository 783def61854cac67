//! The ids and idempotency keys of a run's writes. Both name the agent and the number of the write,
//! so that every stored record can be traced to the write that made it.

/// The time of generated events (ms since 1970), fixed: a payload must not depend on the clock.
pub(crate) const EPOCH_MS: i64 = 1_706_540_000_000;

/// The id of one write's event, unique in a run.
#[must_use]
pub fn event_id(agent: u32, write: u32) -> String {
    format!("bd-t{agent}w{write}")
}

/// The agent and the write of an id made by [`event_id`]; `None` for every other text.
#[must_use]
pub fn parse_event_id(id: &str) -> Option<(u32, u32)> {
    parse(id, "bd-t", event_id)
}

/// The idempotency key of one write, unique in a run.
#[must_use]
pub fn operation_key(agent: u32, write: u32) -> String {
    format!("a{agent}w{write}")
}

/// The agent and the write of a key made by [`operation_key`]; `None` for every other text.
#[must_use]
pub fn parse_operation_key(key: &str) -> Option<(u32, u32)> {
    parse(key, "a", operation_key)
}

/// Only the canonical text counts: leading zeros and signs make another one.
fn parse(text: &str, prefix: &str, make: fn(u32, u32) -> String) -> Option<(u32, u32)> {
    let (agent, write) = text.strip_prefix(prefix)?.split_once('w')?;
    let (agent, write) = (agent.parse().ok()?, write.parse().ok()?);
    (make(agent, write) == text).then_some((agent, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_no_other_text_is_one() {
        assert_eq!(event_id(3, 17), "bd-t3w17");
        assert_eq!(parse_event_id("bd-t3w17"), Some((3, 17)));
        assert_eq!(parse_operation_key("a3w17"), Some((3, 17)));
        for id in [
            "", "bd-1", "bd-t3", "bd-t3w", "bd-tw1", "bd-t03w1", "bd-t3w+1", "xbd-t3w1",
        ] {
            assert_eq!(parse_event_id(id), None, "{id}");
        }
    }
}
