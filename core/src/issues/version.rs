use crate::format::seq::{Seq, number};

number! {
    /// The version of an issue: the number of the record that last changed it.
    ///
    /// ```
    /// use strand_core::{Seq, Version};
    ///
    /// let version = Version::new(7);
    /// assert_eq!(version, 7);
    /// assert_eq!(Version::from(Seq::new(7)), version);
    /// ```
    Version
}

impl From<Seq> for Version {
    fn from(seq: Seq) -> Self {
        Self::new(seq.get())
    }
}
