//! The text of an error, and whether its cause lies outside the log.

use std::error::Error;
use std::io;
use std::iter::successors;

/// The error and its causes on one line.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let chain = successors(Some(error), |error| Error::source(*error));
    chain
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Whether the cause lies outside the log: no space, no permission, no file handles.
pub(crate) fn is_environment(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(strand_core::Error::UnsafeFilesystem { .. }) = error.downcast_ref() {
            return true;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(
                error.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::OutOfMemory
            );
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::config::UsageError;
    use crate::run::payload::PayloadError;

    fn io_error(kind: io::ErrorKind) -> PayloadError {
        PayloadError::Read {
            path: "x".into(),
            source: kind.into(),
        }
    }

    #[test]
    fn only_what_lies_outside_the_log_is_the_environment() {
        assert!(is_environment(&io_error(io::ErrorKind::StorageFull)));
        assert!(!is_environment(&io_error(io::ErrorKind::InvalidData)));
        assert!(!is_environment(&UsageError("x".into())));
    }

    #[test]
    fn a_description_names_each_cause_once() {
        let text = describe(&io_error(io::ErrorKind::StorageFull));
        assert_eq!(text, "cannot read the events in x: no storage space");
    }
}
