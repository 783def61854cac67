//! Places of the last two deliberate mistakes, which become patches in `xtask/mutants`.

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bug {
    ClaimUnchecked,
    StaleCondition,
}

pub(crate) const fn seeded(_: Bug) -> bool {
    false
}
