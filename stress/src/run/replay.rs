//! The expected result of a replay: the state that one process gets from the file, line by line.

use strand_core::{Issues, Seq};

use crate::evidence::fold::Model;
use crate::run::payload::{PayloadError, Payloads};

/// How the state that many agents made of a file differs from the one that its lines lead to in
/// their order; `None` when it does not. Versions are not compared: the agents' order is another.
///
/// # Errors
/// The file cannot be read any more.
pub fn difference(payloads: &Payloads, stored: &Model) -> Result<Option<String>, PayloadError> {
    let mut model = Model::default();
    let mut store = Issues::default();
    for (seq, event) in (1..).zip(payloads.file()) {
        let event = event?;
        let json = serde_json::to_string(&event).unwrap_or_default();
        let applied = model.apply(seq, [json.as_str()]);
        store.apply(Seq::new(seq), [event]);
        if let Err(error) = applied {
            return Ok(Some(format!(
                "line {seq} of the file cannot be applied: {error}"
            )));
        }
    }
    let (one, many) = (model.last_state(), stored.last_state());
    let mine = || model.issues_at(one.seq).map(|(id, _, text)| (id, text));
    let core = store.iter().map(|(id, issue)| (id, issue.as_json()));
    if let Some(detail) = first_difference(mine(), core) {
        return Ok(Some(format!("two folds of the file: {detail}")));
    }
    let theirs = stored.issues_at(many.seq).map(|(id, _, text)| (id, text));
    if let Some(detail) = first_difference(mine(), theirs) {
        return Ok(Some(format!("the file and the store: {detail}")));
    }
    let counts = [
        (one.seq, one.without_effect),
        (many.seq, many.without_effect),
        (one.seq, store.without_effect()),
    ];
    let differ = counts.iter().any(|count| Some(count) != counts.first());
    Ok(differ.then(|| format!("records and events without effect: {counts:?}")))
}

fn first_difference<'a>(
    one: impl Iterator<Item = (&'a str, &'a str)>,
    other: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<String> {
    let (mut one, mut other) = (one, other);
    loop {
        match (one.next(), other.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => return Some(format!("{one:?} and {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::payload::PayloadSource;

    #[test]
    fn another_order_of_other_issues_is_no_difference_and_everything_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let add = |id: &str| {
            format!(
                r#"{{"ts":1,"op":"add","id":"{id}","data":{{"id":"{id}","title":"t","n":1.0}}}}"#
            )
        };
        let close = r#"{"ts":2,"op":"close","id":"a","data":null}"#.to_owned();
        let lines = [add("a"), add("b"), close.clone(), close.clone()];
        std::fs::write(&path, lines.join("\n")).unwrap();
        let payloads = Payloads::open(&PayloadSource::File { path }, 1, 1).unwrap();
        let difference = |lines: &[String]| {
            let mut model = Model::default();
            for (seq, line) in (1..).zip(lines) {
                model.apply(seq, [line.as_str()]).unwrap();
            }
            super::difference(&payloads, &model).unwrap()
        };
        let [a, b, ..] = lines.clone();
        assert_eq!(difference(&lines), None);
        assert_eq!(
            difference(&[b.clone(), a.clone(), close.clone(), close.clone()]),
            None
        );
        assert!(difference(&[close.clone(), a.clone(), b.clone(), close.clone()]).is_none());
        assert!(difference(&[close.clone(), close.clone(), a.clone(), b.clone()]).is_some());
        assert!(difference(&[a.clone(), b.clone(), close.clone()]).is_some());
        let other = b.replace("1.0", "1.00");
        assert!(difference(&[a, other, close.clone(), close]).is_some());
    }
}
