use std::sync::Arc;
use std::time::Duration;

use strand_stress::interrupt::Interrupt;
use strand_stress::run::config::fresh_seed;
use strand_stress::tiers::power_cuts;
use strand_stress::tiers::tally::Budget;

use crate::common::exe;

/// Power cuts under real processes, for `POWER_CUTS_S` seconds (5) with the seed `POWER_CUTS_SEED`
/// (a new one). The long run is `cargo xtask torture`.
#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let time_s = std::env::var("POWER_CUTS_S")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = std::env::var("POWER_CUTS_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let tally = power_cuts::run(&Budget {
        seed: seed.unwrap_or_else(fresh_seed),
        time: Duration::from_secs(time_s.unwrap_or(5)),
        quick: true,
        threads: 2,
        exe: exe().to_owned(),
        tried: Arc::default(),
        interrupt: Interrupt::default(),
    });
    println!("{tally:#?}");
    if let Some(why) = tally.skipped {
        println!("SKIPPED: no power was cut: {why}");
        return;
    }
    assert_eq!(tally.environment, None);
    assert!(tally.violations.is_empty(), "{:#?}", tally.violations);
    assert!(tally.cases >= 3, "{} power cuts test nothing", tally.cases);
}
