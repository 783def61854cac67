use crate::Result; pub(crate) const COMMAND: &str = "one-shot"; pub(crate) fn main(_: impl Iterator<Item = String>) -> Result<()> { Ok(()) }
