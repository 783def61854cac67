//! Numbers that must not be mixed up, as types of their own.

/// Gives a number as a type of its own what all such types have.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The type's value for a plain number.
            #[must_use]
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl PartialEq<u64> for $name {
            fn eq(&self, number: &u64) -> bool {
                self.0 == *number
            }
        }
    };
}
pub(crate) use number;

number! {
    /// A record's sequence number. Records are numbered from 1 without gaps; 0 stands for "before
    /// the first record".
    ///
    /// ```
    /// use strand_core::Seq;
    ///
    /// let seq = Seq::new(7);
    /// assert_eq!(seq.next(), 8);
    /// assert_eq!((seq.get(), seq.to_string()), (7, "7".to_owned()));
    /// ```
    Seq
}

impl Seq {
    /// The number of the record after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(crate) const fn saturating_sub(self, records: u64) -> Self {
        Self(self.0.saturating_sub(records))
    }
}
