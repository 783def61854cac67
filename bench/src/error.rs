//! Errors end the program with a message.

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
