//! The corpus of the fuzz targets, and changes of it that a seed draws.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use strand_stress::fuzz::TARGETS;

const CHANGES: u64 = 400;

#[test]
fn no_input_of_the_corpus_and_no_change_of_one_breaks_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let mut inputs = Vec::new();
        for entry in corpus
            .join(name)
            .read_dir()
            .expect("each target has a corpus")
        {
            let path = entry.expect("an entry").path();
            inputs.push((path.clone(), std::fs::read(&path).expect("an input")));
        }
        inputs.sort();
        assert!(!inputs.is_empty());
        for (path, input) in &inputs {
            check(&format!("{name} {}", path.display()), *target, input);
        }
        for seed in 0..CHANGES {
            let mut rng = StdRng::seed_from_u64(seed);
            let (path, input) = &inputs[rng.random_range(0..inputs.len())];
            let (_, other) = &inputs[rng.random_range(0..inputs.len())];
            let changed = change(input, other, &mut rng);
            let case = format!(
                "{name} {}, changed by seed {seed}: {changed:?}",
                path.display()
            );
            check(&case, *target, &changed);
        }
    }
}

fn check(case: &str, target: fn(&[u8]), input: &[u8]) {
    let ran = std::panic::catch_unwind(|| target(input));
    assert!(ran.is_ok(), "broken by {case}");
}

fn change(input: &[u8], other: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 => {
                let from = rng.random_range(0..=other.len());
                bytes.splice(at..at, other[from..].iter().copied());
            }
            3 => {
                let to = rng.random_range(at..=bytes.len());
                bytes.drain(at..to);
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ => {}
        }
    }
    bytes
}
